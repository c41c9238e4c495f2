"""The numbers that a model's code compares sizes with: a trace keeps one side of each comparison for good."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

# Larger numbers are no lengths that are tried; smaller ones are always tried.
_SMALLEST, _LARGEST = 2, 2048
# How many numbers are kept: each is some trials of every axis.
_MOST = 8
_COMPARISONS = {"eq", "ne", "lt", "le", "gt", "ge"}


class SizeComparisons(TorchFunctionMode):
    """Inside, notes the whole numbers that scalars are compared with.

    While a model is traced, its sizes are scalar tensors, so that `length > 10` is such a comparison.
    """

    def __init__(self) -> None:
        super().__init__()
        self._numbers: dict[int, None] = {}

    @property
    def numbers(self) -> tuple[int, ...]:
        """The first of them, in the order in which they were met."""
        return tuple(self._numbers)[:_MOST]

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if getattr(func, "__name__", "").strip("_") in _COMPARISONS:
            self._note(args)
        return func(*args, **(kwargs or {}))

    def _note(self, operands: tuple[Any, ...]) -> None:
        scalars = [each for each in operands if isinstance(each, torch.Tensor) and each.dim() == 0]
        for number in operands:
            is_whole = isinstance(number, int) and not isinstance(number, bool)
            if scalars and is_whole and _SMALLEST <= number <= _LARGEST:
                self._numbers[number] = None
