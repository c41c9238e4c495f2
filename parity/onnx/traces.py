"""One trace for several opsets: which operators a model runs does not depend on the opset they are written in."""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Iterator


class Traces:
    """The traced graphs of one model under one configuration, for exports that differ in nothing but the opset.

    Tracing is a third of an export. The files are the same bytes as those of exports on their own.
    """

    def __init__(self, model, onnx_config):
        self.model, self.onnx_config = model, onnx_config
        self._graphs = {}

    @contextlib.contextmanager
    def used(self, model, onnx_config, like: Hashable) -> Iterator[None]:
        """Within, `torch.onnx.export` converts a copy of the graph that an export with an equal `like` traced.

        Raises:
            ValueError: it is another model or configuration than the graphs are of.
        """
        if model is not self.model or onnx_config is not self.onnx_config:
            raise ValueError(
                f"traces: are those of one {type(self.model).__name__} and its {type(self.onnx_config).__name__},"
                f" should not be used for another {type(model).__name__} and {type(onnx_config).__name__}"
            )
        exporter = _exporter()
        trace = exporter._trace_and_get_graph_from_model

        def traced(traceable, arguments):
            if like not in self._graphs:
                self._graphs[like] = trace(traceable, arguments)
                _simplify(self._graphs[like][0])
            graph, answer = self._graphs[like]
            # Conversion works in place.
            return graph.copy(), answer

        exporter._trace_and_get_graph_from_model = traced
        try:
            yield
        finally:
            exporter._trace_and_get_graph_from_model = trace


def _simplify(graph):
    """The passes that the exporter begins with, once instead of for each copy; a trace is mostly equal constants."""
    from torch import _C

    _C._jit_pass_constant_propagation(graph)
    _C._jit_pass_dce(graph)
    _C._jit_pass_cse(graph)


def _exporter():
    try:
        from torch.onnx._internal.torchscript_exporter import utils
    except ImportError:
        # Where torch below 2.9 has it.
        from torch.onnx import utils
    return utils
