"""Weights of a model and tensors of its file → which of the weights the file holds, and which it holds changed.

A weight is in the file unchanged, in another shape, with its axes in another order, or in another floating point type;
as a block of a tensor, as in a matrix of queries, keys and values; or cut into several tensors. Bits are compared,
because a weight is copied. A weight that is not found may have been folded into something else, which is no fault. A
tensor that has values in common with a weight, and is neither that weight nor another, is a fault.
"""

from __future__ import annotations

import fnmatch
import functools
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from parity.dtypes import is_floating
from parity.judge import arrangements
from parity.judge.arrangements import Block, is_constant
from parity.judge.artifact import SMALLEST
from parity.judge.findings import Finding
from parity.judge.stored import StoredTensor

# A tensor that has a larger share of its elements in common with a weight is that weight, changed. Floating point
# numbers other than zero are not equal by chance; whole numbers are, and values that a fold leaves alone.
_SHARE, _SHARE_BY_CHANCE = 0.01, 0.5


@dataclass(frozen=True)
class Weight:
    """A parameter or buffer of a model.

    Args:
        names: its name, and the names that are tied to it.
        array: its values.
        needed: whether an output of the file depends on its values.
        foldable: whether a batch norm reads it. Exporters fold it into the convolution before it, and its bias stays
            unchanged if the batch norm subtracts nothing.
        combined: whether something is computed from it and other weights alone, such as the factor of a norm that is
            written out, or whether it is the weight of a convolution whose result is normalized, or multiplied by that.
            Exporters and optimisers compute such a thing beforehand.
        fold: for a convolution's weight and the bias of the batch norm behind it: computes what an exporter makes of
            it that folds the one into the other.
    """

    names: tuple[str, ...]
    array: np.ndarray = field(repr=False)
    needed: bool = True
    foldable: bool = False
    combined: bool = False
    fold: Callable[[], np.ndarray] | None = field(default=None, repr=False, compare=False)

    @functools.cached_property
    def folded(self) -> np.ndarray | None:
        """What `fold` computes."""
        return None if self.fold is None else self.fold()

    @functools.cached_property
    def is_constant(self) -> bool:
        """Whether all its values are equal, as those of the gains of fresh norms."""
        return is_constant(self.array)

    @property
    def is_incidental(self) -> bool:
        """Whether a tensor may have its values by chance."""
        return self.foldable or self.is_constant

    @property
    def name(self) -> str:
        """The first of its names."""
        return self.names[0]


@dataclass(frozen=True)
class Difference:
    """A tensor of the file that equals a weight except for some of the elements; the index is the weight's."""

    weight: str
    tensor: str
    count: int
    elements: int
    index: tuple[int, ...]
    got: float
    reference: float

    @property
    def message(self) -> str:
        """The number of elements that differ, and the first of them."""
        return (
            f"weight {self.weight}: {self.count:,} of {self.elements:,} elements differ in {self.tensor} of the file,"
            f" first at index {self.index}: got {self.got:.9g}, should be {self.reference:.9g}"
        )


@dataclass(frozen=True)
class Account:
    """The weights that the outputs depend on, by name, and which of them the file holds.

    Args:
        needed: all of them.
        found: those that the file holds.
        differences: those that it holds changed.
        unexplained: the tensors of the file that are no part of any weight; small and constant ones are left out.
        incidental: weights that may be found by chance: constant ones, and those of a batch norm, which a fold may
            leave unchanged.
        repeated: weights that the file holds whole more than once, unchanged or transposed → the tensors; small and
            constant ones are left out.
        foldable: see `foldable_names`.
    """

    needed: tuple[str, ...]
    found: tuple[str, ...]
    differences: tuple[Difference, ...]
    unexplained: tuple[str, ...]
    incidental: frozenset[str] = frozenset()
    repeated: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    foldable: frozenset[str] = frozenset()

    @property
    def absent(self) -> tuple[str, ...]:
        """The weights that are neither found nor found changed."""
        others = {*self.found, *(difference.weight for difference in self.differences)}
        return tuple(name for name in self.needed if name not in others)


def foldable_names(weights: Iterable[Weight]) -> frozenset[str]:
    """The names of weights that an exporter may fold into others."""
    return frozenset(weight.name for weight in weights if weight.foldable or weight.combined)


def judge_weights(account: Account) -> list[Finding]:
    """Findings on an account: a failure for each difference, and a finding on the file with the measurements."""
    findings = [Finding("weights", each.weight, False, each.message) for each in account.differences]
    different = {each.weight for each in account.differences}
    measurements = {
        "found": sum(name not in different for name in account.found),
        "needed": len(account.needed),
        "unfoldable": len({*account.needed} - account.foldable),
        "telling": sum(name not in different and name not in account.incidental for name in account.found),
        "absent": list(account.absent),
        "unexplained": list(account.unexplained),
    }
    return [*findings, Finding("weights", "file", True, measurements=measurements)]


