"""Answers of the PyTorch model: in its own dtype, in float64, and in its own with every weight moved by one ulp."""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from parity.arguments import own_numerics
from parity.configs.lengths import BIG_CHECKPOINT
from parity.dtypes import (
    DEFAULT_DTYPE,
    array_of,
    bytes_of_parameters,
    cast_floats,
    dtype_name,
    float64_replaces,
    tensor_of,
    torch_dtype,
)
from parity.encodings import encode_sounds_once
from parity.judge.pool import Answers, Arrays
from parity.judge.spool import Spool
from parity.samples import Sample
from parity.traceable import Layout, call, evaluation_mode
from parity.turns import in_turn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from parity.configs import OnnxConfig
    from parity.judge.relations import Run

# The item of GPT-2's attention that scales the keys first and refuses scores of another type than float32.
UPCAST = "reorder_and_upcast_attn"


@in_turn
def answers(
    model: PreTrainedModel,
    onnx_config: OnnxConfig,
    samples: Sequence[Sample],
    *,
    exact: bool = True,
    consume: bool = False,
    progress: Callable[[str], None] | None = None,
) -> list[Answers]:
    """The model's answers to the samples, for the outputs that the configuration declares.

    Args:
        model: a model that no exporter has touched.
        onnx_config: names the outputs.
        samples: the inputs.
        exact: whether to compute the float64 and the jittered answers too.
        consume: whether to change the model's weights in place instead of in a copy; the caller must not use it again.
        progress: called with one line for each stage.
    """
    tell = progress or (lambda line: None)
    own_dtype = _dtype_of(model)
    dtype = dtype_name(own_dtype)
    tell(f"PyTorch {dtype} on {len(samples)} inputs")
    spool = Spool()
    eager = _run(model, onnx_config, samples, spool)
    if not exact:
        return [Answers(values) for values in eager]
    own = model if consume else copy.deepcopy(model)
    tell(f"PyTorch float64 on {len(samples)} inputs")
    with float64_weights(own):
        reference = _run(own, onnx_config, samples, spool, torch.float64)
    if torch.finfo(own_dtype).eps > torch.finfo(torch.float32).eps:
        # One unit of a half moves the answers further than all roundings after it: faults would hide in that. With
        # rounding alone as the unit, right float16 files of 80 cells had ratios from 0.2 to 2.4.
        return [Answers(values, exact, values) for values, exact in zip(eager, reference, strict=True)]
    move_weights(own)
    tell(f"PyTorch {dtype} with moved weights on {len(samples)} inputs")
    jittered = _run(own, onnx_config, samples, spool)
    return [Answers(*parts) for parts in zip(eager, reference, jittered, strict=True)]


def _dtype_of(model: torch.nn.Module) -> torch.dtype:
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch_dtype(DEFAULT_DTYPE))


@contextlib.contextmanager
def float64(model: PreTrainedModel, onnx_config: OnnxConfig, layout: Layout) -> Iterator[Run]:
    """The model in float64 as a backend, flat named arrays in, named arrays out; the caller must not use it again.

    Args:
        model: the model, which is changed in place.
        onnx_config: names the outputs.
        layout: the places of the flat inputs in the model's arguments.
    """
    names = list(onnx_config.outputs)
    ask = _Float64Call(model, onnx_config)

    def run(inputs: Arrays) -> dict[str, np.ndarray]:
        flat = {name: tensor_of(inputs[name]) for name in layout.names}
        results = ask(layout.nest(flat))
        return {name: array_of(results[name]) for name in names if name in results}

    with evaluation_mode(model, onnx_config.values_override):
        _widen(model)
        yield run


@contextlib.contextmanager
def float64_weights(model: torch.nn.Module) -> Iterator[None]:
    """Inside, every weight and buffer is float64; each is cast once, in place.

    This takes twice the memory of a float32 model. One module at a time would take less memory, but a cast of
    everything for each sample: samples cannot go through a module together, since some models change themselves during
    a call.
    """
    # By their places: a buffer that two modules share is a separate one in each after a cast.
    tables = [table for module in model.modules() for table in (module._parameters, module._buffers)]
    before = [{name: tensor.dtype for name, tensor in table.items() if tensor is not None} for table in tables]
    _widen(model)
    try:
        yield
    finally:
        # Exact: every value was one of its type before. A model in halves keeps some of its tensors in float32.
        for table, dtypes in zip(tables, before, strict=True):
            for name, dtype in dtypes.items():
                table[name].data = table[name].data.to(dtype)


def _widen(model: torch.nn.Module) -> None:
    # One weight that is a view of the checkpoint's file keeps all of the file in memory during the cast.
    if bytes_of_parameters(model) > BIG_CHECKPOINT:
        model._apply(torch.Tensor.clone)
    model.double()


