"""Equality of two arrays, one of which may be a transposed, reshaped or converted copy of the other or of a block."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from parity.dtypes import is_floating

# A few places are compared before whole arrays are: to find candidates, and to exclude arrays that share nothing.
_PROBES, _DRAWS = 8, 4096
# The number of elements that are compared at once; for a transposed matrix, of rows and columns.
_BLOCK, _TILE = 1 << 18, (512, 64)

_MOST_BLOCKS = 64

Shape: TypeAlias = tuple[int, ...]
# The axes of an array, in the order in which another array has them.
Order: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class Block:
    """The part of an array between two places of one axis, whose length is `size`."""

    axis: int
    start: int
    stop: int
    size: int

    def cut(self, array: np.ndarray) -> np.ndarray:
        """The block of an array."""
        return array[(slice(None),) * self.axis + (slice(self.start, self.stop),)]

    def overlaps(self, other: Block) -> bool:
        """Whether the blocks have elements in common."""
        return self.axis != other.axis or (self.start < other.stop and other.start < self.stop)


def are_whole(blocks: Sequence[Block]) -> bool:
    """Whether the blocks cover the whole array, along one axis."""
    end = 0
    for block in sorted(blocks, key=lambda block: block.start):
        if block.axis != blocks[0].axis or block.start > end:
            return False
        end = max(end, block.stop)
    return bool(blocks) and end == blocks[0].size


def squeeze(array: np.ndarray) -> np.ndarray:
    """The array without axes of length 1; a scalar becomes an array of one element."""
    return array.squeeze() if array.ndim and array.size != 1 else array.reshape(1)


def is_constant(array: np.ndarray) -> bool:
    """Whether all its values are equal."""
    first = array[(0,) * array.ndim] if array.size else None
    return bool((array[:1] == first).all() and (array == first).all()) if array.ndim else True


@functools.cache
def orders(axes: int) -> tuple[Order, ...]:
    """The orders of axes to try: all for up to four axes, and for more only an exchange of the last two."""
    own = tuple(range(axes))
    return tuple(itertools.permutations(own)) if axes <= 4 else (own, (*own[:-2], own[-1], own[-2]))


def converts(dtype: np.dtype, other: np.dtype) -> bool:
    """Whether an array of one type may be written in the other."""
    return dtype == other or (is_floating(dtype) and is_floating(other))


def convert(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The array in another type; values that are too large for it become infinite."""
    if array.dtype == dtype:
        return array
    with np.errstate(over="ignore", invalid="ignore"):
        return array.astype(dtype)


def probe(array: np.ndarray) -> np.ndarray:
    """The values at a few places, the same places in every array with as many elements in the same order."""
    places = np.arange(_PROBES) * (array.size - 1) // (_PROBES - 1)
    return array[np.unravel_index(places, array.shape)]


def arrange(array: np.ndarray, shape: Shape, order: Order) -> np.ndarray:
    """A view of an array with its axes put in order.

    Args:
        array: with as many elements as `shape`, whatever its own shape.
        shape: of the view.
        order: the axes of the view, in the order in which the array has them.
    """
    inverse = sorted(range(len(order)), key=order.__getitem__)
    return array.reshape([shape[axis] for axis in order]).transpose(inverse)


def views(array: np.ndarray, shape: Shape) -> Iterator[np.ndarray]:
    """The views of an array that may equal an array of this shape: with its axes in another order, or reshaped."""
    own = squeeze(array).shape
    for order in orders(len(shape)):
        is_turned = order != tuple(range(len(shape)))
        if not is_turned or len(own) != len(shape) or own == tuple(shape[axis] for axis in order):
            yield arrange(array, shape, order)


