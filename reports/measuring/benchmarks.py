"""`parity benchmarks`: costs compared with the bare exporter, with a peer or with a budget."""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parity.console import run_guarded, whole_number
from parity.errors import ParityError, UsageError
from parity.fixtures import minilm
from parity.reports.measuring import benchmark_attention, benchmark_matrix, benchmark_sizes, benchmark_torchscript
from parity.reports.measuring.measurements import (
    BARE,
    CONTROL,
    OUTPUT,
    PACKAGES,
    SUBJECTS,
    _tell,
    measure_in_turn,
    of_medians,
    one_thread,
    outcome,
    pairwise,
    ratio_verdict,
    round_reporter,
    row,
    table,
    write,
)
from parity.reports.terminal import narrow

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from parity.configs import OnnxConfig

EXPORT_BUDGETS = {"export": 1.15, "export and validation": 1.6}
JUDGED = ("bert", "gpt2", "t5", "vit")
JUDGE_BUDGET = 0.4  # CPU seconds of a cell, on average
COMMAND_BUDGETS = {"wall": 1.0, "cpu": None, "peak": 1.05}
# Without the name of the library, optimum-cli uses sentence-transformers, if installed, and exports its pooling too.
_PEER_OPTIONS = ("--task", "feature-extraction", "--library-name", "transformers")


def parser(prog: str = "python -m parity.reports.measuring.benchmarks") -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog, description="Measure Parity and its peers. The exit status is 1 when a budget does not hold."
    )
    commands = p.add_subparsers(dest="name", required=True, metavar="MEASUREMENT")
    export = commands.add_parser("export", help="an export and the bare torch.onnx.export call: CPU seconds")
    export.add_argument("--rounds", type=whole_number, default=30, help="interleaved rounds (default: %(default)s)")
    command = commands.add_parser("command", help="the whole command and optimum-cli: wall, CPU, peak memory")
    command.add_argument("--peer-python", required=True, type=Path, help="Python of an environment with optimum-onnx")
    command.add_argument("--python", default=Path(sys.executable), type=Path, help="Python of parity's environment")
    command.add_argument("--model", type=Path, help="directory of a checkpoint (default: the installed MiniLM)")
    command.add_argument(
        "--runs", type=whole_number, default=5, help="runs of each after a warm-up (default: %(default)s)"
    )
    judge = commands.add_parser("judge", help="the checks of a cell, without export and session: CPU seconds")
    judge.add_argument("--architectures", nargs="+", default=JUDGED, help="whose cells (default: %(default)s)")
    attention = commands.add_parser("attention", help="files with sdpa and with eager attention: latency")
    attention.add_argument("--rounds", type=whole_number, default=60, help="interleaved rounds (default: %(default)s)")
    torchscript = commands.add_parser("torchscript", help="a trace and the bare torch.jit.trace call: CPU seconds")
    torchscript.add_argument(
        "--rounds", type=whole_number, default=15, help="interleaved rounds (default: %(default)s)"
    )
    matrix = commands.add_parser("matrix", help="the whole matrix: CPU minutes, memory, one and two workers")
    peers = commands.add_parser("peers", help="exports of base models and optimum-cli's: wall, CPU, peak memory")
    peers.add_argument("--runs", type=whole_number, default=3, help="runs of each (default: %(default)s)")
    memory = commands.add_parser("memory", help="the peak memory of every command, checkpoints up to 3.2 GB")
    for each, names in ((peers, benchmark_sizes.PEERS), (memory, benchmark_sizes.MEMORY)):
        each.add_argument(
            "--checkpoints", nargs="+", choices=names, default=[*names], metavar="NAME", help="which ones"
        )
        each.add_argument("--peer-python", required=each is peers, type=Path, help="Python that has optimum-onnx")
        each.add_argument("--python", default=Path(sys.executable), type=Path, help="Python of parity's environment")
    for each in (export, command, judge, attention, torchscript, matrix, peers, memory):
        each.add_argument("--output", type=Path, default=OUTPUT, help="where results go (default: %(default)s)")
    return p


def main(argv: list[str] | None = None, prog: str = "python -m parity.reports.measuring.benchmarks") -> int:
    """Run the command; returns its exit status."""
    args = parser(prog).parse_args(argv)
    return run_guarded(prog, lambda: _run(args))


def _run(args: argparse.Namespace) -> int:
    result = _MEASURES[args.name](args)
    write(result, args.output)
    print(narrow(table(result)))
    return 0 if result["holds"] else 1


