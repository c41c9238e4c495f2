"""Verdicts on float16 and integer files → how far right files and faults are from the limits, by precision."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from parity.judge.ratio import LIMIT
from parity.judge.roundings import LIMIT as STEPS
from parity.reports.foreign.sources import Case

_STEPS = re.compile(r"at most ([\d.e+-]+) steps")
_FAULT = {"precision": re.compile(r"is ([\d.e+-]+) steps from"), "ratio": re.compile(r"error ratio ([\d.e+-]+),")}


def parts_of(verdict: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The verdicts on the single files within a verdict, without those that compared no output."""
    result = verdict["result"]
    return [each for each in result.get("files", [result]) if "outputs" in each and "validated_at" in each]


@dataclass
class Row:
    """The measurements of one precision: the largest of right files, the smallest of faults."""

    architectures: set[str] = field(default_factory=set)
    exporters: set[str] = field(default_factory=set)
    files: int = 0
    healthy: dict[str, float] = field(default_factory=dict)
    faults: dict[str, float] = field(default_factory=dict)
    spoiled: int = 0

    def add_healthy(self, case: Case, result: Mapping[str, Any]) -> None:
        """Count a right file that passed and whose graph was judged."""
        self.architectures.add(case.architecture)
        self.exporters.add(case.base)
        self.files += 1
        steps = [float(text) for note in result["notes"] for text in _STEPS.findall(note)]
        measured = {
            "steps": max(steps, default=0.0),
            "ratio": max(each["ratio"] for each in result["outputs"].values() if "ratio" in each),
            "drift": max(each["relative"] for each in result["drift"].values()),
        }
        for name, value in measured.items():
            self.healthy[name] = max(value, self.healthy.get(name, 0.0))

    def add_fault(self, failures: Sequence[Mapping[str, str]]) -> None:
        """Count a fault with its largest distance: that of a weight if one was found, otherwise that of the graph."""
        self.spoiled += 1
        for check, pattern in _FAULT.items():
            values = [
                float(text) for each in failures if each["check"] == check for text in pattern.findall(each["message"])
            ]
            if values:
                self.faults[check] = min(max(values), self.faults.get(check, float("inf")))
                return


def calibration_lines(
    verdicts: Sequence[tuple[Case, Mapping[str, Any]]], spoiled: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """The lines of the table.

    Args:
        spoiled: `case: fault` → the verdict.
    """
    rows: dict[str, Row] = {}
    for case, verdict in verdicts:
        result = verdict["result"]
        if verdict["status"] != 0 or result.get("graph") != "judged":
            continue
        row = rows.setdefault(result["precision"], Row())
        row.add_healthy(case, result)
        for name, fault in spoiled.items():
            if name.startswith(f"{case.name}: ") and fault["status"] == 1:
                row.add_fault(fault["result"]["failures"])
    lines = [
        "## Calibration",
        "",
        f"Float16 and integer files: how far right files are below the limits ({STEPS:g} steps, ratio {LIMIT:g}), and"
        " how far faults are above them. A fault counts for the first judgement that it fails: the weights, else the"
        " graph.",
        "",
        "| precision | files | architectures | exporters | healthy, largest: steps | ratio | drift | faults |"
        " least: steps | ratio |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in sorted(rows.items()):
        least = [f"{row.faults[check]:.3g}" if check in row.faults else "" for check in _FAULT]
        healthy = [
            f"{row.healthy[each]:.6g}" if each == "steps" else f"{row.healthy[each]:.2g}" for each in row.healthy
        ]
        cells = [
            name,
            row.files,
            len(row.architectures),
            ", ".join(sorted(row.exporters)),
            *healthy,
            row.spoiled,
            *least,
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return [*lines, ""]