def are_equal(array: np.ndarray, other: np.ndarray) -> bool:
    """Whether two arrays of one shape have the same bits, after conversion of the first to the type of the other."""
    if array.size <= _BLOCK:
        return np.array_equal(_bits(convert(array, other.dtype)), _bits(other))
    if array.ndim == 2 and not other.flags.c_contiguous:
        rows, columns = _TILE if array.flags.c_contiguous else _TILE[::-1]
        return all(
            are_equal(array[i : i + rows, j : j + columns], other[i : i + rows, j : j + columns])
            for i in range(0, array.shape[0], rows)
            for j in range(0, array.shape[1], columns)
        )
    step = max(1, _BLOCK * len(array) // array.size)
    return all(are_equal(array[i : i + step], other[i : i + step]) for i in range(0, len(array), step))


def _bits(array: np.ndarray) -> np.ndarray:
    return array.view(f"u{array.itemsize}") if array.itemsize <= 8 else array


@dataclass(frozen=True)
class Comparison:
    """Two arrays of one shape, element by element.

    Args:
        count: the number of elements that differ.
        index: the flat index of the first of them; None if there is none.
        share: the share of equal elements among all that are not zero in both; see `compare` for ones.
    """

    count: int
    index: int | None
    share: float


def share_something(array: np.ndarray, other: np.ndarray, share: float) -> bool:
    """Whether two arrays of one shape seem to have more than this share in common; large arrays are sampled.

    Args:
        array, other: of one shape.
        share: from 0 to 1; see `Comparison`.
    """
    if array.size <= _DRAWS:
        return compare(array, other).share > share
    places = np.unravel_index(_draws(array.size), array.shape)
    # A sample never shows less than a quarter of the true share by chance.
    return compare(array[places], other[places]).share > share / 4


@functools.lru_cache(maxsize=64)
def _draws(elements: int) -> np.ndarray:
    return np.random.default_rng(0).integers(elements, size=_DRAWS)


def compare(array: np.ndarray, other: np.ndarray) -> Comparison:
    """Compare two arrays of one shape: NaN equals NaN, and 0 equals -0; neither counts as something in common.

    Nor do 1 and -1 if nothing else is equal, and they are not most of the elements: the first power in a table of
    powers is 1, as many a variance is, but gains of norms are ones.
    """
    count, shared, ones, informative, first = 0, 0, 0, 0, None
    step = max(1, _BLOCK * len(array) // array.size)
    for start in range(0, len(array), step):
        one, two = convert(array[start : start + step], other.dtype), other[start : start + step]
        equal = one == two
        if is_floating(two.dtype):
            equal |= (one != one) & (two != two)
            told = (one != 0) | (two != 0)
            ones += int(np.count_nonzero(equal & (np.abs(two) == 1)))
        else:
            told = np.ones_like(equal)
        count += int(np.count_nonzero(~equal))
        shared += int(np.count_nonzero(equal & told))
        informative += int(np.count_nonzero(told))
        if first is None and not equal.all():
            first = start * (array.size // len(array)) + int(np.flatnonzero(~equal)[0])
    by_chance = shared == ones and 2 * shared <= informative
    return Comparison(count, first, 0.0 if by_chance else shared / informative)


@functools.cache
def block_orders(part: Shape, whole: Shape) -> tuple[tuple[Order, int], ...]:
    """(order, axis): the orders in which the axes of a part are those of the whole, except for one longer axis."""
    if len(part) != len(whole):
        return ()
    fits = []
    for order in orders(len(part)):
        longer = [axis for axis in range(len(whole)) if part[order[axis]] != whole[axis]]
        if len(longer) == 1 and part[order[longer[0]]] < whole[longer[0]]:
            fits.append((order, longer[0]))
    return tuple(fits)


def blocks(axis: int, size: int, total: int) -> list[Block]:
    """The consecutive blocks of one size along an axis, from its beginning and from its end.

    If two weights of different sizes are merged, one begins at 0 and the other ends at the end. No merged weight has
    more blocks than these.

    Args:
        axis: its index.
        size: the length of a block.
        total: the length of the axis.
    """
    steps = range(0, min(total // size, _MOST_BLOCKS) * size, size)
    starts = {*steps, *(total - size - step for step in steps)}
    return [Block(axis, start, start + size, total) for start in sorted(starts)]


def find_block(part: np.ndarray, whole: np.ndarray, axis: int) -> Block | None:
    """The block of an array that equals a part of it; None if there is none.

    Args:
        part: the values to find.
        whole: the array, which is longer along one axis.
        axis: that axis.
    """
    along = tuple(slice(None) if other == axis else 0 for other in range(part.ndim))
    line, own = _bits(whole[along]), _bits(part[along])
    places = np.arange(len(line) - len(own) + 1)
    for offset in range(min(len(own), _PROBES)):
        places = places[line[places + offset] == own[offset]]
    for start in places.tolist():
        block = Block(axis, start, start + len(own), len(line))
        if are_equal(part, block.cut(whole)):
            return block
    return None
