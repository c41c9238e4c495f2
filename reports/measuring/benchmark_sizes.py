"""`parity benchmarks peers` and `memory`: whole commands on checkpoints of the sizes that people export."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parity.reports.measuring.large_checkpoints import CHECKPOINTS
from parity.reports.measuring.measurements import _tell, of_medians, outcome, ratio_verdict, row

# Checkpoint → the largest ratio of the command's wall time to the peer's; None has no limit.
PEERS: Mapping[str, float | None] = {
    "bert-base": 1.25,
    "gpt2-small": 1.25,
    "t5-small": None,
    "whisper-tiny": 1.5,
    "gpt2-3g": 1.6,
}
# Checkpoint → the commands whose peak memory is measured.
MEMORY: Mapping[str, tuple[str, ...]] = {
    "big-bird": ("onnx", "check"),
    "gpt2-36m": ("onnx", "check", "torchscript"),
    "whisper-tiny": ("onnx", "check"),
    "bert-base": ("onnx", "check"),
    "bert-large": ("onnx", "check"),
    "gpt2-3g": ("onnx", "check"),
}
# The most memory that a command may use: this multiple of its checkpoint, plus this many MiB.
TIMES, BESIDES = 2.3, 1.2 * 1024

# A command → its wall and CPU seconds and its peak in MiB.
Measure = Callable[[Sequence[str]], dict[str, float]]


@dataclass(frozen=True)
class Tools:
    """The environments to measure, and the function that measures.

    Args:
        python: the interpreter of Parity's environment.
        peer: the beginning of the peer's command line; empty if there is no peer.
        measure: runs a command and returns its measurements.
        versions: the packages of both environments, for the result.
    """

    python: Path
    peer: Sequence[str]
    measure: Measure
    versions: Mapping[str, Mapping[str, str]]

    def ours(self, command: str, name: str, checkpoint: Path) -> list[str]:
        """The command line of a command of Parity on a checkpoint, without its last argument."""
        declared = CHECKPOINTS[name]
        model = [str(checkpoint)] if command == "check" else ["--model", str(checkpoint)]
        opset = ["--opset", str(declared.opset)] if declared.opset and command == "onnx" else []
        options = ["--quiet", "--feature", declared.feature, *opset]
        return [str(self.python), "-m", f"parity.{command}", *options, *model]

    def theirs(self, name: str, checkpoint: Path) -> list[str]:
        """The command line of the peer, without its output directory."""
        options = ["--task", CHECKPOINTS[name].task, "--library-name", "transformers"]
        return [*self.peer, *options, "--model", str(checkpoint)]


def measure_peers(names: Sequence[str], runs: int, tools: Tools) -> dict[str, Any]:
    """Wall and CPU seconds and peak memory of both exports of each checkpoint, in turn, after a warm-up."""
    rows = []
    for name in names:
        with _checkpoint(name, tools) as checkpoint:
            commands = {"optimum-cli": tools.theirs(name, checkpoint), "parity": tools.ours("onnx", name, checkpoint)}
            by_command: dict[str, list[dict[str, float]]] = {each: [] for each in commands}
            for turn in range(runs + 1):
                for each, command in commands.items():
                    _tell(f"{name}: {each}: run {turn} of {runs}")
                    with tempfile.TemporaryDirectory() as directory:
                        measurement = tools.measure([*command, str(Path(directory) / "onnx")])
                    if turn:
                        by_command[each].append(measurement)
        rows += peer_rows(name, by_command)
    method = f"whole processes, in turn, median of {runs} after a warm-up, random weights, fresh directories, offline"
    return outcome("peers", "", rows, method=method, **tools.versions)


def peer_rows(name: str, runs: Mapping[str, Sequence[Mapping[str, float]]]) -> list[dict[str, Any]]:
    """Two rows for each quantity: the peer, and Parity with its ratio; only the wall time has a budget."""
    rows = []
    for quantity in ("wall", "cpu", "peak"):
        ours, theirs = ([run[quantity] for run in runs[each]] for each in ("parity", "optimum-cli"))
        verdict = ratio_verdict(of_medians(ours, theirs), PEERS[name] if quantity == "wall" else None)
        rows.append(row(name, "optimum-cli", theirs, None, figure=quantity))
        rows.append(row(name, "parity", ours, verdict, figure=quantity))
    return rows


def measure_memory(names: Sequence[str], tools: Tools) -> dict[str, Any]:
    """The peak memory of every command on each checkpoint, in one run, with its limit; and of the peer, if any."""
    rows = []
    for name in names:
        with _checkpoint(name, tools) as checkpoint, tempfile.TemporaryDirectory() as directory:
            size = sum(path.stat().st_size for path in checkpoint.glob("*.safetensors")) / 1e6
            for command in MEMORY[name]:
                _tell(f"{name}: {command}")
                if command == "check":
                    line = [*tools.ours(command, name, checkpoint), str(Path(directory) / "onnx" / "model.onnx")]
                else:
                    line = [*tools.ours(command, name, checkpoint), str(Path(directory) / command)]
                rows.append(memory_row(name, f"parity {command}", size, tools.measure(line)["peak"]))
            if tools.peer:
                _tell(f"{name}: optimum-cli")
                peak = tools.measure([*tools.theirs(name, checkpoint), str(Path(directory) / "peer")])["peak"]
                rows.append(row(f"{name}, {size:,.0f} MB", "optimum-cli", [peak], None, figure="peak"))
    method = f"whole processes, once; the ratio is to {TIMES} times the checkpoint and 1.2 GiB; random weights, offline"
    return outcome("memory", "", rows, method=method, **tools.versions)


def memory_row(name: str, command: str, size: float, peak: float) -> dict[str, Any]:
    """The peak memory (MiB) of a command on a checkpoint (`size` in MB), with its ratio to the limit."""
    allowed = TIMES * size * 1e6 / 2**20 + BESIDES
    verdict = ratio_verdict(of_medians([peak], [allowed]), 1.0)
    return row(f"{name}, {size:,.0f} MB", command, [peak], verdict, figure="peak")


@contextlib.contextmanager
def _checkpoint(name: str, tools: Tools) -> Iterator[Path]:
    """The directory of a checkpoint, which another process writes, so that this process does not import torch."""
    with tempfile.TemporaryDirectory() as directory:
        _tell(f"{name}: writing the checkpoint")
        module = "parity.reports.measuring.large_checkpoints"
        tools.measure([str(tools.python), "-m", module, name, directory])
        yield Path(directory)
