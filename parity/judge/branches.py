"""A merged decoder: one file with two graphs, one of which an input selects; and inputs that a graph does not read.

Source: optimum's `merge_decoders`, whose files have one node `If` with the input `use_cache_branch` as its condition.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from parity.axes import Role, canonical_name, role_of
from parity.judge.contract import Contract, Value
from parity.judge.pool import Arrays
from parity.judge.stored import StoredTensor
from parity.judge.subgraphs import nodes_of

if TYPE_CHECKING:
    import onnx

    from parity.judge.relations import Run

# The input that selects the graph.
SWITCH = "use_cache_branch"
_STATES = "encoder_hidden_states"


@dataclass(frozen=True)
class Branch:
    """The inputs and outputs of a file that belong to a part of the model.

    Args:
        contract: of the whole file.
        part: `decoder` or `step`.
        switch: the value of `use_cache_branch`; None for a file without it.
    """

    contract: Contract
    part: str
    switch: bool | None = None

    def is_idle(self, name: str) -> bool:
        """Whether an input of the file is not the part's: the switch, or an input that only the other graph reads."""
        own = canonical_name(name, "input")
        if self.part == "decoder":
            return name == SWITCH or (self.switch is not None and role_of(own) is Role.CACHE)
        return name == SWITCH or own == _STATES

    def is_blank(self, name: str) -> bool:
        """Whether an output of the file is not the part's: caches that the first graph filled, and states."""
        own = canonical_name(name, "output")
        if self.part == "step" and own == "encoder_last_hidden_state":
            return True
        return self.switch is True and role_of(own) is Role.CACHE and ".encoder." in own

    def choose_tensors(self, tensors: Sequence[StoredTensor], path: Path) -> list[StoredTensor]:
        """The tensors of a file that the part reads.

        Args:
            path: the file.
        """
        import onnx

        if self.switch is None:
            return list(tensors)
        model = choose_branch(onnx.load(str(path), load_external_data=False), self.switch)
        nodes = list(nodes_of(model.graph.node))
        names = {name for node in nodes for name in (*node.input, *node.output)}
        return [tensor for tensor in tensors if tensor.name in names]

    @property
    def narrowed(self) -> Contract:
        """The contract without the inputs and outputs that are not the part's."""
        inputs = tuple(value for value in self.contract.inputs if not self.is_idle(value.name))
        outputs = tuple(value for value in self.contract.outputs if not self.is_blank(value.name))
        return replace(self.contract, inputs=inputs, outputs=outputs)

    def complete(self, run: Run) -> Run:
        """A run of the part through a run of the whole file: inputs that the part does not read get noise."""
        idle = [value for value in self.contract.inputs if self.is_idle(value.name)]

        def complete(inputs: Arrays) -> dict[str, np.ndarray]:
            sizes = _sizes(self.contract, inputs)
            more = {value.name: self._array(value, sizes) for value in idle}
            return dict(run({**inputs, **more}))

        return complete

    def _array(self, value: Value, sizes: Mapping[str, int]) -> np.ndarray:
        shape = [sizes.get(axis, 1) if isinstance(axis, str) else axis for axis in value.axes]
        if value.name == SWITCH:
            return np.full(shape, self.switch)
        if isinstance(value.axes[0], str):
            shape[0] = sizes.get("", 1)
        noise = np.random.default_rng(0).standard_normal(shape)
        return noise.astype(value.dtype) if value.dtype != "bfloat16" else noise.astype(np.float32)


def _sizes(contract: Contract, inputs: Arrays) -> dict[str, int]:
    """Symbol → its size in a call; the empty name → the number of rows."""
    sizes: dict[str, int] = {}
    for value in contract.inputs:
        if value.name in inputs:
            shape = np.shape(inputs[value.name])
            sizes.setdefault("", shape[0])
            sizes.update((axis, size) for axis, size in zip(value.axes, shape, strict=False) if isinstance(axis, str))
    return sizes


def choose_branch(model: onnx.ModelProto, switch: bool) -> onnx.ModelProto:
    """The model with one of its two graphs in place of the node that selects; it is changed."""
    import onnx

    graph = model.graph
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type != "If" or SWITCH not in node.input:
            nodes.append(node)
            continue
        name = "then_branch" if switch else "else_branch"
        body = next(attribute.g for attribute in node.attribute if attribute.name == name)
        graph.initializer.extend(body.initializer)
        nodes.extend(body.node)
        pairs = zip(body.output, node.output, strict=True)
        nodes.extend(onnx.helper.make_node("Identity", [inner.name], [outer]) for inner, outer in pairs)
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)
    return model
