"""`python -m parity.reports.mutation`: seed faults, find out which are visible, judge these, and report.

Each result is kept as one line of JSON, so that an interrupted run continues where it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from parity.console import run_guarded
from parity.interruptions import keep
from parity.reports.mutation.cases import MODELS, SETTINGS, Case, cases
from parity.reports.terminal import narrow

ROOT = Path(__file__).resolve().parents[2]
RESULTS, PAGE = ROOT / "reports" / "results", ROOT / "docs" / "judge.md"
SEED = 2026
# The number of faults of a file: at the first setting, at the others, and of MiniLM.
_LIMITS = (28, 12, 30)


class Work:
    """A directory with files and with the results of each step, one line of JSON each."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def known(self, step: str) -> dict[str, dict[str, Any]]:
        """Name → its last result of a step."""
        path = self.directory / f"{step}.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        return {each["name"]: each for each in map(json.loads, filter(_is_whole, lines))}

    def add(self, step: str, entry: dict[str, Any]) -> None:
        """Keep a result."""
        with (self.directory / f"{step}.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry, ensure_ascii=False) + "\n")


def _is_whole(line: str) -> bool:
    """Whether a line was written to its end."""
    return line.startswith("{") and line.endswith("}")


def mutate(work: Work, case: Case, args: argparse.Namespace, uses: Counter[str]) -> None:
    """Judge a file without a fault, then with each of its faults."""
    import onnx

    from parity.reports.mutation import catalogue, judges
    from parity.reports.mutation.graphs import Graph
    from parity.reports.mutation.visibility import Truth

    started = time.perf_counter()
    path = work.directory / "files" / case.name / "model.onnx"
    # Preparing the judges takes seconds, and may not be needed: everything may have been judged before.
    bench = None if path.is_file() else judges.prepare(case, path)
    graph = Graph(onnx.load(str(path)))
    faults = catalogue.faults_of(graph, case, args.seed)
    draw = catalogue.random_for(case, args.seed + 1)
    chosen = catalogue.choose(faults, limit_of(case, args.scale), uses, draw)
    uses.update(f"{fault.group}: {fault.kind}" for fault in chosen)
    known = work.known("mutants")
    todo = [fault for fault in chosen if _must_judge(known.get(f"{case.name}: {fault.group}: {fault.kind}"), args)]
    if not todo and case.name in work.known("originals"):
        return
    bench = bench or judges.prepare(case, path)
    truth = Truth(graph.model, bench.bounds, args.seed, bench.torch_model, 70 if case.is_tiny else 12)
    if case.name not in work.known("originals"):
        work.add("originals", {"name": case.name, **about(case), **original(bench, path), "torch": truth.original})
    target = path.parent / "mutant.onnx"
    for fault in todo:
        entry = {"name": f"{case.name}: {fault.group}: {fault.kind}", **about(case)}
        entry |= {"group": fault.group, "kind": fault.kind, "site": fault.site}
        work.add("mutants", {**entry, **judge_fault(fault, graph, truth, bench, target)})
    target.unlink(missing_ok=True)
    print(f"{case.name}: {len(todo)} faults, {time.perf_counter() - started:.0f} s", flush=True)


def limit_of(case: Case, scale: float) -> int:
    """The number of faults of a file."""
    first, other, minilm = _LIMITS
    own = minilm if not case.is_tiny else first if case.setting == next(iter(SETTINGS)) else other
    return max(1, round(own * scale))


def _must_judge(entry: dict[str, Any] | None, args: argparse.Namespace) -> bool:
    """Whether a fault is new, or survived and `--again` is given."""
    if entry is None:
        return True
    return args.again and entry["state"] == "visible" and not all(entry.get(j, "-") for j in ("suite", "command"))


def about(case: Case) -> dict[str, str]:
    """The fields of a result that describe its file."""
    return {"architecture": case.architecture, "setting": case.setting}


def original(bench: Any, path: Path) -> dict[str, Any]:
    """The verdicts of the judges on a file without a fault."""
    command = bench.command.judge(path)
    entry = {"command": command.reason, "comparisons": command.comparisons}
    if bench.suite:
        suite = bench.suite.judge(path)
        entry |= {"suite": suite.reason, "comparisons": command.comparisons + suite.comparisons}
    return entry


def judge_fault(fault: Any, graph: Any, truth: Any, bench: Any, target: Path) -> dict[str, Any]:
    """Whether a fault is visible, and if so, the verdicts of the judges."""
    from parity.reports.mutation.contracts import CONTRACT
    from parity.reports.mutation.visibility import STILLBORN, VISIBLE

    contract, changed = fault.group == CONTRACT, graph.copy()
    try:
        fault.change(changed)
        if not contract:
            changed.sort()
    except ValueError as error:
        return {"state": STILLBORN, "detail": str(error)}
    state, detail = truth.judge(changed.model, contract=contract)
    if state != VISIBLE:
        return {"state": state, "detail": detail}
    target.write_bytes(changed.model.SerializeToString())
    reasons = bench.judge(target, contract=contract)
    if not contract and not all(reasons[name] for name in ("command", "suite") if name in reasons):
        _, detail = truth.judge(changed.model, contract=False, every=True)
    return {"state": state, "detail": detail, **reasons}


def trace(work: Work, args: argparse.Namespace) -> None:
    """Judge the TorchScript traces that have lost a branch."""
    from parity.reports.mutation import traces

    every = traces.traces(args.seed)
    known = work.known("traces")
    for each in every[: max(1, round(len(every) * args.scale))]:
        entry = known.get(each.name)
        if entry is None or (args.again and not entry["verdict"]):
            state, verdict = traces.judge(each)
            work.add("traces", {"name": each.name, "kind": each.kind, "state": state, "verdict": verdict})
            print(f"{each.name}: {verdict or 'survived'}", flush=True)


def chosen_cases(args: argparse.Namespace) -> Iterator[Case]:
    """The files that `--only` selects."""
    for case in cases():
        if not args.only or case.architecture in args.only:
            yield case


def run(args: argparse.Namespace) -> int:
    """Run all steps; the exit status is 1 if a score is lower than promised."""
    from parity.reports.mutation import scores

    work = Work(args.directory)
    keep(f"the results are kept in {args.directory}: run the command again to continue")
    settle()
    uses: Counter[str] = Counter()
    if not args.report:
        for case in chosen_cases(args):
            mutate(work, case, args, uses)
        trace(work, args)
    mutants, originals, traces = ([*work.known(step).values()] for step in ("mutants", "originals", "traces"))
    summary = {**scores.summarise(mutants, originals, traces, args.seed), "all files": len(cases())}
    print(narrow("\n".join(scores.report(summary)[4:])))
    small = bool(args.only) or args.scale < 1
    if not small:
        scores.write(summary, RESULTS, PAGE)
    failed = scores.shortfalls(summary, small=small)
    for line in failed:
        print(f"too low: {line}")
    return 1 if failed else 0


def settle() -> None:
    """Use one thread and no network, as the matrix does."""
    os.environ.setdefault("PARITY_THREADS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch

    torch.set_num_threads(1)


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser("python -m parity.reports.mutation", description=(__doc__ or "").splitlines()[0])
    default = ROOT / "reports" / "out" / "mutation"
    parser.add_argument("directory", nargs="?", type=Path, default=default, help="directory of the results")
    parser.add_argument(
        "--seed", type=int, default=SEED, help="seed of faults, inputs and sizes (default: %(default)s)"
    )
    parser.add_argument("--only", nargs="+", choices=[*MODELS, "MiniLM"], metavar="ARCHITECTURE", help="run a part")
    parser.add_argument("--scale", type=float, default=1.0, help="multiply the number of faults by this")
    parser.add_argument("--again", action="store_true", help="judge the survivors again")
    parser.add_argument("--report", action="store_true", help="only report the kept results")
    args = parser.parse_args(argv)
    return run_guarded(parser.prog, lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
