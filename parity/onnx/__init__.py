"""Drop-in for the removed `transformers.onnx`: same names, same signatures, resolved on first use."""

import importlib

_HOME = {
    "EXTERNAL_DATA_FORMAT_SIZE_LIMIT": "config",
    "OnnxConfig": "config",
    "OnnxConfigWithPast": "config",
    "OnnxSeq2SeqConfigWithPast": "config",
    "PatchingSpec": "config",
    "export": "convert",
    "validate_model_outputs": "convert",
    "FeaturesManager": "features",
    "ParameterFormat": "utils",
    "compute_serialized_parameters_size": "utils",
}

__all__ = sorted(_HOME)


def __getattr__(name):
    if name in _HOME.values():
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__():
    return sorted({*globals(), *__all__})
