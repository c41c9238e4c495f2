"""Changes between two runs: statuses by cell and check, sorted into kinds, folded into few lines."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

# Worst first; a skip says nothing about a feature.
WORST = ("failed", "error", "xpassed", "xfailed", "passed", "skipped")
# The statuses that turn a run red.
RED = ("failed", "error", "xpassed")
# Kind → its meaning; worst first.
KINDS = {
    "regressed": "worse than before",
    "disappeared": "no result any more",
    "new": "no result before",
    "fixed": "better than before",
}
# What to do about a failing change besides accepting it.
ADVICE = {"xpassed": "a deviation passes again: remove it from the declaration"}

# Number of checks that a line names; if there are more, it counts the rest.
NAMED = 6

_ONNX = re.compile(r"(.+-onnx)(\d+)(-.+)?")

# (cell, check) → status.
Statuses = Mapping[tuple[str, str], str]
# (environment, records).
Run = tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]


@dataclass(frozen=True)
class Change:
    """A check of a cell whose status changed; a status is None if there is no record."""

    cell: str
    check: str
    before: str | None
    after: str | None

    @property
    def kind(self) -> str:
        """A key of `KINDS`; a skip is no result."""
        if self.before is None or (self.before == "skipped" and self.after is not None):
            return "new"
        if self.after in (None, "skipped"):
            return "disappeared"
        return "regressed" if worse(self.after, self.before) else "fixed"

    @property
    def is_worse(self) -> bool:
        """Whether a release engineer must look at it: worse, a result that disappeared, or a new one that is red."""
        if self.kind == "new":
            return self.after in RED
        return self.kind == "regressed" or (self.kind == "disappeared" and self.before != "skipped")


def worse(status: str, other: str) -> bool:
    """Whether `status` is worse than `other`; a deviation that passes again is better than one that fails."""
    order = ("failed", "error", "xfailed", "xpassed", "passed")
    return order.index(status) < order.index(other)


def worst(statuses: Iterable[str]) -> str:
    """The worst of several statuses."""
    return min(statuses, key=WORST.index)


def statuses(lines: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], str]:
    """(cell, check) → status of records; the worse if two tests have one name."""
    by_check: dict[tuple[str, str], str] = {}
    for line in lines:
        key = line["id"], line["check"]
        by_check[key] = worst((by_check.get(key, line["status"]), line["status"]))
    return by_check


def verdicts(by_check: Statuses) -> dict[tuple[str, str], str]:
    """(cell, "") → the worst of its statuses: the verdict on a cell as a whole."""
    by_cell: dict[tuple[str, str], str] = {}
    for (cell, _), status in by_check.items():
        by_cell[cell, ""] = worst((by_cell.get((cell, ""), status), status))
    return by_cell


def changes(before: Statuses, after: Statuses) -> list[Change]:
    """Every check whose status changed, the worst kind first."""
    keys = sorted({*before, *after}, key=lambda key: (_by_number(key[0]), key[1]))
    items = [Change(*key, before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)]
    return sorted(items, key=lambda change: list(KINDS).index(change.kind))


def by_kind(items: Iterable[Change]) -> dict[str, list[Change]]:
    """Kind → its changes; without empty kinds."""
    worst_first = sorted(items, key=lambda change: list(KINDS).index(change.kind))
    return {kind: list(group) for kind, group in groupby(worst_first, key=lambda change: change.kind)}


def change_lines(items: Iterable[Change]) -> list[str]:
    """One line for all opsets and checks with the same change: `bert-default-onnx11–13 contract: passed → failed`."""
    checks: dict[tuple[str, str | None, str | None], list[str]] = {}
    for change in items:
        checks.setdefault((change.cell, change.before, change.after), []).append(change.check)
    cells: dict[tuple[str, str, str | None, str | None, str], list[str]] = {}
    for (cell, before, after), names in checks.items():
        stem, opset, rest = split(cell)
        cells.setdefault((stem, rest, before, after, _first_names(names)), []).append(opset)
    lines = []
    for (stem, rest, before, after, label), opsets in cells.items():
        cell = f"{stem}{ranges(int(opset) for opset in opsets if opset)}{rest}"
        advice = f"; {ADVICE[after]}" if after in ADVICE else ""
        subject = f"{cell} {label}".rstrip()
        lines.append(f"{subject}: {before or 'missing'} → {after or 'missing'}{advice}")
    return lines


def _first_names(names: Sequence[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names) if more <= 1 else f"{', '.join(names[:NAMED])} and {more} more"


def split(cell: str) -> tuple[str, str, str]:
    """The id of a cell before its opset, the opset, and the rest; without an opset, the id and two empty strings."""
    match = _ONNX.fullmatch(cell)
    return (match[1], match[2], match[3] or "") if match else (cell, "", "")


def ranges(opsets: Iterable[int]) -> str:
    """`11–13, 17` for 11, 12, 13, 17."""
    runs = [list(run) for _, run in groupby(enumerate(sorted(opsets)), key=lambda pair: pair[1] - pair[0])]
    return ", ".join(f"{run[0][1]}–{run[-1][1]}" if len(run) > 1 else f"{run[0][1]}" for run in runs)


def count_text(number: int, noun: str) -> str:
    """`1 cell`, `2 cells`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _by_number(cell: str) -> tuple[str, int, str]:
    """Sort key of cells: opsets as numbers."""
    stem, opset, rest = split(cell)
    return stem, int(opset or 0), rest


def worst_by_feature(lines: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], dict[int, str]]:
    """(architecture, feature) → opset → the worst status of its ONNX cells."""
    features: dict[tuple[str, str], dict[int, str]] = {}
    for line in lines:
        if line["opset"] is not None:
            opsets = features.setdefault((line["architecture"], line["feature"]), {})
            opsets[line["opset"]] = worst((opsets.get(line["opset"], line["status"]), line["status"]))
    return features