def move_weights(model: torch.nn.Module, seed: int = 0) -> None:
    """Move every weight by one unit in the last place, up or down at random, in place."""
    generator = torch.Generator().manual_seed(seed)
    # One period of random directions serves all: drawing a direction for each of many million weights takes longer than
    # running the model. A prime length keeps it from repeating with the rows of a matrix.
    period = torch.where(torch.rand(65521, generator=generator) < 0.5, float("inf"), float("-inf"))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point():
                flat = parameter.flatten()
                for part in flat.split(len(period)):
                    torch.nextafter(part, period[: len(part)].to(part), out=part)
                if not parameter.is_contiguous():
                    # Then it was flattened into a copy.
                    parameter.copy_(flat.view(parameter.shape))


def _run(
    model: PreTrainedModel,
    onnx_config: OnnxConfig,
    samples: Iterable[Sample],
    spool: Spool,
    dtype: torch.dtype | None = None,
) -> list[Arrays]:
    names = list(onnx_config.outputs)
    answers = []
    ask: Callable[[Mapping[str, Any]], dict[str, torch.Tensor]] = functools.partial(call, model, onnx_config)
    if dtype == torch.float64:
        ask = _Float64Call(model, onnx_config)
    with own_numerics(), evaluation_mode(model, onnx_config.values_override), encode_sounds_once(model):
        for sample in samples:
            results = ask(sample.inputs)
            answers.append(spool.keep({name: array_of(results[name]) for name in names if name in results}))
            del results
    return answers


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype | None) -> Iterator[None]:
    """Inside, tensors that a model makes without a dtype have this one; None leaves the default.

    With float64, casts to a type of `float64_replaces` become float64 too.
    """
    with _default_dtype(dtype), _Widening() if dtype == torch.float64 else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def _default_dtype(dtype: torch.dtype | None) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype or before)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


class _Widening(TorchFunctionMode):
    """Inside, a model gets float64 if it requests float32 or another type of `float64_replaces`.

    Attention often computes its softmax in float32: the float64 mask of a fully masked row is infinite there, and
    the row NaN.

    Attributes:
        acted: whether any request was replaced.
    """

    acted = False

    def __init__(self) -> None:
        super().__init__()
        self._types = float64_replaces()
        methods = {torch.Tensor.float: torch.float32, torch.Tensor.half: torch.float16}
        methods[torch.Tensor.bfloat16] = torch.bfloat16
        self._methods = frozenset(method for method, dtype in methods.items() if dtype in self._types)

    def _asks(self, value: Any) -> bool:
        return isinstance(value, torch.dtype) and value in self._types

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in self._methods:
            self.acted = True
            return args[0].double()
        if any(self._asks(value) for value in args):
            self.acted = True
            args = tuple(torch.float64 if self._asks(value) else value for value in args)
        if kwargs and self._asks(kwargs.get("dtype")):
            self.acted = True
            kwargs = {**kwargs, "dtype": torch.float64}
        return func(*args, **(kwargs or {}))


class _Float64Call:
    """Calls of a model in float64; replacing its casts makes a call one and a half times as long.

    So a call runs without this if nothing was replaced in a similar call: with equal shapes and, for masks and token
    types that are constant, equal values.
    """

    def __init__(self, model: PreTrainedModel, onnx_config: OnnxConfig) -> None:
        self._model, self._onnx_config = model, onnx_config
        self._nothing_to_widen: set[Hashable] = set()
        self._upcasting = [module for module in model.modules() if getattr(module, UPCAST, False)]

    @in_turn
    def __call__(self, nested: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        like = _likeness(nested)
        widening = contextlib.nullcontext() if like in self._nothing_to_widen else _Widening()
        with own_numerics(), _default_dtype(torch.float64), widening, self._without_upcasting():
            results = call(self._model, self._onnx_config, cast_floats(nested, torch.float64))
        if not getattr(widening, "acted", True):
            self._nothing_to_widen.add(like)
        return results

    @contextlib.contextmanager
    def _without_upcasting(self) -> Iterator[None]:
        """Inside, attention that requires float32 scores is computed like other attention, in float64."""
        try:
            for module in self._upcasting:
                setattr(module, UPCAST, False)
            yield
        finally:
            for module in self._upcasting:
                setattr(module, UPCAST, True)


def _likeness(value: Any) -> Hashable:
    if isinstance(value, Mapping):
        return tuple((name, _likeness(item)) for name, item in value.items())
    if isinstance(value, (list, tuple)):
        return tuple(_likeness(item) for item in value)
    if value.is_floating_point() or not value.numel():
        return value.dtype, value.shape
    first = value.flatten()[0]
    return value.dtype, value.shape, first.item() if bool((value == first).all()) else None
