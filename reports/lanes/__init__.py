"""Runs of the suite elsewhere: other processors, other releases, AWS Inf1."""
