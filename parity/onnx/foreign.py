"""A file of another exporter and a checkpoint → the configuration of that file, and the model's names for its own."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parity import schema
from parity.axes import Axes, Role, canonical_name, is_text, role_of
from parity.dtypes import dtype_name
from parity.errors import UsageError
from parity.judge.contract import Contract, Value
from parity.judge.foreign import View
from parity.judge.names import Explicit, Known, Matching, is_generated, match_names
from parity.paths import short
from parity.schema import SchemaError
from parity.traceable import call, evaluation_mode

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from parity.configs import OnnxConfig
    from parity.samples import Sample, SampleSource

_NAMES = schema.entries(schema.text(), schema.text())
_TABLE = schema.table({}, {"inputs": _NAMES, "outputs": _NAMES}, closed=True)
# Inputs of other exporters' files that ours compute from the rest, with their dynamic axes.
DERIVED_INPUTS = {"position_ids": {0: "batch", 1: "sequence"}}


@dataclass(frozen=True)
class Adaptation:
    """The adaptation of a file of another exporter: its names, and a configuration with its inputs and outputs.

    Args:
        view: the file under the model's names.
        onnx_config: with the inputs and outputs that the file has.
        fixed: axis → size, for the axes that it takes at one size only.
    """

    view: View
    onnx_config: OnnxConfig
    fixed: Mapping[str, int]

    @property
    def scope(self) -> str:
        """The only sizes at which the file is judged, as text; empty if it takes all."""
        return " × ".join(f"{name} {size}" for name, size in self.fixed.items())


def adapt(
    contract: Contract, source: SampleSource, model: PreTrainedModel, explicit: Explicit | None = None
) -> Adaptation:
    """Match the names of a file with those of its model.

    Args:
        contract: of the file.
        source: of inputs for the feature.
        model: is called once, for its outputs.
        explicit: the table of `--names`.
    """
    explicit, config = explicit or Explicit(), source.onnx_config
    flat = source.layout.flatten(source.dummy)
    requests = _requests(contract)
    with evaluation_mode(model, {**(config.values_override or {}), **requests}):
        returned = call(model, config, source.dummy)
    order = _forward_order(model, flat)
    inputs = [_known(name, flat[name]) for name in order]
    names = {value.name for value in contract.inputs}
    inputs += [Known(name, False, len(DERIVED_INPUTS[name])) for name in DERIVED_INPUTS if name in names]
    # Declared outputs come first: if several fit a place, the declared output is what the file was exported for.
    outputs = [_known(name, returned[name]) for name in sorted(returned, key=lambda name: name not in config.outputs)]
    matched_inputs = match_names(contract.inputs, inputs, "input", explicit.inputs)
    matched_outputs = match_names(contract.outputs, outputs, "output", explicit.outputs)
    view = View(contract, _without_derived(matched_inputs, names), matched_outputs, _required(config))
    axes = {
        name: dict(config.outputs[name]) if name in config.outputs else _axes_of(name, returned[name], source)
        for name in matched_outputs.names.values()
    }
    narrowed = narrow(config, view.left_out, axes, requests)
    return Adaptation(view, narrowed, view.fixed_sizes(narrowed))


def _requests(contract: Contract) -> dict[str, bool]:
    """The items of the model's configuration without which it does not return what the file has as outputs."""
    outputs = [value.name for value in contract.outputs]
    kinds = ("hidden_states", "attentions")
    return {f"output_{kind}": True for kind in kinds if any(f"{kind}." in name for name in outputs)}


def _required(config: OnnxConfig) -> frozenset[str]:
    """The outputs that a file of a feature has to have; none in particular for a tower."""
    return frozenset() if config.part in ("text", "vision") else frozenset(config.outputs)


def _forward_order(model: PreTrainedModel, flat: Mapping[str, torch.Tensor]) -> list[str]:
    """The names of the inputs in the order of the model's `forward`, which exporters keep."""
    from parity.releases import parameters_of

    model_class: type = type(model)
    places = {name: place for place, name in enumerate(parameters_of(model_class))}
    return sorted(flat, key=lambda name: places.get(name.partition(".")[0], len(places)))


def _known(name: str, tensor: torch.Tensor) -> Known:
    return Known(name, "float" in dtype_name(tensor.dtype), tensor.dim())


def _without_derived(matching: Matching, names: Iterable[str]) -> Matching:
    missing = tuple(name for name in matching.missing if name not in DERIVED_INPUTS)
    return Matching(matching.names, matching.by_place, missing, matching.unknown)


