"""The description of a model's file: inputs, outputs and axes. Exporters of every format read it."""

from parity.configs.base import DEFAULT_ONNX_OPSET, EXTERNAL_DATA_FORMAT_SIZE_LIMIT, OnnxConfig, PatchingSpec
from parity.configs.past import OnnxConfigWithPast, OnnxSeq2SeqConfigWithPast

__all__ = [
    "DEFAULT_ONNX_OPSET",
    "EXTERNAL_DATA_FORMAT_SIZE_LIMIT",
    "OnnxConfig",
    "OnnxConfigWithPast",
    "OnnxSeq2SeqConfigWithPast",
    "PatchingSpec",
]
