"""Records → the support table: which features of which architecture work at which opsets, for each environment.

`python -m parity.reports.pages.support RECORDS…` writes `support.json` and `support.md` in `reports/results`, and the
table of `docs/architectures.md` and the names in the README. A feature is as good as the worst check of its cells.
"""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from parity import records
from parity.console import run_guarded
from parity.files import replace_text
from parity.reports.gate.changes import ranges

ROOT = Path(__file__).resolve().parents[2]
SUPPORT = ROOT / "reports" / "results" / "support.json"
PAGE = ROOT / "docs" / "architectures.md"
README = ROOT / "README.md"
# Worst first.
_TRACED = ("silently wrong", "raises", "fixed by the model", "generalises")
# Without `skipped`: a gate says nothing about a feature.
_WORST = ("failed", "error", "xpassed", "xfailed", "passed")

# Architecture → feature → an entry of `table` or `verdicts`.
Features = Mapping[str, Mapping[str, Mapping[str, Any]]]


def environment_of(environment: Mapping[str, Any]) -> str:
    """The name of a column: the deciding packages with their versions."""
    packages = environment["packages"]
    return ", ".join(f"{name} {packages.get(name) or 'none'}" for name in ("transformers", "torch", "onnxruntime"))


def table(lines: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """architecture → feature → {status: opsets} of the ONNX cells, and the reasons of statuses other than passed."""
    worst: dict[tuple[str, str], dict[int, str]] = {}
    reasons: dict[tuple[str, str], set[str]] = {}
    for line in lines:
        if line["format"] != "onnx" or line["status"] == "skipped":
            continue
        key = line["architecture"], line["feature"]
        opsets = worst.setdefault(key, {})
        opsets[line["opset"]] = min(opsets.get(line["opset"], "passed"), line["status"], key=_WORST.index)
        if line["status"] != "passed":
            reasons.setdefault(key, set()).add((line["error"] or "no reason").partition("\n")[0])
    entries: dict[str, dict[str, dict[str, Any]]] = {}
    for (architecture, feature), opsets in sorted(worst.items()):
        statuses = {s: ranges(o for o, status in opsets.items() if status == s) for s in _WORST if s in opsets.values()}
        entry: dict[str, Any] = {"opsets": statuses}
        if (architecture, feature) in reasons:
            entry["reasons"] = sorted(reasons[architecture, feature])
        entries.setdefault(architecture, {})[feature] = entry
    return entries


def verdicts(lines: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, str]]]:
    """architecture → feature → axis → verdict of the TorchScript cells; the worst of eager and sdpa attention."""
    entries: dict[str, dict[str, dict[str, str]]] = {}
    for line in lines:
        for each in line["verdicts"] if line["format"] == "torchscript" else ():
            if each["traced"] is not None:
                axes = entries.setdefault(line["architecture"], {}).setdefault(line["feature"], {})
                axes[each["axis"]] = min(axes.get(each["axis"], _TRACED[-1]), each["verdict"], key=_TRACED.index)
    return {name: dict(sorted(features.items())) for name, features in sorted(entries.items())}


def page(support: Mapping[str, Features], traces: Mapping[str, Features] | None = None) -> str:
    """The whole table as Markdown, a column for each environment, and the table of the traces' verdicts."""
    names = list(support)
    lines = [
        "# What works",
        "",
        "Generated from the records of whole runs by `python -m parity.reports.pages.support`; opsets at which every"
        " check passed, with eager attention and, at 14 and 20, with sdpa where the model has it.",
        "",
        f"| architecture | feature | {' | '.join(names)} |",
        "|---|---|" + "---|" * len(names),
    ]
    for architecture in sorted({name for column in support.values() for name in column}):
        features = {feature: None for column in support.values() for feature in column.get(architecture, {})}
        for feature in features:
            cells = [_cell(column.get(architecture, {}).get(feature)) for column in support.values()]
            lines.append(f"| {architecture} | {feature} | {' | '.join(cells)} |")
    reasons = list(_reasons(support))
    if reasons:
        lines += ["", "Deviations:", "", *reasons]
    if traces:
        lines += ["", *_traces(traces)]
    return "\n".join(lines) + "\n"


