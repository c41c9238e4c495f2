"""The cost of the conformance matrix: CPU minutes, peak memory of a worker, and the speedup by a second worker."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from parity import records
from parity.architectures.conformance.fifty import FIFTY
from parity.architectures.conformance.matrix import cells
from parity.errors import ParityError
from parity.reports.measuring import measurements

# CPU minutes of all cells, MiB of the largest worker, and how many times faster two workers are than one.
CPU, PEAK, SPEEDUP = 18.0, 2048.0, 1.7
# The checks that every file of every opset gets.
EVERY_OPSET = (
    "architectures/conformance/test_contract.py::test_contract",
    "architectures/conformance/test_contract.py::test_checker",
    "architectures/conformance/test_parity.py::test_traced_sizes",
    "architectures/conformance/test_parity.py::test_other_sizes",
)


def run(workers: int) -> dict[str, float]:
    """One run of the checks of `EVERY_OPSET` on the fifty architectures of the document.

    Returns:
        `wall` and `cpu` in minutes, `peak` of a worker in MiB, the numbers of `checks` and `cells`.

    Raises:
        ParityError: a check failed, or nothing ran.
    """
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "records.jsonl"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", str(workers)]
        command += ["--records", str(path), "-k", test_filter(), *EVERY_OPSET]
        started = time.monotonic()
        process = subprocess.run(command, capture_output=True, text=True)
        wall = time.monotonic() - started
        if process.returncode:
            raise ParityError(f"the matrix failed: exit status {process.returncode}: {process.stdout[-2000:]}")
        environment, lines = records.read(path)
    return {
        "wall": wall / 60,
        "cpu": sum(worker["cpu"] for worker in environment["workers"]) / 60,
        "peak": max(worker["peak"] for worker in environment["workers"]),
        "checks": len(lines),
        "cells": len({line["id"] for line in lines}),
    }


def test_filter() -> str:
    """The expression for `-k` that selects the fifty architectures of the document, by excluding the few others."""
    further = sorted({cell.architecture for cell in cells()} - {*FIFTY})
    return " and ".join(f"not {name}-" for name in further)


def measure() -> dict[str, Any]:
    """Run the fifty architectures at every opset, with one worker and with two.

    Both runs take all of them: a worker takes seconds to start, which would hide the speedup in a short run.
    """
    return result(run(1), run(2))


def result(one_worker: Mapping[str, float], two_workers: Mapping[str, float]) -> dict[str, Any]:
    """The rows of the two runs; a ratio compares a value with its budget, or two workers with one."""

    def ratio_to_budget(value: float, budget: float = 1.0) -> dict[str, Any]:
        return measurements.ratio_verdict({"median": value, "min": value, "max": value}, budget)

    def row(quantity: str, value: float, ratio: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return measurements.row(subject, quantity, [value], ratio)

    subject = f"the fifty, {two_workers['cells']:.0f} files, {two_workers['checks']:.0f} checks"
    rows = [
        row(f"CPU minutes, two workers, budget {CPU:g}", two_workers["cpu"], ratio_to_budget(two_workers["cpu"] / CPU)),
        row(
            f"MiB of the largest worker, budget {PEAK:g}",
            two_workers["peak"],
            ratio_to_budget(two_workers["peak"] / PEAK),
        ),
        row("wall minutes, one worker", one_worker["wall"]),
        row(
            "wall minutes, two workers",
            two_workers["wall"],
            ratio_to_budget(two_workers["wall"] / one_worker["wall"], 1 / SPEEDUP),
        ),
    ]
    method = (
        "the tests that every file gets, through pytest -n;"
        " the last ratio is of two workers to one, the others are to the budget"
    )
    return measurements.outcome("matrix", "as named", rows, method=method)
