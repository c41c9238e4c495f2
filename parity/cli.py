"""The command `parity`, which runs the subcommands."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator

from parity.interruptions import begin

if os.path.basename(sys.argv[0]).partition(".")[0] == "parity":
    begin()

# In the order of a user's day: export, judge, other formats, the suite, its results, speed.
COMMANDS = {
    "onnx": ("parity.onnx.__main__", "export a checkpoint to ONNX and prove the file"),
    "check": ("parity.check", "judge an ONNX file that somebody else exported"),
    "torchscript": ("parity.torchscript.__main__", "trace a checkpoint and report at which sizes it is right"),
    "neuron": ("parity.neuron.__main__", "compile a checkpoint for AWS Inf1"),
    "matrix": ("parity.architectures.conformance.matrix", "list and count the cells that the suite tests"),
    "reports": ("parity.reports.__main__", "page and release gate of a run; try an upgrade"),
    "benchmarks": ("parity.reports.measuring.benchmarks", "measure the exporter and its peers"),
}

_SUPERVISED = ("onnx", "torchscript", "neuron", "check")


def main(argv: list[str] | None = None) -> int:
    """Run `parity COMMAND …` and return its exit status."""
    from parity.console import complain, prepare_streams, print_text

    prepare_streams()
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        lines = "\n".join(_help())
        print_text(lines) if argv else complain(lines)
        return 0 if argv else 2
    if argv[0] == "--version":
        print_text("\n".join(_versions()))
        return 0
    if argv[0] not in COMMANDS:
        names = ", ".join([*COMMANDS, "--help", "--version"])
        complain(f"parity: error: got {argv[0][:60]}, should be one of {names}")
        return 2
    return importlib.import_module(COMMANDS[argv[0]][0]).main(argv[1:], prog=f"parity {argv[0]}")


def _help() -> Iterator[str]:
    yield from ("usage: parity COMMAND …", "", "commands:")
    yield from (f"  {name:12} {meaning}" for name, (_, meaning) in COMMANDS.items())
    yield from ("", "options:")
    yield f"  {'--help':12} this text; parity COMMAND --help has the options of a command"
    yield f"  {'--version':12} the versions of Parity, Python and the packages that it uses"
    yield from ("", "The test suite runs with pytest: pytest -n auto -m smoke takes two minutes.")


def _versions() -> Iterator[str]:
    """Name and version of Parity, of Python and of every package that it uses, read from their metadata."""
    from parity.environment import describe, version_of

    facts = describe()
    yield f"parity {facts['parity']}"
    yield f"Python {facts['python']}, {facts['platform']}"
    yield from (f"{name} {version or 'is not installed'}" for name, version in facts["packages"].items())
    # Optional packages, listed if they are installed.
    optional = ("peft", "sentencepiece", "pytest", "torch-neuron", "torch-neuronx")
    yield from (f"{name} {version_of(name)}" for name in optional if version_of(name))


def run() -> None:
    """The installed console script."""
    from parity.supervision import run_process

    # The libraries of the others do not end the process, and some of these commands have workers of their own.
    if sys.argv[1:2] and sys.argv[1] in _SUPERVISED:
        run_process(f"parity {sys.argv[1]}", main)
    from parity.console import leave

    leave(main())


if __name__ == "__main__":
    run()
