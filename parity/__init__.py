"""Parity: export Transformers models and prove that the exported model computes what PyTorch computes."""

__version__ = "0.1.0"
