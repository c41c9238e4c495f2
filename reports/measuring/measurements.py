"""Functions of all benchmarks: calls in turn, medians and ratios, a table, and a file."""

from __future__ import annotations

import contextlib
import datetime
import gc
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from parity.environment import describe

FIGURES = {"wall": ("wall seconds", ".2f"), "cpu": ("CPU seconds", ".2f"), "peak": ("peak memory, MiB", ".0f")}
# With scipy, because transformers imports it if it is installed: 35 MiB and some tenths of a second.
PACKAGES = ("optimum-onnx", "torch", "transformers", "onnx", "onnxruntime", "scipy")
BARE, CONTROL = "bare call", "bare call again"
SUBJECTS = (("bert", "default"), ("gpt2", "causal-lm"), ("t5", "seq2seq-lm"))
OUTPUT = Path("reports/benchmarks")


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest of the values."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def pairwise(values: Sequence[float], base: Sequence[float]) -> dict[str, float]:
    """The spread of the ratios of values that were measured in the same round."""
    return spread([value / other for value, other in zip(values, base, strict=True)])


def of_medians(values: Sequence[float], base: Sequence[float]) -> dict[str, float]:
    """The ratio of two medians; its range uses the smallest and the largest of `values` instead of their median."""
    middle = statistics.median(base)
    return {name: value / middle for name, value in spread(values).items()}


def ratio_verdict(ratio: Mapping[str, float], budget: float | None) -> dict[str, Any]:
    """The ratio with its budget, and whether the median is within it; without a budget it always holds."""
    return {**ratio, "budget": budget, "holds": budget is None or ratio["median"] <= budget}


def outcome(name: str, unit: str, rows: Sequence[Mapping[str, Any]], **more: Any) -> dict[str, Any]:
    """A whole result: the environment, the raw measurements, and whether every budget holds."""
    return {
        "benchmark": name,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "cpu": cpu_model(),
        "environment": describe(),
        **more,
        "unit": unit,
        "rows": list(rows),
        "holds": all(row["ratio"]["holds"] for row in rows if row["ratio"]),
    }


def row(
    subject: str, quantity: str, values: Sequence[float], ratio: Mapping[str, Any] | None, **more: Any
) -> dict[str, Any]:
    """One line of a result: raw measurements, their spread and, except for the base, the judged ratio to the base."""
    return {"subject": subject, "what": quantity, **more, "figures": list(values), **spread(values), "ratio": ratio}


def cpu_model() -> str:
    """The name of the processor, as it reports it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def measure_in_turn(
    calls: Mapping[str, Callable[[], object]],
    rounds: int,
    progress: Callable[[int], object],
    clock: Callable[[], float] = time.process_time,
) -> dict[str, list[float]]:
    """Seconds of every call in every round, after one warm-up round; every other round runs in reverse order."""
    names = list(calls)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds + 1):
        progress(turn)
        for name in names if turn % 2 else reversed(names):
            gc.collect()  # so that no call frees objects of an earlier one
            started = clock()
            calls[name]()
            if turn:
                seconds[name].append(clock() - started)
    return seconds


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Inside, torch and ONNX Runtime use one thread, and garbage collection is on, as for a user of the API."""
    import torch

    threads, setting, collecting = torch.get_num_threads(), os.environ.get("PARITY_THREADS"), gc.isenabled()
    torch.set_num_threads(1)
    os.environ["PARITY_THREADS"] = "1"
    gc.enable()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        del os.environ["PARITY_THREADS"]
        os.environ.update({} if setting is None else {"PARITY_THREADS": setting})
        if not collecting:
            gc.disable()


def table(result: Mapping[str, Any]) -> str:
    """The result as a Markdown table, with the environment under it."""
    lines = ["| model | what | median (min–max) | ratio (min–max) | budget | holds |", "|---|---|---|---|---|---|"]
    for line in result["rows"]:
        unit, digits = FIGURES.get(line.get("figure"), (result["unit"], ".3f"))
        ratio = line["ratio"]
        cells = [line["subject"], f"{line['what']}, {unit}", _range(line, digits)]
        cells += [_range(ratio, ".2f") + " ×" if ratio else "1", *_verdict(ratio)]
        lines.append(f"| {' | '.join(cells)} |")
    under = [result["method"], result["date"][:10], f"{result['cpu']}, {result['environment']['cpus']} CPUs"]
    under.append(_versions(result.get("ours") or result["environment"]["packages"]))
    under.extend([f"peer: {_versions(result['peer'])}"] if "peer" in result else [])
    return "\n".join([*lines, "", "; ".join(under) + ".\n"])


def _versions(versions: Mapping[str, str | None]) -> str:
    return ", ".join(f"{name} {versions[name]}" for name in PACKAGES if versions.get(name))


def _range(values: Mapping[str, float], digits: str) -> str:
    return f"{values['median']:{digits}} ({values['min']:{digits}}–{values['max']:{digits}})"


def _verdict(ratio: Mapping[str, Any] | None) -> tuple[str, str]:
    if not ratio or ratio["budget"] is None:
        return "", ""
    return f"≤ {ratio['budget']:g} ×", "yes" if ratio["holds"] else "**no**"


def write(result: Mapping[str, Any], directory: Path) -> None:
    """Write `<benchmark>.json` with everything and `<benchmark>.md` with the table."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{result['benchmark']}.json").write_text(json.dumps(result, indent=1) + "\n")
    (directory / f"{result['benchmark']}.md").write_text(table(result))


def round_reporter(subject: str, rounds: int) -> Callable[[int], None]:
    """A function for `progress` of `measure_in_turn`: it prints the number of the round."""
    return lambda number: _tell(f"{subject}: round {number} of {rounds}")


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
