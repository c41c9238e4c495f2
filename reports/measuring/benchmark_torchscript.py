"""The cost of a TorchScript export compared with a bare `torch.jit.trace`, and of padding to the traced length."""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parity.console import leave, run_guarded
from parity.reports.measuring import measurements
from parity.reports.measuring.measurements import (
    BARE,
    CONTROL,
    SUBJECTS,
    measure_in_turn,
    one_thread,
    outcome,
    pairwise,
    ratio_verdict,
    round_reporter,
    row,
)
from parity.reports.terminal import narrow

if TYPE_CHECKING:
    import torch

# Ratios to the bare call with its defaults: check_trace, which traces a second time, is on.
BUDGETS = {"export": 1.2, "export, loaded again and proven": 1.2}
UNCHECKED = "bare call, check_trace=False"
# The length of the trace in tokens; requests have one SHAREth of it.
LENGTH, SHARE = 128, 8
NATIVE, PADDED = f"{LENGTH // SHARE} tokens, native", f"{LENGTH // SHARE} tokens, padded to {LENGTH}"
NATIVE_AGAIN = f"{NATIVE} again"


def main(argv: list[str] | None = None, prog: str = "python -m parity.reports.measuring.benchmark_torchscript") -> int:
    """Run the command; returns its exit status: 1 when a budget does not hold."""
    p = argparse.ArgumentParser(prog, description=__doc__)
    p.add_argument("--rounds", type=int, default=15, help="interleaved rounds (default: %(default)s)")
    p.add_argument("--output", type=Path, default=measurements.OUTPUT, help="where results go (default: %(default)s)")
    args = p.parse_args(argv)
    return run_guarded(prog, lambda: _run(args))


def _run(args: argparse.Namespace) -> int:
    result = measure(args.rounds)
    measurements.write(result, args.output)
    print(narrow(measurements.table(result)))
    return 0 if result["holds"] else 1


def measure(rounds: int) -> dict[str, Any]:
    """CPU seconds of exports and of the bare call, and of requests with and without padding."""
    lines = []
    with one_thread(), warnings.catch_warnings(), tempfile.TemporaryDirectory() as directory:
        warnings.simplefilter("ignore")
        for model_type, feature in SUBJECTS:
            calls = export_calls(model_type, feature, Path(directory) / "model.pt")
            times = measure_in_turn(calls, rounds, round_reporter(f"{model_type} {feature}", rounds))
            lines.extend(rows(f"{model_type} {feature}", times, BARE, BUDGETS))
        calls = padding_calls()
        times = measure_in_turn(calls, rounds, round_reporter("padding", rounds))
        lines.extend(rows("MiniLM, trained", times, NATIVE, {}))
    method = "CPU seconds in one process, one thread, the calls of a round in turn, ratios within a round"
    return outcome("torchscript", "CPU s", lines, method=method)


def rows(
    subject: str, times: Mapping[str, Sequence[float]], base: str, budgets: Mapping[str, float]
) -> list[dict[str, Any]]:
    """The rows of one subject; a ratio without a budget is only reported."""
    lines = []
    for what, seconds in times.items():
        ratio = None if what == base else ratio_verdict(pairwise(seconds, times[base]), budgets.get(what))
        lines.append(row(subject, what, seconds, ratio))
    return lines


def export_calls(model_type: str, feature: str, path: Path) -> dict[str, Callable[[], object]]:
    """Name → call to measure, for a tiny model; only the exports also write a description into the file."""
    import torch

    from parity.fixtures.subjects import subject
    from parity.torchscript import export
    from parity.traceable import Traceable, evaluation_mode

    tiny = subject(model_type, feature)
    config, source = tiny.onnx_config, tiny.source
    model, inputs = tiny.fresh_model(), source.generate().inputs
    tensors = tuple(source.layout.flatten(inputs).values())
    traceable = Traceable(tiny.fresh_model(), config, source.layout, list(config.outputs))

    def bare(**options: Any) -> None:
        with evaluation_mode(traceable.model, config.values_override):
            torch.jit.save(torch.jit.trace(traceable, tensors, **options), str(path))

    return {
        BARE: bare,
        "export": lambda: export(model, inputs, path, feature=feature, prove=False),
        "export, loaded again and proven": lambda: export(model, inputs, path, feature=feature),
        UNCHECKED: lambda: bare(check_trace=False),
        CONTROL: bare,
    }


def padding_calls() -> dict[str, Callable[[], object]]:
    """MiniLM on requests of an eighth of the traced length: with a trace of their own length, and padded."""
    import torch
    from transformers import AutoModel

    from parity.fixtures import minilm
    from parity.torchscript import Runner, export

    model = AutoModel.from_pretrained(minilm.directory(), attn_implementation="eager").eval()

    def inputs(length: int) -> dict[str, torch.Tensor]:
        ids = torch.arange(1000, 1000 + length).repeat(2, 1)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}

    request = inputs(LENGTH // SHARE)
    native, padded = (Runner(export(model, inputs(length), prove=False)) for length in (LENGTH // SHARE, LENGTH))
    return {NATIVE: lambda: native(request), PADDED: lambda: padded(request), NATIVE_AGAIN: lambda: native(request)}


if __name__ == "__main__":
    leave(main())
