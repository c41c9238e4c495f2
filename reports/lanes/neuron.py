"""Records → operators of each architecture that AWS's list leaves to the CPU of an Inf1 host, known before renting one.

`python -m parity.reports.lanes.neuron RECORDS` writes `reports/results/neuron_coverage.md`. An architecture is as good
as the worst of its cells. The operators are read from traced graphs: nothing was compiled.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from parity import records
from parity.console import run_guarded
from parity.errors import UsageError
from parity.files import replace_text
from parity.neuron.operators import SOURCE

ROOT = Path(__file__).resolve().parents[2]
COVERAGE = ROOT / "reports" / "results" / "neuron_coverage.md"
CHECKS = ("neuron_graph", "neuron_translation_graph")


def rows(lines: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    """(architecture, feature) → the smallest covered share, and all uncovered or conditionally compiled operators.

    Uses records that passed; records of several parts (an encoder and a decoder) are joined.

    Raises:
        UsageError: no record is about a graph for Neuron.
    """
    by_feature: dict[tuple[str, str], dict[str, Any]] = {}
    for line in lines:
        if line["check"] not in CHECKS or line["status"] != "passed":
            continue
        graph = line.get("neuron") or {}
        for part in (each for each in (graph, *graph.values()) if isinstance(each, dict) and "share" in each):
            row = by_feature.setdefault(
                (line["architecture"], line["feature"]),
                {"share": 1.0, "operators": 0, "outside": {}, "limited": {}, "graphs": 0},
            )
            row["graphs"] += 1
            row["share"] = min(row["share"], part["share"])
            row["operators"] = max(row["operators"], part["operators"])
            for kind in ("outside", "limited"):
                for name, count in part[kind].items():
                    row[kind][name] = max(row[kind].get(name, 0), count)
    if not by_feature:
        raise UsageError(
            "records: none is about a graph for Neuron; run architectures/conformance/test_neuron.py --neuron-emulate"
        )
    return by_feature


def page(environment: Mapping[str, Any], lines: Iterable[Mapping[str, Any]]) -> str:
    """The table as Markdown, a row for each architecture, with equal features together."""
    packages = environment["packages"]
    text = [
        "# Operators on AWS Inf1",
        "",
        "Generated from records by `python -m parity.reports.lanes.neuron`; traced with"
        f" torch {(packages.get('torch') or 'none').partition('+')[0]} and transformers"
        f" {packages.get('transformers') or 'none'}, eager attention.",
        "Static: which operators of the traced graph are on the documented list. Nothing was compiled, and no device"
        f" has run any of it. Source of the list: {SOURCE}.",
        "",
        "| architecture | features | covered | left to the CPU | compiled under a condition |",
        "|---|---|---|---|---|",
    ]
    grouped: dict[tuple[str, str, str], list[tuple[str, dict[str, Any]]]] = {}
    for (architecture, feature), row in sorted(rows(lines).items()):
        key = (architecture, _counts(row["outside"]), _counts(row["limited"]))
        grouped.setdefault(key, []).append((feature, row))
    for (architecture, outside, limited), features in grouped.items():
        share = min(row["share"] for _, row in features)
        names = ", ".join(feature for feature, _ in features)
        text.append(f"| {architecture} | {names} | {share:.1%} | {outside} | {limited} |")
    return "\n".join(text) + "\n"


def _counts(operators: Mapping[str, int]) -> str:
    return ", ".join(f"{name.removeprefix('aten::')} ×{count}" for name, count in sorted(operators.items())) or "–"


def main(argv: list[str] | None = None, prog: str = "python -m parity.reports.lanes.neuron") -> int:
    """Write the table; returns the exit status."""
    parser = argparse.ArgumentParser(prog, description="Generate the table of operators from records of Neuron cells.")
    parser.add_argument("records", type=Path, help="a records file of a run with Neuron cells")
    parser.add_argument("--output", type=Path, default=COVERAGE, help="where the table goes (default: %(default)s)")
    args = parser.parse_args(argv)

    def write() -> int:
        replace_text(args.output, page(*records.load(args.records)))
        return 0

    return run_guarded(prog, write)


if __name__ == "__main__":
    raise SystemExit(main())
