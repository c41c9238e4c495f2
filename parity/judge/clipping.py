"""Static ranges of activations: the share of values outside of them.

A file in static integers has the range of each activation from the inputs of its calibration. Values outside are
clipped, which no check of weights or of the graph sees, and drift only if there are many.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from parity.judge.pool import Arrays

if TYPE_CHECKING:
    import onnx

    from parity.judge.relations import Run

_COUNT, _SIZE = "parity.clipped.", "parity.values."


def count_clipping(model: onnx.ModelProto, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Add two outputs for each tensor of a model in float32: the number of its values outside the range, and of all.

    Args:
        model: changed in place.
        ranges: tensor → its least and its largest value.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    for name, ends in ranges.items():
        own = [f"{_COUNT}{name}.{part}" for part in ("low", "high", "below", "above", "outside", "number")]
        for constant, value in zip(own, ends, strict=False):
            graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), constant))
        low, high, below, above, outside, number = own
        graph.node.extend(
            [
                helper.make_node("Less", [name, low], [below]),
                helper.make_node("Greater", [name, high], [above]),
                helper.make_node("Or", [below, above], [outside]),
                helper.make_node("Cast", [outside], [number], to=TensorProto.FLOAT),
                helper.make_node("ReduceSum", [number], [_COUNT + name], keepdims=0),
                helper.make_node("Size", [name], [_SIZE + name]),
            ]
        )
        graph.output.append(helper.make_tensor_value_info(_COUNT + name, TensorProto.FLOAT, []))
        graph.output.append(helper.make_tensor_value_info(_SIZE + name, TensorProto.INT64, []))


class Clipping:
    """The number of values outside, over all runs."""

    def __init__(self) -> None:
        self._outside: dict[str, float] = {}
        self._values: dict[str, float] = {}

    def count(self, run: Run) -> Run:
        """The run without the outputs of `count_clipping`, which are added up here."""

        def counting(inputs: Arrays) -> dict[str, np.ndarray]:
            answer = dict(run(inputs))
            for prefix, sums in ((_COUNT, self._outside), (_SIZE, self._values)):
                for name in [each for each in answer if each.startswith(prefix)]:
                    sums[name.removeprefix(prefix)] = sums.get(name.removeprefix(prefix), 0.0) + float(answer.pop(name))
            return answer

        return counting

    def as_json(self) -> dict[str, float | str]:
        """The share of all values, and the tensor with the largest share; empty if there was nothing to count."""
        if not sum(self._values.values()):
            return {}
        shares = {name: self._outside[name] / values for name, values in self._values.items() if values}
        most = max(shares, key=lambda name: shares[name])
        share = sum(self._outside.values()) / sum(self._values.values())
        return {"share": share, "most": shares[most], "tensor": most}
