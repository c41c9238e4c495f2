"""The reports that people read: the page, its plots and screenshots, and the support table."""
