"""Unit tests of the library; every check is shown to fail on a specimen."""
