"""The effect of an upgrade: packages that changed, verdicts by cell, error ratios that moved; worst first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from parity.reports.gate import baseline
from parity.reports.gate.causes import Cause, causes_of, listing, rerun_command, sections, warning_causes
from parity.reports.gate.changes import (
    KINDS,
    Change,
    Run,
    by_kind,
    change_lines,
    changes,
    count_text,
    ranges,
    split,
    statuses,
    verdicts,
)
from parity.reports.gate.parts import left_out_line, part_of, without

# Pooled ratios of healthy cells stay below 2: changes below 1 are rounding, not a change of the model.
NOTABLE, FACTOR = 1.0, 1.5
# Most lines of one list in text and Markdown; JSON has all.
SHOWN = 60


def difference(old: Run, new: Run) -> dict[str, Any]:
    """The differences of the run `new` from the run `old`.

    Args:
        old, new: the environment and the records of a run.

    Returns:
        worse (a result is worse or gone, or a ratio has grown), before and after (the environments' names), packages
        (name → [before, after]), counts of kinds, causes and warnings (see `listing`), cells (kind → cells whose worst
        status changed), changes (kind → checks with before, after and error), ratios, lines (those of
        `change_lines` for cells and checks).
    """
    (before, old_lines), (after, new_lines) = old, new
    was, now = statuses(old_lines), statuses(new_lines)
    old_part, new_part = part_of(before), part_of(after)
    (was, gone), (now, added) = without(was, new_part, now), without(now, old_part, was)
    checks, cells = by_kind(changes(was, now)), by_kind(changes(verdicts(was), verdicts(now)))
    errors = {(line["id"], line["check"]): line["error"] for line in [*old_lines, *new_lines] if line["error"]}
    ratio_rows = ratios(old_lines, new_lines)
    run = rerun_command(after)
    # A baseline has no causes.
    red = [] if after.get("baseline") else new_lines
    causes = causes_of(line for line in red if was.get((line["id"], line["check"])) != line["status"])
    known = {cause.key for cause in warning_causes(old_lines)} | {tuple(key) for key in before.get("warnings", ())}
    worse = [change for each in checks.values() for change in each if change.is_worse]
    growths = [row for row in ratio_rows if row["after"] > row["before"]]
    return {
        "worse": bool(growths or worse),
        "verdict": _verdict(worse, len(growths), causes),
        "left_out": left_out_line([*gone, *added], {**was, **now}, new_part.reason or old_part.reason),
        "before": baseline.environment_of(before),
        "after": baseline.environment_of(after),
        "packages": packages(before, after),
        "counts": {
            "cells before": len({line["id"] for line in old_lines}),
            "cells after": len({line["id"] for line in new_lines}),
            "checks before": len(old_lines),
            "checks after": len(new_lines),
            **{kind: len(checks.get(kind, ())) for kind in KINDS},
            "ratios that grew": len(growths),
            "ratios that shrank": len(ratio_rows) - len(growths),
        },
        **listing(causes, warning_causes(new_lines, known), run),
        "changes": {
            kind: [
                {**vars(change), "error": errors.get((change.cell, change.check))} for change in checks.get(kind, ())
            ]
            for kind in KINDS
        },
        "has_ratios": not (before.get("baseline") or after.get("baseline")),
        "ratios": ratio_rows,
        "cells": {
            kind: [{"cell": each.cell, "before": each.before, "after": each.after} for each in cells.get(kind, ())]
            for kind in KINDS
        },
        "lines": {
            "cells": {kind: change_lines(each) for kind, each in cells.items()},
            "checks": {kind: _lines_with_errors(each, errors) for kind, each in checks.items()},
        },
    }


def packages(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Name → versions that decide a result and changed: packages, Python, parity, the platform."""
    first, second = (
        {**run["packages"], **{n: run.get(n) for n in ("python", "parity", "platform")}} for run in (before, after)
    )
    known = {**first, **second}
    if before.get("baseline") or after.get("baseline"):
        # The name of a baseline has some packages, and nothing else.
        known = {name: version for name, version in known.items() if first.get(name) and second.get(name)}
    names = [name for name in known if first.get(name) != second.get(name)]
    return {name: [first.get(name), second.get(name)] for name in names}


def ratios(old: Iterable[Mapping[str, Any]], new: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The checks whose worst error ratio moved by `FACTOR` and is, or was, above `NOTABLE`; largest growth first."""
    before = {(line["id"], line["check"]): worst_ratio(line) for line in old}
    rows: list[dict[str, Any]] = []
    for line in new:
        output, after = worst_ratio(line)
        _, was = before.get((line["id"], line["check"]), ("", None))
        if after is None or was is None or max(after, was) < NOTABLE:
            continue
        factor = after / was if was else float("inf")
        if factor >= FACTOR or factor <= 1 / FACTOR:
            rows.append({"cell": line["id"], "check": line["check"], "output": output, "before": was, "after": after})
    return sorted(rows, key=lambda row: row["before"] / row["after"] if row["after"] else float("inf"))


def _verdict(worse: Sequence[Change], growths: int, causes: Sequence[Cause]) -> str:
    """One sentence: whether anything is worse, and the largest cause of it."""
    if not worse and not growths:
        return "Nothing is worse."
    cells = count_text(len({change.cell for change in worse}), "cell")
    parts = [f"{count_text(len(worse), 'check')} of {cells}"] if worse else []
    parts += [f"{count_text(growths, 'error ratio')} grew"] if growths else []
    if causes:
        first = causes[0]
        parts.append(f"the largest cause is {first.title if first.exception else f'a {first.title}'}")
    return f"Worse: {'; '.join(parts)}."


def worst_ratio(line: Mapping[str, Any]) -> tuple[str, float | None]:
    """The output with the largest error ratio, and that ratio; None if there is no measurement."""
    outputs = {name: each["ratio"] for name, each in line["outputs"].items() if each.get("ratio") is not None}
    name = max(outputs, key=outputs.__getitem__, default="")
    return name, outputs.get(name)


def report(comparison: Mapping[str, Any], *, markdown: bool = False) -> str:
    """The difference as text or Markdown."""
    title = comparison.get("title") or f"{comparison['before']} → {comparison['after']}"
    counts = comparison["counts"]
    lines = [
        f"# {title}" if markdown else title,
        "",
        f"**{comparison['verdict']}**" if markdown else comparison["verdict"],
    ]
    command = comparison.get("command", "")
    lines += [f"Reproduce it with: {f'`{command}`' if markdown else command}"] if command else []
    lines += [*sections(comparison, "what is red now and was not", markdown="##" if markdown else ""), ""]
    measured = f"{counts['ratios that grew']:,} error ratios grew, {counts['ratios that shrank']:,} shrank"
    if not comparison["has_ratios"]:
        measured = "error ratios were not compared, as a baseline has none"
    lines.append(
        f"{counts['cells before']:,} cells with {counts['checks before']:,} checks before,"
        f" {counts['cells after']:,} with {counts['checks after']:,} after:"
        f" {', '.join(f'{counts[kind]:,} {kind}' for kind in KINDS)};"
        f" {measured}."
    )
    lines += ["", comparison["left_out"]] if comparison["left_out"] else []
    lines += ["", *_packages(comparison["packages"], markdown)]
    for kind in KINDS:
        for unit in ("cells", "checks"):
            items = comparison["lines"][unit].get(kind, ())
            number = len(comparison["cells"][kind]) if unit == "cells" else counts[kind]
            heading = f"{kind}: {count_text(number, unit[:-1])}, {KINDS[kind]}"
            lines += ["", f"## {heading}" if markdown else heading, "", *_list(items, markdown)] if items else []
    if comparison["ratios"]:
        heading = f"Error ratios that moved by {FACTOR} × or more"
        lines += ["", f"## {heading}" if markdown else heading, ""]
        lines += _list(_ratio_lines(comparison["ratios"]), markdown)
    if not comparison["lines"]["checks"] and not comparison["ratios"]:
        ratios_too = ", and no error ratio has moved" if comparison["has_ratios"] else ""
        lines += ["", f"Every check has the verdict that it had{ratios_too}."]
    return "\n".join(lines) + "\n"


def _packages(versions: Mapping[str, Sequence[Any]], markdown: bool) -> list[str]:
    if not versions:
        return ["The same packages."]
    if markdown:
        rows = [f"| {name} | {before} | {after} |" for name, (before, after) in versions.items()]
        return ["| package | before | after |", "|---|---|---|", *rows]
    return [f"{name:14}{before or '–'} → {after or '–'}" for name, (before, after) in versions.items()]


def _list(lines: Sequence[str], markdown: bool) -> list[str]:
    rows = [f"- {line}" if markdown else f"  {line}" for line in lines[:SHOWN]]
    if len(lines) > SHOWN:
        rows += ["", f"… and {len(lines) - SHOWN:,} lines more, see JSON."]
    return rows


def _lines_with_errors(items: Iterable[Change], errors: Mapping[tuple[str, str], str]) -> list[str]:
    """Changes folded over opsets, grouped by message."""
    messages: dict[str, list[Change]] = {}
    for change in items:
        message = (errors.get((change.cell, change.check)) or "").partition("\n")[0][:200]
        messages.setdefault(message, []).append(change)
    return [
        f"{line}{f': {message}' if message else ''}"
        for message, some in messages.items()
        for line in change_lines(some)
    ]


def _ratio_lines(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """One line for all opsets of a cell and check, sorted by their largest growth."""
    grouped: dict[tuple[str, str, str, str, bool], list[tuple[str, Mapping[str, Any]]]] = {}
    for row in rows:
        stem, opset, rest = split(row["cell"])
        grouped.setdefault((stem, rest, row["check"], row["output"], row["after"] > row["before"]), []).append(
            (opset, row)
        )
    lines = []
    for (stem, rest, check, output, _), group in grouped.items():
        cell = f"{stem}{ranges(int(opset) for opset, _ in group if opset)}{rest}"
        row = group[0][1]
        lines.append(f"{cell} {check}, {output}: {row['before']:.3g} → {row['after']:.3g}")
    return lines
