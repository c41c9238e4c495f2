"""Records against what was accepted, against each other, and in parts."""
