"""What the conformance matrix costs: CPU minutes, peak memory of a worker, and what a second worker gains."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from parity.errors import ParityError
from parity.reports import records

# CPU minutes of all cells, MiB of the largest worker, and how many times faster two workers are than one.
BUDGETS = {"cpu": 18.0, "peak": 2048.0, "speedup": 1.7}
# Stands for all where one worker alone would take too long: every kind, small and large files.
SHARE = "albert- or beit- or gpt2- or marian- or resnet-"


def run(workers: int, choice: str = "") -> dict[str, float]:
    """One run of the tests of cells: wall and CPU minutes, peak MiB of the largest worker, checks and cells.

    Raises:
        ParityError: a check failed, or nothing ran.
    """
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "records.jsonl"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", str(workers)]
        command += ["--records", str(path), "architectures", *(["-k", choice] if choice else [])]
        started = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True)
        wall = time.monotonic() - started
        if done.returncode:
            raise ParityError(f"the matrix failed: exit status {done.returncode}: {done.stdout[-2000:]}")
        environment, lines = records.read(path)
    return {
        "wall": wall / 60,
        "cpu": sum(worker["cpu"] for worker in environment["workers"]) / 60,
        "peak": max(worker["peak"] for worker in environment["workers"]),
        "checks": len(lines),
        "cells": len({line["id"] for line in lines}),
    }


def measure(choice: str = SHARE) -> dict:
    """All cells with two workers; a share of them with one and with two, for what the second gains."""
    whole, alone, together = run(2), run(1, choice), run(2, choice)
    speedup = alone["wall"] / together["wall"]
    return {
        "whole": whole,
        "one worker": alone,
        "two workers": together,
        "speedup": speedup,
        "share": choice,
        "budgets": BUDGETS,
        "holds": whole["cpu"] <= BUDGETS["cpu"] and whole["peak"] <= BUDGETS["peak"] and speedup >= BUDGETS["speedup"],
    }


def table(result: dict) -> str:
    """The result as Markdown."""
    whole, budgets = result["whole"], result["budgets"]
    share = ", ".join(name.strip("- ") for name in result["share"].split(" or "))
    return "\n".join(
        [
            "| what | measured | budget |",
            "|---|---|---|",
            f"| {whole['cells']:.0f} cells, {whole['checks']:.0f} checks, CPU minutes | {whole['cpu']:.1f} |"
            f" ≤ {budgets['cpu']:g} |",
            f"| the same, wall minutes with two workers | {whole['wall']:.1f} | |",
            f"| peak memory of a worker, MiB | {whole['peak']:.0f} | ≤ {budgets['peak']:g} |",
            f"| two workers beside one ({share}) | {result['speedup']:.2f} × | ≥ {budgets['speedup']:g} × |",
            "",
        ]
    )
