"""Match the names of another exporter's file with the model's.

In this order: an explicit table, the same name, another exporter's name for the same thing, and, for names that an
exporter has generated because it got none, the place among the names that are left.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from parity.axes import canonical_name
from parity.judge.contract import Value

# Names of torch's exporters for values without a name: `333`, `input.1`, `onnx::Cast_1`, `layer_norm_4`, `val_12`.
_GENERATED = re.compile(r"\d+|onnx::\w+|arg\d+(_\d+)?|args_\d+|[\w:]+\.\d+|val_\d+|[A-Z]\w*_\d+")
_OPERATOR = re.compile(r"_?([a-z][a-z0-9_]*?)(_\d+)?")


@dataclass(frozen=True)
class Known:
    """An input or an output of the model: its name, whether it is floating point, and its number of axes."""

    name: str
    floating: bool
    rank: int

    def fits(self, value: Value) -> bool:
        """Whether a value of the file can be this input or output."""
        return ("float" in value.dtype) == self.floating and (not value.axes or len(value.axes) == self.rank)


@dataclass(frozen=True)
class Matching:
    """The matched names of one side of a file, its inputs or its outputs.

    Args:
        names: the file's name → the model's.
        by_place: the file's names that were matched by their place alone.
        missing: the model's names without a match in the file.
        unknown: the file's names without a match in the model.
    """

    names: Mapping[str, str]
    by_place: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def file_names(self) -> dict[str, str]:
        """The model's name → the file's."""
        return {model: own for own, model in self.names.items()}


@dataclass(frozen=True)
class Explicit:
    """The table of `--names`: the file's names → the model's."""

    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)


def is_generated(name: str) -> bool:
    """Whether an exporter has generated the name, because it got none."""
    if _GENERATED.fullmatch(name):
        return True
    import torch

    match = _OPERATOR.fullmatch(name)
    return match is not None and hasattr(torch.ops.aten, match.group(1))


def match_names(
    values: Sequence[Value], known: Sequence[Known], kind: str, explicit: Mapping[str, str] | None = None
) -> Matching:
    """Match one side of a file.

    Args:
        values: of the file.
        known: of the model, in its order.
        kind: `input` or `output`.
        explicit: the file's names → the model's, which go first.
    """
    explicit, by_name = explicit or {}, {each.name: each for each in known}
    names: dict[str, str] = {}
    for choose in (lambda name: explicit.get(name, ""), lambda name: name, lambda name: canonical_name(name, kind)):
        for value in values:
            model = choose(value.name)
            if value.name not in names and model in by_name and model not in names.values():
                names[value.name] = model
    left = [each for each in known if each.name not in names.values()]
    by_place = []
    for value in values:
        if value.name in names or not is_generated(value.name):
            continue
        fitting = next((each for each in left if each.fits(value)), None)
        if fitting is not None:
            left.remove(fitting)
            names[value.name] = fitting.name
            by_place.append(value.name)
    return Matching(
        names,
        tuple(by_place),
        tuple(each.name for each in left),
        tuple(value.name for value in values if value.name not in names),
    )
