"""Benchmarks: Parity and its peer are measured in turn, in one run, and compared by ratios."""
