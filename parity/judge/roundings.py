"""Weights that a file holds rounded, to half precision or to integers, compared with those of the checkpoint.

Each value has to be the rounding of the checkpoint's: within half a unit in the last place for half precision, within
half a step of its scale for integers. A converter may replace a value that is too small or too large for the type by
the nearest number that it allows, and integers end where their range ends.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from parity.judge import arrangements
from parity.judge.findings import Finding
from parity.judge.weights import Weight, foldable_names

# In steps: the scale itself is rounded, and is multiplied by up to 255. Honest files have at most 0.500002.
LIMIT = 0.501
# onnxruntime's converter to float16 replaces smaller and larger values by these.
_SMALLEST_HALF, _LARGEST_HALF = 1e-7, 1e4
# Elements that are compared to find the weight of a tensor, and how much they may differ, relative to its size.
_DRAWS, _UNLIKE = 4096, 0.5
# The same for weights that exporters may fold in a way that is not known: a tensor that differs more is one of them
# only if it is its rounding, because it may be what a fold has made of it.
_UNLIKE_FOLDED = 1e-3


@dataclass(frozen=True)
class Rounded:
    """A tensor of a file that holds a rounded weight.

    Args:
        name: the initializer's.
        values: the values that it stands for, as float64.
        step: of its scale, or a unit in the last place, broadcast to the values.
        at_end: whether an integer is the last of its range; None for halves.
        half: `float16` or `bfloat16`; empty for integers.
        slack: in steps, what the rounding of a scale in half precision adds; 0 for a scale in float32.
    """

    name: str
    values: np.ndarray = field(repr=False)
    step: np.ndarray = field(repr=False)
    at_end: np.ndarray | None = field(default=None, repr=False)
    half: str = ""
    slack: np.ndarray | float = field(default=0.0, repr=False)


@dataclass(frozen=True)
class Match:
    """A rounded tensor and its weight.

    Args:
        tensor: of the file.
        weight: the weight's name.
        values: the checkpoint's, arranged like the tensor's.
        error: the largest distance of a value from the checkpoint's, in steps; 0 for values excused by the type's ends.
        index: the place of that value.
        limit: the largest distance that passes there.
    """

    tensor: Rounded
    weight: str
    values: np.ndarray = field(repr=False)
    error: float = 0.0
    index: tuple[int, ...] = ()
    limit: float = LIMIT

    @property
    def passed(self) -> bool:
        return self.error <= self.limit

    def finding(self) -> Finding:
        """The finding on this weight."""
        measurements = {"steps": self.error}
        if self.passed:
            return Finding("precision", self.weight, True, measurements=measurements)
        message = (
            f"weight {self.weight}: {self.tensor.name} of the file is {self.error:.4g} steps from the checkpoint's,"
            f" should be at most {self.limit:.4g}; at index {self.index} got {self.tensor.values[self.index]:.6g},"
            f" should be the rounding of {self.values[self.index]:.6g}"
        )
        return Finding("precision", self.weight, False, message, measurements=measurements)


def match_roundings(tensors: Sequence[Rounded], weights: Sequence[Weight]) -> tuple[list[Match], list[str]]:
    """The weight of each rounded tensor, and the names of the tensors without a weight."""
    matches, unmatched = [], []
    by_count: dict[int, list[Weight]] = {}
    foldable = foldable_names(weights)
    for weight in weights:
        if "float" in weight.array.dtype.name:
            by_count.setdefault(weight.array.size, []).append(weight)
    for tensor in tensors:
        match = _match(tensor, by_count.get(tensor.values.size, ()), foldable)
        if match is None:
            unmatched.append(tensor.name)
        else:
            matches.append(match)
    return matches, unmatched


def judge_lost(
    unmatched: Sequence[str], tensors: Mapping[str, Rounded], weights: Sequence[Weight], others: Collection[str]
) -> list[Finding]:
    """A failure for each tensor in integers without a weight, while a weight of its size is missing.

    Args:
        unmatched: the names of tensors without a weight.
        tensors: all rounded tensors, by name.
        weights: those of the model.
        others: the names of the weights that the file holds, rounded or not.
    """
    excused = {*others, *foldable_names(weights)}
    lost: dict[int, str] = {}
    for weight in weights:
        known = weight.fold is not None and weight.name not in others
        if weight.needed and (known or weight.name not in excused):
            lost.setdefault(weight.array.size, weight.name)
    pairs = [(name, lost.get(tensors[name].values.size)) for name in unmatched if not tensors[name].half]
    return [
        Finding(
            "precision", name, False, f"tensor {name}: is the rounding of no weight, and {weight} is not in the file"
        )
        for name, weight in pairs
        if weight
    ]


def _match(tensor: Rounded, weights: Sequence[Weight], foldable: Collection[str]) -> Match | None:
    values = arrangements.squeeze(tensor.values)
    places = np.random.default_rng(0).integers(0, values.size, min(_DRAWS, values.size))
    drawn = values.reshape(-1)[places]
    scale = float(np.sqrt(np.mean(np.square(drawn)))) or 1.0
    best: tuple[float, Weight, list[np.ndarray]] | None = None
    for weight in weights:
        surely = _UNLIKE_FOLDED if weight.name in foldable and weight.fold is None else _UNLIKE
        like = []
        for turned in _arrangements(weight, values.shape):
            there = turned.reshape(-1)[places].astype(np.float64)
            unlike = float(np.sqrt(np.mean(np.square(there - drawn)))) / scale
            if unlike < surely or (unlike < _UNLIKE and _compare(tensor, weight.name, turned).passed):
                like.append((unlike, turned))
        if like and (best is None or min(each[0] for each in like) < best[0]):
            best = min(each[0] for each in like), weight, [turned for _, turned in like]
    if best is None:
        return None
    # A fold of a fresh batch norm is so close to the weight itself that draws do not tell which of them was rounded.
    return min((_compare(tensor, best[1].name, turned) for turned in best[2]), key=lambda match: match.error)


def _arrangements(weight: Weight, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """The weight, and what a fold makes of it, with their axes in every order that has this shape."""
    for whole in (weight.array, *([] if weight.folded is None else [weight.folded])):
        array = arrangements.squeeze(whole)
        for order in arrangements.orders(array.ndim):
            turned = array.transpose(order)
            if turned.shape == shape:
                yield turned


def _compare(tensor: Rounded, name: str, turned: np.ndarray) -> Match:
    reference = turned.astype(np.float64).reshape(tensor.values.shape)
    error = _errors(tensor, reference)
    limit = np.broadcast_to(LIMIT + np.asarray(tensor.slack), error.shape)
    index = tuple(int(place) for place in np.unravel_index((error - limit).argmax(), error.shape))
    return Match(tensor, name, reference, float(error[index]), index, float(limit[index]))


def _errors(tensor: Rounded, reference: np.ndarray) -> np.ndarray:
    """The distance of each value from the checkpoint's, in steps."""
    error = np.abs(tensor.values - reference) / tensor.step
    if tensor.half:
        small = (np.abs(reference) < _SMALLEST_HALF) & (np.abs(tensor.values) <= 1.3 * _SMALLEST_HALF)
        large = (np.abs(reference) > _LARGEST_HALF) & (np.abs(tensor.values) == _LARGEST_HALF)
        return np.where(small | large, 0.0, error)
    if tensor.at_end is not None:
        beyond = tensor.at_end & (np.abs(reference) >= np.abs(tensor.values)) & (error <= 1.0 + LIMIT)
        return np.where(beyond, np.minimum(error, LIMIT), error)
    return error


def unit_in_the_last_place(values: np.ndarray, half: str) -> np.ndarray:
    """The distance between neighbouring numbers of a half precision, at each of these values."""
    bits, least = {"float16": (10, -14), "bfloat16": (7, -126)}[half]
    _, exponents = np.frexp(np.abs(values))
    return np.ldexp(1.0, np.maximum(exponents - 1, least) - bits)


def by_tensor(matches: Sequence[Match]) -> Mapping[str, np.ndarray]:
    """Tensor → the checkpoint's values, for tensors that are their rounding."""
    return {match.tensor.name: match.values for match in matches if match.passed}
