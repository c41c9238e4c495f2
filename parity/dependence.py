"""The weights of a model, and which of them its outputs depend on, followed from operator to operator."""

from __future__ import annotations

import bisect
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from parity.dtypes import array_of
from parity.judge.weights import Weight
from parity.traceable import call, evaluation_mode

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from parity.configs import OnnxConfig


# Before torch 2.0 storages have types.
_HAS_UNTYPED = hasattr(torch.Tensor, "untyped_storage")


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
    arrays = [array_of(tensor) for _, tensor in weights]
    folds = _folds(flow.folds, arrays)
    return [
        Weight(
            names,
            arrays[index],
            needed=index in needed and any(name in persistent for name in names),
            foldable=index in flow.normalizing,
            combined=index in flow.combined,
            fold=folds.get(index),
        )
        for index, (names, _) in enumerate(weights)
    ]


@dataclass(frozen=True)
class _Fold:
    """A batch norm that reads what a convolution returns: the indices of their weights."""

    weight: int
    bias: int | None
    gain: int
    shift: int
    mean: int
    variance: int
    epsilon: float

    def factor(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """What the batch norm multiplies each channel by, as float64."""
        variance = arrays[self.variance].astype(np.float64)
        return np.asarray(arrays[self.gain].astype(np.float64) / np.sqrt(variance + self.epsilon))

    def folded_weight(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        weight = arrays[self.weight].astype(np.float64)
        return np.asarray(weight * self.factor(arrays).reshape(-1, *[1] * (weight.ndim - 1)))

    def folded_bias(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        before = 0.0 if self.bias is None else arrays[self.bias].astype(np.float64)
        return np.asarray((before - arrays[self.mean]) * self.factor(arrays) + arrays[self.shift])


def _folds(folds: Iterable[_Fold], arrays: Sequence[np.ndarray]) -> dict[int, Callable[[], np.ndarray]]:
    """Weight → what a fold makes of it; without the convolutions that several batch norms read."""
    by_weight: dict[int, set[_Fold]] = {}
    for fold in folds:
        by_weight.setdefault(fold.weight, set()).add(fold)
    single = [fold for each in by_weight.values() if len(each) == 1 for fold in each]
    made: dict[int, Callable[[], np.ndarray]] = {}
    for fold in single:
        made[fold.weight] = functools.partial(fold.folded_weight, arrays)
        made[fold.shift] = functools.partial(fold.folded_bias, arrays)
    return made


def _named_tensors(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    for prefix, module in model.named_modules(remove_duplicate=False):
        for values in (module._parameters, module._buffers):
            for name, tensor in values.items():
                if tensor is not None:
                    yield f"{prefix}.{name}" if prefix else name, tensor


class _Flow(TorchDispatchMode):
    """Record inside that the result of every operator depends on everything that its arguments depend on.

    It works below autograd, so that it sees the same with and without gradients, and integers as well as floats.
    The dependence is stored per memory, which views share; bit n stands for weight n, the last one for the inputs.

    Attributes:
        normalizing: indices of the weights that a batch norm reads.
        folds: the batch norms that read what a convolution returns.
    """

    def __init__(self, weights: Sequence[torch.Tensor]) -> None:
        super().__init__()
        order = sorted((tensor.data_ptr(), index) for index, tensor in enumerate(weights) if tensor.numel())
        self._starts = [start for start, _ in order]
        self._weights = [(start + _extent(weights[index]), 1 << index) for start, index in order]
        self._memories: dict[int, StorageWeakRef] = {}
        self._sources: dict[int, int] = {}
        self._count = len(weights)
        self._inputs = 1 << self._count
        self.normalizing: set[int] = set()
        # Weights with which something is computed from weights alone, and those that meet an input.
        self._alone: set[int] = set()
        self._together: set[int] = set()
        # Convolutions whose result is normalized, or multiplied by what is computed from weights alone.
        self._scaled: set[int] = set()
        self.folds: set[_Fold] = set()
        # The memory that a convolution returned → its weight and its bias.
        self._convolved: dict[int, tuple[int, int | None]] = {}

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
            self._record_fold(_arguments(func, args, kwargs))
        own = {self._memory(tensor) for tensor in arguments}
        # A view computes nothing.
        if _changes(func) or any(self._memory(tensor) not in own for tensor in _tensors((results,))):
            self._record_combination(func, arguments, sources)
        for tensor in _tensors((results,)):
            memory = self._memory(tensor)
            # A view, or a change in place, keeps the dependence of its memory.
            before = self._sources.get(memory, 0) if memory in own else 0
            self._sources[memory] = sources | before
            self._convolved.pop(memory, None)
        if _is_convolution(func) and isinstance(results, torch.Tensor):
            self._record_convolution(_arguments(func, args, kwargs), results)
        return results

    def _record_combination(self, func: Callable[..., Any], arguments: Sequence[torch.Tensor], sources: int) -> None:
        if not sources & self._inputs:
            self._alone |= set() if _copies(func) else self._indices(sources)
            return
        self._together |= {index for tensor in arguments if (index := self._place(tensor)) is not None}
        scales = _is_batch_norm(func) or (
            _multiplies(func) and sum(bool(self._sources_of(each) & self._inputs) for each in arguments) == 1
        )
        for tensor in arguments if scales else ():
            if convolved := self._convolved.get(self._memory(tensor)):
                self._scaled.add(convolved[0])

    @property
    def combined(self) -> set[int]:
        """Indices of the weights that an exporter can do without, because it computes something of them beforehand."""
        return self._alone - self._together | self._scaled

    def _record_convolution(self, arguments: Mapping[str, Any], result: torch.Tensor) -> None:
        weight, bias = self._index(arguments["weight"]), self._index(arguments["bias"])
        if weight is not None and not arguments["transposed"] and (bias is None) == (arguments["bias"] is None):
            self._convolved[self._memory(result)] = weight, bias

    def _record_fold(self, arguments: Mapping[str, Any]) -> None:
        convolved = self._convolved.get(self._memory(arguments["input"]))
        found = (self._index(arguments.get(name)) for name in ("weight", "bias", "running_mean", "running_var"))
        indices = [index for index in found if index is not None]
        if convolved and len(indices) == 4:
            gain, shift, mean, variance = indices
            self.folds.add(_Fold(*convolved, gain, shift, mean, variance, arguments["eps"]))

    def _memory(self, tensor: torch.Tensor) -> int:
        """A number for the memory that a tensor is a view of.

        An address would not do: a constant that Python makes may lie where a result was before.
        """
        # As long as there is a weak reference to a storage, no other gets its number.
        reference = StorageWeakRef(tensor.untyped_storage() if _HAS_UNTYPED else tensor.storage())
        return self._memories.setdefault(reference.cdata, reference).cdata

    def _index(self, tensor: torch.Tensor | None) -> int | None:
        """The index of the weight that a tensor is the whole of; None if it is none."""
        if tensor is None:
            return None
        place = tensor.data_ptr()
        index = bisect.bisect_right(self._starts, place) - 1
        whole = index >= 0 and self._starts[index] == place and self._weights[index][0] == place + _extent(tensor)
        return self._weights[index][1].bit_length() - 1 if whole else None

    def _sources_of(self, tensor: torch.Tensor) -> int:
        place = self._place(tensor)
        # What no operator has returned is an input.
        return self._sources.get(self._memory(tensor), self._inputs) if place is None else 1 << place

    def _place(self, tensor: torch.Tensor) -> int | None:
        """The index of the weight that a tensor is a view of; None if it is none."""
        place = tensor.data_ptr()
        index = bisect.bisect_right(self._starts, place) - 1
        if index >= 0 and place < self._weights[index][0]:
            return self._weights[index][1].bit_length() - 1
        return None

    def sources_of(self, tensors: Iterable[torch.Tensor]) -> set[int]:
        """The indices of the weights that these tensors depend on."""
        return self._indices(functools.reduce(int.__or__, map(self._sources_of, tensors), 0))

    def _indices(self, sources: int) -> set[int]:
        return {index for index in range(self._count) if sources >> index & 1}


def _extent(tensor: torch.Tensor) -> int:
    """The bytes from a tensor's first element to its last."""
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return (last + 1) * tensor.element_size()


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


def _arguments(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
    """The arguments of an operator by name."""
    names = [argument.name for argument in func._schema.arguments]
    return {**dict.fromkeys(names), **dict(zip(names, args, strict=False)), **(kwargs or {})}


# Operators whose results are values of their arguments.
_COPIES = ("embedding", "index", "index_select", "gather", "clone", "copy_", "cat", "stack", "repeat", "_to_copy")


@functools.cache
def _changes(func: Any) -> bool:
    """Whether an operator changes its argument in place."""
    return bool(func._schema.name.endswith("_"))


@functools.cache
def _copies(func: Any) -> bool:
    return func._schema.name.removeprefix("aten::") in _COPIES


@functools.cache
def _multiplies(func: Any) -> bool:
    return func._schema.name in ("aten::mul", "aten::mul_", "aten::div", "aten::div_")


@functools.cache
def _is_convolution(func: Any) -> bool:
    return bool(func._schema.name == "aten::convolution")


@functools.cache
def _is_batch_norm(func: Any) -> bool:
    return "batch_norm" in func._schema.name
