"""The benchmarks on checkpoints of real sizes: their budgets, the order of their runs, and the command lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from parity import check
from parity.onnx import __main__ as onnx_command
from parity.reports.measuring import benchmark_sizes, benchmarks, measurements
from parity.reports.measuring.large_checkpoints import CHECKPOINTS
from parity.torchscript import __main__ as torchscript_command

VERSIONS = {"ours": {"torch": "2.13.0"}}
SIZE = 1 << 20  # bytes of the weights of a checkpoint that the fake writes


class Fake:
    """Replaces the runs of commands, and records their options in order; Parity takes twice the time of the peer."""

    def __init__(self, peak=100.0):
        self.commands, self._peak = [], peak

    def __call__(self, command):
        self.commands.append(list(command))
        if "parity.reports.measuring.large_checkpoints" in command:
            Path(command[-1], "model.safetensors").write_bytes(bytes(SIZE))
        return {"wall": 2.0 if "parity.onnx" in command else 1.0, "cpu": 1.0, "peak": self._peak}

    def tools(self, peer=("optimum-cli",)):
        return benchmark_sizes.Tools(Path("python"), peer, self, VERSIONS)


def test_both_exports_are_measured_in_turn():
    """The checkpoint is written, then the peer and ours run, each into a new directory; the first round is dropped."""
    fake = Fake()
    result = benchmark_sizes.measure_peers(["bert-base"], 2, fake.tools())
    written, *rounds = fake.commands
    assert written[1:4] == ["-m", "parity.reports.measuring.large_checkpoints", "bert-base"]
    assert [command[0] for command in rounds] == ["optimum-cli", "python"] * 3
    assert len({command[-1] for command in rounds}) == 6
    assert {len(each["figures"]) for each in result["rows"]} == {2}


@pytest.mark.parametrize(("name", "holds"), [("bert-base", False), ("t5-small", True)])
def test_wall_time_is_held_to_its_budget_where_there_is_one(name, holds):
    """Twice the peer's wall time is too much, except for a checkpoint without a budget; memory has no budget here."""
    result = benchmark_sizes.measure_peers([name], 1, Fake(peak=10**6).tools())
    assert result["holds"] is holds
    assert [each["ratio"]["median"] for each in result["rows"] if each["what"] == "parity"] == [2.0, 1.0, 1.0]
    assert ("**no**" in measurements.table(result)) is not holds


@pytest.mark.parametrize(("size", "peak", "holds"), [(1000, 3400, True), (1000, 3500, False), (0, 1228, True)])
def test_memory_is_held_to_a_multiple_of_the_checkpoint_and_a_constant(size, peak, holds):
    """2.3 times the checkpoint, in MB, and 1.2 GiB; the peak is in MiB."""
    assert benchmark_sizes.memory_row("any", "parity onnx", size, peak)["ratio"]["holds"] is holds


def test_every_command_is_measured_on_the_file_of_the_first():
    """`check` gets the file of the export before it; the peer comes last, if there is one."""
    fake = Fake()
    result = benchmark_sizes.measure_memory(["gpt2-36m"], fake.tools())
    _, exported, checked, traced, peer = fake.commands
    assert [command[2] for command in (exported, checked, traced)] == [
        "parity.onnx",
        "parity.check",
        "parity.torchscript",
    ]
    assert checked[-1] == f"{exported[-1]}/model.onnx"
    assert peer[0] == "optimum-cli"
    assert [each["what"] for each in result["rows"]] == [
        *("parity onnx", "parity check", "parity torchscript"),
        "optimum-cli",
    ]
    alone = Fake()
    benchmark_sizes.measure_memory(["gpt2-36m"], alone.tools(peer=()))
    assert len(alone.commands) == 4


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_command_lines_are_those_of_the_commands(name):
    """The parsers of our commands take what the benchmark gives them, and every checkpoint is measured."""
    tools, checkpoint = Fake().tools(), Path("checkpoint")
    parsers = {"onnx": onnx_command.parser, "check": check.parser, "torchscript": torchscript_command.parser}
    for command in {*benchmark_sizes.MEMORY.get(name, ("onnx",))}:
        arguments = parsers[command]().parse_args([*tools.ours(command, name, checkpoint)[3:], "last"])
        assert (str(arguments.model), arguments.feature) == ("checkpoint", CHECKPOINTS[name].feature)
    assert name in {*benchmark_sizes.MEMORY, *benchmark_sizes.PEERS}


def test_six_checkpoints_with_one_between_one_and_two_gigabytes():
    """The sizes at which memory is limited; the file of one checkpoint is a single message of more than a gigabyte."""
    import torch
    import transformers

    sizes = {}
    for name in benchmark_sizes.MEMORY:
        declared = CHECKPOINTS[name]
        with torch.device("meta"):
            config = getattr(transformers, f"{declared.family}Config")(**declared.options)
            model = getattr(transformers, declared.model)(config)
        sizes[name] = 4 * sum(parameter.numel() for parameter in model.parameters())
    assert len(sizes) == 6
    assert [name for name, size in sizes.items() if 1e9 < size < 2e9] == ["bert-large"]
    assert 3.1e9 < max(sizes.values()) < 3.4e9
    assert 33e6 < sizes["gpt2-36m"] < 39e6


@pytest.mark.parametrize(
    "arguments",
    [["peers"], ["memory", "--checkpoints", "none"], ["peers", "--runs", "0"]],
    ids=lambda options: options[0],
)
def test_bad_arguments_are_refused(arguments):
    """No peer, an unknown checkpoint, no runs."""
    with pytest.raises(SystemExit) as error:
        benchmarks.main(arguments)
    assert error.value.code == 2
