"""`python -m parity.reports.lanes.processors`: run the suite as other processors would, one after the other.

Libraries choose their kernels by the processor, and settings override the choice. Settings of torch, oneDNN and MKL
emulate a processor of another vendor or age: they round differently from the kernels chosen by default here. None of
them has any effect on ONNX Runtime.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from parity.console import run_guarded

# MKL chooses by the vendor of the processor; override the function that it asks.
_VENDOR = "int mkl_serv_intel_cpu_true(void) {{ return {answer}; }}\n"
# Small computations of each kind that torch and its libraries have kernels for; prints a digest of each.
_PROBE = """
import hashlib, torch
torch.manual_seed(0)
F = torch.nn.functional
a, b, images, kernels = torch.randn(7, 65), torch.randn(33, 65), torch.randn(2, 3, 17, 17), torch.randn(8, 3, 3, 3)
heads = torch.randn(2, 4, 9, 16)
found = {
    "linear": F.linear(a, b), "bmm": heads @ heads.transpose(-1, -2), "conv": F.conv2d(images, kernels),
    "gelu": F.gelu(a), "softmax": F.softmax(a, -1), "layernorm": F.layer_norm(a, (65,)),
    "sdpa": F.scaled_dot_product_attention(heads, heads, heads), "linear64": F.linear(a.double(), b.double()),
    "conv64": F.conv2d(images.double(), kernels.double()),
}
for name, tensor in found.items():
    print(name, hashlib.sha256(tensor.numpy().tobytes()).hexdigest())
"""
TESTS = (("parity/tests",), ("-m", "smoke"))


@dataclass(frozen=True)
class Processor:
    """A processor to emulate.

    Args:
        name: of the option.
        meaning: for people.
        settings: environment variables.
        vendor: whether MKL must see the other vendor.
        rounds: whether results must differ from this processor's own; if they do not, the emulation failed.
    """

    name: str
    meaning: str
    settings: Mapping[str, str] = field(default_factory=dict)
    vendor: bool = False
    rounds: bool = True


PROCESSORS = (
    Processor(
        "weak",
        "no vector instructions beyond SSE4.1",
        {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE"},
    ),
    Processor("avx2", "AVX2", {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "AVX2"}),
    Processor("sse42", "MKL without AVX (on Intel only)", {"MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}),
    Processor("vendor", "MKL's kernels for the other vendor", vendor=True),
    Processor("threads", "two threads in each worker", {"PARITY_THREADS": "2"}, rounds=False),
)


class CannotEmulate(Exception):
    """A processor cannot be emulated on this machine; the text says why."""


def is_intel() -> bool:
    """Whether this machine has an Intel processor."""
    with contextlib.suppress(OSError):
        return "GenuineIntel" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    return "intel" in platform.processor().lower()


@contextlib.contextmanager
def emulate(processor: Processor) -> Iterator[tuple[dict[str, str], list[str]]]:
    """The environment in which libraries choose as on that processor, and the computations that it changes.

    Raises:
        CannotEmulate: a prerequisite is missing, or nothing that torch computes changes.
    """
    environment = {**os.environ, **processor.settings}
    with contextlib.ExitStack() as stack:
        if processor.vendor:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            environment["LD_PRELOAD"] = str(_vendor_stub(directory))
        moved = differences(environment) if processor.rounds else []
        if processor.rounds and not moved:
            raise CannotEmulate("it changes no bit of any computation that was tried")
        yield environment, moved


def _vendor_stub(directory: Path) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or not sys.platform.startswith("linux"):
        raise CannotEmulate("it needs a C compiler and Linux's LD_PRELOAD")
    source, library = directory / "vendor.c", directory / "vendor.so"
    source.write_text(_VENDOR.format(answer=0 if is_intel() else 1), encoding="utf-8")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    return library


def differences(environment: Mapping[str, str]) -> list[str]:
    """The computations that round differently in that environment."""
    here, there = _own_digests(), _digests(environment)
    return [name for name in here if here[name] != there[name]]


@functools.cache
def _own_digests() -> dict[str, str]:
    return _digests(os.environ)


def _digests(environment: Mapping[str, str]) -> dict[str, str]:
    """Computation → a digest of its result in that environment."""
    process = subprocess.run(
        [sys.executable, "-c", _PROBE], env=dict(environment), capture_output=True, text=True, check=True
    )
    return dict(line.split() for line in process.stdout.splitlines())


def run(processor: Processor, pytest_arguments: Sequence[str]) -> tuple[str, float, str]:
    """Run the tests on an emulated processor.

    Returns:
        `green`, `red` or `not applied`; the seconds it took; the computations that changed, or why it was not applied.
    """
    started = time.perf_counter()
    try:
        with emulate(processor) as (environment, moved):
            statuses = [
                subprocess.run(
                    [sys.executable, "-m", "pytest", "-n", "auto", *tests, *pytest_arguments], env=environment
                ).returncode
                for tests in TESTS
            ]
    except CannotEmulate as error:
        return "not applied", time.perf_counter() - started, str(error)
    effect = f"rounds otherwise: {', '.join(moved)}" if moved else ""
    return "red" if any(statuses) else "green", time.perf_counter() - started, effect


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status, 1 if a run was red."""
    parser = argparse.ArgumentParser(
        "python -m parity.reports.lanes.processors",
        description="Run parity/tests and the smoke tests as other processors would, and say how it went.",
    )
    names = [each.name for each in PROCESSORS]
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="which of them (default: all)")
    args, rest = parser.parse_known_args(argv)
    return run_guarded(parser.prog, lambda: _run(args, rest))


def _run(args: argparse.Namespace, rest: Sequence[str]) -> int:
    rows = []
    for processor in (each for each in PROCESSORS if each.name in args.only):
        print(f"\n{processor.name}: {processor.meaning}", flush=True)
        rows.append((processor.name, *run(processor, rest)))
    print()
    for name, outcome, seconds, text in rows:
        print(f"{name:10}{outcome:13}{seconds:6.0f} s  {text}".rstrip())
    return 1 if any(outcome == "red" for _, outcome, _, _ in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
