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
from parity.reports.gate import known_warnings
from parity.reports.gate.causes import causes_of, listing, rerun_command, sections, warning_causes
from parity.reports.gate.changes import KINDS, Statuses, by_kind, change_lines, changes, count_text
from parity.reports.gate.changes import statuses as statuses_of

DIRECTORY = Path("reports/baseline")
DECIDING = ("transformers", "torch", "onnxruntime")
_COLUMNS = ["cell", "status", "checks"]
# Lines in which the gate reports a red run.
TOLD = 39


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
        ok; environment; counts of statuses; causes of what is red and was not accepted so, warnings that were not
        accepted (see `listing`); changes: kind → lines; accept: the command that accepts them all.
    """
    before = read(path) if path.exists() else {}
    statuses = statuses_of(lines)
    causes = causes_of(line for line in lines if before.get((line["id"], line["check"])) != line["status"])
    known = known_warnings.read(path.parent / known_warnings.FILE, environment_of(environment))
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
        **listing(causes, warning_causes(lines, known), run),
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
    lines += sections(outcome, "what is red and was not accepted", markdown="###" if markdown else "")
    # Behind causes the cells are folded; without any they are the whole news.
    room = TOLD - len(lines) - 2 if outcome["causes"]["lines"] else None
    lines += _kind_lines(outcome, room, markdown)
    if not outcome["ok"]:
        command = f"`{outcome['accept']}`" if markdown else outcome["accept"]
        lines += ["", f"If that is how it should be, accept it with: {command}"]
    return "\n".join(lines) + "\n"


def _kind_lines(outcome: Mapping[str, Any], room: int | None, markdown: bool) -> list[str]:
    """The changes of each kind, under a title.

    Args:
        room: how many lines they may take; None if they may take all that they need.
    """
    changes = outcome["changes"]
    titles = {kind: f"{kind}: {count_text(outcome['changed'][kind], 'check')}" for kind in changes}
    # A title stands between two empty lines.
    fits = room is None or sum(len(each) + 3 for each in changes.values()) <= room
    limit = None if fits or room is None else room // len(changes) - 4
    if limit is not None and limit < 1:
        return [*([""] if markdown else []), f"{'; '.join(titles.values())}; --format json lists them"]
    lines = []
    for kind, changes_of_kind in changes.items():
        lines += ["", f"### {titles[kind]}" if markdown else f"{titles[kind]}, {KINDS[kind]}", ""]
        lines += [f"- {line}" if markdown else f"  {line}" for line in changes_of_kind[:limit]]
        if len(changes_of_kind[:limit]) < len(changes_of_kind):
            lines.append(f"  … and {len(changes_of_kind) - len(changes_of_kind[:limit])} lines more: --format json")
    return lines
