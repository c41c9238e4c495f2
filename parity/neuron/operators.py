"""The operators of a graph that Neuron compiles: by AWS's list before compiling, by the compiled graph afterwards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from parity.errors import UsageError

if TYPE_CHECKING:
    import torch

# Operators that AWS leaves to the CPU on purpose, or that only read shapes: none of them is a fallback.
_EXPECTED_OUTSIDE = """
embedding Int ScalarImplicit contiguous detach expand flatten permute reshape select size slice squeeze to transpose
unsqueeze view
"""
EXPECTED_OUTSIDE = frozenset(f"aten::{name}" for name in _EXPECTED_OUTSIDE.split())
# The compiler does not look inside these.
_CONTROL = ("prim::If", "prim::Loop", "prim::PythonOp", "prim::CallFunction", "prim::CallMethod")

SOURCE = "AWS Neuron documentation, PyTorch Neuron (torch-neuron) Supported operators, up to SDK 2.13.0 of 2023-08-28"
_SUPPORTED = """
Int ScalarImplicit __and__ _convolution _convolution_mode _shape_as_tensor _weight_norm abs adaptive_avg_pool1d
adaptive_avg_pool2d adaptive_max_pool1d adaptive_max_pool2d add add_ addmm all amax amin any arange argmax argmin
avg_pool2d baddbmm batch_norm bmm broadcast_tensors broadcast_to bucketize cat ceil chunk clamp clamp_max clamp_min
clip clone constant_pad_nd contiguous cos detach dimension_value div dot dropout einsum embedding_renorm_ empty
empty_like eq erf exp expand expand_as eye fill_ flatten flip floor floor_divide full full_like ge gelu group_norm gt
hardsigmoid hardswish hardtanh hardtanh_ index_select instance_norm isnan layer_norm le leaky_relu linear log log2
log_softmax logical_and logical_not logical_or logical_xor lt masked_fill matmul max max_pool2d
max_pool2d_with_indices mean meshgrid min mm movedim mul mv ne neg new_empty new_ones numel ones ones_like permute
pixel_shuffle pow prelu reciprocal reflection_pad2d relu relu_ remainder repeat repeat_interleave reshape roll rsqrt
rsub scalarImplicit select sigmoid silu sin size slice softmax softplus split split_with_sizes sqrt squeeze stack sub
sum t tanh tensor_split tensordot threshold to topk transpose tril triu true_divide trunc type_as unbind unsqueeze
upsample_bilinear2d upsample_nearest2d values view zero_ zeros zeros_like
"""
SUPPORTED = frozenset(f"aten::{name}" for name in _SUPPORTED.split())
# Operator → the condition under which it is compiled.
LIMITED: Mapping[str, str] = {
    "aten::_pack_padded_sequence": "around an LSTM",
    "aten::_pad_packed_sequence": "around an LSTM",
    "aten::lstm": "see AWS's guide to LSTM",
    "aten::max_pool3d_with_indices": "where nothing reads the indices",
    "aten::norm": "with p one of 1, 2, inf, -inf, 'fro'",
    "aten::one_hot": "where num_classes is known when traced",
    "aten::where": "with three arguments",
}


@dataclass(frozen=True)
class Coverage:
    """A traced graph compared with AWS's list, before anything is compiled.

    Args:
        inside, limited, outside: operator → count: compiled, compiled under the condition in `LIMITED`, left to the
            CPU.
    """

    inside: Mapping[str, int]
    limited: Mapping[str, int]
    outside: Mapping[str, int]

    @property
    def total(self) -> int:
        """The number of operators in the graph."""
        return sum(sum(part.values()) for part in (self.inside, self.limited, self.outside))

    @property
    def share(self) -> float:
        """The fraction of the operators that is not left to the CPU."""
        return 1 - sum(self.outside.values()) / self.total if self.total else 1.0

    def lines(self) -> list[str]:
        """Lines for people: the share, then each operator that is left out or has a condition."""
        lines = [f"{self.share:.1%} of {self.total} operators are on the list ({SOURCE})"]
        lines += [f"    left to the CPU: {name}, {count} times" for name, count in self.outside.items()]
        lines += [f"    compiled {LIMITED[name]}: {name}, {count} times" for name, count in self.limited.items()]
        return lines

    def as_json(self) -> dict[str, Any]:
        return {
            "operators": self.total,
            "share": round(self.share, 4),
            "limited": dict(self.limited),
            "outside": dict(self.outside),
        }


def coverage(module: torch.jit.ScriptModule) -> Coverage:
    """The operators of a traced ScriptModule, compared with AWS's list (`SOURCE`).

    aten::embedding is not on the list: AWS removed it, because it is faster on the CPU. The list has in-place forms
    only if it names them.

    Args:
        module: what `torch.jit.trace` returns.

    Raises:
        UsageError: it is not a ScriptModule.
    """
    if not hasattr(module, "inlined_graph"):
        raise UsageError(f"module: got {type(module).__name__}, should be a ScriptModule, as torch.jit.trace returns")
    inside: Counter[str] = Counter()
    limited: Counter[str] = Counter()
    outside: Counter[str] = Counter()
    for node in nodes(module.inlined_graph):
        name = node.kind()
        if name in SUPPORTED:
            inside[name] += 1
        elif name in LIMITED and not (name == "aten::where" and len(list(node.inputs())) < 3):
            limited[name] += 1
        elif name.startswith("aten::") or name in _CONTROL:
            outside[name] += 1
    return Coverage(*(dict(sorted(part.items())) for part in (inside, limited, outside)))


@dataclass(frozen=True)
class Partition:
    """A compiled graph.

    Args:
        compiled: number of nodes with compiled code.
        outside: operator → count outside of them, on the CPU.
    """

    compiled: int
    outside: Mapping[str, int]

    @property
    def fallen(self) -> dict[str, int]:
        """The outside operators that are a fallback: all but `EXPECTED_OUTSIDE`."""
        return {name: count for name, count in self.outside.items() if name not in EXPECTED_OUTSIDE}

    @property
    def problem(self) -> str:
        """Why the model does not run on the device as a whole; empty if it does."""
        if not self.compiled:
            return f"nothing was compiled: all {sum(self.outside.values())} operators run on the CPU"
        if self.fallen:
            names = ", ".join(f"{name} ({count})" for name, count in self.fallen.items())
            return f"{sum(self.fallen.values())} operators fell back to the CPU: {names}"
        return ""


def partition(module: torch.jit.ScriptModule, marker: str) -> Partition:
    """The partition of a compiled ScriptModule; the kinds of its compiled nodes begin with `marker`."""
    kinds = Counter(node.kind() for node in nodes(module.inlined_graph))
    compiled = sum(count for kind, count in kinds.items() if kind.startswith(marker))
    outside = {kind: count for kind, count in kinds.items() if kind.startswith("aten::") or kind in _CONTROL}
    return Partition(compiled, dict(sorted(outside.items())))


def nodes(graph: torch._C.Graph | torch._C.Block) -> Iterator[torch._C.Node]:
    """The nodes of a graph, those of its blocks included."""
    for node in graph.nodes():
        yield node
        for block in node.blocks():
            yield from nodes(block)
