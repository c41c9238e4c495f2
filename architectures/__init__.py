"""One file of claims per architecture, and the matrix of claims over all of them.

The names used in declarations are resolved on first use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
