"""Files that others export, made, judged by `parity check`, and held against a truth established apart from it."""
