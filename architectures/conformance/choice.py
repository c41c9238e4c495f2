"""Select cells by name: `--architecture`, `--feature`, `--opset` and `--format` of pytest and of `parity matrix`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from parity import registry
from parity.opsets import MAXIMUM_OPSET, MINIMUM_OPSET
from parity.words import FORMATS, require

if TYPE_CHECKING:
    from parity.architectures.conformance.matrix import Cell

# Option → (metavar, help).
_OPTIONS = {
    "--architecture": ("NAME", "one that is declared, or package.module with an ARCHITECTURE"),
    "--feature": ("NAME", "such as default or causal-lm-with-past"),
    "--opset": ("N", f"a number from {MINIMUM_OPSET} to {MAXIMUM_OPSET}; only onnx has one"),
    "--format": ("NAME", f"one of {', '.join(FORMATS)}"),
}


@dataclass(frozen=True)
class Choice:
    """Cells selected by exact names; an empty field selects all.

    Args:
        architectures, features, opsets, formats: names to select.
    """

    architectures: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    opsets: tuple[int, ...] = ()
    formats: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.architectures or self.features or self.opsets or self.formats)

    def has(self, cell: Cell | None) -> bool:
        """Whether the cell is selected; a test without a cell is selected only if no name is given."""
        if cell is None:
            return not self
        return (
            (not self.architectures or cell.architecture in self.architectures)
            and (not self.features or cell.feature in self.features)
            and (not self.opsets or cell.opset in self.opsets)
            and (not self.formats or cell.format in self.formats)
        )


def add_options(add: Callable[..., Any]) -> None:
    """Add the options to a command line.

    Args:
        add: `add_argument` of argparse, or `addoption` of a group of pytest.
    """
    for name, (metavar, meaning) in _OPTIONS.items():
        word = name.removeprefix("--")
        text = f"only cells of this {word} ({meaning}); can be repeated"
        add(name, action="append", default=[], metavar=metavar, help=text)


def choice_of(values: Mapping[str, Sequence[str]]) -> Choice:
    """The choice in the options; includes an architecture that is not declared yet.

    Args:
        values: option without `--` → its values.

    Raises:
        ValueError: a name is unknown; the text has the option and the valid names.
    """
    try:
        chosen = [registry.include(name) for name in values["architecture"]]
    except ValueError as error:
        raise ValueError(f"--architecture {error}") from error
    features = {feature: None for each in chosen or registry.architectures() for feature in each.features}
    opsets = [str(opset) for opset in range(MINIMUM_OPSET, MAXIMUM_OPSET + 1)]
    for option, valid in (("feature", tuple(features)), ("opset", opsets), ("format", FORMATS)):
        require(f"--{option}", values[option], valid)
    return Choice(
        tuple(dict.fromkeys(each.name for each in chosen)),
        tuple(values["feature"]),
        tuple(map(int, values["opset"])),
        tuple(values["format"]),
    )


def require_cells(choice: Choice, cells: Sequence[Cell]) -> None:
    """Refuse names that no cell has all of.

    Raises:
        ValueError: no cell is selected.
    """
    if not any(map(choice.has, cells)):
        raise ValueError(f"no cell has all of {' '.join(arguments_of(choice))}: `parity matrix` lists the cells")


def arguments_of(choice: Choice) -> list[str]:
    """The options that make this choice."""
    values = (choice.architectures, choice.features, choice.opsets, choice.formats)
    return [word for name, own in zip(_OPTIONS, values, strict=True) for each in own for word in (name, str(each))]