def _axes_of(name: str, tensor: torch.Tensor, source: SampleSource) -> dict[int, str]:
    """The named axes of an output that the configuration does not declare: the batch, and the text if it is as long."""
    sizes = source.axes
    axes = {0: "batch"} if "batch" in sizes and tensor.dim() else {}
    if role_of(name) is Role.CACHE:
        return axes
    texts = [axis_name for axis_name in sizes if is_text(axis_name)]
    if tensor.dim() == 4 and len(texts) == 1 and tensor.shape[2] == sizes[texts[0]]:
        # Attentions: masked keys are defined, masked queries are not.
        return {**axes, 2: texts[0]}
    if tensor.dim() > 2 and len(texts) == 1 and tensor.shape[1] == sizes[texts[0]]:
        axes[1] = texts[0]
    return axes


def narrow(
    config: OnnxConfig, left_out: Iterable[str], outputs: Axes, overrides: Mapping[str, Any] | None = None
) -> OnnxConfig:
    """The configuration with fewer inputs, with these outputs, and with the items of the model's that return them.

    Args:
        config: the configuration; it is copied.
        left_out: names of inputs to drop.
        outputs: their named axes.
        overrides: items beside those of `OnnxConfig.values_override`.
    """
    own, base, dropped = copy.copy(config), type(config), frozenset(left_out)
    kept = {name: dict(axes) for name, axes in config.inputs.items() if name not in dropped}
    declared = {name: dict(axes) for name, axes in outputs.items()}
    values = {**(config.values_override or {}), **(overrides or {})} or None
    own.__class__ = type(
        base.__name__,
        (base,),
        {
            "inputs": property(lambda self: kept),
            "outputs": property(lambda self: declared),
            "values_override": property(lambda self: values),
        },
    )
    return own


def model_outputs(values: Iterable[Value], explicit: Mapping[str, str]) -> list[str]:
    """The model's names of a file's outputs; names that an exporter has generated are left out."""
    return [
        explicit.get(value.name, canonical_name(value.name, "output"))
        for value in values
        if value.name in explicit or not is_generated(value.name)
    ]


def model_inputs(values: Iterable[Value]) -> list[str]:
    """The model's names of a file's inputs."""
    return [canonical_name(value.name, "input") for value in values]


def read_names(path: Path | None) -> Explicit:
    """Read the table of a file of `--names`: `{"inputs": {"the file's": "the model's"}, "outputs": {…}}`.

    Raises:
        UsageError: the file has no such table.
    """
    if path is None:
        return Explicit()
    try:
        table = schema.read_json(path, _TABLE)
        for side, names in table.items():
            if len(set(names.values())) != len(names):
                raise SchemaError(f"{short(path)}.{side}: names one thing twice")
    except SchemaError as error:
        raise UsageError(
            f'--names {error}; should be like {{"inputs": {{"ids": "input_ids"}}, "outputs": {{}}}}, with the names of'
            " the file before the model's"
        ) from None
    return Explicit(**table)


def require_model_names(explicit: Explicit, view: View) -> None:
    """Refuse a table of `--names` that gives an input or output of the file a name that the model does not have.

    Raises:
        UsageError
    """
    for side, table, matching in (
        ("inputs", explicit.inputs, view.inputs),
        ("outputs", explicit.outputs, view.outputs),
    ):
        if wrong := [own for own in matching.unknown if own in table]:
            known = ", ".join(dict.fromkeys([*matching.names.values(), *matching.missing]))
            raise UsageError(f"--names {side}.{wrong[0]}: is {table[wrong[0]]}, should be one of {known}")


def at_fixed_sizes(
    choose: Callable[..., list[Sample]], source: SampleSource, longest: int | None, fixed: Mapping[str, int]
) -> list[Sample]:
    """The samples of `choose`, resized with other values to the sizes that a file takes, or those that have them.

    Args:
        choose: such as `shapes.choose_samples`.
        source: of the samples.
        longest: the longest sequence that the model takes, in tokens.
        fixed: axis → the only size that the file takes.
    """
    samples = choose(source, longest=longest)
    if not fixed:
        return samples
    if not source.resizable:
        return [sample for sample in samples if all(sample.sizes.get(name) == size for name, size in fixed.items())]
    return [
        source.resize({**sample.sizes, **fixed}, padding=sample.padding, seed=seed)
        for seed, sample in enumerate(samples)
    ]
