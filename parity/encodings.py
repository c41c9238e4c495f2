"""The encoder's answers to long sounds: one for each sound, however many inputs contain it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from parity.samples import LONG_SOUND

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@contextlib.contextmanager
def encode_sounds_once(model: PreTrainedModel) -> Iterator[None]:
    """Inside, an encoder runs each row of a long sound by itself, and no row twice.

    Whisper's encoder takes ten times as long as its decoder, and the samples have a few sounds only. That rows do not
    affect each other is a relation that the suite tests.

    Args:
        model: an encoder-decoder, or another model, for which this does nothing; its weights must not change inside.
    """
    # A part of a model, such as a decoder alone, has the configuration of the whole.
    find = getattr(model, "get_encoder", None) if getattr(model.config, "is_encoder_decoder", False) else None
    encoder = find() if find else None
    if encoder is None:
        yield
        return
    encoder.forward = _Rows(encoder.forward)
    try:
        yield
    finally:
        del encoder.forward


class _Rows:
    """An encoder's `forward` that keeps its answers to the rows of long sounds."""

    def __init__(self, forward: Callable[..., Any]) -> None:
        self._forward = forward
        self._answers: list[tuple[torch.Tensor, Any]] = []

    def __call__(self, *args: Any, **options: Any) -> Any:
        sounds, *others = args or (None,)
        is_long = isinstance(sounds, torch.Tensor) and math.prod(sounds.shape[1:]) > LONG_SOUND
        if not is_long or any(isinstance(other, torch.Tensor) for other in (*others, *options.values())):
            return self._forward(*args, **options)
        return _joined([self._answer(row, others, options) for row in sounds.split(1)])

    def _answer(self, row: torch.Tensor, others: Sequence[Any], options: Mapping[str, Any]) -> Any:
        for known, answer in self._answers:
            if torch.equal(known, row):
                return answer
        answer = self._forward(row, *others, **options)
        self._answers.append((row, answer))
        return answer


def _joined(rows: Sequence[Any]) -> Any:
    """The answers to single rows as the answer to all of them."""
    first = rows[0]
    if isinstance(first, torch.Tensor):
        return torch.cat(list(rows))
    if isinstance(first, Mapping):
        return type(first)(**{name: _joined([row[name] for row in rows]) for name in first})
    return tuple(map(_joined, zip(*rows, strict=True)))