def _traces(traces: Mapping[str, Features]) -> Iterator[str]:
    yield from ("# TorchScript: at which other sizes a trace is right", "")
    yield (
        "A trace of a tiny model, with eager and with sdpa attention, run at other sizes of every axis, smaller and"
        " larger, alone and together. At its own sizes each trace is the model's equal by the error ratio."
    )
    for environment, architectures in traces.items():
        yield from ("", f"{environment}:", "", "| architecture | features | axes | verdict |", "|---|---|---|---|")
        for architecture, features in architectures.items():
            grouped: dict[tuple[str, str], list[str]] = {}
            for feature, axes in features.items():
                for verdict in sorted(set(axes.values()), key=_TRACED.index):
                    names = ", ".join(axis for axis in axes if axes[axis] == verdict)
                    grouped.setdefault((names, verdict), []).append(feature)
            for (names, verdict), group in grouped.items():
                yield f"| {architecture} | {', '.join(group)} | {names} | {verdict} |"


def summary(support: Mapping[str, Features]) -> str:
    """The table of the documentation: features and opsets of each architecture in the first environment."""
    first = next(iter(support.values()))
    lines = ["| architecture | features | opsets |", "|---|---|---|"]
    for architecture, features in first.items():
        grouped: dict[str, list[str]] = {}
        for feature, entry in features.items():
            grouped.setdefault(_cell(entry), []).append(feature)
        for opsets, group in grouped.items():
            lines.append(f"| {architecture} | {_feature_list(group)} | {opsets} |")
    return "\n".join(lines) + "\n"


def name_list(support: Mapping[str, Features]) -> str:
    """The list in the README: every architecture of the first environment."""
    return textwrap.fill(", ".join(next(iter(support.values()))), 120, break_on_hyphens=False) + "\n"


def _feature_list(features: Sequence[str]) -> str:
    """`causal-lm ±past` for causal-lm and causal-lm-with-past."""
    both = [feature for feature in features if f"{feature}-with-past" in features]
    shown = [f for f in features if f.removesuffix("-with-past") not in both or f in both]
    return ", ".join(f"{feature} ±past" if feature in both else feature for feature in shown)


def _cell(entry: Mapping[str, Any] | None) -> str:
    if entry is None:
        return "–"
    words = {"passed": "", "xfailed": "deviates at ", "xpassed": "passes again at "}
    return "; ".join(
        f"{words.get(status, f'{status} at ')}{opsets}" for status, opsets in reversed(entry["opsets"].items())
    )


def _reasons(support: Mapping[str, Features]) -> Iterator[str]:
    for environment, architectures in support.items():
        for architecture, features in architectures.items():
            for feature, entry in features.items():
                for reason in entry.get("reasons", ()):
                    yield f"- {architecture} {feature} ({environment}): {reason}"


def between_marks(text: str, content: str, name: str = "support") -> str:
    """The text of a page with `content` between its two marks.

    Args:
        text: the page.
        content: replaces what is between the marks.
        name: of the marks.

    Raises:
        ValueError: a mark is missing.
    """
    marks = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, begin, rest = text.partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not begin or not end:
        raise ValueError(f"the page has no {marks[0]} and {marks[1]}, should have them around the table")
    return f"{before}{begin}\n\n{content}\n{end}{after}"


def main(argv: list[str] | None = None, prog: str = "python -m parity.reports.pages.support") -> int:
    """Write the four files; returns the exit status."""
    parser = argparse.ArgumentParser(prog, description="Generate the support table from records of whole runs.")
    parser.add_argument(
        "records",
        nargs="+",
        type=Path,
        help="records files, the environment of the table first; one of an equal environment is joined",
    )
    args = parser.parse_args(argv)
    return run_guarded(prog, lambda: _write(args.records))


def _write(paths: Sequence[Path]) -> int:
    # The last result of a check counts.
    runs: dict[str, dict[tuple[str, str], dict[str, Any]]] = {}
    for path in paths:
        environment, lines = records.load(path)
        runs.setdefault(environment_of(environment), {}).update({(line["id"], line["check"]): line for line in lines})
    support = {environment: table(lines.values()) for environment, lines in runs.items()}
    traces = {environment: axes for environment, lines in runs.items() if (axes := verdicts(lines.values()))}
    content = {"onnx": support, "torchscript": traces}
    replace_text(SUPPORT, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    replace_text(SUPPORT.with_suffix(".md"), page(support, traces))
    for path, text in ((PAGE, summary(support)), (README, name_list(support))):
        replace_text(path, between_marks(path.read_text(encoding="utf-8"), text))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
