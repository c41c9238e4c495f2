"""`python -m parity.reports.lanes.configurations`: configurations that users have, drawn anew, with every feature.

One round judges one configuration of each architecture and feature, one architecture after the other: a run that is
broken off has tried all of them alike. What came out is kept with the code that it is of, and a run that is broken off
goes on where it was.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import IO, Any

from parity import interruptions
from parity.console import run_guarded
from parity.errors import UsageError
from parity.reports.lanes.environments import KEPT, code
from parity.reports.pages.support import ROOT

HOME = ROOT / "reports" / "out" / "configurations.jsonl"
ROUNDS = 13
PASSED, REFUSED, FAILED, CRASHED = "passed", "refused", "failed", "crashed"
# The declaration has fewer different configurations than rounds.
EXHAUSTED = "exhausted"
_WORKER = (sys.executable, "-m", "parity.reports.lanes.configurations", "--worker")
# As the suite's workers have it.
_ENVIRONMENT = {
    "PARITY_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
}

# Architecture, feature, number.
Key = tuple[str, str, int]


@dataclass(frozen=True)
class Draw:
    """One configuration that is drawn.

    Args:
        opset: of the file.
        number: which of those of its architecture and feature, from 0 up.
        count: how many are drawn of them.
        seed: what all are drawn from.
    """

    architecture: str
    feature: str
    opset: int
    number: int
    count: int
    seed: int

    @property
    def key(self) -> Key:
        """What tells it from the others of one seed."""
        return self.architecture, self.feature, self.number


def _key_of(line: Mapping[str, Any]) -> Key:
    return line["architecture"], line["feature"], line["number"]


def draws(rounds: int, seed: int, architectures: Sequence[str] = ()) -> list[Draw]:
    """All that are judged, round by round; in a round first one feature of each architecture, then the next.

    Args:
        architectures: their names; empty means all.
    """
    from parity.architectures.conformance.matrix import cells
    from parity.fixtures.selection import Selection
    from parity.registry import architecture

    selection = Selection(varied=True, every_opset=False, nightly=False)
    groups: dict[str, list[tuple[str, str, int]]] = defaultdict(list)
    for cell in cells():
        wanted = not architectures or cell.architecture in architectures
        if wanted and selection.has(cell) and not architecture(cell.architecture).gap_of(cell.feature):
            groups[cell.architecture].append((cell.architecture, cell.feature, cell.opset or 0))
    order = [each for row in zip_longest(*groups.values()) for each in row if each]
    return [
        Draw(name, feature, opset, number, rounds, seed) for number in range(rounds) for name, feature, opset in order
    ]


class Ledger:
    """What was tried, one line of JSON each behind the line of the seed; the last line of a configuration counts.

    Args:
        path: the file; it is made with the first line.
        seed: that of a new file; an old one keeps its own.

    Raises:
        UsageError: the file is none of these.
    """

    def __init__(self, path: Path, seed: int) -> None:
        self._path = path
        self.seed = seed
        self.lines: dict[Key, dict[str, Any]] = {}
        if path.exists():
            try:
                # A line that a killed process has left half is not one.
                first, *rest = path.read_text(encoding="utf-8").rpartition("\n")[0].splitlines()
                self.seed = int(json.loads(first)["seed"])
                self.lines = {_key_of(line): line for line in map(json.loads, rest)}
            except (ValueError, KeyError, TypeError) as error:
                raise UsageError(
                    f"{path}: is no record of configurations, should be one; remove it, or name another with --home"
                ) from error

    def add(self, line: Mapping[str, Any]) -> None:
        """Put a line there, on the disk too."""
        self.lines[_key_of(line)] = dict(line)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        new = not self._path.exists()
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write("".join(f"{json.dumps(each)}\n" for each in [{"seed": self.seed}] * new + [line]))

    def missing(self, every: Sequence[Draw], now: str, *, again: bool = False) -> list[Draw]:
        """Those that failed with other code, then those that were not tried, in their order.

        Args:
            now: the code of this run.
            again: also those that were right with other code, at the end.
        """
        groups: list[list[Draw]] = [[], [], []]
        for draw in every:
            line = self.lines.get(draw.key)
            if line is None:
                groups[1].append(draw)
            elif line["code"] != now:
                right = line["status"] in (PASSED, REFUSED, EXHAUSTED)
                groups[2 if right else 0].append(draw)
        return [*groups[0], *groups[1], *(groups[2] if again else [])]


class Worker:
    """A process that judges one configuration after the other; another takes its place if it dies."""

    def __init__(self, command: Sequence[str] = _WORKER) -> None:
        self._command = command
        self._process: subprocess.Popen[str] | None = None

    def judge(self, draw: Draw) -> dict[str, Any]:
        """The line of a draw, without its code."""
        process = self._process or self._start()
        question, answer = _pipes_of(process)
        started = time.monotonic()
        text = ""
        with contextlib.suppress(BrokenPipeError):
            question.write(json.dumps(asdict(draw)) + "\n")
            question.flush()
            text = answer.readline()
        if not text:
            self.stop()
            place = f"{draw.architecture} {draw.feature}, number {draw.number}"
            error = f"{place}: the process ended with status {process.wait()}"
            outcome = {"status": CRASHED, "error": error, "changes": {}}
        else:
            outcome = json.loads(text)
        return {**asdict(draw), **outcome, "seconds": round(time.monotonic() - started, 1)}

    def stop(self) -> None:
        """End the process, if there is one."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(BrokenPipeError):
                _pipes_of(process)[0].close()
            process.wait()
            _pipes_of(process)[1].close()

    def _start(self) -> subprocess.Popen[str]:
        environment = {**_ENVIRONMENT, **os.environ}
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT
        )
        return self._process


