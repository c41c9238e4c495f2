"""One trace for several opsets: the operators that a model runs do not depend on the opset of the file."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from parity.configs import OnnxConfig
    from parity.traceable import Traceable


class SharedTraces:
    """The traced graphs of one model under one configuration, for exports that differ only in the opset.

    Tracing is a third of an export. The files have the same bytes as those of separate exports.
    """

    def __init__(self, model: PreTrainedModel, onnx_config: OnnxConfig) -> None:
        self.model, self.onnx_config = model, onnx_config
        # The graph, and the model's outputs for the example.
        self._graphs: dict[Hashable, tuple[torch.Graph, Any]] = {}

    @contextlib.contextmanager
    def reuse(self, model: PreTrainedModel, onnx_config: OnnxConfig, like: Hashable) -> Iterator[None]:
        """Inside, `torch.onnx.export` converts a copy of the graph that an export with an equal `like` traced.

        Args:
            model, onnx_config: those of the export.
            like: everything besides these that the trace depends on.

        Raises:
            ValueError: the graphs are of another model or configuration.
        """
        if model is not self.model or onnx_config is not self.onnx_config:
            raise ValueError(
                f"traces: are those of one {type(self.model).__name__} and its {type(self.onnx_config).__name__},"
                f" should not be used for another {type(model).__name__} and {type(onnx_config).__name__}"
            )
        exporter = _exporter()
        trace = exporter._trace_and_get_graph_from_model

        def trace_or_copy(traceable: Traceable, arguments: tuple[torch.Tensor, ...]) -> tuple[torch.Graph, Any]:
            if like not in self._graphs:
                self._graphs[like] = trace(traceable, arguments)
                _simplify(self._graphs[like][0])
            graph, answer = self._graphs[like]
            # Conversion changes the graph.
            return graph.copy(), answer

        exporter._trace_and_get_graph_from_model = trace_or_copy
        try:
            yield
        finally:
            exporter._trace_and_get_graph_from_model = trace


def _simplify(graph: torch.Graph) -> None:
    """Run the exporter's first passes once instead of for each copy; a trace is mostly equal constants."""
    from torch import _C

    _C._jit_pass_constant_propagation(graph)
    _C._jit_pass_dce(graph)
    _C._jit_pass_cse(graph)


class _Exporter(Protocol):
    """The module of torch that traces."""

    _trace_and_get_graph_from_model: Callable[..., tuple[torch.Graph, Any]]


def _exporter() -> _Exporter:
    try:
        from torch.onnx._internal.torchscript_exporter import utils
    except ImportError:
        # Its place in torch below 2.9.
        from torch.onnx import utils
    return utils
