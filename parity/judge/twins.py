"""A file in half precision or integers → its float twin, the same graph in float32; and the weights that it held.

Groups of integer operators are replaced by floating-point operators: a quantised activation is passed on unchanged, up
to a power of two of its own if its scale is computed, so that the scale of another activation is as wrong as in the
file. The twin's weights are the checkpoint's wherever the file holds their roundings, which are judged separately; so
an error of the twin is an error of the graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from parity.judge.roundings import Rounded, unit_in_the_last_place
from parity.judge.subgraphs import constants_of, graphs_of, lift_constants

if TYPE_CHECKING:
    import onnx

_HALVES = {10: "float16", 16: "bfloat16"}
# The largest relative error of a number that is rounded to half precision.
ROUNDOFF = {"float16": 2.0**-11, "bfloat16": 2.0**-8}
_FLOAT = 1
_INVERSE = ".inverse"
# Operators that move integers and change none.
_MOVES = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Gather", "Identity")
_ALONE = ("MatMulNBits", "DequantizeLinear", "MatMulInteger", "ConvInteger")


@dataclass
class Twin:
    """A ModelProto with its data, its rounded weights, and its static ranges.

    Args:
        model: is changed by `build`.
        ranges: computed tensor → the least and the largest value that its integers can stand for, extended by half a
            step, if these are the same for every input.
        without: operators of integers that have no twin: those in subgraphs, and products of an unknown form.
        mismatches: dequantised activation → what it is multiplied by, and what is added, because it was quantised by
            another scale or from another zero point.
    """

    model: onnx.ModelProto
    rounded: dict[str, Rounded] = field(default_factory=dict)
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    mismatches: dict[str, tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lift_constants(self.model.graph)
        self._tensors = {tensor.name: tensor for tensor in self.model.graph.initializer}
        self._producers = {name: node for node in self.model.graph.node for name in node.output}
        self._consumers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.model.graph.node:
            for name in node.input:
                self._consumers.setdefault(name, []).append(node)
        # A product of `mismatches` → its offset, and the sum of both.
        self.moves: dict[str, list[str]] = {}
        # Scales and zero points, which are no weights.
        self._scales: set[str] = set()
        for node in self.model.graph.node:
            if node.op_type in _ALONE and (each := self._read(node)):
                self.rounded.setdefault(each.name, each)
        for node in self.model.graph.node:
            if node.op_type == "QuantizeLinear" and node.input[0] not in self._tensors:
                self.ranges.update(self._range(node))
            if node.op_type == "DequantizeLinear":
                self.mismatches.update(self._mismatch(node))
        inner = [node for graph in graphs_of(self.model.graph) for node in graph.node][len(self.model.graph.node) :]
        without = {node.op_type for node in inner if node.op_type in _REPLACEMENTS}
        blocks = [node for node in self.model.graph.node if node.op_type == "MatMulNBits"]
        without |= {node.op_type for node in blocks if node.input[1] not in self.rounded or any(node.input[4:])}
        self.without = tuple(sorted(without))
        for name, tensor in self._tensors.items():
            half = _HALVES.get(tensor.data_type)
            if half and math.prod(tensor.dims) > 1 and name not in self._scales:
                values = self._array(name).astype(np.float64)
                self.rounded[name] = Rounded(name, values, unit_in_the_last_place(values, half), half=half)

    def _array(self, name: str) -> np.ndarray:
        import onnx

        return onnx.numpy_helper.to_array(self._tensors[name])

    def _range(self, node: onnx.NodeProto) -> dict[str, tuple[float, float]]:
        """Quantised tensor of a node → its range; empty if the node has no scale of its own or several."""
        scale, zero = node.input[1], node.input[2] if len(node.input) > 2 else ""
        if scale not in self._tensors or (zero and zero not in self._tensors):
            return {}
        step = self._array(scale).astype(np.float64)
        zeros = self._array(zero) if zero else np.zeros((), np.uint8)
        if step.size != 1 or zeros.dtype.kind not in "iu":
            return {}
        ends, offset = np.iinfo(zeros.dtype), float(zeros.reshape(-1)[0])
        low, high = (float((end - offset) * step.reshape(-1)[0]) for end in (ends.min - 0.5, ends.max + 0.5))
        return {node.input[0]: (low, high)}

    def _mismatch(self, node: onnx.NodeProto) -> dict[str, tuple[float, float]]:
        """Dequantised activation → its factor and offset; empty if it has the scale that it was quantised by."""
        producer = self._producers.get(node.input[0])
        while producer is not None and producer.op_type in _MOVES:
            producer = self._producers.get(producer.input[0])
        if producer is None or producer.op_type != "QuantizeLinear":
            return {}
        before, after = self._step(producer), self._step(node)
        if before is None or after is None or before == after:
            return {}
        return {node.output[0]: (after[0] / before[0], (before[1] - after[1]) * after[0])}

    def _step(self, node: onnx.NodeProto) -> tuple[float, float] | None:
        """The one scale and the zero point of an activation, if they are the same for every input."""
        scale, zero = node.input[1], node.input[2] if len(node.input) > 2 else ""
        if scale not in self._tensors or (zero and zero not in self._tensors):
            return None
        step = self._array(scale).astype(np.float64).reshape(-1)
        zeros = self._array(zero).astype(np.float64).reshape(-1) if zero else np.zeros(1)
        return (float(step[0]), float(zeros[0])) if step.size == zeros.size == 1 and step[0] else None

    def _read(self, node: onnx.NodeProto) -> Rounded | None:
        if node.op_type == "MatMulNBits":
            return self._read_blocks(node)
        if node.op_type == "DequantizeLinear":
            return self._read_dequantised(node)
        return self._read_integers(node)

    def _read_dequantised(self, node: onnx.NodeProto) -> Rounded | None:
        """A weight that is dequantised directly, or after a lookup of its rows."""
        name, producer = node.input[0], self._producers.get(node.input[0])
        if producer is not None and producer.op_type == "Gather":
            name = producer.input[0]
        if name not in self._tensors or node.input[1] not in self._tensors:
            return None
        axis = _attribute(node, "axis", 1)
        block = _attribute(node, "block_size", 0)
        zero = node.input[2] if len(node.input) > 2 else ""
        return self._rounded(name, node.input[1], zero, axis, block)

    def _read_integers(self, node: onnx.NodeProto) -> Rounded | None:
        name, zero = node.input[1], node.input[3] if len(node.input) > 3 else ""
        scale = self._scale_of(node)
        if name not in self._tensors or not scale:
            return None
        axis = 0 if node.op_type == "ConvInteger" else len(self._tensors[name].dims) - 1
        return self._rounded(name, scale, zero, axis, 0)

    def _scale_of(self, node: onnx.NodeProto) -> str:
        """The scale of the weight of an integer product: the factor by which its result, as float, is multiplied."""
        for cast in self._consumers.get(node.output[0], ()):
            for product in self._consumers.get(cast.output[0], ()) if cast.op_type == "Cast" else ():
                for name in product.input if product.op_type == "Mul" else ():
                    if name in self._tensors:
                        return name
                    producer = self._producers.get(name)
                    if producer is not None and producer.op_type == "Mul":
                        return next((each for each in producer.input if each in self._tensors), "")
        return ""

    def _rounded(self, name: str, scale: str, zero: str, axis: int, block: int) -> Rounded:
        integers = self._array(name).astype(np.int64)
        steps = _spread(self._array(scale).astype(np.float64), integers.shape, axis, block)
        zeros = _spread(self._array(zero).astype(np.int64), integers.shape, axis, block) if zero in self._tensors else 0
        ends = (integers == integers.min()) | (integers == integers.max())
        self._scales |= {scale, zero}
        wide = np.abs(steps) + np.zeros(integers.shape)
        return Rounded(name, (integers - zeros) * steps, wide, ends, slack=self._slack(scale, integers - zeros))

    def _slack(self, scale: str, integers: np.ndarray) -> np.ndarray | float:
        """What a scale in half precision adds to the distance of a weight from its integers, in steps.

        The scale is rounded, and so is the weight, if the tool had only a half of it.
        """
        half = _HALVES.get(self._tensors[scale].data_type, "")
        return 2 * ROUNDOFF[half] * np.abs(integers) if half else 0.0

    def _read_blocks(self, node: onnx.NodeProto) -> Rounded | None:
        """The matrix of a MatMulNBits, as (outputs, inputs)."""
        bits, size = _attribute(node, "bits", 4), _attribute(node, "block_size", 32)
        rows, columns = _attribute(node, "N", 0), _attribute(node, "K", 0)
        name, scale = node.input[1:3]
        if bits not in (4, 8) or not {name, scale} <= {*self._tensors}:
            return None
        integers = _unpack(self._array(name).reshape(rows, -1), bits).reshape(rows, -1, size)
        steps = self._array(scale).astype(np.float64).reshape(rows, -1)[:, :, None]
        zeros: np.ndarray = np.full(steps.shape, 1 << bits - 1)
        if len(node.input) > 3 and node.input[3] in self._tensors:
            zeros = self._array(node.input[3]).reshape(rows, -1)
            zeros = (_unpack(zeros, bits) if zeros.dtype == np.uint8 else zeros)[:, : steps.shape[1], None]
        self._scales |= {scale, *node.input[3:4]}
        whole = integers - zeros.astype(np.float64)

        def cut(array: np.ndarray) -> np.ndarray:
            return np.broadcast_to(array, integers.shape).reshape(rows, -1)[:, :columns]

        wide = cut(np.abs(steps))
        ends = cut((integers == 0) | (integers == (1 << bits) - 1))
        slack = cut(np.asarray(self._slack(scale, whole)))
        return Rounded(name, cut(whole * steps), np.where(wide == 0, 1.0, wide), ends, slack=slack)

    def build(self, weights: Mapping[str, np.ndarray]) -> onnx.ModelProto:
        """The model in float32, with these weights instead of the rounded ones.

        Args:
            weights: tensor → values in its shape; a tensor that is not a key keeps the file's values.
        """
        values = {name: weights.get(name, each.values) for name, each in self.rounded.items()}
        added: dict[str, onnx.TensorProto] = {}
        for node in self.model.graph.node:
            replace = _REPLACEMENTS.get(node.op_type)
            if replace:
                replace(self, node, values, added)
        self._insert_moves()
        for graph in graphs_of(self.model.graph):
            _widen(graph)
        kept = [tensor for tensor in self.model.graph.initializer if tensor.name not in added]
        for index, tensor in enumerate(kept):
            if tensor.name in values and self.rounded[tensor.name].half:
                kept[index] = _tensor(tensor.name, values[tensor.name])
        del self.model.graph.initializer[:]
        self.model.graph.initializer.extend([*kept, *added.values()])
        _drop_unread(self.model.graph)
        return self.model

    def _insert_moves(self) -> None:
        """Add the offsets of `mismatches`, each behind the product that it is added to."""
        import onnx

        nodes: list[onnx.NodeProto] = []
        for node in self.model.graph.node:
            nodes.append(onnx.NodeProto.FromString(node.SerializeToString()))
            if node.output and (move := self.moves.get(node.output[0])):
                nodes.append(onnx.helper.make_node("Add", [node.output[0], move[0]], move[1:]))
        if self.moves:
            del self.model.graph.node[:]
            self.model.graph.node.extend(nodes)


_Replace = Callable[[Twin, "onnx.NodeProto", Mapping[str, np.ndarray], "dict[str, onnx.TensorProto]"], None]


def _pass_on(twin: Twin, node: onnx.NodeProto, values: Mapping[str, np.ndarray], added: dict) -> None:
    """QuantizeLinear of an activation becomes the identity."""
    _become(node, "Identity", [node.input[0]], list(node.output[:1]))


def _quantise_dynamically(twin: Twin, node: onnx.NodeProto, values: Mapping[str, np.ndarray], added: dict) -> None:
    """DynamicQuantizeLinear becomes a product, in steps of a power of two of its own from 0; that rounds nothing."""
    outputs = list(node.output)
    step = 2.0 ** (sum(name.endswith(_INVERSE) for name in added) % 17 - 8)
    inverse = outputs[0] + _INVERSE
    added[inverse] = _tensor(inverse, np.array(1.0 / step))
    if len(outputs) > 1:
        added[outputs[1]] = _tensor(outputs[1], np.array(step))
    _become(node, "Mul", [node.input[0], inverse], outputs[:1])


def _multiply(twin: Twin, node: onnx.NodeProto, values: Mapping[str, np.ndarray], added: dict) -> None:
    """MatMulInteger and ConvInteger become the product with the weight in units of its scale."""
    name = node.input[1]
    second = name
    if name in values:
        second = f"{name}.twin"
        added[second] = _tensor(second, values[name] / twin.rounded[name].step)
    operator = "Conv" if node.op_type == "ConvInteger" else "MatMul"
    attributes = list(node.attribute) if operator == "Conv" else []
    _become(node, operator, [node.input[0], second], list(node.output), attributes)


def _dequantise(twin: Twin, node: onnx.NodeProto, values: Mapping[str, np.ndarray], added: dict) -> None:
    """DequantizeLinear becomes a weight's values or, for rows of a weight or an activation, the identity.

    An activation that was quantised by another scale or zero point is multiplied and moved as in the file.
    """
    name, producer = node.input[0], twin._producers.get(node.input[0])
    if factor := twin.mismatches.get(node.output[0]):
        constants = [f"{node.output[0]}.{part}" for part in ("factor", "offset", "twin")]
        added.update({each: _tensor(each, np.array(value)) for each, value in zip(constants, factor, strict=False)})
        twin.moves[constants[2]] = [constants[1], node.output[0]]
        _become(node, "Mul", [name, constants[0]], constants[2:])
        return
    if name in values:
        added[f"{name}.twin"] = _tensor(f"{name}.twin", values[name])
        name = f"{name}.twin"
    elif producer is not None and producer.op_type == "Gather" and producer.input[0] in values:
        table = producer.input[0]
        added[f"{table}.twin"] = _tensor(f"{table}.twin", values[table])
        producer.input[0] = f"{table}.twin"
    if node.input[1] in twin._tensors:
        _become(node, "Identity", [name], list(node.output))
    else:
        # In steps of the scale that its DynamicQuantizeLinear computes.
        _become(node, "Mul", [name, node.input[1]], list(node.output))


def _multiply_blocks(twin: Twin, node: onnx.NodeProto, values: Mapping[str, np.ndarray], added: dict) -> None:
    name = node.input[1]
    if name in values:
        added[f"{name}.twin"] = _tensor(f"{name}.twin", values[name].T)
        _become(node, "MatMul", [node.input[0], f"{name}.twin"], list(node.output))


_REPLACEMENTS: Mapping[str, _Replace] = {
    "QuantizeLinear": _pass_on,
    "DynamicQuantizeLinear": _quantise_dynamically,
    "MatMulInteger": _multiply,
    "ConvInteger": _multiply,
    "DequantizeLinear": _dequantise,
    "MatMulNBits": _multiply_blocks,
}


def _become(
    node: onnx.NodeProto, operator: str, inputs: list[str], outputs: list[str], attributes: list | None = None
) -> None:
    """Turn a node into another operator, of the standard domain."""
    del node.input[:], node.output[:], node.attribute[:]
    node.op_type, node.domain = operator, ""
    node.input.extend(inputs)
    node.output.extend(outputs)
    node.attribute.extend(attributes or [])


def _tensor(name: str, values: np.ndarray) -> onnx.TensorProto:
    import onnx

    return onnx.numpy_helper.from_array(np.asarray(values, dtype=np.float32, order="C"), name)


def _unpack(packed: np.ndarray, bits: int) -> np.ndarray:
    """Bytes → integers of 4 or 8 bits, the lower half of a byte first."""
    halves = [packed] if bits == 8 else [packed & 15, packed >> 4]
    return np.stack(halves, -1).reshape(len(packed), -1).astype(np.int64)


def _attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((each.i for each in node.attribute if each.name == name), default)


def _spread(array: np.ndarray, shape: tuple[int, ...], axis: int, block: int) -> np.ndarray:
    """Scales or zero points broadcast to a tensor: one for all, one for each place of an axis or for each block."""
    if array.size == 1:
        return array.reshape(())
    if block:
        return np.repeat(array, block, axis=axis)[tuple(slice(0, size) for size in shape)]
    sizes = [1] * len(shape)
    sizes[axis] = array.size
    return array.reshape(sizes)


def _widen(graph: onnx.GraphProto) -> None:
    """Convert everything in half precision to float32: casts, constants, inputs and outputs; drop types in between."""
    import onnx

    for value in [*graph.input, *graph.output]:
        if value.type.tensor_type.elem_type in _HALVES:
            value.type.tensor_type.elem_type = _FLOAT
    del graph.value_info[:]
    for tensor in [*constants_of(graph), *graph.initializer]:
        if tensor.data_type in _HALVES:
            tensor.CopyFrom(_tensor(tensor.name, onnx.numpy_helper.to_array(tensor).astype(np.float32)))
    for node in graph.node:
        for attribute in node.attribute:
            names_a_type = attribute.name == ("to" if node.op_type == "Cast" else "dtype")
            if names_a_type and attribute.i in _HALVES:
                attribute.i = _FLOAT


def _drop_unread(graph: onnx.GraphProto) -> None:
    reads = {name for each in graphs_of(graph) for node in each.node for name in node.input}
    reads |= {value.name for each in graphs_of(graph) for value in each.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in reads]
    del graph.initializer[:]
    graph.initializer.extend(kept)