def _pipes_of(process: subprocess.Popen[str]) -> tuple[IO[str], IO[str]]:
    assert process.stdin is not None
    assert process.stdout is not None
    return process.stdin, process.stdout


def run(draws: Sequence[Draw], processes: int, deadline: float | None = None) -> Iterator[dict[str, Any]]:
    """The lines of the draws as they come, without their code.

    Args:
        processes: how many judge at once.
        deadline: the value of `time.monotonic` from which on none is begun.
    """
    tasks: queue.SimpleQueue[Draw] = queue.SimpleQueue()
    lines: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
    for draw in draws:
        tasks.put(draw)

    def work() -> None:
        worker = Worker()
        try:
            while deadline is None or time.monotonic() < deadline:
                lines.put(worker.judge(tasks.get_nowait()))
        except queue.Empty:
            pass
        finally:
            worker.stop()
            lines.put(None)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(processes)]
    for thread in threads:
        thread.start()
    for _ in threads:
        yield from iter(lines.get, None)


def answer(question: str) -> dict[str, Any]:
    """What becomes of the draw that a line of JSON describes."""
    from parity.fixtures import configurations
    from parity.loading import quiet_transformers

    draw = Draw(**json.loads(question))
    options = {"count": draw.count, "seed": draw.seed}
    own = configurations.draw(draw.architecture, draw.feature, **options)
    if draw.number >= len(own):
        return {"changes": {}, "status": EXHAUSTED, "error": ""}
    changes = own[draw.number]
    outcome: dict[str, Any] = {"changes": changes, "status": PASSED, "error": ""}
    try:
        with quiet_transformers():
            verdict = configurations.judge_and_shrink(draw.architecture, draw.feature, changes, draw.opset, **options)
        if not verdict:
            outcome["status"] = REFUSED
    except Exception as error:  # whatever it is, it is a finding
        outcome.update(status=FAILED, error=str(error)[:4000])
    return outcome


def serve() -> int:
    """Answer the lines of standard input, one by one, until their writer is gone.

    Libraries that print do so on standard error.
    """
    from parity.fixtures import profiles

    # Ctrl-C reaches every process of a terminal: the parent ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ[profiles.VARIABLE] = profiles.NIGHTLY
    profiles.load()
    replies = os.dup(1)
    os.dup2(2, 1)
    with contextlib.suppress(BrokenPipeError):
        for question in sys.stdin:
            os.write(replies, f"{json.dumps(answer(question))}\n".encode())
    return 0


def summary(every: Sequence[Draw], lines: Mapping[Key, Mapping[str, Any]], now: str) -> list[str]:
    """How many were tried and how they went, how evenly, and what failed."""
    known = [lines[draw.key] for draw in every if draw.key in lines]
    tried = [line for line in known if line["status"] != EXHAUSTED]
    counts = Counter(line["status"] for line in tried)
    per_architecture = Counter({draw.architecture: 0 for draw in every})
    per_architecture.update(line["architecture"] for line in tried)
    here = sum(line["code"] == now for line in tried)
    text = ", ".join(f"{count:,} {status}" for status, count in sorted(counts.items())) or "none"
    least, most = min(per_architecture.values(), default=0), max(per_architecture.values(), default=0)
    return [
        *(line["error"] for line in tried if line["status"] in (FAILED, CRASHED)),
        f"{len(tried):,} of {len(every) - len(known) + len(tried):,} tried ({text}), {here:,} of them with this code;"
        f" {least} to {most} of each architecture",
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status, 1 if one that was tried is not right."""
    parser = argparse.ArgumentParser(
        "python -m parity.reports.lanes.configurations",
        description="Judge configurations that users have, drawn anew for every architecture and feature.",
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how many of each (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="at once (default: %(default)s)")
    parser.add_argument("--minutes", type=float, help="begin none after so long")
    parser.add_argument("--architecture", nargs="+", default=[], metavar="NAME", help="only these")
    parser.add_argument("--again", action="store_true", help="also those that were right with other code")
    parser.add_argument("--seed", type=int, help="what a new record is drawn from (default: another each time)")
    parser.add_argument("--home", type=Path, default=HOME, help="where the record is kept (default: %(default)s)")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.rounds < 1 or args.processes < 1:
        parser.error("--rounds and --processes: should be 1 or more")
    return serve() if args.worker else run_guarded(parser.prog, lambda: _run(args))


def _run(args: argparse.Namespace) -> int:
    interruptions.keep(KEPT)
    started, now = time.monotonic(), code()
    ledger = Ledger(args.home, random.SystemRandom().randrange(2**31) if args.seed is None else args.seed)
    every = draws(args.rounds, ledger.seed, args.architecture)
    missing = ledger.missing(every, now, again=args.again)
    print(f"{len(missing):,} of {len(every):,} to try, seed {ledger.seed}, {args.home}", flush=True)
    deadline = None if args.minutes is None else started + 60 * args.minutes
    for line in run(missing, args.processes, deadline):
        ledger.add({**line, "code": now})
        if line["status"] in (FAILED, CRASHED):
            print(f"{line['architecture']} {line['feature']}: {line['status']}\n    {line['error']}", flush=True)
    text = summary(every, ledger.lines, now)
    print("\n".join(text))
    return 1 if len(text) > 1 else 0


if __name__ == "__main__":
    sys.exit(main())
