"""Parts of a model in files of their own: halves of an encoder-decoder, a decoder's two steps, and towers.

`encoder_model.onnx` returns the encoder's states, `decoder_model.onnx` takes these and fills the caches, and
`decoder_with_past_model.onnx` continues from the caches. A decoder without an encoder has the latter two.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch

from parity.axes import DECODER_TEXT, ENCODER_TEXT, Axes, Role, parts, role_of
from parity.configs import OnnxConfigWithPast, OnnxSeq2SeqConfigWithPast
from parity.configs.past import prefill_class
from parity.errors import UsageError
from parity.judge.names import Explicit
from parity.onnx import towers
from parity.releases import PAST, arguments_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from parity.configs import OnnxConfig


def config_of_part(base: OnnxConfig, part: str) -> OnnxConfig:
    """The configuration of a part, derived from that of the whole.

    Raises:
        UsageError: the model has no such part.
    """
    classes = _classes(base)
    if part not in classes:
        there = f"has {', '.join(classes)}" if classes else "has no parts"
        raise UsageError(
            f"{part}: is {_MEANING[part]}, but {base.task} of {base._config.model_type} {there}; name another feature"
            " with --feature"
        )
    build = classes[part]
    if isinstance(base, OnnxConfigWithPast):
        return build(type(base))(base._config, base.task, list(base._patching_specs), use_past=True)
    return build(type(base))(base._config, base.task, list(base._patching_specs))


_MEANING = {
    "encoder": "the encoder of an encoder-decoder",
    "decoder": "the first step of a model with past",
    "step": "a further step of a model with past",
    "prefill": "the first step of a model with past",
    "text": "the texts' encoder of a model of texts and images",
    "vision": "the images' encoder of a model of texts and images",
}


def has_part(base: OnnxConfig, part: str) -> bool:
    """Whether the model of a configuration has this part."""
    return part in _classes(base)


# The names of transformers' exporter for the inputs of a decoder, if nothing else has the name.
_DECODER_INPUTS = {
    "decoder_input_ids": "input_ids",
    "attention_mask": "encoder_attention_mask",
}


def with_names(explicit: Explicit, part: str) -> Explicit:
    """The table of `--names`, with other exporters' names for the inputs of a part."""
    if part not in ("decoder", "step"):
        return explicit
    return replace(explicit, inputs={**_DECODER_INPUTS, **explicit.inputs})


def _classes(base: OnnxConfig) -> Mapping[str, Callable[[Any], Any]]:
    """Part → function that derives the class of its configuration from the whole's."""
    if isinstance(base, OnnxSeq2SeqConfigWithPast) and base.dead_inputs:
        return {"encoder": _encoder, "decoder": _decoder, "step": _step, "prefill": prefill_class}
    if isinstance(base, OnnxConfigWithPast) and base.use_past:
        return {"decoder": _prompt, "prefill": _prompt, "step": lambda whole: whole}
    return towers.CLASSES if towers.has_towers(base) else {}


def wrap(model: PreTrainedModel, base: OnnxConfig, part: str) -> Any:
    """The module that computes a part of the model.

    Args:
        model: the whole model.
        base: the configuration of the whole.
        part: a value of `PARTS`.
    """
    if part in towers.CLASSES:
        return towers.Tower(model, part)
    if not base.dead_inputs or part == "prefill":
        return model
    return model.get_encoder() if part == "encoder" else _Decoder(model)


class _Decoder(torch.nn.Module):
    """A decoder with its head, as a function of the inputs of its file."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model, self.config = model, model.config

    def forward(
        self,
        input_ids: torch.Tensor,
        encoder_attention_mask: torch.Tensor | None = None,
        encoder_hidden_states: torch.Tensor | None = None,
        past_key_values: Any = None,
        return_dict: bool = True,
    ) -> Any:
        from transformers.modeling_outputs import BaseModelOutput

        if encoder_hidden_states is None:
            # Never read, because the caches replace it.
            key = self._first_cross_key(past_key_values)
            width = getattr(self.config, "d_model", None) or self.config.hidden_size
            encoder_hidden_states = key[:, 0, :, :1].expand(-1, -1, width)
        mask = {} if encoder_attention_mask is None else {"attention_mask": encoder_attention_mask}
        inputs: dict[str, Any] = {
            **mask,
            "encoder_outputs": BaseModelOutput(last_hidden_state=encoder_hidden_states),
            "decoder_input_ids": input_ids,
        }
        if past_key_values is not None:
            inputs[PAST] = past_key_values
        model_class: type = type(self.model)
        return self.model(**arguments_of(model_class, inputs), use_cache=True, return_dict=return_dict)

    @staticmethod
    def _first_cross_key(past: Any) -> torch.Tensor:
        from parity.releases import from_cache, is_cache

        layers = from_cache(past) if is_cache(past) else past
        return layers[0][2]


def _encoder(base: type[OnnxSeq2SeqConfigWithPast]) -> type[OnnxSeq2SeqConfigWithPast]:
    class Encoder(prefill_class(base)):  # type: ignore[misc]  # known at run time only
        part = "encoder"

        @property
        def values_override(self) -> Mapping[str, Any] | None:
            return {"use_cache": False} if hasattr(self._config, "use_cache") else None

        @property
        def outputs(self) -> OrderedDict[str, Mapping[int, str]]:
            return OrderedDict(last_hidden_state={0: "batch", 1: ENCODER_TEXT})

        def complete_inputs(self, inputs: Mapping[str, Any], parameters: Iterable[str]) -> dict[str, Any]:
            # No decoder runs, so it needs no inputs.
            return dict(inputs)

    return Encoder


_MASK, _STATES = "encoder_attention_mask", "encoder_hidden_states"


def _encoder_axes(inputs: Axes) -> tuple[dict[int, str], dict[str, Mapping[int, str]]]:
    """The axes of the encoder's states and of its mask, from the inputs of the whole."""
    own = {name: axes for name, axes in inputs.items() if role_of(name) is not Role.CACHE}
    long = any(ENCODER_TEXT in axes.values() for axes in own.values())
    states = {0: "batch", **({1: ENCODER_TEXT} if long else {})}
    return states, {_MASK: states} if "attention_mask" in own else {}


