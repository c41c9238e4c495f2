"""The oldest torch for a TorchScript file: the version that introduced its attention operator and each argument."""

from __future__ import annotations

from collections.abc import Container
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# The oldest torch that was tested with files without it.
OLDEST = "1.13"
_OPERATOR, _OPERATOR_SINCE = "aten::scaled_dot_product_attention", "2.0"
# Position of an argument → (torch that introduced it, values that are not written to the file).
_ARGUMENTS = {6: ("2.1", (None,)), 7: ("2.5", (False,))}  # scale, enable_gqa


def minimum_torch(module: torch.jit.ScriptModule) -> str:
    """The oldest torch that loads a ScriptModule's file, judging by its attention; never older than `OLDEST`.

    An older torch raises `Unknown builtin op` or `Keyword argument scale unknown` when it loads the file.
    """
    versions = [OLDEST]
    graph = module.inlined_graph  # keep the graph alive, because its nodes depend on it
    for node in graph.findAllNodes(_OPERATOR):
        versions.append(_OPERATOR_SINCE)
        values = list(node.inputs())
        for position, (since, defaults) in _ARGUMENTS.items():
            if position < len(values) and not _is_default(values[position], defaults):
                versions.append(since)
    return max(versions, key=lambda version: tuple(map(int, version.split("."))))


def _is_default(value: torch._C.Value, defaults: Container[object]) -> bool:
    if value.node().kind() != "prim::Constant":
        return False
    return value.toIValue() in defaults
