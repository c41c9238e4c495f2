"""What the conformance matrix costs: CPU minutes, peak memory of a worker, and what a second worker gains."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from parity.errors import ParityError
from parity.reports import benchmarks, records

# CPU minutes of all cells, MiB of the largest worker, and how many times faster two workers are than one.
CPU, PEAK, SPEEDUP = 18.0, 2048.0, 1.7
# What the fifty of the document are not, and the checks that every file of every opset gets.
FURTHER = (
    "groupvit imagegpt longformer mobilenet-v1 mobilenet-v2 owlvit poolformer rembert segformer swin"
    " vision-encoder-decoder whisper llama modernbert siglip"
)
EVERY_OPSET = (
    "architectures/test_contract.py::test_contract",
    "architectures/test_contract.py::test_checker",
    "architectures/test_parity.py::test_traced_sizes",
    "architectures/test_parity.py::test_other_sizes",
)
FIFTY = " and ".join(f"not {name}-" for name in FURTHER.split())
# Stands for all where one worker alone would take too long: every kind, small and large files.
SHARE = "albert- or beit- or gpt2- or marian- or resnet-"


def run(workers: int, choice: str, tests: tuple[str, ...] = ("architectures",)) -> dict[str, float]:
    """One run of the tests of ONNX cells: wall and CPU minutes, peak MiB of the largest worker, checks and cells.

    Raises:
        ParityError: a check failed, or nothing ran.
    """
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "records.jsonl"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", str(workers)]
        command += ["--records", str(path), "-k", choice, *tests]
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
    """The fifty at every opset with two workers; a share of all with one and with two, for what the second gains."""
    return result(run(2, FIFTY, EVERY_OPSET), run(1, choice), run(2, choice), choice)


def result(whole: dict, alone: dict, together: dict, choice: str) -> dict:
    """The rows of three runs; ratios are to the budgets, and of two workers to one."""

    def judged(value, budget=1.0):
        return benchmarks.judged({"median": value, "min": value, "max": value}, budget)

    subject = f"the fifty, {whole['cells']:.0f} files, {whole['checks']:.0f} checks"
    share = ", ".join(name.strip("- ") for name in choice.split(" or "))
    rows = [
        benchmarks.row(subject, f"CPU minutes, budget {CPU:g}", [whole["cpu"]], judged(whole["cpu"] / CPU)),
        benchmarks.row(subject, "wall minutes, two workers", [whole["wall"]], None),
        benchmarks.row(
            subject, f"MiB of the largest worker, budget {PEAK:g}", [whole["peak"]], judged(whole["peak"] / PEAK)
        ),
        benchmarks.row(share, "wall minutes, one worker", [alone["wall"]], None),
        benchmarks.row(
            share,
            "wall minutes, two workers",
            [together["wall"]],
            judged(together["wall"] / alone["wall"], 1 / SPEEDUP),
        ),
    ]
    method = (
        "the tests of cells through pytest -n: of the fifty those that every file gets, of the share all;"
        " the last ratio is of two workers to one, the others are to the budget"
    )
    return benchmarks.outcome("matrix", "as named", rows, method=method)
