"""Lengths at which a model changes its behaviour, by its configuration, and the lengths of texts that show it.

A window, a block, a bucket of distances, a maximum that rescales rotary positions: below that length the model computes
as if there were none, so a file that lacks it is right for every short text. Lengths depend on the configuration alone,
never on a clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .tokens import positions_of, text_config

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# The longest text that is tried because a position table ends there, and because a configuration names its length.
LONGEST_ROW, LONGEST_CHANGE = 512, 2048
# The longest text for a checkpoint of more bytes than this, unless `thorough` is set.
BIG_CHECKPOINT, LONGEST_ROW_OF_BIG = 100_000_000, 128
# The length to try if a configuration names none.
USUAL_ROW = 64

# Items after whose value, in tokens, the model computes differently: a causal window, a window of two halves, a block,
# the distance from which on all are treated as equal.
_ITEMS = (
    "sliding_window",
    "sliding_window_size",
    "window_size",
    "attention_window",
    "attention_window_size",
    "local_attention",
    "block_size",
    "global_block_size",
    "attention_chunk_size",
    "chunk_size",
    "lsh_attn_chunk_length",
    "local_attn_chunk_length",
    "relative_attention_max_distance",
    "relative_max_distance",
    "max_relative_positions",
    "position_buckets",
    "relative_attention_num_buckets",
    "original_max_position_embeddings",
)
# Items that count the tokens on one side: a token sees one more, itself.
_RADII = ("local_radius",)
# Item → whether the configuration switches it off.
_SWITCHES: Mapping[str, Callable[[Any], bool]] = {
    "sliding_window": lambda text: getattr(text, "use_sliding_window", True) is False,
    "block_size": lambda text: hasattr(text, "attention_type"),
}
# Descriptions of rotary positions: of transformers 5, and of transformers 4.
_ROPES = ("rope_parameters", "rope_scaling")


@dataclass(frozen=True, order=True)
class Change:
    """A length, in tokens, up to which a model behaves in one way, and the configuration item that sets it."""

    length: int
    item: str


@dataclass(frozen=True)
class Lengths:
    """The lengths of texts to try, in tokens, ascending; and the changes that none of them shows, with the reason."""

    tokens: tuple[int, ...]
    untried: Mapping[Change, str]


def changes_of(config: PretrainedConfig) -> list[Change]:
    """The lengths after which the model behaves differently, by its configuration, ascending; each length once."""
    first: dict[int, Change] = {}
    for change in sorted(_changes(text_config(config))):
        first.setdefault(change.length, change)
    return list(first.values())


def _changes(text: Any) -> Iterator[Change]:
    for item in _ITEMS:
        if item not in _SWITCHES or not _SWITCHES[item](text):
            yield from (Change(length, item) for length in _whole_numbers(getattr(text, item, None)))
    for item in _RADII:
        yield from (Change(length + 1, item) for length in _whole_numbers(getattr(text, item, None)))
    if getattr(text, "attention_type", None) == "block_sparse":
        # Up to this number of blocks, big_bird attends to everything.
        for length in _whole_numbers(getattr(text, "block_size", None)):
            yield Change((5 + 2 * getattr(text, "num_random_blocks", 3)) * length, "block_size")
    for rope in _ropes(text):
        for length in _whole_numbers(rope.get("original_max_position_embeddings")):
            yield Change(length, "original_max_position_embeddings")
        # transformers 4 had `type` first.
        if "dynamic" in (rope.get("rope_type"), rope.get("type")) and (longest := positions_of(text)):
            yield Change(longest, "max_position_embeddings")


def _ropes(text: Any) -> Iterator[Mapping[str, Any]]:
    """The descriptions of rotary positions: one, or one for each type of layer."""
    for name in _ROPES:
        rope = getattr(text, name, None)
        if isinstance(rope, Mapping):
            yield rope
            yield from (each for each in rope.values() if isinstance(each, Mapping))


def _whole_numbers(value: Any) -> list[int]:
    """The positive whole numbers of an item that has one, or one for each layer."""
    values = value if isinstance(value, (list, tuple)) else [value]
    return [each for each in values if isinstance(each, int) and not isinstance(each, bool) and each > 0]


def lengths_to_try(
    config: PretrainedConfig, longest: int | None, *, big: bool = False, thorough: bool = False
) -> Lengths:
    """The lengths of the texts that show what a model does: its longest, and one past each of its changes.

    Without a longest text, one past each change, or `USUAL_ROW` tokens if the configuration names none.

    Args:
        config: the model's configuration.
        longest: the longest text that the model takes, in tokens (the length of its position table); None if unlimited.
        big: whether the checkpoint is larger than `BIG_CHECKPOINT` bytes.
        thorough: whether to try the whole position table, also that of a big checkpoint.
    """
    limit = LONGEST_ROW_OF_BIG if big and not thorough else LONGEST_CHANGE
    tokens, untried = set(), {}
    for change in changes_of(config):
        if longest is not None and change.length >= longest:
            continue  # No text of the model is that long.
        if change.length < limit:
            tokens.add(change.length + 1)
        else:
            untried[change] = f"no text of more than {limit:,} tokens is tried"
    if longest is not None:
        tokens.add(longest if thorough else min(longest, LONGEST_ROW, limit))
    return Lengths(tuple(sorted(tokens or {min(USUAL_ROW, limit)})), untried)
