"""What is claimed: one file per architecture, and the matrix of claims over all of them."""
