"""The exporters of `parity.exporters`: a single one, which records a trace of the model."""

from __future__ import annotations

import contextlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import torch

from parity.arguments import device_of
from parity.axes import Signature
from parity.dtypes import has_halves
from parity.environment import at_least
from parity.errors import ExportError, ParityError
from parity.exporters import EXPORTERS
from parity.onnx.deferred import deferred_weights, shapes_without_weights
from parity.onnx.shared_traces import SharedTraces
from parity.opsets import SDPA_MINIMUM_OPSET, TRILU_MINIMUM_OPSET
from parity.releases import traceable_masks
from parity.traceable import (
    Traceable,
    heads_that_share,
    masks_in_the_type_of_queries,
    triangles_of_comparisons,
    zeros_where_nothing_is_seen,
)
from parity.turns import without_warnings


class TraceExporter:
    """Writes a model as an ONNX file, from a trace of its operators on one example: `torch.onnx.export` without dynamo.

    Args:
        device: the device of the model while it is traced, `cpu` or `cuda`.
        traces: the traces of other exports of the same model with the same configuration.
    """

    name = "trace"

    def __init__(self, device: str = "cpu", traces: SharedTraces | None = None) -> None:
        self.device, self._traces = device_of(device), traces

    def export(
        self, traceable: Traceable, tensors: tuple[torch.Tensor, ...], signature: Signature, opset: int, path: Path
    ) -> None:
        """Write the file to `path`.

        Args:
            traceable: the model as a function of the example.
            tensors: the example, in the order of the signature's inputs.
            signature: the inputs and outputs of the file.
            opset: of the file.
            path: the file.

        Raises:
            ExportError: torch's exporter fails.
        """
        # Below 2.5 there is no such option.
        options = {"dynamo": False} if "dynamo" in inspect.signature(torch.onnx.export).parameters else {}
        with without_warnings(), self._patches(traceable, tensors, opset), deferred_weights(traceable.model, path):
            try:
                torch.onnx.export(
                    traceable,
                    tensors,
                    str(path),
                    input_names=list(signature.inputs),
                    output_names=list(signature.outputs),
                    dynamic_axes=signature.dynamic_axes,
                    do_constant_folding=True,
                    opset_version=opset,
                    **options,
                )
            except ParityError:
                raise
            except Exception as error:
                if isinstance(error, OSError) or "No space left" in str(error):
                    raise
                if operator := _without_lowering(error):
                    raise ExportError(
                        f"opset {opset}: the model uses {operator}, which torch's exporter cannot write at this opset;"
                        f" try a higher one (up to {EXPORTERS[self.name].opsets[-1]}), or a model that does without it"
                    ) from error
                if refusal := _refusal_of(traceable, tensors):
                    raise ExportError(
                        f"the model itself refuses the example inputs: {_text_of(refusal)}; correct its configuration"
                        " or its weights, so that it can be called without an exporter"
                    ) from refusal
                raise ExportError(f"opset {opset}: the exporter failed: {_text_of(error)}") from error

    @contextlib.contextmanager
    def _patches(self, traceable: Traceable, tensors: tuple[torch.Tensor, ...], opset: int) -> Iterator[None]:
        """Patch torch and transformers for this exporter; undone afterwards."""
        with contextlib.ExitStack() as stack:
            lowers = opset < TRILU_MINIMUM_OPSET
            if self._traces:
                shapes = zip(traceable.layout.names, (tensor.shape for tensor in tensors), strict=True)
                like = opset < SDPA_MINIMUM_OPSET, lowers, self.device, tuple(shapes)
                stack.enter_context(self._traces.reuse(traceable.model, traceable.onnx_config, like))
            if lowers:
                stack.enter_context(triangles_of_comparisons())
            if at_least("torch", "2.1.1") and not at_least("torch", "2.9"):
                stack.enter_context(zeros_where_nothing_is_seen())
            if has_halves(traceable.model) and opset >= SDPA_MINIMUM_OPSET:
                stack.enter_context(masks_in_the_type_of_queries())
            stack.enter_context(heads_that_share(traceable.model))
            stack.enter_context(traceable_masks())
            stack.enter_context(_no_graph_on_stdout())
            stack.enter_context(shapes_without_weights())
            yield


def _text_of(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]


def _refusal_of(traceable: Traceable, tensors: tuple[torch.Tensor, ...]) -> Exception | None:
    """The error that the model raises if it is called without an exporter; None if it returns."""
    try:
        traceable.onnx_config.restore_ops()
        traceable(*tensors)
    except Exception as error:
        return error
    finally:
        traceable.onnx_config.patch_ops()
    return None


def _without_lowering(error: Exception) -> str:
    """The operator that the exporter does not know at this opset; empty for another error."""
    if type(error).__name__ != "UnsupportedOperatorError":
        return ""
    operator = re.search(r"\w+::\w+", str(error))
    return operator.group() if operator else "an operator"


@contextlib.contextmanager
def _no_graph_on_stdout() -> Iterator[None]:
    """Inside, torch does not print the graph of an error: its own switch for that has no effect."""
    log = getattr(torch._C, "_jit_onnx_log", None)
    if log is None:
        yield
        return
    enabled = torch._C._jit_is_onnx_log_enabled()
    torch._C._jit_onnx_log = lambda *parts: None
    try:
        yield
    finally:
        torch._C._jit_onnx_log = log
        torch._C._jit_set_onnx_log_enabled(enabled)


def load(name: str) -> type[TraceExporter]:
    """The class of an exporter.

    Raises:
        KeyError: there is no exporter of that name.
    """
    return globals()[EXPORTERS[name].class_name]