def _decoder(base: type[OnnxSeq2SeqConfigWithPast]) -> type[OnnxSeq2SeqConfigWithPast]:
    class Decoder(base):  # type: ignore[valid-type, misc]  # known at run time only
        part = "decoder"
        dead_inputs: Mapping[str, str] = MappingProxyType({})

        @property
        def inputs(self) -> OrderedDict[str, Mapping[int, str]]:
            states, mask = _encoder_axes(super().inputs)
            return OrderedDict(input_ids={0: "batch", 1: DECODER_TEXT}, **{_STATES: states}, **mask)

        @property
        def outputs(self) -> OrderedDict[str, Mapping[int, str]]:
            return OrderedDict(_outputs(super().outputs, DECODER_TEXT, ("decoder", "encoder")))

        def complete_inputs(self, inputs: Mapping[str, Any], parameters: Iterable[str]) -> dict[str, Any]:
            return dict(inputs)

        def generate_dummy_inputs(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
            whole = super().generate_dummy_inputs(*args, **kwargs)
            width = getattr(self._config, "d_model", None) or self._config.hidden_size
            rows, _, length, _ = whole[PAST][0][2].shape
            states = torch.randn((rows, length, width), generator=torch.Generator().manual_seed(0))
            mask = {_MASK: whole["attention_mask"]} if _MASK in self.inputs else {}
            return {"input_ids": whole["decoder_input_ids"], _STATES: states, **mask}

    return Decoder


def _step(base: type[OnnxSeq2SeqConfigWithPast]) -> type[OnnxSeq2SeqConfigWithPast]:
    class Step(base):  # type: ignore[valid-type, misc]  # known at run time only
        part = "step"
        dead_inputs: Mapping[str, str] = MappingProxyType({})

        @property
        def inputs(self) -> OrderedDict[str, Mapping[int, str]]:
            _, mask = _encoder_axes(super().inputs)
            own: dict[str, Mapping[int, str]] = {**mask, "input_ids": {0: "batch", 1: DECODER_TEXT}}
            caches = {name: axes for name, axes in super().inputs.items() if role_of(name) is Role.CACHE}
            return OrderedDict({**own, **caches})

        @property
        def outputs(self) -> OrderedDict[str, Mapping[int, str]]:
            return OrderedDict(_outputs(super().outputs, f"past_decoder_sequence + {DECODER_TEXT}", ("decoder",)))

        def complete_inputs(self, inputs: Mapping[str, Any], parameters: Iterable[str]) -> dict[str, Any]:
            return dict(inputs)

        def generate_dummy_inputs(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
            whole = super().generate_dummy_inputs(*args, **kwargs)
            mask = {_MASK: whole["attention_mask"]} if _MASK in self.inputs else {}
            return {**mask, "input_ids": whole["decoder_input_ids"], PAST: whole[PAST]}

    return Step


def _prompt(base: type[OnnxConfigWithPast]) -> type[OnnxConfigWithPast]:
    """The first step of a decoder without an encoder: no past as input, the caches as outputs."""

    class Prompt(base):  # type: ignore[valid-type, misc]  # known at run time only
        part = "decoder"

        @property
        def inputs(self) -> OrderedDict[str, Mapping[int, str]]:
            whole = super().inputs
            return OrderedDict((name, _own(whole[name])) for name in whole if role_of(name) is not Role.CACHE)

        @property
        def outputs(self) -> OrderedDict[str, Mapping[int, str]]:
            return OrderedDict((name, _own(axes)) for name, axes in super().outputs.items())

        def generate_dummy_inputs(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
            whole = super().generate_dummy_inputs(*args, **kwargs)
            length = whole["input_ids"].shape[1]
            return {name: whole[name][:, -length:] for name in self.inputs}

    return Prompt


def _own(axes: Mapping[int, str]) -> dict[int, str]:
    """The axes without the past."""
    return {axis: parts(name)[-1] for axis, name in axes.items()}


def _outputs(whole: Axes, length: str, sides: tuple[str, ...]) -> dict[str, Mapping[int, str]]:
    """Logits, and the caches that a part returns; the decoder's own have the length `length`."""
    own: dict[str, Mapping[int, str]] = {"logits": {0: "batch", 1: DECODER_TEXT}}
    for name, axes in whole.items():
        side = next((side for side in sides if f".{side}." in name), "")
        if role_of(name) is Role.CACHE and side:
            own[name] = {0: "batch", 2: length} if side == "decoder" else dict(axes)
    return own
