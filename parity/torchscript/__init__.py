"""Transformers models as TorchScript files: trace, prove, and report the shapes at which a trace is right.

Out of scope: `torch.jit.script`, and training a traced model. Names are resolved on first use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
