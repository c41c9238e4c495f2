"""Records → one self-contained HTML page, and a Markdown summary next to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from parity.errors import EnvironmentGap, UsageError
from parity.files import replace_text
from parity.reports.gate import baseline
from parity.reports.gate.causes import (
    LISTED,
    WARNED,
    Cause,
    Key,
    affected,
    causes_of,
    listing,
    rerun_command,
    sections,
    warning_causes,
)
from parity.reports.gate.changes import KINDS, WORST, Run, Statuses, ranges, split, statuses
from parity.reports.gate.parts import left_out_line, part_of, without
from parity.reports.pages.data import compact, group_by_kind, reproducers

TEMPLATES = Path(__file__).parent / "templates"
SYMBOLS = {"failed": "✗", "error": "!", "xpassed": "↑", "xfailed": "~", "passed": "✓", "skipped": "–"}
MEANINGS = {
    "failed": "the file does not do what is claimed",
    "error": "no file, or none that could be tried",
    "xpassed": "a deviation that passes again: remove its declaration",
    "xfailed": "a deviation that is known and declared, with its thread upstream",
    "passed": "the claim holds",
    "skipped": "not tried here, for the reason given",
}
SUMMARY_LINES = 40


@dataclass(frozen=True)
class Context:
    """What the page shows in addition to the records.

    Args:
        history: earlier runs, the oldest first.
        scripts: directories with the reproducers that runs have left.
        kinds: architecture → kind of its model, by which the matrix is grouped.
        baseline: environment of the baseline or run that the records are compared with; empty if there is none.
        noun: its kind: `baseline`, `nearest baseline` or `run`.
        differences: the packages whose versions differ in it; empty if its environment is that of the records.
        accepted: its statuses, without those that the selection of the run left out.
        left_out: a line that counts those left out.
        known: the warnings that were accepted with it.
    """

    history: Sequence[Run] = ()
    scripts: Sequence[Path] = ()
    kinds: Mapping[str, str] = field(default_factory=dict)
    baseline: str = ""
    noun: str = "baseline"
    differences: str = ""
    accepted: Statuses = field(default_factory=dict)
    left_out: str = ""
    known: Collection[Key] = ()


def against(old: Run, new: Run) -> Context:
    """The comparison with `old`, a baseline or another run, for the page of `new`."""
    (before, old_lines), (after, new_lines) = old, new
    versions = [{name: run["packages"].get(name) or "none" for name in baseline.DECIDING} for run in (before, after)]
    first, second = ({name: version.partition("+")[0] for name, version in each.items()} for each in versions)
    differences = ", ".join(f"{name} {first[name]} → {second[name]}" for name in first if first[name] != second[name])
    part = part_of(after)
    accepted, left_out = without(statuses(old_lines), part, statuses(new_lines))
    noun = "baseline" if before.get("baseline") else "run"
    return Context(
        baseline=baseline.environment_of(before),
        noun=f"nearest {noun}" if differences and noun == "baseline" else noun,
        differences=differences,
        accepted=accepted,
        left_out=left_out_line(left_out, accepted, part.reason),
        known={cause.key for cause in warning_causes(old_lines)} | {tuple(key) for key in before.get("warnings", ())},
    )


def write(
    path: Path, environment: Mapping[str, Any], lines: Sequence[Mapping[str, Any]], context: Context | None = None
) -> None:
    """Write the page, and its summary with the suffix `.md`.

    Args:
        path: of the page.
        environment: of the run.
        lines: the records of the run.
        context: history and baseline, if there are any.

    Raises:
        EnvironmentGap: Jinja2 or matplotlib is not installed.
        UsageError: the page would have the name of its summary.
    """
    if path.suffix == ".md":
        raise UsageError(f"--output {path}: is where the summary would go, should end in .html")
    jinja2 = _library("jinja2")
    _library("matplotlib")
    from parity.reports.pages import plots

    context = context or Context()
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=jinja2.select_autoescape(["html.j2"]),
        keep_trailing_newline=True,
    )
    templates.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "ensure_ascii": False, "allow_nan": False}
    counts = Counter(line["status"] for line in lines)
    run = rerun_command(environment)
    red, warnings = causes_of(lines), warning_causes(lines, context.known)
    values = {
        "name": baseline.environment_of(environment),
        "environment": environment,
        "packages": {name: version for name, version in environment["packages"].items() if version},
        "cells": len({line["id"] for line in lines}),
        "checks": len(lines),
        "counts": {status: counts[status] for status in WORST if counts[status]},
        "symbols": SYMBOLS,
        "meanings": MEANINGS,
        "plots": plots.all_plots(environment, lines, context.history),
    }
    accepted = context.accepted if context.baseline else None
    data = {
        **compact(lines, red, accepted),
        "kinds": group_by_kind(lines, context.kinds),
        "symbols": SYMBOLS,
        "scripts": reproducers(
            context.scripts, {line["id"] for line in lines if line["status"] not in ("passed", "skipped")}
        ),
        "command": run,
    }
    page = templates.get_template("page.html.j2").render(
        data=data,
        red=[_entry(cause, run) for cause in red],
        warnings=[_entry(cause, run) for cause in warnings],
        red_checks=sum(len(cause.lines) for cause in red),
        listed=LISTED,
        warned=WARNED,
        comparison=_comparison(data, lines, context),
        **values,
    )
    summary = templates.get_template("summary.md.j2").render(
        causes=sections(listing(red, warnings, run), "what is red", markdown="##"),
        problems=problems(lines),
        shown=SUMMARY_LINES,
        **values,
    )
    replace_text(path, page)
    replace_text(path.with_suffix(".md"), summary)


def _entry(cause: Cause, run: str) -> dict[str, Any]:
    """A cause as the template needs it."""
    return {
        "cells": cause.cells,
        "checks": len(cause.lines),
        "affected": affected(cause.lines),
        "title": cause.title,
        "message": (cause.smallest["error"] or "").strip(),
        "command": cause.command(run),
    }


def _comparison(data: Mapping[str, Any], lines: Iterable[Mapping[str, Any]], context: Context) -> dict[str, Any]:
    """Count the checks that changed from the baseline, by kind, and those of the baseline without a record here."""
    numbers = Counter(data["rows"]["change"])
    here = {(line["id"], line["check"]) for line in lines}
    return {
        "baseline": context.baseline,
        "noun": context.noun,
        "differences": context.differences,
        "left_out": context.left_out,
        "changes": {kind: numbers[number] for number, kind in enumerate(KINDS) if numbers[number]},
        "missing": sum(key not in here for key in context.accepted),
    }


def _library(name: str) -> ModuleType:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise EnvironmentGap(f"the page needs {name}, which is not installed; pip install 'parity[report]'") from error


def problems(lines: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Status → lines, each for all opsets and checks with one message; without passed checks."""
    # A dict serves as an ordered set of checks.
    grouped: dict[str, dict[tuple[str, str, str], tuple[set[int], dict[str, None]]]] = {}
    for line in lines:
        if line["status"] != "passed":
            stem, opset, rest = split(line["id"])
            message = (line["error"] or "").partition("\n")[0][:200]
            group = grouped.setdefault(line["status"], {})
            opsets, checks = group.setdefault((stem, rest, message), (set(), {}))
            opsets.update([int(opset)] if opset else [])
            checks[line["check"]] = None
    return {
        status: [
            f"`{stem}{ranges(opsets)}{rest}` {', '.join(checks)}{f': {message}' if message else ''}"
            for (stem, rest, message), (opsets, checks) in grouped[status].items()
        ]
        for status in WORST
        if status in grouped
    }
