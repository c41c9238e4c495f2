"""The release gate: compares the statuses of a run with those accepted for its environment.

`reports/baseline/<environment>.csv` has a row for each cell and status, listing the checks with that status. It
contains nothing that differs between two equal runs.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.version import Version

from parity import schema
from parity.errors import UsageError
from parity.files import replace_text
from parity.records import STATUSES
from parity.reports.gate import known_warnings
from parity.reports.gate.causes import causes_of, listing, rerun_command, sections, warning_causes
from parity.reports.gate.changes import KINDS, RED, Change, Run, Statuses, by_kind, change_lines, changes, count_text
from parity.reports.gate.changes import statuses as statuses_of
from parity.reports.gate.parts import Part, left_out_line, names_of, part_of, without
from parity.schema import SchemaError

DIRECTORY = Path("reports/baseline")
DECIDING = ("transformers", "torch", "onnxruntime")
_COLUMNS = ["cell", "status", "checks"]
_STATUS = schema.choice(*STATUSES)
# Most lines that the gate prints about a red run.
TOLD = 39
# Kinds of changes that are listed when the baseline is of another environment.
_WORSE_KINDS = ("regressed", "disappeared")


def environment_of(environment: Mapping[str, Any]) -> str:
    """The name of a run's environment: the deciding packages with their public versions."""
    packages = environment["packages"]
    if not any(packages.get(name) for name in DECIDING) and environment.get("baseline"):
        return str(environment["baseline"])
    return "-".join(f"{name}-{packages[name].partition('+')[0]}" for name in DECIDING if packages.get(name))


def path_of(directory: Path, environment: Mapping[str, Any]) -> Path:
    """The path of an environment's baseline.

    Raises:
        UsageError: the environment has none of the deciding packages.
    """
    if not environment_of(environment):
        raise UsageError(f"records: their environment names no version of {', '.join(DECIDING)}; run the suite again")
    return directory / f"{environment_of(environment)}.csv"


def as_csv(statuses: Statuses) -> str:
    """The baseline as CSV."""
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
        UsageError: the file was not written by `as_csv`.
    """
    try:
        rows = schema.read_table(path, {"cell": schema.text(300), "status": _STATUS, "checks": schema.text(10_000)})
    except SchemaError as error:
        raise UsageError(f"{error}; restore it, or write it again with --accept") from None
    return {(row["cell"], check): row["status"] for row in rows for check in row["checks"].split()}


def name_of(path: Path) -> dict[str, str]:
    """Package → version, from the name of a baseline."""
    return dict(re.findall(rf"(?:^|-)({'|'.join(DECIDING)})-([^-]+)", path.stem))


def nearest(directory: Path, environment: Mapping[str, Any]) -> Path | None:
    """The baseline of the most similar environment: the same packages first, then the closest versions.

    A difference in the major version counts more than any in the minor version, and so on; ties prefer equal
    transformers, then torch, then onnxruntime.
    """
    own = name_of(path_of(directory, environment))

    def distance(path: Path) -> tuple[int, list[int], list[list[int]], str]:
        other = name_of(path)
        steps = [_steps(own[name], other[name]) for name in DECIDING if name in own and name in other]
        return len({*own} ^ {*other}), [sum(each) for each in zip(*steps, strict=True)], steps, path.name

    paths = [path for path in directory.glob("*.csv") if name_of(path)]
    return min(paths, key=distance, default=None)


def _steps(version: str, other: str) -> list[int]:
    """The distance between two versions, number by number."""
    pairs = [(*Version(each).release, 0, 0, 0)[:3] for each in (version, other)]
    return [abs(first - second) for first, second in zip(*pairs, strict=True)]


def differences(path: Path, environment: Mapping[str, Any]) -> str:
    """The packages whose versions differ from a baseline's: `transformers 5.23.0 → 5.24.0`."""
    before, after = name_of(path), name_of(path_of(path.parent, environment))
    names = [name for name in DECIDING if before.get(name) != after.get(name)]
    return ", ".join(f"{name} {before.get(name, 'none')} → {after.get(name, 'none')}" for name in names)


@dataclass(frozen=True)
class Allowance:
    """What an acceptance may do besides adding passed checks.

    Args:
        drop: how many checks without a result may be removed from the baseline; 0 keeps them.
        even_failed: accept red checks too.
    """

    drop: int = 0
    even_failed: bool = False