def measure_judge(args: argparse.Namespace) -> dict[str, Any]:
    """CPU seconds of the judge in every cell of some architectures, as in the suite; only the mean has a budget."""
    from parity.reports.measuring import judge_cost

    with one_thread():
        seconds = judge_cost.measure(args.architectures)
    method = (
        "CPU seconds of all checks of a cell as the suite runs them, less those of its export and session, in one"
        " process, one thread; the ratio is of their mean to the budget of a cell, its range that of single cells"
    )
    return outcome("judge", "CPU s", judge_rows(seconds), method=method)


def judge_rows(by_architecture: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    """One row for each architecture, and one for all cells together, the only one with a budget."""
    from parity.reports.measuring.judge_cost import summary

    everything = [each for seconds in by_architecture.values() for each in seconds]
    rows = []
    for name, seconds in {**by_architecture, "all": everything}.items():
        ends = {"median": statistics.mean(seconds), "min": min(seconds), "max": max(seconds)}
        ratio = {what: value / JUDGE_BUDGET for what, value in ends.items()}
        rows.append(row(name, summary(seconds), seconds, ratio_verdict(ratio, 1.0 if name == "all" else None)))
    return rows


def measure_export(rounds: int) -> dict[str, Any]:
    """CPU seconds of an export, with and without validation, and of the bare call on the same wrapper and inputs."""
    rows = []
    with one_thread(), warnings.catch_warnings(), tempfile.TemporaryDirectory() as directory:
        warnings.simplefilter("ignore")
        for model_type, feature in SUBJECTS:
            name, calls = export_calls(model_type, feature, Path(directory) / "model.onnx")
            times = measure_in_turn(calls, rounds, round_reporter(name, rounds))
            rows.extend(export_rows(name, times))
    method = "CPU seconds in one process, one thread, the four calls of a round in turn, ratios within a round"
    return outcome("export", "CPU s", rows, method=method)


def export_rows(subject: str, times: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    """The rows of one model; the control, a second bare call, has no budget."""
    ratios = {what: pairwise(seconds, times[BARE]) for what, seconds in times.items() if what != BARE}
    verdicts = {BARE: None, **{what: ratio_verdict(ratio, EXPORT_BUDGETS.get(what)) for what, ratio in ratios.items()}}
    return [row(subject, what, seconds, verdicts[what]) for what, seconds in times.items()]


def export_calls(model_type: str, feature: str, path: Path) -> tuple[str, dict[str, Callable[[], object]]]:
    """Name → call to measure, for a tiny model; each call writes the file at `path`."""
    from parity.features import constructor
    from parity.fixtures.checkpoints import tiny_model
    from parity.fixtures.preprocessors import preprocessor as tiny_preprocessor
    from parity.onnx import export
    from parity.onnx.proof import Artifact, Reference, judge_file
    from parity.registry import architecture
    from parity.samples import SampleSource

    model = tiny_model(model_type, feature)
    untouched = copy.deepcopy(model)
    preprocessor = tiny_preprocessor(architecture(model_type).preprocessor)
    config = constructor(model_type, feature)(model.config)
    opset = config.default_onnx_opset

    def export_and_validation() -> None:
        export(preprocessor, model, config, opset, path)
        inputs = SampleSource(config, preprocessor, model.config)
        reference = Reference(lambda: copy.deepcopy(untouched), inputs, architecture(model_type).relations_of(feature))
        judge_file(Artifact.read(path, opset=opset), reference).raise_on_failure()

    bare = _bare_call(model, config, preprocessor, opset, path)
    return f"{model_type} {feature}, opset {opset}", {
        BARE: bare,
        "export": lambda: export(preprocessor, model, config, opset, path),
        "export and validation": export_and_validation,
        CONTROL: bare,
    }


def _bare_call(
    model: PreTrainedModel, config: OnnxConfig, preprocessor: Any, opset: int, path: Path
) -> Callable[[], None]:
    import torch

    from parity.axes import Signature
    from parity.traceable import Layout, Traceable

    nested = config.generate_dummy_inputs(preprocessor, framework="pt")
    layout = Layout.from_inputs(config, nested).select(config.inputs)
    flat, outputs = layout.flatten(nested), list(config.outputs)
    traceable, tensors = Traceable(model, config, layout, outputs), tuple(flat[name] for name in layout.names)
    for name, value in (config.values_override or {}).items():
        setattr(model.config, name, value)
    signature = Signature.from_config(config, layout.names)
    names = {"input_names": list(layout.names), "output_names": outputs, "dynamic_axes": signature.dynamic_axes}
    options = {"do_constant_folding": True, "opset_version": opset, "dynamo": False}

    def bare() -> None:
        with torch.no_grad():
            torch.onnx.export(traceable, tensors, str(path), **names, **options)

    return bare


# Whole processes: the command and its peer. Nothing here imports torch: the peak memory of a child process starts at
# the size of this one.


def measure_command(args: argparse.Namespace) -> dict[str, Any]:
    """Wall and CPU seconds and peak memory of the command and of `optimum-cli` on the same checkpoint, in turn."""
    model = args.model or minilm.directory()
    for option, path in {"--python": args.python, "--peer-python": args.peer_python, "--model": model}.items():
        if not path.exists():
            raise UsageError(f"{option} {path}: no such file or directory")
    commands = {
        "parity": [str(args.python), "-m", "parity.onnx", "--quiet", f"--model={model}"],
        "optimum-cli": [*_peer(args.peer_python), *_PEER_OPTIONS, "--model", str(model)],
    }
    runs = measure_alternately(commands, args.runs)
    subject = model.name if args.model else "MiniLM, trained"
    method = f"whole processes, alternating, median of {args.runs} after a warm-up, fresh output directories, offline"
    versions = {"ours": _versions(args.python), "peer": _versions(args.peer_python)}
    return outcome("command", "", command_rows(subject, runs), method=method, **versions)


def measure_alternately(commands: Mapping[str, Sequence[str]], runs: int) -> dict[str, list[dict[str, float]]]:
    """Measurements of every command, in turn, each with a new output directory; see `process`."""
    by_command: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    for turn in range(runs + 1):
        for name, command in commands.items():
            _tell(f"{name}: run {turn} of {runs}")
            with tempfile.TemporaryDirectory() as directory:
                output = Path(directory) / "out"
                measurement = process([*command, str(output)])
                if not (output / "model.onnx").is_file():
                    raise ParityError(f"{name}: exit status 0, but it wrote no model.onnx")
            if turn:
                by_command[name].append(measurement)
    return by_command


def process(command: Sequence[str]) -> dict[str, float]:
    """Run a command; return `wall` and `cpu` seconds and `peak` memory in MiB, including children that it waited for.

    Raises:
        ParityError: it fails; the message has the end of its standard error.
    """
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    environment.pop("OMP_WAIT_POLICY", None)  # set in this process only; the peer runs as users run it
    with tempfile.TemporaryFile() as errors:
        started = time.perf_counter()
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, env=environment)
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.perf_counter() - started
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            errors.seek(0)
            text = errors.read().decode(errors="replace").strip()[-400:]
            raise ParityError(f"{Path(command[0]).name}: exit status {child.returncode}: {text}")
    return {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "peak": usage.ru_maxrss / 1024}


_MEASURES: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "export": lambda args: measure_export(args.rounds),
    "command": measure_command,
    "judge": measure_judge,
    "attention": lambda args: benchmark_attention.measure(args.rounds),
    "torchscript": lambda args: benchmark_torchscript.measure(args.rounds),
    "matrix": lambda args: benchmark_matrix.measure(),
    "peers": lambda args: benchmark_sizes.measure_peers(args.checkpoints, args.runs, _tools(args)),
    "memory": lambda args: benchmark_sizes.measure_memory(args.checkpoints, _tools(args)),
}


