"""The precision in which an ONNX file computes, from its weights' types and its operators of integers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from parity.judge.artifact import SMALLEST
from parity.judge.subgraphs import nodes_of, tensors_of

if TYPE_CHECKING:
    import onnx

# Precision → the largest drift from the unquantised model that passes, relative to the answer.
# Healthy tiny files with random weights had at most 0.001 in float16 (6 files), 0.03 in dynamic integers (10), 0.08 in
# static ones, 0.15 in blocks of int4 and 0.007 in blocks of int8 (one each); a trained MiniLM in dynamic int8 has 0.16.
MAX_DRIFT = {
    "float16": 0.02,
    "mixed": 0.02,
    "bfloat16": 0.15,
    "dynamic int8": 0.3,
    "dynamic uint8": 0.3,
    "static int8": 0.3,
    "int8 blocks": 0.1,
    "int4 blocks": 0.4,
}
# A model may answer to a weight that moves by one unit in the last place of float32 with thousands of units: it answers
# to rounded weights likewise. Of the tiny models, MobileNetV2 drifts by 0.063 in float16 and by 0.42 in integers, and
# this allows 0.33 and 0.95; LeViT drifts by 0.42 in integers, and this allows 0.7. For most it
# allows less than the table.
_UNITS = {"float16": 2.0**13, "mixed": 2.0**13, "bfloat16": 2.0**16}
_UNITS_OF_INTEGERS = 2.0**15
# An answer that has nothing to do with the model's differs from it by its own size or more.
_UNRELATED = 0.95
# Operators without a floating-point twin here: their own semantics are several operators at once.
WITHOUT_TWIN = ("QAttention", "QGemm", "QOrdered", "QLinear", "DynamicQuantizeLSTM", "DynamicQuantizeMatMul",
                "MatMulIntegerToFloat", "QEmbedLayerNormalization", "GatherBlockQuantized", "QMoE", "MatMulBnb4",
                "MatMulFpQ4")  # fmt: skip
# Products with a weight in blocks of a few bits.
_BLOCKS = {"MatMulNBits", "MatMulBnb4", "MatMulFpQ4", "GatherBlockQuantized"}
_INTEGER_WEIGHTS = ("int8", "uint8", "int4", "uint4")


def drift_limit(name: str, noise: float, *, alone: bool = False) -> float:
    """The largest relative drift that passes by default.

    Args:
        name: of the precision, a key of `MAX_DRIFT`.
        alone: whether drift alone decides, because the graph was not judged: then sensitivity is no excuse.
        noise: how far the model's answers move, relative to their size, if each float32 weight moves by one unit in
            the last place.
    """
    if alone:
        return MAX_DRIFT[name]
    return max(MAX_DRIFT[name], min(noise * _UNITS.get(name, _UNITS_OF_INTEGERS), _UNRELATED))


@dataclass(frozen=True)
class Precision:
    """The precision of a file.

    Args:
        name: `float32`, or a key of `MAX_DRIFT`.
        without_twin: its operators that are not judged as floating-point ones.
        half: `float16` or `bfloat16`, if it computes its floating point values in that; empty for float32.
    """

    name: str = "float32"
    without_twin: tuple[str, ...] = ()
    half: str = ""

    def __str__(self) -> str:
        return f"{self.name}, the rest {self.half}" if self.half and not self.is_half else self.name

    @property
    def is_full(self) -> bool:
        """Whether the file computes in float32, so that the ordinary ratio judges it."""
        return self.name == "float32"

    @property
    def is_half(self) -> bool:
        """Whether it computes nothing in integers."""
        return self.name in ("float16", "bfloat16", "mixed")


def read_precision(model: onnx.ModelProto) -> Precision:
    """The precision of a ModelProto, whose external data may be missing."""
    operators = {node.op_type for node in nodes_of(model.graph.node)}
    weights = _bytes_of_types(model.graph)
    without = tuple(sorted(name for name in operators if name.startswith(WITHOUT_TWIN)))
    # A constant or two in halves round nothing that matters: such a file is judged as strictly as a float32 file.
    half = next((name for name in ("float16", "bfloat16") if weights[name] >= SMALLEST), "")
    if _BLOCKS & operators or weights["int4"] or weights["uint4"]:
        return Precision("int8 blocks" if _has_bytes(model) else "int4 blocks", without, half)
    if {"MatMulInteger", "ConvInteger", "DynamicQuantizeLinear"} & operators or any(
        name.startswith(("Dynamic", "QAttention", "MatMulIntegerToFloat")) for name in without
    ):
        return Precision(f"dynamic {'uint8' if weights['uint8'] > weights['int8'] else 'int8'}", without, half)
    if {"QuantizeLinear", "DequantizeLinear"} & operators or without:
        return Precision("static int8", without, half)
    if weights["bfloat16"]:
        return Precision("bfloat16", half="bfloat16")
    if half:
        return Precision("mixed" if weights["float32"] >= SMALLEST else "float16", half=half)
    return Precision()


def _has_bytes(model: onnx.ModelProto) -> bool:
    """Whether every product with a weight in blocks has 8 bits a value."""
    products = [node for node in nodes_of(model.graph.node) if node.op_type in _BLOCKS]
    bits = [next((each.i for each in node.attribute if each.name == "bits"), 4) for node in products]
    return bool(bits) and min(bits) == 8


def _bytes_of_types(graph: onnx.GraphProto) -> Counter[str]:
    """The bytes of the weights of each type, for the types that matter."""
    import math

    import onnx

    counts: Counter[str] = Counter()
    for tensor in tensors_of(graph):
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        if dtype.name in (*_INTEGER_WEIGHTS, "float16", "bfloat16", "float32"):
            size = math.prod(tensor.dims) * dtype.itemsize
            # A single integer is a zero point, not a weight.
            if dtype.name not in _INTEGER_WEIGHTS or size > 1:
                counts[dtype.name] += size
    return counts
