"""Weights of a checkpoint that the chosen class does not use: reported, or refused if they are whole layers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from parity.errors import CheckpointError

# Buffers that older releases wrote into checkpoints; they can be computed, so nothing that was learned is lost.
_COMPUTED = ("position_ids", "token_type_ids", "inv_freq", "masked_bias", "num_batches_tracked")
_NAMES = 5


@dataclass(frozen=True)
class Policy:
    """The treatment of weights that a model does not use.

    Args:
        allow: whether whole layers may be left out.
        warn: gets one line for the user.
    """

    allow: bool = False
    warn: Callable[[str], None] = logging.getLogger("parity").warning


def modules_of(names: Iterable[str]) -> list[str]:
    """The modules of these weights, without weights that can be computed."""
    learned = [name for name in names if name.rpartition(".")[2] not in _COMPUTED]
    return list(dict.fromkeys(name.rpartition(".")[0] or name for name in sorted(learned)))


def whole_layers(unused: Iterable[str], own: Iterable[str], prefix: str, *, bare: bool) -> list[str]:
    """The numbered layers of the base model, by name, of which the model uses no weight.

    Args:
        unused: names of the checkpoint's weights that the model does not use.
        own: names of the model's weights.
        prefix: of the base model's weights in a model with a head.
        bare: whether the checkpoint holds the base model alone, without that prefix.
    """
    start = f"{prefix}."
    layers = {layer for name in own for layer in _layers(name.removeprefix(start))}
    absent: dict[str, None] = {}
    for name in sorted(unused):
        if bare or name.startswith(start):
            # Of nested layers, the outermost.
            first = next((each for each in _layers(name.removeprefix(start)) if each not in layers), None)
            if first is not None:
                absent[first] = None
    return list(absent)


def _layers(name: str) -> Iterator[str]:
    """`encoder.layers.0` and `encoder.layers.0.blocks.1` of `encoder.layers.0.blocks.1.norm.weight`."""
    parts = name.split(".")
    return (".".join(parts[: place + 1]) for place, part in enumerate(parts) if part.isdecimal())


def listing(names: Sequence[str]) -> str:
    """The first names, and the number of the others."""
    more = len(names) - _NAMES
    return ", ".join(names[:_NAMES]) + (f" and {more} more" if more > 0 else "")


def require_layers(source: str, model_class: str, layers: Sequence[str]) -> None:
    """Refuse a model that leaves out whole layers of its checkpoint.

    Args:
        source: name of the checkpoint.
        model_class: name of the model's class.
        layers: from `whole_layers`.

    Raises:
        CheckpointError
    """
    if layers:
        raise CheckpointError(
            f"{source}: holds weights of {listing(layers)}, which {model_class} does not use: only a part of the model"
            " would be exported; correct the number of layers in config.json, choose the feature that it was trained"
            " for, or give --allow-unused"
        )
