"""The weights of a model, and which of them its outputs depend on, followed from operator to operator."""

from __future__ import annotations

import bisect
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from parity.dtypes import array_of
from parity.judge.weights import Weight
from parity.traceable import call, evaluation_mode

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from parity.configs import OnnxConfig


def weights_of(model: PreTrainedModel, onnx_config: OnnxConfig, nested: Mapping[str, Any]) -> list[Weight]:
    """Every parameter and buffer of the model, as views of its memory; tied ones are one weight.

    A weight is needed if it is in a checkpoint (its `state_dict`) and a declared output depends on its values for
    these inputs: not on its shape alone, nor through a number of Python, which no file can follow either.

    Args:
        model: the model; it runs once.
        onnx_config: names the declared outputs.
        nested: arguments of the model, such as the dummy inputs of the export.
    """
    persistent = model.state_dict(keep_vars=True)
    tensors = {**persistent, **dict(_named_tensors(model))}
    groups: dict[tuple[Any, ...], list[str]] = {}
    for name, tensor in tensors.items():
        groups.setdefault((tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()), []).append(name)
    weights = [(tuple(names), tensors[names[0]].detach()) for names in groups.values()]
    with evaluation_mode(model, onnx_config.values_override):
        flow = _Flow([tensor for _, tensor in weights])
        with flow:
            results = call(model, onnx_config, nested)
        needed = flow.sources_of(results[name] for name in onnx_config.outputs if name in results)
    return [
        Weight(
            names,
            array_of(tensor),
            needed=index in needed and any(name in persistent for name in names),
            foldable=index in flow.normalizing,
        )
        for index, (names, tensor) in enumerate(weights)
    ]


def _named_tensors(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    for prefix, module in model.named_modules(remove_duplicate=False):
        for values in (module._parameters, module._buffers):
            for name, tensor in values.items():
                if tensor is not None:
                    yield f"{prefix}.{name}" if prefix else name, tensor


class _Flow(TorchDispatchMode):
    """Record inside that the result of every operator depends on everything that its arguments depend on.

    It works below autograd, so that it sees the same with and without gradients, and integers as well as floats.
    The dependence is stored per memory, which views share; bit n stands for weight n.

    Attributes:
        normalizing: indices of the weights that a batch norm reads.
    """

    def __init__(self, weights: Sequence[torch.Tensor]) -> None:
        super().__init__()
        order = sorted((tensor.data_ptr(), index) for index, tensor in enumerate(weights) if tensor.numel())
        self._starts = [start for start, _ in order]
        self._weights = [(start + _extent(weights[index]), 1 << index) for start, index in order]
        self._sources: dict[int, int] = {}
        self.normalizing: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        results = func(*args, **(kwargs or {}))
        arguments = list(_tensors((args, tuple((kwargs or {}).values()))))
        sources = 0
        if not _reads_no_values(func):
            for tensor in arguments:
                sources |= self._sources_of(tensor)
        if _is_batch_norm(func):
            # The first argument is the value that is normalized.
            self.normalizing |= self.sources_of(arguments[1:])
        own = {_memory(tensor) for tensor in arguments}
        for tensor in _tensors((results,)):
            memory = _memory(tensor)
            # A view, or a change in place, keeps the dependence of its memory.
            before = self._sources.get(memory, 0) if memory in own else 0
            self._sources[memory] = sources | before
        return results

    def _sources_of(self, tensor: torch.Tensor) -> int:
        place = tensor.data_ptr()
        index = bisect.bisect_right(self._starts, place) - 1
        if index >= 0 and place < self._weights[index][0]:
            return self._weights[index][1]
        return self._sources.get(_memory(tensor), 0)

    def sources_of(self, tensors: Iterable[torch.Tensor]) -> set[int]:
        """The indices of the weights that these tensors depend on."""
        sources = functools.reduce(int.__or__, map(self._sources_of, tensors), 0)
        return {index for index in range(sources.bit_length()) if sources >> index & 1}


def _extent(tensor: torch.Tensor) -> int:
    """The bytes from a tensor's first element to its last."""
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return (last + 1) * tensor.element_size()


def _memory(tensor: torch.Tensor) -> int:
    """The address of the memory that a tensor is a view of."""
    return tensor.data_ptr() - tensor.storage_offset() * tensor.element_size()


def _tensors(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)


@functools.cache
def _reads_no_values(func: Any) -> bool:
    """Whether an operator reads only the shapes of its arguments; the argument of `lift_fresh` is a new constant."""
    name = func._schema.name.removeprefix("aten::")
    return name.startswith(("new_", "lift_fresh")) or name.endswith("_like")


@functools.cache
def _is_batch_norm(func: Any) -> bool:
    return "batch_norm" in func._schema.name
