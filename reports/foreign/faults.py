"""Faults for files of other exporters: each changes one thing of a right file."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from parity.judge.subgraphs import nodes_of
from parity.reports.foreign.sources import CALIBRATION, Case

if TYPE_CHECKING:
    import onnx

FLOAT, UINT8, INT8, INT64, HALF = 1, 2, 3, 7, 10


def _change(model: onnx.ModelProto, tensor: onnx.TensorProto, change: Callable[[np.ndarray], np.ndarray]) -> None:
    from onnx import numpy_helper

    values = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array(change(values.copy()).astype(values.dtype), tensor.name))


def _tensors(model: onnx.ModelProto, dtype: int, axes: int) -> Iterator[onnx.TensorProto]:
    for tensor in model.graph.initializer:
        if tensor.data_type == dtype and len(tensor.dims) == axes:
            yield tensor


def move_bias(model: onnx.ModelProto) -> None:
    """Multiply the last vector of the file by 1.001."""
    _change(model, list(_vectors(model))[-1], lambda values: values * 1.001)


def _vectors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    for tensor in _tensors(model, FLOAT, 1):
        if tensor.dims[0] >= 16:
            yield tensor


def zero_row(model: onnx.ModelProto) -> None:
    """Set the last row of the longest table to zero."""

    def zero(values: np.ndarray) -> np.ndarray:
        values[-1] = 0
        return values

    _change(model, max(_tensors(model, FLOAT, 2), key=lambda tensor: tensor.dims[0]), zero)


def drop_activation(model: onnx.ModelProto) -> None:
    """Replace the first activation by the identity."""
    node = next(node for node in nodes_of(model.graph.node) if node.op_type in ("Relu", "Erf", "Gelu", "Tanh"))
    node.op_type, node.domain = "Identity", ""
    del node.attribute[:]


def turn_softmax(model: onnx.ModelProto) -> None:
    """Compute the first softmax over queries instead of keys."""
    node = next(node for node in nodes_of(model.graph.node) if node.op_type == "Softmax")
    for attribute in node.attribute:
        if attribute.name == "axis":
            attribute.i = -2


def drop_mask(model: onnx.ModelProto) -> None:
    """Replace the mask by ones."""
    from onnx import helper, numpy_helper

    for node in model.graph.node:
        node.input[:] = ["mask.ones" if name == "attention_mask" else name for name in node.input]
    (mask,) = [value for value in model.graph.input if value.name == "attention_mask"]
    kind = mask.type.tensor_type.elem_type
    one = np.array([1], np.int32 if kind == 6 else np.int64)
    model.graph.initializer.append(numpy_helper.from_array(one, "mask.one"))
    nodes = [
        helper.make_node("Sub", ["attention_mask", "attention_mask"], ["mask.zeros"]),
        helper.make_node("Add", ["mask.zeros", "mask.one"], ["mask.ones"]),
    ]
    for node in reversed(nodes):
        model.graph.node.insert(0, node)


def stretch_scale(model: onnx.ModelProto) -> None:
    """Multiply the scale of a weight by 1.05."""
    names = {each.name for each in model.graph.initializer}
    tensor = next(each for each in model.graph.initializer if _is_scale(each, names))
    _change(model, tensor, lambda values: values * 1.05)


def _is_scale(tensor: onnx.TensorProto, names: Collection[str]) -> bool:
    of_weight = f"{tensor.name.removesuffix('_scale')}_quantized" in names
    is_weight = of_weight or "weight_scale" in tensor.name or "MatMul" in tensor.name
    return tensor.data_type == FLOAT and tensor.name.endswith(("_scale", "_scales")) and is_weight


def move_zero_point(model: onnx.ModelProto) -> None:
    """Add 1 to the zero point of a weight."""
    tensor = next(
        each
        for each in model.graph.initializer
        if each.name.endswith("zero_point") and ("MatMul" in each.name or "weight" in each.name)
    )
    _change(model, tensor, lambda values: values + 1)


def move_integer(model: onnx.ModelProto) -> None:
    """Move one integer of a weight by 40."""

    def move(values: np.ndarray) -> np.ndarray:
        values.flat[7] = values.flat[7] - 40 if values.flat[7] > 0 else values.flat[7] + 40
        return values

    tables = [*_tensors(model, UINT8, 2), *_tensors(model, INT8, 2), *_tensors(model, UINT8, 3)]
    _change(model, tables[0], move)


def move_half(model: onnx.ModelProto) -> None:
    """Move one float16 element of a weight by two units in the last place."""

    def move(values: np.ndarray) -> np.ndarray:
        values.flat[5] = np.nextafter(np.nextafter(values.flat[5], np.float16(9)), np.float16(9))
        return values

    # A convolution's weight has four axes.
    halves = (tensor for axes in (2, 4) for tensor in _tensors(model, HALF, axes))
    _change(model, next(halves), move)


FLOAT_FAULTS: Mapping[str, Callable[[onnx.ModelProto], None]] = {
    "bias": move_bias,
    "row": zero_row,
    "softmax": turn_softmax,
    "mask": drop_mask,
}
INTEGER_FAULTS: Mapping[str, Callable[[onnx.ModelProto], None]] = {
    "scale": stretch_scale,
    "zero-point": move_zero_point,
    "integer": move_integer,
    "softmax": turn_softmax,
}
HALF_FAULTS: Mapping[str, Callable[[onnx.ModelProto], None]] = {"half": move_half, "softmax": turn_softmax}
# Faults of directories: the first word of the name is the file that gets the fault.
HALVES: Mapping[str, Callable[[onnx.ModelProto], None]] = {
    "encoder_model bias": move_bias,
    "encoder_model softmax": turn_softmax,
    "decoder_model softmax": turn_softmax,
    "decoder_with_past_model softmax": turn_softmax,
    "decoder_model_merged softmax": turn_softmax,
    "decoder_model_merged row": zero_row,
}
# Source → the faults of the calibration of quantised files: one of a weight, one of the graph.
ROUNDED: Mapping[str, Mapping[str, Callable[[onnx.ModelProto], None]]] = {
    "quantiser": {"scale": stretch_scale, "activation": drop_activation},
    "float16": {"half": move_half, "activation": drop_activation},
}


def faults_of(case: Case) -> Mapping[str, Callable[[onnx.ModelProto], None]]:
    """Name → fault, for each fault of a case."""
    calibrates = (case.architecture, case.feature) in CALIBRATION and case.variant in ("int8", "")
    return {**FAULTS.get(case.name, {}), **(ROUNDED.get(case.source, {}) if calibrates else {})}


# Name of a case → its faults, besides those of the calibration.
FAULTS: Mapping[str, Mapping[str, Callable[[onnx.ModelProto], None]]] = {
    "optimum-t5-seq2seq-lm-with-past-directory": HALVES,
    "optimum-bart-seq2seq-lm-with-past-directory": HALVES,
    "optimum-gpt2-causal-lm-with-past-directory": {"model softmax": turn_softmax},
    "optimum-bert-default": FLOAT_FAULTS,
    "optimum-gpt2-causal-lm-with-past": FLOAT_FAULTS,
    "transformers-bert-masked-lm": FLOAT_FAULTS,
    "torch-export-albert-default": FLOAT_FAULTS,
    "torchscript-bert-default-int32": FLOAT_FAULTS,
    "torchscript-bert-default-static": {"bias": move_bias, "softmax": turn_softmax},
    "optimiser-roberta-token-classification-session": {"bias": move_bias, "row": zero_row},
    "quantiser-bert-masked-lm-uint8": INTEGER_FAULTS,
    "quantiser-distilbert-sequence-classification-uint8": INTEGER_FAULTS,
    "quantiser-bert-default-static": {"scale": stretch_scale, "integer": move_integer},
    "quantiser-bert-masked-lm-int4": {"scale": stretch_scale, "integer": move_integer},
    "float16-bert-default": HALF_FAULTS,
    "float16-roberta-token-classification": HALF_FAULTS,
}
