"""What people read: the page, its plots and pictures, the table of what is supported."""
