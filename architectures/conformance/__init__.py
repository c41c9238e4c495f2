"""The matrix: its cells, and the claims that are tested on each."""
