"""Run requests of any length through traces of fixed lengths: padded to the traced one, with the answers cut back."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence

import torch

from parity.axes import TEXTS, Role, role_of
from parity.errors import SessionError, UsageError
from parity.torchscript.model import TracedModel, load, operator_text

_TOKENS_OF = {"attention_mask": ("input_ids", "inputs"), "decoder_attention_mask": ("decoder_input_ids",)}


class Runner:
    """One trace or several buckets: each request runs in the smallest that it fits into.

    All text axes of a request are padded on the right with the padding token and masked; the answers are those of the
    unpadded request. Each request costs as much as one of the traced length.

    Args:
        traces: TracedModels, or files that `export` wrote; their inputs and outputs are the same.
        axes: the axes to pad; with `batch` among them the last row is repeated, for a trace with a fixed batch.
            None means all axes of texts.

    Raises:
        UsageError: traces of different models; a trace that cannot be padded: without a mask, with past
            key values, or of a model whose own answers change with padding.
    """

    def __init__(self, *traces: TracedModel | str | os.PathLike, axes: Sequence[str] | None = None) -> None:
        if not traces:
            raise UsageError("traces: none is given, should be one or several of different lengths")
        self._traces = [trace if isinstance(trace, TracedModel) else load(trace) for trace in traces]
        self._traces.sort(key=lambda trace: math.prod(trace.sizes.values()))
        first = self._traces[0]
        for trace in self._traces:
            if (list(trace.inputs), list(trace.outputs)) != (list(first.inputs), list(first.outputs)):
                raise UsageError("traces: their inputs or outputs are not the same; trace one model at several lengths")
        if len({trace.checkpoint for trace in self._traces if trace.checkpoint}) > 1:
            raise UsageError("traces: they are of different checkpoints; trace one checkpoint at several lengths")
        if axes is not None and (isinstance(axes, str) or not isinstance(axes, Sequence)):
            raise UsageError(f"axes: got {axes!r:.40}, should be a list of names, such as {', '.join(first.sizes)}")
        self.axes = tuple(axes if axes is not None else (name for name in first.sizes if name in TEXTS))
        unknown = [f"{axis}" for axis in self.axes if not isinstance(axis, str) or axis not in first.sizes]
        if unknown or not self.axes:
            raise UsageError(f"axes: {', '.join(unknown) or 'none'} to pad, the trace has {', '.join(first.sizes)}")
        _require_paddable(first)

    @property
    def longest(self) -> dict[str, int]:
        """The longest request of each padded axis."""
        return {axis: max(trace.sizes[axis] for trace in self._traces) for axis in self.axes}

    def __call__(
        self, inputs: Mapping[str, torch.Tensor] | None = None, **tensors: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """The outputs by name, at the request's own sizes; outputs without named axes are left out.

        Args:
            inputs: tensors by name, such as a tokenizer returns; a missing mask means that nothing is masked.
            tensors: more inputs, by name.

        Raises:
            UsageError: a name that the trace does not take or lacks, a value that is no tensor of its kind, or a
                request that is too long.
            SessionError: the trace refuses the values, such as a token id that the model does not have.
        """
        if inputs is not None and not isinstance(inputs, Mapping):
            names = ", ".join(self._traces[0].inputs)
            raise UsageError(f"inputs: got {type(inputs).__name__}, should map names to tensors, such as {names}")
        request = {**(inputs or {}), **tensors}
        first = self._traces[0]
        for mask, names in _TOKENS_OF.items():
            tokens = next((request[name] for name in names if name in request), None)
            if mask in first.inputs and mask not in request and isinstance(tokens, torch.Tensor):
                request[mask] = torch.ones_like(tokens)
        if set(request) != set(first.inputs):
            raise UsageError(f"inputs: got {', '.join(map(str, request))}, should be {', '.join(first.inputs)}")
        first.require_tensors([request[name] for name in first.inputs])
        sizes = self._sizes(request)
        trace = next(
            (each for each in self._traces if all(each.sizes[axis] >= sizes[axis] for axis in self.axes)), None
        )
        if trace is None:
            limits = ", ".join(f"{axis} {size}" for axis, size in self.longest.items())
            got = ", ".join(f"{axis} {sizes[axis]}" for axis in self.axes)
            raise UsageError(f"request: {got} is longer than what was traced ({limits}); cut it, or trace a longer one")
        padded = [self._pad(trace, name, request[name]) for name in trace.inputs]
        try:
            results = trace(*padded)
        except (RuntimeError, IndexError) as error:
            raise SessionError(f"request: the trace refuses it: {operator_text(error)}") from error
        named = trace.by_output(results)
        return {
            name: self._cut(result, trace.outputs[name], sizes) for name, result in named.items() if trace.outputs[name]
        }

    def _sizes(self, request: Mapping[str, torch.Tensor]) -> dict[str, int]:
        sizes: dict[str, int] = {}
        for name, axes in self._traces[0].inputs.items():
            shape = tuple(request[name].shape)
            if axes and len(shape) <= max(axes):
                raise UsageError(f"inputs: {name} has shape {shape}, should have the axes {', '.join(axes.values())}")
            for axis, axis_name in axes.items():
                if sizes.setdefault(axis_name, shape[axis]) != shape[axis]:
                    raise UsageError(f"inputs: {axis_name} is {shape[axis]} in {name}, {sizes[axis_name]} before it")
        return sizes

    def _pad(self, trace: TracedModel, name: str, tensor: torch.Tensor) -> torch.Tensor:
        for axis, axis_name in trace.inputs[name].items():
            missing = trace.sizes[axis_name] - tensor.shape[axis] if axis_name in self.axes else 0
            if missing > 0:
                shape = list(tensor.shape)
                shape[axis] = missing
                if axis_name in TEXTS or not tensor.shape[axis]:
                    blank = tensor.new_full(shape, trace.pad if role_of(name) is Role.TOKENS else 0)
                else:
                    blank = tensor.narrow(axis, tensor.shape[axis] - 1, 1).expand(shape)
                tensor = torch.cat([tensor, blank], axis)
        return tensor.contiguous()

    def _cut(self, result: torch.Tensor, axes: Mapping[int, str], sizes: Mapping[str, int]) -> torch.Tensor:
        for axis, axis_name in axes.items():
            if axis_name in self.axes:
                result = result.narrow(axis, 0, sizes[axis_name])
        return result


def _require_paddable(trace: TracedModel) -> None:
    if any(role_of(name) is Role.CACHE for name in trace.inputs):
        raise UsageError("traces: with past key values requests cannot be padded; trace the feature without past")
    tokens = [name for name in ("input_ids", "inputs") if name in trace.inputs]
    if tokens and "attention_mask" not in trace.inputs:
        raise UsageError(
            "traces: they have no attention_mask, so padding would be read as text; trace with one among the inputs"
        )
    if trace.padding is False:
        raise UsageError(
            f"traces: the answers of {trace.model_type} {trace.feature} change with padding, in PyTorch too; make a"
            " trace for each length that is requested"
        )