def accept(path: Path, run: Run, allowance: Allowance) -> str:
    """Write the baseline of a run's environment, for the cells that the run selected; returns what changed.

    Args:
        path: of the baseline.
        run: environment and records.
        allowance: what may be accepted.

    Raises:
        UsageError: the changes exceed the allowance, or the run is a part and there is no baseline yet.
    """
    environment, lines = run
    statuses, part = statuses_of(lines), part_of(environment)
    _require_whole(path, environment, statuses)
    before = read(path) if path.exists() else {}
    compared, left_out = without(before, part, statuses)
    gone = {key: status for key, status in compared.items() if key not in statuses}
    red = _newly_red(before, statuses)
    _require_allowance(allowance, gone, red)
    after = {**before, **statuses}
    if allowance.drop:
        after = {key: status for key, status in after.items() if key not in gone}
    kinds = by_kind(changes(before, after))
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, as_csv(after))
    summary = ", ".join(f"{len(each)} {kind}" for kind, each in kinds.items()) or "nothing has changed"
    size = f"{count_text(len(after), 'check')} of {count_text(len({cell for cell, _ in after}), 'cell')}"
    text = f"{path}: {size}; {summary}"
    text += f"; accepted although red: {_count_red(red)}" if red else ""
    text += f"; {count_text(len(left_out), 'check')} that the selection left out stay" if left_out else ""
    if allowance.drop:
        return "\n".join([f"{text}; dropped:", *_gone_lines(gone)])
    stay = f"; {count_text(len(gone), 'check')} without a result in this run stay: --drop {len(gone)} drops them"
    return text + (stay if gone else "")


def _newly_red(before: Statuses, statuses: Statuses) -> list[str]:
    return [status for key, status in statuses.items() if status in RED and before.get(key) != status]


def _count_red(red: Sequence[str]) -> str:
    return ", ".join(f"{red.count(status):,} {status}" for status in RED if status in red)


def _gone_lines(gone: Statuses) -> list[str]:
    return [f"  {line}" for line in change_lines(Change(*key, status, None) for key, status in gone.items())]


def _require_allowance(allowance: Allowance, gone: Statuses, red: Sequence[str]) -> None:
    if allowance.drop and not gone:
        raise UsageError(f"--drop {allowance.drop}: every check that was selected has a result; leave the option out")
    if allowance.drop and allowance.drop != len(gone):
        number = count_text(len(gone), "check")
        have = "has" if len(gone) == 1 else "have"
        lines = "\n".join(_gone_lines(gone))
        raise UsageError(
            f"--drop {allowance.drop}: {number} {have} no result any more, should be --drop {len(gone)}; nothing was"
            f" accepted:\n{lines}"
        )
    if red and not allowance.even_failed:
        raise UsageError(
            f"{_count_red(red)}, but not in the baseline; declare a bug of another package as a deviation, or fix the"
            f" cause; --even-failed accepts what is red; nothing was accepted"
        )


def _require_whole(path: Path, environment: Mapping[str, Any], statuses: Statuses) -> None:
    """Refuse to start a baseline from a part: of the run's architectures, or of the checks in the nearest baseline."""
    part = part_of(environment)
    if path.exists() or not part:
        return
    own = {names_of(cell)[0] for cell, _ in statuses}
    near = nearest(path.parent, environment)
    keys = [key for key in read(near) if key not in statuses and part.leaves_out(key)] if near else []
    keys += [key for key in part.checks if names_of(key[0])[0] in own]
    if keys or part.tests:
        cells = count_text(len({cell for cell, _ in keys}), "cell")
        what = f"checks of {cells}" if keys else f"the tests {', '.join(sorted(part.tests))}"
        raise UsageError(
            f"{path}: does not exist yet, and these records are of a part of the matrix: the selection"
            f"{f' ({part.reason})' if part.reason else ''} left out {what}; run the whole matrix and accept that"
        )


def verdict(path: Path, run: Run, command: str) -> dict[str, Any]:
    """The gate's verdict on the records of a run.

    Args:
        path: of the baseline of its environment, which may not exist yet.
        run: environment and records.
        command: the command that accepts these records.

    Returns:
        ok; environment; baseline (what it was compared with) and differences (if that is another environment's);
        counts of statuses; causes of red checks and warnings that were not accepted (see `listing`);
        changes: kind → lines; left_out: a line that counts the checks not compared; accept: the command that accepts
        all, or None.
    """
    environment, lines = run
    place = path if path.exists() else nearest(path.parent, environment)
    statuses, part = statuses_of(lines), part_of(environment)
    whole = read(place) if place else {}
    before, left_out = without(whole, part, statuses)
    causes = causes_of(line for line in lines if before.get((line["id"], line["check"])) != line["status"])
    known = known_warnings.read(path.parent / known_warnings.FILE, place.stem) if place else set()
    rerun = rerun_command(environment)
    items = changes(before, statuses)
    kinds = by_kind(items)
    counts: dict[str, int] = {}
    for status in statuses.values():
        counts[status] = counts.get(status, 0) + 1
    own = place == path
    return {
        "ok": place is not None and bool(statuses) and not (kinds if own else any(each.is_worse for each in items)),
        "environment": environment_of(environment),
        "baseline": str(place) if place else None,
        "differences": differences(place, environment) if place and not own else "",
        "cells": len({cell for cell, _ in statuses}),
        "counts": dict(sorted(counts.items())),
        **listing(causes, warning_causes(lines, known), rerun),
        "changed": {kind: len(each) for kind, each in kinds.items()},
        "worse": sum(each.is_worse for each in items),
        "changes": {kind: change_lines(each) for kind, each in kinds.items()} if place else {},
        "left_out": left_out_line(left_out, before, part.reason),
        "accept": _accept_command(command, items, part) if own or not part else None,
    }


