"""Transformers models as TorchScript files: traced, proven, and told at which other shapes they are still right.

Out of scope: `torch.jit.script`, and training what was traced. Names are resolved on first use.
"""

import importlib

_HOME = {
    "Runner": "runner",
    "TracedModel": "trace",
    "Verdict": "verdicts",
    "export": "trace",
    "load": "trace",
    "table": "verdicts",
    "untie": "untying",
    "verdict": "verdicts",
}

__all__ = sorted(_HOME)


def __getattr__(name):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__():
    return sorted({*globals(), *__all__})
