"""Records → one HTML page that needs nothing else, and a Markdown summary beside it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from parity.errors import EnvironmentGap, UsageError
from parity.reports.gate import baseline
from parity.reports.gate.causes import cause_lines, causes_of, rerun_command
from parity.reports.gate.changes import WORST, Run, ranges, split
from parity.reports.gate.upgrade import worst_ratio

TEMPLATES = Path(__file__).parent / "templates"
MEANINGS = {
    "failed": "the file does not do what is claimed",
    "error": "no file, or none that could be tried",
    "xpassed": "a deviation that is no more: its declaration must go",
    "xfailed": "a deviation that is known and declared, with its thread upstream",
    "passed": "the claim holds",
    "skipped": "not tried here, for the reason given",
}
SUMMARY_LINES = 40
_CELL = ("id", "architecture", "feature", "format", "runtime", "opset", "attention", "variant")


def write(
    path: Path,
    environment: Mapping[str, Any],
    lines: Sequence[Mapping[str, Any]],
    *,
    history: Sequence[Run] = (),
    scripts: Sequence[Path] = (),
) -> None:
    """Write the page, and its summary with the suffix `.md`.

    Args:
        history: earlier runs, the oldest first.
        scripts: directories with the reproducers that runs have left.

    Raises:
        EnvironmentGap: Jinja2 or matplotlib is not installed.
        UsageError: the page would have the name of its summary.
    """
    if path.suffix == ".md":
        raise UsageError(f"--output {path}: is where the summary would go, should end in .html")
    jinja2 = _library("jinja2")
    _library("matplotlib")
    from parity.reports.pages import plots

    loader = jinja2.FileSystemLoader(TEMPLATES)
    templates = jinja2.Environment(
        loader=loader, autoescape=jinja2.select_autoescape(["html.j2"]), keep_trailing_newline=True
    )
    templates.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "ensure_ascii": False, "allow_nan": False}
    counts = Counter(line["status"] for line in lines)
    context = {
        "name": baseline.environment_of(environment),
        "environment": environment,
        "packages": {name: version for name, version in environment["packages"].items() if version},
        "cells": len({line["id"] for line in lines}),
        "checks": len(lines),
        "counts": {status: counts[status] for status in WORST if counts[status]},
        "meanings": MEANINGS,
        "plots": plots.all_plots(environment, lines, history),
    }
    data = {**compact(lines, scripts), "command": rerun_command(environment)}
    page = templates.get_template("page.html.j2").render(data=data, **context)
    causes = cause_lines(causes_of(lines), rerun_command(environment))
    summary = templates.get_template("summary.md.j2").render(
        causes=causes, problems=problems(lines), shown=SUMMARY_LINES, **context
    )
    path.write_text(page, encoding="utf-8")
    path.with_suffix(".md").write_text(summary, encoding="utf-8")


def _library(name: str) -> ModuleType:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise EnvironmentGap(f"the page needs {name}, which is not installed; pip install 'parity[report]'") from error


def compact(lines: Sequence[Mapping[str, Any]], scripts: Sequence[Path] = ()) -> dict[str, Any]:
    """What the page's script reads: cells once, rows as columns of numbers, each message once."""
    cells: dict[str, int] = {}
    checks: dict[str, int] = {}
    errors: dict[str, int] = {}
    names = ("cell", "check", "status", "error", "ratio", "worst", "seconds", "peak")
    rows: dict[str, list[Any]] = {name: [] for name in names}
    verdicts: dict[int, list[str]] = {}
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
        )
        for name, value in zip(names, values, strict=True):
            rows[name].append(value)
        if line["verdicts"]:
            verdicts[number] = [f"{v.get('axis')}: {v.get('verdict')}; {v.get('text')}" for v in line["verdicts"]]
    first = {line["id"]: line for line in reversed(lines)}
    return {
        "statuses": WORST,
        "cells": [{name: first[cell][name] for name in _CELL} for cell in cells],
        "features": sorted({line["feature"] for line in lines}, key=_feature),
        "checks": list(checks),
        "errors": list(errors),
        "rows": rows,
        "verdicts": verdicts,
        "scripts": reproducers(scripts, {line["id"] for line in lines if line["status"] not in ("passed", "skipped")}),
    }


def _feature(name: str) -> tuple[bool, str]:
    """What every architecture has first; with and without past beside each other."""
    return name.removesuffix("-with-past") != "default", name


def _finite(value: float | None) -> float | str | None:
    """The number in six digits; JSON has no word for others."""
    if value is None:
        return None
    return float(f"{value:.6g}") if math.isfinite(value) else str(value)


def reproducers(directories: Iterable[Path], cells: Iterable[str]) -> dict[str, list[tuple[str, str]]]:
    """Cell → name and text of the scripts that show its failures; an older run may have left those of other cells."""
    names = set(cells)
    texts: dict[str, list[tuple[str, str]]] = {}
    for path in sorted(path for directory in directories for path in directory.glob("*.py")):
        cell = path.stem.rpartition("-")[0].removesuffix("-episode")
        if cell in names:
            texts.setdefault(cell, []).append((path.name, path.read_text(encoding="utf-8")))
    return texts


def problems(lines: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Status → one line for all opsets and checks with one message; nothing of what passed."""
    # The checks are keys, which keep their order.
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
