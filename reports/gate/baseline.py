"""The release gate: statuses of a run beside those that were accepted for its environment.

`reports/baseline/<environment>.csv` has a row for each cell and status, with the checks that have it: nothing that two
equal runs would write differently.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from parity.errors import UsageError
from parity.reports.gate.causes import cause_lines, causes_of, rerun_command
from parity.reports.gate.changes import KINDS, Statuses, by_kind, change_lines, changes, count_text
from parity.reports.gate.changes import statuses as statuses_of

DIRECTORY = Path("reports/baseline")
DECIDING = ("transformers", "torch", "onnxruntime")
_COLUMNS = ["cell", "status", "checks"]


def environment_of(environment: Mapping[str, Any]) -> str:
    """The name of a run's environment: the packages that decide, with the versions that were published."""
    packages = environment["packages"]
    return "-".join(f"{name}-{packages[name].partition('+')[0]}" for name in DECIDING if packages.get(name))


def path_of(directory: Path, environment: Mapping[str, Any]) -> Path:
    """Where the baseline of an environment is."""
    return directory / f"{environment_of(environment)}.csv"


def as_csv(statuses: Statuses) -> str:
    """The baseline as text."""
    checks: dict[tuple[str, str], list[str]] = {}
    for (cell, check), status in statuses.items():
        checks.setdefault((cell, status), []).append(check)
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows([cell, status, " ".join(sorted(names))] for (cell, status), names in sorted(checks.items()))
    return stream.getvalue()


def read(path: Path) -> dict[tuple[str, str], str]:
    """(cell, check) → status.

    Raises:
        UsageError: the file is not one that `as_csv` has made.
    """
    try:
        rows = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from error
    if not rows or rows[0] != _COLUMNS:
        raise UsageError(f"{path}: should begin with {','.join(_COLUMNS)}; make it anew with --accept")
    wrong = [number for number, row in enumerate(rows, 1) if len(row) != len(_COLUMNS)]
    if wrong:
        raise UsageError(f"{path}: line {wrong[0]}: should have {', '.join(_COLUMNS)}; make it anew with --accept")
    return {(cell, check): status for cell, status, checks in rows[1:] for check in checks.split()}


def accept(path: Path, statuses: Statuses, *, prune: bool = False) -> str:
    """Write the baseline; says what has changed in it.

    Args:
        statuses: of a run, of the whole matrix or of a part of it.
        prune: drop the checks that have no status in the run; otherwise they stay as they are.
    """
    before = read(path) if path.exists() else {}
    after = dict(statuses) if prune else {**before, **statuses}
    kinds = by_kind(changes(before, after))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(as_csv(after), encoding="utf-8")
    summary = ", ".join(f"{len(each)} {kind}" for kind, each in kinds.items()) or "nothing has changed"
    others = len(after) - len(statuses)
    rest = f"; {count_text(others, 'check')} without a result in this run stay" if others else ""
    size = f"{count_text(len(after), 'check')} of {count_text(len({cell for cell, _ in after}), 'cell')}"
    return f"{path}: {size}; {summary}{rest}"


def verdict(
    path: Path, environment: Mapping[str, Any], lines: Sequence[Mapping[str, Any]], command: str
) -> dict[str, Any]:
    """What the gate says of the records of a run.

    Returns:
        ok; environment; counts of statuses; causes of what is red and was not accepted so; changes: kind → lines;
        accept: the command that accepts them all.
    """
    before = read(path) if path.exists() else {}
    statuses = statuses_of(lines)
    causes = causes_of(line for line in lines if before.get((line["id"], line["check"])) != line["status"])
    run = rerun_command(environment)
    kinds = by_kind(changes(before, statuses))
    counts: dict[str, int] = {}
    for status in statuses.values():
        counts[status] = counts.get(status, 0) + 1
    return {
        "ok": path.exists() and bool(statuses) and not kinds,
        "environment": environment_of(environment),
        "baseline": str(path) if path.exists() else None,
        "cells": len({cell for cell, _ in statuses}),
        "counts": dict(sorted(counts.items())),
        "causes": {"lines": cause_lines(causes, run), "all": [cause.as_json(run) for cause in causes]},
        "changed": {kind: len(each) for kind, each in kinds.items()},
        "changes": {kind: change_lines(each) for kind, each in kinds.items()} if path.exists() else {},
        # A part of a matrix takes nothing away unless it is told to.
        "accept": f"{command} --prune" if any(c.after is None for c in kinds.get("disappeared", ())) else command,
    }


def report(outcome: Mapping[str, Any], *, markdown: bool = False) -> str:
    """The verdict for a person."""
    counts = ", ".join(f"{number:,} {status}" for status, number in outcome["counts"].items())
    state = "all is as accepted" if outcome["ok"] else "**not accepted**" if markdown else "not accepted"
    lines = [f"{outcome['environment']}: {count_text(outcome['cells'], 'cell')}: {counts or 'no result'}: {state}"]
    if outcome["baseline"] is None:
        lines += ["", "This environment has no baseline yet: all its cells are new."]
    if outcome["causes"]["lines"]:
        count = f"{count_text(len(outcome['causes']['all']), 'cause')} of what is red and was not accepted"
        fence = ["```"] if markdown else []
        lines += ["", f"### {count}" if markdown else f"{count}:", "", *fence, *outcome["causes"]["lines"], *fence]
    for kind, changes_of_kind in outcome["changes"].items():
        count = count_text(outcome["changed"][kind], "check")
        lines += ["", f"### {kind}: {count}" if markdown else f"{kind}: {count}, {KINDS[kind]}", ""]
        lines += [f"- {line}" if markdown else f"  {line}" for line in changes_of_kind]
    if not outcome["ok"]:
        command = f"`{outcome['accept']}`" if markdown else outcome["accept"]
        lines += ["", f"If that is how it should be, accept it with: {command}"]
    return "\n".join(lines) + "\n"
