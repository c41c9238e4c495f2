"""The range of a set of samples: the shortest and the longest text, the smallest and the largest id."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from parity.axes import TOKENS
from parity.samples import Sample


@dataclass(frozen=True)
class Extent:
    """The least and most tokens of a text, its past included, and the smallest and largest id; None without any."""

    tokens: tuple[int, int] | None = None
    ids: tuple[int, int] | None = None

    @classmethod
    def of_samples(cls, samples: Iterable[Sample]) -> Extent:
        """The extent of these samples."""
        tokens, ids = [], []
        for sample in samples:
            tensors = [sample.inputs[name] for name in TOKENS if name in sample.inputs]
            tensors = [tensor for tensor in tensors if not tensor.is_floating_point()]
            tokens += [sample.tokens] if tensors else []
            ids += [int(bound) for tensor in tensors if tensor.numel() for bound in tensor.aminmax()]
        return cls(*((min(values), max(values)) if values else None for values in (tokens, ids)))

    def as_json(self) -> dict[str, list[int]]:
        """Both ends of each range that exists."""
        return {name: list(ends) for name, ends in (("tokens", self.tokens), ("ids", self.ids)) if ends}

    def __str__(self) -> str:
        return ", ".join(f"{name} {first}–{last}" for name, (first, last) in self.as_json().items())
