"""The matrix: which cells there are, and the claims that are tested on each."""
