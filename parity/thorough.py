"""Samples that together contain every id of a vocabulary, a few at a time: no machine can run all at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from parity import axes
from parity.judge.ratio import MINIMUM_POOL
from parity.samples import Sample, SampleSource
from parity.shapes import nearest

# The tokens of one sample, so that the logits of a pool of them are a few hundred megabytes.
TOKENS_AT_ONCE = 64


def vocabulary_pools(source: SampleSource, longest: int | None) -> Iterator[list[Sample]]:
    """Pools of rows that run through all ids of the tokens, in order; none without a vocabulary or a resizable text.

    Args:
        longest: the longest sequence that the model takes, in tokens.
    """
    texts = [name for name in source.axes if name in axes.TEXTS]
    if not (source.vocabulary and texts and source.resizable):
        return
    length = min(TOKENS_AT_ONCE, longest or TOKENS_AT_ONCE)
    sizes = {name: 1 for name in source.axes if name in (*axes.BATCHES, axes.CHOICE)}
    sizes |= {name: 0 for name in source.axes if name in axes.PASTS}
    sizes |= dict.fromkeys(texts, length)
    sizes = {name: nearest(size, source.axis_sizes.get(name)) for name, size in sizes.items()}
    first = 0
    while first < source.vocabulary:
        pool = []
        for _ in range(MINIMUM_POOL):
            sample = source.resize(sizes, seed=first, whole_vocabulary=True)
            pool.append(sample)
            first += max(1, min(_others(ids, source) for ids in _tokens(sample)))
        yield pool


def _tokens(sample: Sample) -> list[Any]:
    return [sample.inputs[name] for name in axes.TOKENS if name in sample.inputs]


def _others(ids: Any, source: SampleSource) -> int:
    """The number of tokens that are not special; special tokens keep their places."""
    return sum(token not in source.special for token in ids.flatten().tolist())
