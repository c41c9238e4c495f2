"""The command `parity`: one word more, and the command of that name."""

from __future__ import annotations

import importlib
import os
import sys

from parity.interruptions import begin

if os.path.basename(sys.argv[0]).partition(".")[0] == "parity":
    begin()

_COMMANDS = {
    "onnx": ("parity.onnx.__main__", "export a checkpoint to ONNX and prove the file"),
    "torchscript": ("parity.torchscript.__main__", "trace a checkpoint to TorchScript and tell where it is right"),
    "neuron": ("parity.neuron.__main__", "compile a checkpoint for AWS Inf1 and tell what falls back to the CPU"),
    "check": ("parity.check", "judge an ONNX file that somebody else exported"),
    "matrix": ("parity.architectures.conformance.matrix", "list and count the cells of the conformance matrix"),
    "reports": ("parity.reports.__main__", "the page of a run, the release gate, what an upgrade did"),
    "benchmarks": ("parity.reports.measuring.benchmarks", "measure the exporter beside its peers"),
}

_SUPERVISED = ("onnx", "torchscript", "neuron", "check")


def main(argv: list[str] | None = None) -> int:
    """Run `parity COMMAND …`; returns its exit status."""
    from parity.console import complain, prepare_streams, print_text

    prepare_streams()
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print_text("usage: parity COMMAND …\n\ncommands:")
        for name, (_, meaning) in _COMMANDS.items():
            print_text(f"  {name:12}{meaning}")
        return 0 if argv else 2
    if argv[0] == "--version":
        from parity import __version__

        print_text(f"parity {__version__}")
        return 0
    if argv[0] not in _COMMANDS:
        complain(f"parity: error: no command {argv[0][:60]}, should be one of {', '.join(_COMMANDS)}")
        return 2
    return importlib.import_module(_COMMANDS[argv[0]][0]).main(argv[1:], prog=f"parity {argv[0]}")


def run() -> None:
    """The installed console script."""
    from parity.supervision import run_process

    # The others end no process by their libraries, and some have workers of their own.
    if sys.argv[1:2] and sys.argv[1] in _SUPERVISED:
        run_process(f"parity {sys.argv[1]}", main)
    from parity.console import leave

    leave(main())


if __name__ == "__main__":
    run()