def judge_absences(account: Account, patterns: Collection[str]) -> list[Finding]:
    """Findings on absent weights, compared with the declared absences: one for each weight, and for each idle pattern.

    Args:
        patterns: name patterns of the weights that may be absent, in the syntax of `fnmatch`.
    """
    wrong: list[tuple[str, str]] = []
    for name in account.absent:
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
            wrong.append((name, "is not in the file, should be; declare an absence if it is folded into another"))
    for pattern in patterns:
        found = [name for name in account.found if fnmatch.fnmatchcase(name, pattern)]
        wrong += [
            (name, f"is in the file, should be absent; take it out of {pattern}")
            for name in found
            if name not in account.incidental
        ]
        if not fnmatch.filter(account.absent, pattern):
            wrong.append((pattern, "is the name of no absent weight, should be of one; take it out of the declaration"))
    return [Finding("weights", name, False, f"weight {name}: {problem}") for name, problem in wrong]


def judge_repeats(account: Account) -> list[Finding]:
    """Findings on weights that a file holds more than once: a failure for each, for files that must not be larger."""
    return [
        Finding("weights", name, False, f"weight {name}: is in the file more than once: {', '.join(tensors)}")
        for name, tensors in account.repeated.items()
    ]


def account_weights(weights: Sequence[Weight], tensors: Sequence[StoredTensor]) -> Account:
    """Search for every weight among the tensors of a file."""
    books = _Books(weights, tensors)
    books.match_wholes()
    books.match_blocks()
    differences = [*books.find_changed_wholes(), *books.find_changed_blocks()]
    return Account(
        tuple(weight.name for weight in weights if weight.needed),
        tuple(weight.name for index, weight in enumerate(weights) if weight.needed and index in books.found),
        tuple(differences),
        tuple(tensors[index].name for index in books.unexplained() if not _is_small_or_constant(tensors[index])),
        frozenset(weight.name for weight in weights if weight.is_incidental),
        books.repeated(),
        foldable_names(weights),
    )


def _is_small_or_constant(tensor: StoredTensor) -> bool:
    if tensor.size < SMALLEST:
        return True
    constant = is_constant(tensor.array)
    tensor.release()
    return constant


