"""Places where a model's answer is undefined: tokens whose mask is 0, and rows that are masked throughout.

Every attention implementation has its own answer for a query that attends to nothing: PyTorch's kernel of
`scaled_dot_product_attention`, its float64 path, a softmax over equal minima and ONNX Runtime differ from each other
there by as much as the answer is large, and not at all at real tokens. So if file and reference do not run the same
implementation, these places only have to be finite: a NaN in a cache would spread.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from parity.axes import BATCHES, CHOICE, PADDING_MASKS, PIXEL_MASK, Axes, parts
from parity.dtypes import is_floating
from parity.judge.findings import Finding
from parity.judge.pool import Arrays


def places(
    inputs: Arrays, input_axes: Axes, outputs: Arrays, output_axes: Axes, pooled: Mapping[str, int] | None = None
) -> dict[str, np.ndarray]:
    """For each output a boolean array of its shape: true where the answer is undefined.

    Args:
        inputs, outputs: one call's arrays by name.
        input_axes, output_axes: their named axes, as an OnnxConfig declares them.
        pooled: outputs that are computed from one token's answer → its place in the text.
    """
    pooled = pooled or {}
    undefined = {name: np.zeros(np.shape(array), bool) for name, array in outputs.items()}
    for mask in (name for name in PADDING_MASKS if name in inputs):
        masked, names = inputs[mask] == 0, input_axes.get(mask, {})
        rows = [axis for axis in range(masked.ndim) if names.get(axis) in (*BATCHES, CHOICE)]
        row_names = [names[axis] for axis in rows]
        blank = masked.all(axis=tuple(axis for axis in range(masked.ndim) if axis not in rows))
        for name, place in undefined.items():
            axes = {axis_name: axis for axis, axis_name in output_axes.get(name, {}).items()}
            place |= _spread(blank, row_names, axes, place.shape)
            if mask == PIXEL_MASK:
                continue
            if mask == "attention_mask" and name in pooled:
                place |= _spread(masked[..., pooled[name]], row_names, axes, place.shape)
            text = next((ending for ending in _endings(names.get(masked.ndim - 1, "")) if ending in axes), None)
            if text is not None:
                kept = masked[..., masked.shape[-1] - place.shape[axes[text]] :]
                place |= _spread(kept, [*row_names, text], axes, place.shape)
    return undefined


def _endings(axis: str) -> tuple[str, str]:
    """The possible names of an axis at the end of a mask's axis: all of it, and the last part of a sum."""
    return axis, parts(axis)[-1]


def _spread(array: np.ndarray, names: Sequence[str], axes: Mapping[str, int], shape: tuple[int, ...]) -> np.ndarray:
    """The array broadcast to the shape of an output, with its named axes in their places."""
    lacking = tuple(place for place, name in enumerate(names) if name not in axes)
    array = np.asarray(array.any(axis=lacking))
    present = [name for name in names if name in axes]
    order = sorted(range(len(present)), key=lambda place: axes[present[place]])
    sizes = [1] * len(shape)
    for place in order:
        sizes[axes[present[place]]] = array.shape[place]
    return np.broadcast_to(array.transpose(order).reshape(sizes), shape)


def blank_undefined(answers: Arrays, places: Mapping[str, np.ndarray], instead: Arrays) -> Arrays:
    """The answers with NaN at undefined places, or the values of `instead` there for an output without NaN.

    An output is computed when it is accessed: those of a pool may not fit in memory together.

    Args:
        answers: outputs by name.
        places: from `places`.
        instead: outputs of the same shapes.
    """
    affected = {name: place for name, place in places.items() if name in answers and place.any()}
    return _BlankArrays(answers, affected, instead) if affected else answers


class _BlankArrays(Mapping[str, np.ndarray]):
    def __init__(self, answers: Arrays, places: Mapping[str, np.ndarray], instead: Arrays) -> None:
        self._answers, self._places, self._instead = answers, places, instead

    def __getitem__(self, name: str) -> np.ndarray:
        array, place = self._answers[name], self._places.get(name)
        if place is None or place.shape != array.shape:
            return array
        blank = np.array(np.nan, array.dtype) if is_floating(array.dtype) else self._instead[name]
        return np.where(place, blank, array)

    def __iter__(self) -> Iterator[str]:
        return iter(self._answers)

    def __len__(self) -> int:
        return len(self._answers)


def judge_undefined(actual: Arrays, places: Mapping[str, np.ndarray], sizes: str = "") -> list[Finding]:
    """A failure for each floating output that is not finite at undefined places.

    Args:
        actual: the outputs of one call.
        places: from `places`.
        sizes: of the input, for messages.
    """
    findings = []
    for name, place in places.items():
        array = actual.get(name)
        if array is None or array.shape != place.shape or not is_floating(array.dtype):
            continue
        wrong = np.argwhere(place & ~np.isfinite(array))
        if len(wrong):
            message = (
                f"{name}: {len(wrong)} of {int(place.sum())} values at masked positions are not finite, all should be;"
                f" first at index {tuple(map(int, wrong[0]))}"
            )
            findings.append(Finding("nonfinite", name, False, message, sizes))
    return findings
