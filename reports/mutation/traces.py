"""TorchScript traces that have lost a branch of their model, and whether the verdicts on their axes detect it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from parity.samples import Sample, SampleSource
    from parity.torchscript.model import TracedModel

COUNT = 48
_BERT, _GPT2, _IMAGES = ("bert", "default"), ("gpt2", "causal-lm-with-past"), ("convnext", "default")
# Kind → whether a mask is padded in this way.
_PADDINGS: Mapping[str, Callable[[Any], Any]] = {
    "with padding": lambda mask: not bool(mask.all()),
    "with padding on the left": lambda mask: not bool(mask[:, 0].all()),
    "with padding on the right": lambda mask: not bool(mask[:, -1].all()),
}


@dataclass(frozen=True)
class Trace:
    """A model that computes something else under a condition; its trace lacks that branch.

    Args:
        kind: the kind of the condition.
        detail: the numbers of the condition.
        model: architecture and feature.
        condition: arguments of `forward`, by name → whether it holds; it does not hold for the example of the trace.
        sizes: sizes of axes at which it holds.
        padding: the padding with which it holds.
    """

    kind: str
    detail: str
    model: tuple[str, str]
    condition: Callable[[Mapping[str, Any]], bool] = field(repr=False)
    sizes: Mapping[str, int]
    padding: str = ""

    @property
    def name(self) -> str:
        return f"{self.model[0]}: {self.kind}{f' {self.detail}' if self.detail else ''}"


def traces(seed: int) -> list[Trace]:
    """`COUNT` traces, with sizes from the seed."""
    draw = np.random.default_rng([seed, 48])
    every: list[Trace] = []
    while len(every) < COUNT:
        for trace in _round(draw):
            if trace.name not in {each.name for each in every} and len(every) < COUNT:
                every.append(trace)
        # Paddings have no sizes, so that each is added once.
    return every


def _round(draw: np.random.Generator) -> Iterator[Trace]:
    """One trace of each kind."""

    def number(low: int, high: int) -> int:
        return int(draw.integers(low, high))

    for kind, condition in _PADDINGS.items():
        side = kind.rpartition(" ")[2] if "on" in kind else "left"
        for model in (_BERT, _GPT2):
            # With a past, padding on either side is at the beginning of the past.
            own = "mixed" if model == _GPT2 and side == "right" else side
            yield Trace(kind, "", model, functools.partial(_of_mask, condition), {}, own)
    length = number(17, 40)
    yield Trace("only at one length", f"{length}", _BERT, lambda a: a["ids"].shape[1] == length, {"sequence": length})
    low = number(17, 33)
    high = low + number(4, 9)
    yield Trace(
        "only between two lengths",
        f"{low}–{high}",
        _BERT,
        lambda a: low <= a["ids"].shape[1] <= high,
        {"sequence": low},
    )
    beyond = number(17, 39)
    yield Trace("beyond a length", f"{beyond}", _BERT, lambda a: a["ids"].shape[1] > beyond, {"sequence": beyond + 1})
    batch = number(5, 8)
    yield Trace("above a batch", f"{batch}", _BERT, lambda a: a["ids"].shape[0] > batch, {"batch": batch + 1})
    past = number(26, 34)
    yield Trace("from a past on", f"{past}", _GPT2, lambda a: _past(a) >= past, {"past_sequence": past})
    below = number(8, 40)
    yield Trace(
        "where the batch is the length",
        f"below {below}",
        _BERT,
        lambda a: a["ids"].shape[0] == a["ids"].shape[1] < below,
        {"batch": 5, "sequence": 5},
    )
    rows, tokens = number(2, 5), number(9, 25)
    yield Trace(
        "a batch and a length together",
        f"above {rows} and {tokens}",
        _BERT,
        lambda a: a["ids"].shape[0] > rows and a["ids"].shape[1] > tokens,
        {"batch": rows + 1, "sequence": tokens + 1},
    )
    wider = number(1, 9)
    yield Trace(
        "for landscape images",
        f"wider by {wider}",
        _IMAGES,
        lambda a: a["pixels"].shape[-1] >= a["pixels"].shape[-2] + wider,
        {"height": 32, "width": 64},
    )


# The kinds that the verdicts missed in an earlier version.
LISTED = (
    *_PADDINGS,
    "only at one length",
    "only between two lengths",
    "beyond a length",
    "above a batch",
    "from a past on",
    "where the batch is the length",
    "for landscape images",
)


def _of_mask(condition: Callable[[Any], Any], arguments: Mapping[str, Any]) -> bool:
    return arguments["mask"] is not None and condition(arguments["mask"])


def _past(arguments: Mapping[str, Any]) -> int:
    return int(arguments["mask"].shape[1] - arguments["ids"].shape[1])


def model_of(trace: Trace) -> PreTrainedModel:
    """The tiny model, whose first output is twice as large if the condition holds."""
    from parity.fixtures.checkpoints import tiny_model

    model = tiny_model(*trace.model)
    own: Any = type(model)
    signature = inspect.signature(own.forward)

    class Conditional(own):
        @functools.wraps(own.forward)
        def forward(self, *positional: Any, **keywords: Any) -> Any:
            result = own.forward(self, *positional, **keywords)
            values = signature.bind(self, *positional, **keywords).arguments
            values = {**values, **values.get("kwargs", {})}
            facts = {
                "ids": values.get("input_ids"),
                "mask": values.get("attention_mask"),
                "pixels": values.get("pixel_values"),
            }
            if trace.condition(facts):
                first = next(iter(result.keys()))
                result[first] = 2 * result[first]
            return result

    Conditional.__name__ = own.__name__
    model.__class__ = Conditional
    return model


def judge(trace: Trace) -> tuple[str, str]:
    """`visible` or `equivalent`, and the first verdict that reports a fault; empty if none does."""
    from parity.errors import ParityError
    from parity.features import constructor
    from parity.fixtures.preprocessors import preprocessor
    from parity.registry import architecture
    from parity.samples import SampleSource
    from parity.torchscript import export, verdict
    from parity.torchscript.verdicts import FIXED, GENERALISES

    model = model_of(trace)
    name, feature = trace.model
    config = constructor(name, feature)(model.config)
    own = preprocessor(architecture(name).preprocessor_of(feature))
    source = SampleSource(config, own, model.config)
    inputs = source.generate().inputs
    # Without the proof, so that there is a trace to run; the export with its proof follows.
    traced = export(model, inputs, onnx_config=config, prove=False)
    shown = "visible" if shows(trace, traced, model, source) else "equivalent"
    try:
        export(model, inputs, onnx_config=config)
    except ParityError as error:
        return shown, type(error).__name__
    wrong = [
        f"{each.axis} {each.outcome}"
        for each in verdict(traced, model, preprocessor=own, onnx_config=config)
        if each.outcome not in (GENERALISES, FIXED)
    ]
    return shown, wrong[0] if wrong else ""


def shows(trace: Trace, traced: TracedModel, model: PreTrainedModel, source: SampleSource) -> bool:
    """Whether trace and model differ by far more than noise, with or without the condition."""
    samples = [
        source.resize({**source.axes, **trace.sizes}, padding=trace.padding, seed=3),
        source.resize(source.axes, seed=3),
    ]
    return any(_differs(traced, model, source, sample) for sample in samples)


def _differs(traced: TracedModel, model: PreTrainedModel, source: SampleSource, sample: Sample) -> bool:
    import torch

    from parity.traceable import call, evaluation_mode

    tensors: dict[str, torch.Tensor] = source.layout.flatten(sample.inputs)
    with torch.no_grad(), evaluation_mode(model, source.onnx_config.values_override):
        expected = call(model, source.onnx_config, sample.inputs)
        actual = traced.module(*(tensors[name] for name in traced.inputs))
    first = next(iter(source.onnx_config.outputs))
    one, other = expected[first].double(), actual[list(traced.outputs).index(first)].double()
    return bool((one - other).norm() > 16 * 2.0**-20 * one.norm())