class _Books:
    """The state of one account.

    Attributes:
        found: the indices of weights that are in the file.
        explained: the indices of tensors that are weights or parts of weights, changed ones included.
    """

    def __init__(self, weights: Sequence[Weight], tensors: Sequence[StoredTensor]) -> None:
        self._weights, self._tensors = weights, tensors
        self._arrays = [arrangements.squeeze(weight.array) for weight in weights]
        self.found: set[int] = set()
        self.explained: set[int] = set()
        self._changed: set[int] = set()
        # Tensor → the weights that equal it.
        self._wholes: dict[int, list[int]] = defaultdict(list)
        # Tensor → its blocks that are weights.
        self._blocks: dict[int, list[Block]] = {}

    def unexplained(self) -> list[int]:
        """The indices of tensors that are no part of any weight so far."""
        return [index for index in range(len(self._tensors)) if index not in self.explained]

    def _needed(self) -> list[int]:
        return [index for index, weight in enumerate(self._weights) if weight.needed]

    def _missing(self) -> list[int]:
        return [index for index in self._needed() if index not in self.found | self._changed]

    def match_wholes(self) -> None:
        """Find weights that are a whole tensor, or several equal ones."""
        # Number of elements → type → values at a few places → tensors.
        candidates: dict[int, dict[np.dtype, dict[bytes, list[int]]]] = {array.size: {} for array in self._arrays}
        for index, tensor in enumerate(self._tensors):
            if tensor.count in candidates:
                key = arrangements.probe(tensor.array.reshape(-1)).tobytes()
                candidates[tensor.count].setdefault(tensor.dtype, {}).setdefault(key, []).append(index)
                tensor.release()
        for index, array in enumerate(self._arrays):
            for dtype, by_values in candidates[array.size].items():
                for order in arrangements.orders(array.ndim) if arrangements.converts(array.dtype, dtype) else ():
                    values = arrangements.convert(arrangements.probe(array.transpose(order)), dtype)
                    for other in by_values.get(values.tobytes(), ()):
                        self._match_whole(index, other, order)

    def _match_whole(self, index: int, other: int, order: arrangements.Order) -> None:
        if index in self._wholes[other]:
            return
        array, tensor = self._arrays[index], self._tensors[other]
        if arrangements.are_equal(array, arrangements.arrange(tensor.array, array.shape, order)):
            self.found.add(index)
            self.explained.add(other)
            self._wholes[other].append(index)
        tensor.release()

    def repeated(self) -> dict[str, tuple[str, ...]]:
        """Weight → the tensors that equal it, if these are more than the weights with these values."""
        tensors: dict[tuple[int, ...], list[str]] = defaultdict(list)
        for other, indices in self._wholes.items():
            if indices and self._tensors[other].size >= SMALLEST:
                tensors[tuple(indices)].append(self._tensors[other].name)
        return {
            self._weights[indices[0]].name: tuple(names)
            for indices, names in tensors.items()
            if len(names) > len(indices) and not self._weights[indices[0]].is_constant
        }

    def match_blocks(self) -> None:
        """Find weights that are a block of a tensor, and weights of which several tensors are blocks."""
        pieces: dict[int, list[Block]] = defaultdict(list)
        for index, other in self._pairs():
            if self._match_block(index, other):
                continue
            array, tensor = self._arrays[index], arrangements.squeeze(self._tensors[other].array)
            for order, axis in arrangements.block_orders(tensor.shape, array.shape):
                if block := arrangements.find_block(tensor.transpose(order), array, axis):
                    pieces[index].append(block)
                    self.explained.add(other)
                    break
        # The rest of such a tensor may be a weight that is found elsewhere too, such as a tied one.
        for index, other in self._pairs():
            if other in self._blocks:
                self._match_block(index, other)
        self.explained.update(other for other, blocks in self._blocks.items() if arrangements.are_whole(blocks))
        self.found.update(index for index, blocks in pieces.items() if arrangements.are_whole(blocks))

    def _match_block(self, index: int, other: int) -> bool:
        array, tensor = self._arrays[index], arrangements.squeeze(self._tensors[other].array)
        for order, axis in arrangements.block_orders(array.shape, tensor.shape):
            block = arrangements.find_block(array.transpose(order), tensor, axis)
            self._tensors[other].release()
            if block:
                self.found.add(index)
                self._blocks.setdefault(other, []).append(block)
                return True
        return False

    def _pairs(self) -> list[tuple[int, int]]:
        """Weights and unexplained tensors of one type and of different sizes, of which one may be a block of the other.

        The weights are the missing ones; for a tensor with a known block, all.
        """
        missing, needed = self._missing(), self._needed()
        return [
            (index, other)
            for other in self.unexplained()
            for index in (needed if other in self._blocks else missing)
            if self._arrays[index].dtype == self._tensors[other].dtype
            and self._arrays[index].size != self._tensors[other].count > 1
        ]

    def find_changed_wholes(self) -> list[Difference]:
        """Find tensors that equal a weight except for some of the elements.

        A large tensor may be the second copy of a weight that is found; a small one has values in common by chance.
        """
        by_count: dict[int, list[int]] = defaultdict(list)
        for index in self._needed():
            # A fold leaves weights of a batch norm alone if it subtracts nothing from them; outputs show a fault there.
            if not self._weights[index].foldable:
                by_count[self._arrays[index].size].append(index)
        missing = {index for index in self._missing() if not self._weights[index].is_constant}
        differences = []
        for other in self.unexplained():
            tensor = self._tensors[other]
            candidates = [
                (index, view)
                for index in by_count.get(tensor.count, ())
                if (tensor.size >= SMALLEST or index in missing)
                and arrangements.converts(self._arrays[index].dtype, tensor.dtype)
                for view in arrangements.views(tensor.array, self._arrays[index].shape)
            ]
            differences += self._settle(candidates, other, _SHARE)
        return differences

    def find_changed_blocks(self) -> list[Difference]:
        """Find weights that equal a block of a tensor except for some of the elements."""
        differences = []
        for index, other in self._pairs():
            shape, tensor = self._arrays[index].shape, arrangements.squeeze(self._tensors[other].array)
            if index in self._changed or self._weights[index].foldable:
                continue
            candidates = [
                (index, arrangements.arrange(block.cut(tensor), shape, order))
                for order, axis in arrangements.block_orders(shape, tensor.shape)
                for block in arrangements.blocks(axis, shape[order[axis]], tensor.shape[axis])
                if not any(block.overlaps(known) for known in self._blocks.get(other, ()))
            ]
            # A table from which rows were taken again and again has some of them in their old places.
            differences += self._settle(candidates, other, _SHARE if other in self._blocks else _SHARE_BY_CHANCE)
        return differences

    def _settle(self, candidates: Sequence[tuple[int, np.ndarray]], other: int, share: float) -> list[Difference]:
        """Assign a tensor, or a block of it, to the weight with which it has most in common, if that is enough."""
        tensor = self._tensors[other]
        best: tuple[arrangements.Comparison, int, np.ndarray] | None = None
        for index, view in candidates:
            weight = self._weights[index]
            by_chance = weight.is_incidental or not is_floating(tensor.dtype)
            least = _SHARE_BY_CHANCE if by_chance else share
            if arrangements.share_something(self._arrays[index], view, least):
                comparison = arrangements.compare(self._arrays[index], view)
                if comparison.share > max(least, best[0].share if best else 0.0):
                    best = comparison, index, view
        tensor.release()
        if best is None:
            return []
        comparison, index, view = best
        self.explained.add(other)
        if comparison.index is None:
            self.found.add(index)
            return []
        self._changed.add(index)
        weight, place = self._weights[index], np.unravel_index(comparison.index, view.shape)
        return [
            Difference(
                weight.name,
                tensor.name,
                comparison.count,
                view.size,
                tuple(int(i) for i in np.unravel_index(comparison.index, weight.array.shape)),
                float(view[place]),
                float(self._arrays[index][place]),
            )
        ]