def _accept_command(command: str, items: Iterable[Change], part: Part) -> str:
    """The command that accepts all changes, with an option for checks to remove and for red checks if there are any."""
    items = list(items)
    gone = sum(change.after is None for change in items)
    red = any(change.after in RED for change in items)
    return f"{command}{' --even-failed' if red else ''}{f' --drop {gone}' if gone else ''}"


def report(outcome: Mapping[str, Any], *, markdown: bool = False) -> str:
    """The verdict as text or Markdown."""
    near = outcome["differences"]
    counts = ", ".join(f"{number:,} {status}" for status, number in outcome["counts"].items())
    state = _state(outcome, markdown)
    lines = [f"{outcome['environment']}: {count_text(outcome['cells'], 'cell')}: {counts or 'no result'}: {state}"]
    if outcome["baseline"] is None:
        lines += ["", "This environment has no baseline yet, and there is none near it: all its cells are new."]
    if near:
        lines += ["", f"no baseline of its own; compared with the nearest, {outcome['baseline']}: {near}"]
    if outcome["left_out"]:
        lines += ["", outcome["left_out"]]
    lines += sections(outcome, "what is red and was not accepted", markdown="###" if markdown else "")
    advice = _advice(outcome, markdown)
    # With causes, the cells are shortened to fit; without causes, list them all.
    room = TOLD - len(lines) - len(advice) if outcome["causes"]["lines"] else None
    lines += [*_kind_lines(outcome, room, markdown), *advice]
    if room is not None and len(lines) > TOLD and not markdown:
        lines = [line for line in lines if line]
    return "\n".join(lines) + "\n"


def _kind_lines(outcome: Mapping[str, Any], room: int | None, markdown: bool) -> list[str]:
    """The changes of each kind, under a title.

    Args:
        outcome: a verdict.
        room: most lines they may take; None for no limit.
        markdown: Markdown instead of text.
    """
    titles = {kind: f"{kind}: {count_text(number, 'check')}" for kind, number in outcome["changed"].items()}
    # Most differences from another environment's baseline need no attention: count them.
    listed = {
        kind: () if outcome["differences"] and kind not in _WORSE_KINDS else lines
        for kind, lines in outcome["changes"].items()
    }
    # A title has an empty line before and after it.
    fits = room is None or sum(len(lines) + 3 for lines in listed.values()) <= room
    limit = None if fits or room is None else room // len(listed) - 4
    if limit is not None and limit < 1:
        return ["", f"{'; '.join(titles[kind] for kind in listed)}; --format json lists them"]
    text = []
    for kind, lines in listed.items():
        text += ["", f"### {titles[kind]}" if markdown else f"{titles[kind]}, {KINDS[kind]}", *([""] if lines else [])]
        text += [f"- {line}" if markdown else f"  {line}" for line in lines[:limit]]
        if len(lines[:limit]) < len(lines):
            text.append(f"  … and {len(lines) - len(lines[:limit])} lines more: --format json")
    return text


def _state(outcome: Mapping[str, Any], markdown: bool) -> str:
    if outcome["differences"]:
        number = "nothing is" if outcome["ok"] else f"{count_text(outcome['worse'], 'check')}"
        return f"{number} worse than in the nearest baseline"
    return "all is as accepted" if outcome["ok"] else "**not accepted**" if markdown else "not accepted"


def _advice(outcome: Mapping[str, Any], markdown: bool) -> list[str]:
    """The next step for the user."""
    command = f"`{outcome['accept']}`" if markdown else outcome["accept"]
    if outcome["accept"] is None:
        return ["", "A baseline of its own is made from a run of the whole matrix."]
    if outcome["differences"]:
        return ["", f"A baseline of its own is made with: {command}"]
    return [] if outcome["ok"] else ["", f"If that is how it should be, accept it with: {command}"]
