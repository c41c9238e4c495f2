"""Transformers models on AWS Inferentia: compiled for Inf1, checked for what fell back to the CPU, proven on a device.

`trace` stands where `torch.neuron.trace` stood. The same door leads to Inf2 and Trn1 where `torch_neuronx` is
installed. Names are resolved on first use.
"""

import importlib

_HOME = {
    "Generator": "generation",
    "NeuronModel": "tracing",
    "Runner": "tracing",
    "Tolerances": "tolerances",
    "analyze": "tracing",
    "coverage": "operators",
    "explain": "messages",
    "load": "tracing",
    "trace": "tracing",
    "validate": "tolerances",
}

__all__ = sorted(_HOME)


def __getattr__(name):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__():
    return sorted({*globals(), *__all__})
