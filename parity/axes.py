"""The meaning of the names of axes, inputs and outputs: kinds of axes, sums of axes, roles, and a signature."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

# Name of an input or output → axis → the name of the axis.
Axes = Mapping[str, Mapping[int, str]]

BATCHES = ("batch", "image_batch")
ENCODER_TEXT, DECODER_TEXT = "encoder_sequence", "decoder_sequence"
# The texts whose length is `seq_length` of `generate_dummy_inputs`.
FIRST_TEXTS = ("sequence", ENCODER_TEXT)
TEXTS = (*FIRST_TEXTS, DECODER_TEXT)
# Text → the past before it.
PAST_OF = {"sequence": "past_sequence", DECODER_TEXT: "past_decoder_sequence"}
PASTS = tuple(PAST_OF.values())
IMAGES = ("height", "width")
CHOICE = "choice"
SOUND = "sound"
KNOWN = (*BATCHES, *TEXTS, *PASTS, *IMAGES, CHOICE, SOUND)


def parts(axis: str) -> tuple[str, ...]:
    """The parts of an axis's name: `a + b` is as long as `a` and `b` together."""
    return tuple(part.strip() for part in axis.split("+"))


def is_sum(axis: str) -> bool:
    """Whether the axis is as long as several others together."""
    return "+" in axis


def is_text(axis: str) -> bool:
    """Whether the axis counts tokens of a text that is an input, not of its past."""
    return "sequence" in axis and not axis.startswith("past_")


def is_past(axis: str) -> bool:
    """Whether the axis counts tokens of a past, alone or together with those of a text."""
    return "past" in axis


def text_of_output(name: str) -> str:
    """The axis of the tokens in an output of an encoder-decoder: the encoder's in its own, else the decoder's."""
    return ENCODER_TEXT if "encoder" in name else DECODER_TEXT


def size_of(axis: str, sizes: Mapping[str, int]) -> int | None:
    """The size of an axis from those of its parts; None if one of these is unknown."""
    return sum(sizes[part] for part in parts(axis)) if all(part in sizes for part in parts(axis)) else None


class Role(Enum):
    """The meaning of an input or output for the model."""

    TOKENS = "tokens"
    MASK = "mask"
    TOKEN_TYPES = "token types"
    PIXELS = "pixels"
    SOUND = "sound"
    STATES = "states"
    CACHE = "cache"
    BOXES = "boxes"
    LOGITS = "logits"
    OTHER = "other"


_ROLES = {
    "token_type_ids": Role.TOKEN_TYPES,
    "pixel_values": Role.PIXELS,
    "input_features": Role.SOUND,
    "input_values": Role.SOUND,
    "bbox": Role.BOXES,
    # The encoder's output, which is an input of a decoder in a file of its own.
    "encoder_hidden_states": Role.STATES,
    # Perceiver's input: ids of a vocabulary, or the pixels of an image if they are floating point.
    "inputs": Role.TOKENS,
}
# Input → the mask that marks its padding tokens or pixels.
MASK_OF = {
    "input_ids": "attention_mask",
    "inputs": "attention_mask",
    "decoder_input_ids": "decoder_attention_mask",
    "pixel_values": "pixel_mask",
    "encoder_hidden_states": "encoder_attention_mask",
}
PADDING_MASKS = tuple(dict.fromkeys(MASK_OF.values()))
PIXEL_MASK = MASK_OF["pixel_values"]
STATES_MASK = MASK_OF["encoder_hidden_states"]
# Longformer's mask of global attention: it marks no padding, so any of its values may be 0 or 1.
GLOBAL_MASK = "global_attention_mask"
TOKENS = ("input_ids", "decoder_input_ids", "inputs")


def role_of(name: str) -> Role:
    """The role of an input or output with this name."""
    if name in _ROLES:
        return _ROLES[name]
    if name.startswith(("past_key_values.", "present.")):
        return Role.CACHE
    if "logits" in name:
        return Role.LOGITS
    if name.endswith("input_ids"):
        return Role.TOKENS
    if "mask" in name:
        return Role.MASK
    return Role.TOKEN_TYPES if "token_type" in name else Role.OTHER


# Names of sentence-transformers, and of transformers' own exporter.
_ALIASES = {
    "token_embeddings": "last_hidden_state",
    "encoder_outputs.last_hidden_state": "encoder_hidden_states",
}
_CACHE = re.compile(
    # transformers 5: `input.cache.cross_attention_cache.layers.0.keys`.
    r"(?:input\.|output\.)?(?:past_key_values|past|present_key_values|present|cache)[._]"
    r"(?:(self|cross)_attention_cache[._])?(?:layers[._])?(\d+)[._]"
    r"(?:(decoder|encoder|self|cross)[._])?(key|value)s?"
)
_SIDES = {"decoder": "decoder.", "self": "decoder.", "encoder": "encoder.", "cross": "encoder.", None: ""}


def canonical_name(name: str, kind: str) -> str:
    """The name in parity's files for a name in another exporter's file.

    Args:
        kind: `input` or `output`.
    """
    if match := _CACHE.fullmatch(name):
        before, layer, side, part = match.groups()
        return f"{'past_key_values' if kind == 'input' else 'present'}.{layer}.{_SIDES[before or side]}{part}"
    return _ALIASES.get(name, name)


class HasAxes(Protocol):
    """Inputs and outputs with the names of their dynamic axes, in order, as an OnnxConfig declares them."""

    @property
    def inputs(self) -> Axes: ...

    @property
    def outputs(self) -> Axes: ...


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs of a file, in order, each with the names of its dynamic axes."""

    inputs: Axes
    outputs: Axes

    @classmethod
    def from_config(cls, onnx_config: HasAxes, names: Sequence[str] | None = None) -> Signature:
        """The signature of a configuration, with the inputs in `names` in that order, or with all."""
        inputs = onnx_config.inputs
        return cls({name: dict(inputs[name]) for name in names or inputs}, onnx_config.outputs)

    @property
    def dynamic_axes(self) -> dict[str, dict[int, str]]:
        """Name → axis → name of the axis, in the form for `torch.onnx.export`."""
        return {name: dict(axes) for side in (self.inputs, self.outputs) for name, axes in side.items()}
