"""The halves of an encoder-decoder in files of their own, as optimum and transformers.js have them.

`encoder_model.onnx` answers with the encoder's states, `decoder_model.onnx` takes these and fills the caches, and
`decoder_with_past_model.onnx` goes on from the caches.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch

from parity.axes import DECODER_TEXT, ENCODER_TEXT, Axes, Role, role_of
from parity.configs import OnnxSeq2SeqConfigWithPast
from parity.configs.past import prefill_class
from parity.errors import UsageError
from parity.releases import PAST, arguments_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from parity.configs import OnnxConfig

# File → the part that it is; empty for a whole model.
PARTS = {
    "model.onnx": "",
    "encoder_model.onnx": "encoder",
    "decoder_model.onnx": "decoder",
    "decoder_with_past_model.onnx": "step",
}
# Files that are found and not judged, with the reason.
LEFT_OUT = {"decoder_model_merged.onnx": "it has both decoders in one graph, which parity cannot judge yet"}


def find_files(directory: Path) -> dict[str, Path]:
    """Part → its file in a directory, or in `onnx` below it, where transformers.js keeps them.

    Raises:
        UsageError: there is none.
    """
    for place in (directory, directory / "onnx"):
        if found := {part: place / name for name, part in PARTS.items() if (place / name).is_file()}:
            return found
    raise UsageError(f"file {directory}: is a directory without any of {', '.join(PARTS)}; give the ONNX file to judge")


def left_out(files: Mapping[str, Path]) -> list[str]:
    """A sentence for each file beside these that is not judged."""
    place = next(iter(files.values())).parent
    return [f"{place / name}: not judged, {why}" for name, why in LEFT_OUT.items() if (place / name).is_file()]


def config_of_part(base: OnnxConfig, part: str) -> OnnxConfig:
    """The configuration of a part, from that of the whole with past.

    Raises:
        UsageError: the model is no encoder-decoder with past.
    """
    if not isinstance(base, OnnxSeq2SeqConfigWithPast) or not base.dead_inputs:
        raise UsageError(
            f"{part}: is a part of an encoder-decoder with past, which {base.task} is not; name such a feature"
            " with --feature"
        )
    return _CLASSES[part](type(base))(base._config, base.task, list(base._patching_specs), use_past=True)


def wrap(model: PreTrainedModel, part: str) -> Any:
    """What of the model a part answers as."""
    if part == "encoder":
        return model.get_encoder()
    return _Decoder(model)


class _Decoder(torch.nn.Module):
    """A decoder with its head, as a function of what its file takes."""

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
            # Never read: the caches stand for it.
            key = self._first_cross_key(past_key_values)
            width = getattr(self.config, "d_model", None) or self.config.hidden_size
            encoder_hidden_states = key[:, 0, :, :1].expand(-1, -1, width)
        inputs: dict[str, Any] = {
            "attention_mask": encoder_attention_mask,
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
            # No decoder runs.
            return dict(inputs)

    return Encoder


_MASK, _STATES = "encoder_attention_mask", "encoder_hidden_states"


def _decoder(base: type[OnnxSeq2SeqConfigWithPast]) -> type[OnnxSeq2SeqConfigWithPast]:
    class Decoder(base):  # type: ignore[valid-type, misc]  # known at run time only
        part = "decoder"
        dead_inputs: Mapping[str, str] = MappingProxyType({})

        @property
        def inputs(self) -> OrderedDict[str, Mapping[int, str]]:
            text = {0: "batch", 1: ENCODER_TEXT}
            return OrderedDict(input_ids={0: "batch", 1: DECODER_TEXT}, **{_STATES: text, _MASK: text})

        @property
        def outputs(self) -> OrderedDict[str, Mapping[int, str]]:
            return OrderedDict(_outputs(super().outputs, DECODER_TEXT, ("decoder", "encoder")))

        def complete_inputs(self, inputs: Mapping[str, Any], parameters: Iterable[str]) -> dict[str, Any]:
            return dict(inputs)

        def generate_dummy_inputs(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
            whole = super().generate_dummy_inputs(*args, **kwargs)
            width = getattr(self._config, "d_model", None) or self._config.hidden_size
            states = torch.randn((*whole["input_ids"].shape, width), generator=torch.Generator().manual_seed(0))
            return {"input_ids": whole["decoder_input_ids"], _STATES: states, _MASK: whole["attention_mask"]}

    return Decoder


def _step(base: type[OnnxSeq2SeqConfigWithPast]) -> type[OnnxSeq2SeqConfigWithPast]:
    class Step(base):  # type: ignore[valid-type, misc]  # known at run time only
        part = "step"
        dead_inputs: Mapping[str, str] = MappingProxyType({})

        @property
        def inputs(self) -> OrderedDict[str, Mapping[int, str]]:
            own: dict[str, Mapping[int, str]] = {
                _MASK: {0: "batch", 1: ENCODER_TEXT},
                "input_ids": {0: "batch", 1: DECODER_TEXT},
            }
            caches = {name: axes for name, axes in super().inputs.items() if role_of(name) is Role.CACHE}
            return OrderedDict({**own, **caches})

        @property
        def outputs(self) -> OrderedDict[str, Mapping[int, str]]:
            return OrderedDict(_outputs(super().outputs, f"past_decoder_sequence + {DECODER_TEXT}", ("decoder",)))

        def complete_inputs(self, inputs: Mapping[str, Any], parameters: Iterable[str]) -> dict[str, Any]:
            return dict(inputs)

        def generate_dummy_inputs(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
            whole = super().generate_dummy_inputs(*args, **kwargs)
            own = {_MASK: whole["attention_mask"], "input_ids": whole["decoder_input_ids"]}
            return {**own, PAST: whole[PAST]}

    return Step


def _outputs(whole: Axes, length: str, sides: tuple[str, ...]) -> dict[str, Mapping[int, str]]:
    """Logits and those caches that a part returns; the decoder's own are as long as `length`."""
    own: dict[str, Mapping[int, str]] = {"logits": {0: "batch", 1: DECODER_TEXT}}
    for name, axes in whole.items():
        side = next((side for side in sides if f".{side}." in name), "")
        if role_of(name) is Role.CACHE and side:
            own[name] = {0: "batch", 2: length} if side == "decoder" else dict(axes)
    return own


_CLASSES: Mapping[str, Callable[[type[OnnxSeq2SeqConfigWithPast]], type[OnnxSeq2SeqConfigWithPast]]] = {
    "encoder": _encoder,
    "decoder": _decoder,
    "step": _step,
}
