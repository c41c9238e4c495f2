"""Transformers models as TorchScript files: traced, proven, and told at which other shapes they are still right.

Out of scope: `torch.jit.script`, and training what was traced. Names are resolved on first use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
