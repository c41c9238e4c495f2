"""Runs of the suite in other environments: other processors, other releases, AWS Inf1."""