def command_rows(subject: str, runs: Mapping[str, Sequence[Mapping[str, float]]]) -> list[dict[str, Any]]:
    """Two rows for each quantity: the peer, which is the base, and Parity with its ratio."""
    rows = []
    for quantity, budget in COMMAND_BUDGETS.items():
        ours, theirs = ([run[quantity] for run in runs[name]] for name in ("parity", "optimum-cli"))
        rows.append(row(subject, "optimum-cli", theirs, None, figure=quantity))
        rows.append(row(subject, "parity", ours, ratio_verdict(of_medians(ours, theirs), budget), figure=quantity))
    return rows


def _tools(args: argparse.Namespace) -> benchmark_sizes.Tools:
    for option, path in {"--python": args.python, "--peer-python": args.peer_python}.items():
        if path is not None and not path.exists():
            raise UsageError(f"{option} {path}: no such file or directory")
    versions = {"ours": _versions(args.python)}
    if args.peer_python is None:
        return benchmark_sizes.Tools(args.python, (), process, versions)
    versions["peer"] = _versions(args.peer_python)
    return benchmark_sizes.Tools(args.python, _peer(args.peer_python), process, versions)


def _peer(python: Path) -> list[str]:
    script = python.with_name("optimum-cli")
    start = [str(script)] if script.exists() else [str(python), "-m", "optimum.commands.optimum_cli"]
    return [*start, "export", "onnx"]


def _versions(python: Path) -> dict[str, str]:
    code = "import importlib.metadata as m; [print(d.metadata['Name'], d.version) for d in m.distributions()]"
    lines = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    installed = dict(line.split(" ", 1) for line in lines)
    return {name: installed[name] for name in PACKAGES if name in installed}


if __name__ == "__main__":
    sys.exit(main())
