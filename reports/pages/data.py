"""Records → data of the page's script: each cell and message once, checks as columns of numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from parity.reports.gate.causes import Cause
from parity.reports.gate.changes import KINDS, WORST, Change, Statuses
from parity.reports.gate.upgrade import worst_ratio

# Kind of the architectures that declare none.
OTHER = "other"
_CELL = ("id", "architecture", "feature", "format", "runtime", "opset", "attention", "variant")
_COLUMNS = ("cell", "check", "status", "error", "ratio", "worst", "seconds", "peak", "cause", "was", "change")


def compact(
    lines: Sequence[Mapping[str, Any]], causes: Sequence[Cause] = (), accepted: Statuses | None = None
) -> dict[str, Any]:
    """The records, each check with the number of its cause and its status in the baseline.

    Args:
        lines: the records, one a check.
        causes: of the red records.
        accepted: the baseline; None if there is none: nothing counts as changed.
    """
    cells: dict[str, int] = {}
    checks: dict[str, int] = {}
    errors: dict[str, int] = {}
    warnings: dict[str, int] = {}
    cause_of = {id(line): number for number, cause in enumerate(causes) for line in cause.lines}
    rows: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
    verdicts: dict[int, list[str]] = {}
    warned: dict[int, list[int]] = {}
    for number, line in enumerate(lines):
        output, ratio = worst_ratio(line)
        difference = line["outputs"][output].get("worst") if output else None
        values = (
            cells.setdefault(line["id"], len(cells)),
            checks.setdefault(line["check"], len(checks)),
            WORST.index(line["status"]),
            errors.setdefault(line["error"], len(errors)) if line["error"] else -1,
            _finite(ratio),
            _finite(difference),
            round(line["seconds"], 3),
            line.get("peak"),
            cause_of.get(id(line), -1),
            *_change(line, accepted),
        )
        for name, value in zip(_COLUMNS, values, strict=True):
            rows[name].append(value)
        if line["verdicts"]:
            verdicts[number] = [f"{v.get('axis')}: {v.get('verdict')}; {v.get('text')}" for v in line["verdicts"]]
        for each in line.get("warnings") or ():
            text = f"{each['category']} of {each['module']}: {each['text']}"
            warned.setdefault(number, []).append(warnings.setdefault(text, len(warnings)))
    first = {line["id"]: line for line in reversed(lines)}
    return {
        "statuses": WORST,
        "changes": list(KINDS),
        "cells": [{name: first[cell][name] for name in _CELL} for cell in cells],
        "features": sorted({line["feature"] for line in lines}, key=_feature),
        "checks": list(checks),
        "errors": list(errors),
        "rows": rows,
        "verdicts": verdicts,
        "warnings": list(warnings),
        "warned": warned,
    }


def group_by_kind(lines: Iterable[Mapping[str, Any]], kinds: Mapping[str, str]) -> dict[str, list[str]]:
    """Kind of model → its architectures, the kind of most architectures first.

    Args:
        lines: the records.
        kinds: architecture → its kind; those that have none are `OTHER`.
    """
    groups: dict[str, list[str]] = {}
    for name in sorted({line["architecture"] for line in lines}):
        groups.setdefault(kinds.get(name, OTHER), []).append(name)
    return dict(sorted(groups.items(), key=lambda pair: (-len(pair[1]), pair[0])))


def _change(line: Mapping[str, Any], accepted: Statuses | None) -> tuple[int, int]:
    """Numbers of the accepted status and of the kind of change; -1 if there is none."""
    if accepted is None:
        return -1, -1
    before, after = accepted.get((line["id"], line["check"])), line["status"]
    change = Change(line["id"], line["check"], before, after)
    return WORST.index(before) if before else -1, -1 if before == after else list(KINDS).index(change.kind)


def _feature(name: str) -> tuple[bool, str]:
    """Sort key: `default` first, features with and without past next to each other."""
    return name.removesuffix("-with-past") != "default", name


def _finite(value: float | None) -> float | str | None:
    """The number with six digits; infinity and NaN as text, because JSON cannot hold them."""
    if value is None:
        return None
    return float(f"{value:.6g}") if math.isfinite(value) else str(value)


def reproducers(directories: Iterable[Path], cells: Iterable[str]) -> dict[str, list[tuple[str, str]]]:
    """Cell → name and text of the scripts that reproduce its failures; ignores scripts of older runs."""
    names = set(cells)
    texts: dict[str, list[tuple[str, str]]] = {}
    for path in sorted(path for directory in directories for path in directory.glob("*.py")):
        cell = path.stem.rpartition("-")[0].removesuffix("-episode")
        if cell in names:
            texts.setdefault(cell, []).append((path.name, path.read_text(encoding="utf-8")))
    return texts
