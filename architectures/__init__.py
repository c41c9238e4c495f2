"""What is claimed: one file per architecture, and the matrix of claims over all of them.

The names that a declaration is made of are resolved on first use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
