"""A run of a part of the matrix: the checks that its selection left out, in a compact form, and joined with others."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from parity.reports.gate.changes import Statuses, count_text
from parity.tasks import TASKS, task_of
from parity.words import FORMATS

# Field of the environment.
FIELD = "selection"

# (cell, check).
Key = tuple[str, str]

_MODEL = re.compile(rf"(.+?)-((?:{'|'.join(FORMATS)})(?:\d+|-|$).*)")
# Finds the format in the id of a cell.
FORMAT = re.compile(rf"-({'|'.join(FORMATS)})(?:\d+|-|$)")
_CELL = re.compile(r"(onnx)(\d+)(-.+)?")
_FOLDED = re.compile(r"(onnx)(\d[\d.,]*)(-.+)?")


@dataclass(frozen=True)
class Part:
    """The part of the matrix that the selection of a run left out.

    Args:
        options: the options that selected, with their values.
        tests: the tests of the matrix that it left out as a whole.
        checks: (cell, check) of all others that it left out.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    tests: frozenset[str] = frozenset()
    checks: frozenset[Key] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.tests or self.checks)

    def leaves_out(self, key: Key) -> bool:
        """Whether a check has no result because the run left it out."""
        return key[1] in self.tests or key in self.checks

    def join(self, other: Part) -> Part:
        """The checks that both leave out, and the options that both have."""
        checks = {key for key in self.checks if other.leaves_out(key)}
        checks |= {key for key in other.checks if self.leaves_out(key)}
        options = {name: value for name, value in self.options.items() if other.options.get(name) == value}
        return Part(options, self.tests & other.tests, frozenset(checks))

    @property
    def reason(self) -> str:
        """The options as on a command line."""
        words: list[str] = []
        for name, value in self.options.items():
            for each in value if isinstance(value, list) else [value]:
                words += [name, str(each)] if name.startswith("-") else [str(each)]
        return shlex.join(words)

    def as_json(self) -> dict[str, Any]:
        """For the environment of records; groups models that lack the same checks, and likewise cells and opsets."""
        lacking: dict[str, list[str]] = {}
        for cell, check in sorted(self.checks):
            lacking.setdefault(cell, []).append(check)
        models: dict[str, dict[str, list[str]]] = {}
        for cell, checks in lacking.items():
            model, rest = _divide(cell)
            models.setdefault(model, {}).setdefault(" ".join(checks), []).append(rest)
        groups: dict[str, dict[str, Any]] = {}
        for model, cells in models.items():
            folded = {checks: fold(rests) for checks, rests in cells.items()}
            groups.setdefault(repr(folded), {"models": [], "checks": folded})["models"].append(model)
        return {"options": dict(self.options), "tests": sorted(self.tests), "left_out": list(groups.values())}


def part_of(environment: Mapping[str, Any]) -> Part:
    """The part that a run left out, from the environment of its records; empty if that does not say."""
    selection = environment.get(FIELD)
    if not selection:
        return Part()
    checks = {
        (f"{model}-{rest}" if rest else model, check)
        for group in selection["left_out"]
        for model in group["models"]
        for names, rests in group["checks"].items()
        for rest in unfold(rests)
        for check in names.split()
    }
    return Part(selection["options"], frozenset(selection["tests"]), frozenset(checks))


def names_of(cell: str) -> tuple[str, str]:
    """Architecture and feature of a cell, by its id; the feature is empty if it is unknown."""
    model, _ = _divide(cell)
    words = model.split("-")
    for place in range(1, len(words)):
        feature = "-".join(words[place:])
        if task_of(feature) in TASKS:
            return "-".join(words[:place]), feature
    return model, ""


def model_of(cell: str) -> str:
    """Architecture and feature of a cell as one word, by its id."""
    return _divide(cell)[0]


def _divide(cell: str) -> tuple[str, str]:
    """The id of a cell before its format, and the rest."""
    match = _MODEL.fullmatch(cell)
    return (match[1], match[2]) if match else (cell, "")


def fold(cells: Iterable[str]) -> list[str]:
    """The ends of cells' ids after the model, folded over opsets that differ: `onnx11..13,17-sdpa`."""
    opsets: dict[tuple[str, str], list[int]] = {}
    for cell in cells:
        match = _CELL.fullmatch(cell)
        stem, opset, rest = match.groups(default="") if match else (cell, "", "")
        opsets.setdefault((stem, rest), []).extend([int(opset)] if opset else [])
    return [f"{stem}{_as_text(numbers)}{rest}" for (stem, rest), numbers in opsets.items()]


def unfold(texts: Iterable[str]) -> list[str]:
    """The inverse of `fold`."""
    cells: list[str] = []
    for text in texts:
        match = _FOLDED.fullmatch(text)
        if match is None:
            cells.append(text)
            continue
        for run in match[2].split(","):
            first, _, last = run.partition("..")
            cells += [f"{match[1]}{opset}{match[3] or ''}" for opset in range(int(first), int(last or first) + 1)]
    return cells


def _as_text(opsets: Sequence[int]) -> str:
    runs: list[list[int]] = []
    for opset in sorted(opsets):
        if runs and opset == runs[-1][-1] + 1:
            runs[-1].append(opset)
        else:
            runs.append([opset])
    return ",".join(f"{run[0]}..{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def without(statuses: Statuses, part: Part, others: Collection[Key]) -> tuple[dict[Key, str], list[Key]]:
    """The statuses that can be compared with another run, and the keys that the other run left out.

    Args:
        statuses: of one run.
        part: what the other run left out.
        others: the keys that have a result in the other run.
    """
    left_out = [key for key in statuses if key not in others and part.leaves_out(key)]
    skipped = {*left_out}
    return {key: status for key, status in statuses.items() if key not in skipped}, left_out


def left_out_line(left_out: Collection[Key], compared: Iterable[Key], reason: str) -> str:
    """One line that counts the checks that were not compared; empty if all were.

    Args:
        left_out: the checks that were not compared.
        compared: the checks that were.
        reason: the options that selected.
    """
    if not left_out:
        return ""
    cells = {cell for cell, _ in left_out} - {cell for cell, _ in compared}
    checks = sum(cell not in cells for cell, _ in left_out)
    counts = [count_text(len(cells), "cell")] if cells else []
    counts += [f"{count_text(checks, 'check')} of other cells"] if checks else []
    return (
        f"not compared, because the selection{f' ({reason})' if reason else ''} left them out: {' and '.join(counts)}"
    )


def whole_models(part: Part, lines: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The records of the models of which nothing was left out."""
    partial = {model_of(cell) for cell, _ in part.checks}
    return [] if part.tests else [line for line in lines if model_of(line["id"]) not in partial]
