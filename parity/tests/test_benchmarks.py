"""The benchmarks' statistics, budgets, results and arguments, on synthetic measurements."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys

import pytest

from parity.errors import ParityError
from parity.reports.measuring import benchmarks, judge_cost, measurements

PACKAGES = {"torch": "2.13.0"}


def export_result(export=1.1, validated=1.5):
    """A result of `export` with the given ratios."""
    times = {
        "bare call": [1.0, 1.0, 1.0],
        "export": [export, export, 9.0],
        "export and validation": [validated, 0.1, validated],
        "bare call again": [5.0, 5.0, 5.0],
    }
    rows = benchmarks.export_rows("bert default, opset 11", times)
    return measurements.outcome("export", "CPU s", rows, method="by hand")


def command_result(wall=1.0, peak=1.0):
    """A result of `command` with the given ratios."""
    ours = [{"wall": 4.0 * wall, "cpu": 9.0, "peak": 700.0 * peak}] * 3
    theirs = [{"wall": 4.0, "cpu": 3.0, "peak": 700.0}] * 3
    rows = benchmarks.command_rows("tiny", {"parity": ours, "optimum-cli": theirs})
    return measurements.outcome("command", "", rows, method="by hand", ours=PACKAGES, peer=PACKAGES)


def judge_result(mean):
    """A result of `judge` of two architectures with that mean over all four cells."""
    rows = benchmarks.judge_rows({"bert": [0.5 * mean, 0.5 * mean], "t5": [mean, 2 * mean]})
    return measurements.outcome("judge", "CPU s", rows, method="by hand")


@pytest.mark.parametrize(("mean", "holds"), [(0.39, True), (0.41, False)])
def test_the_judge_is_held_to_its_mean_over_all_cells(mean, holds):
    """One architecture may exceed the budget of a cell, the mean of all may not; the table shows both."""
    result = judge_result(mean)
    assert result["holds"] is holds
    assert [row["ratio"]["holds"] for row in result["rows"]] == [True, True, holds]
    assert f"judge of 4 cells, mean {mean:.3f}, CPU s" in measurements.table(result)


SUITE = """
    import pytest
    from types import SimpleNamespace

    CELLS = [SimpleNamespace(architecture=name, id=f"{name}-17") for name in ("bert", "vit")]
    CLOCK = SimpleNamespace(now=0.0)

    @pytest.fixture(scope="session", params=CELLS, ids=lambda cell: cell.id)
    def cell(request):
        return request.param

    @pytest.fixture(scope="session")
    def artifact(cell):
        CLOCK.now += 100

    @pytest.fixture(scope="session")
    def session(artifact):
        CLOCK.now += 1000

    def test_one(cell, session):
        CLOCK.now += 1

    def test_other(cell, artifact):
        CLOCK.now += 2

    def test_of_no_cell():
        CLOCK.now += 5
"""


class Bare(judge_cost.Stopwatch):
    """Skips the imports: pytester forgets modules imported inside it, and numpy cannot be imported twice."""

    def pytest_collection_finish(self):
        pass


def test_export_and_session_are_not_the_judge(pytester):
    """Only the seconds of an architecture's checks are counted, not those of export and session."""
    path = pytester.makepyfile(SUITE)
    watch = Bare(["bert"], clock=lambda: sys.modules[path.stem].CLOCK.now)
    done = pytester.inline_run("-p", "no:cacheprovider", "--import-mode=prepend", str(path), plugins=[watch])
    done.assertoutcome(passed=2)
    assert dict(watch.seconds) == {("bert", "bert-17"): 3.0}


def test_spread_is_median_and_range():
    """Three values are summarised by their median and range."""
    assert measurements.spread([3.0, 1.0, 2.0]) == {"median": 2.0, "min": 1.0, "max": 3.0}


def test_pairwise_divides_within_a_round():
    """A machine that slows down in one round slows both values, and the ratio stays."""
    assert measurements.pairwise([2.2, 22.0, 2.2], [2.0, 20.0, 2.0])["max"] == pytest.approx(1.1)


def test_pairwise_refuses_figures_of_other_rounds():
    """Values without a partner have no ratio."""
    with pytest.raises(ValueError, match="zip"):
        measurements.pairwise([1.0, 2.0], [1.0])


def test_of_medians_divides_by_the_middle_of_the_base():
    """One slow run of the peer does not make our result faster."""
    assert measurements.of_medians([3.0, 3.0, 3.0], [2.0, 2.0, 20.0]) == {"median": 1.5, "min": 1.5, "max": 1.5}


@pytest.mark.parametrize(("median", "holds"), [(1.0, True), (1.15, True), (1.16, False)])
def test_a_ratio_holds_up_to_its_budget(median, holds):
    """A ratio equal to its budget passes; a larger one fails."""
    assert measurements.ratio_verdict({"median": median}, 1.15)["holds"] is holds


def test_a_ratio_without_a_budget_holds():
    """A ratio without a budget is reported but never fails."""
    assert measurements.ratio_verdict({"median": 99.0}, None)["holds"] is True


@pytest.mark.parametrize(
    ("result", "holds"),
    [
        (export_result(), True),
        (export_result(export=1.2), False),
        (export_result(validated=1.7), False),
        (command_result(), True),
        (command_result(wall=1.1), False),
        (command_result(peak=1.06), False),
    ],
)
def test_one_exceeded_budget_fails_the_whole(result, holds):
    """Neither the control nor CPU seconds of the command have a budget; everything else does."""
    assert result["holds"] is holds


@pytest.mark.parametrize(("export", "status", "fragment"), [(1.1, 0, "holds: yes"), (1.2, 1, "holds: **no**")])
def test_an_exceeded_budget_is_told_and_exits_1(monkeypatch, tmp_path, capsys, export, status, fragment):
    """Exit status and table agree."""
    monkeypatch.setattr(benchmarks, "measure_export", lambda rounds: export_result(export))
    assert benchmarks.main(["export", "--output", str(tmp_path)]) == status
    rows = " ".join(capsys.readouterr().out.split()).split("what: ")
    (row,) = [row for row in rows if row.startswith("export, CPU s")]
    assert "budget: ≤ 1.15 ×" in row
    assert fragment in row


@pytest.mark.parametrize("result", [export_result(), command_result()], ids=["export", "command"])
def test_results_hold_everything_and_no_path(tmp_path, result):
    """The file has raw values, environment, processor and date; it has no directory of the machine."""
    measurements.write(result, tmp_path)
    text = (tmp_path / f"{result['benchmark']}.json").read_text()
    content = json.loads(text)
    assert {"benchmark", "date", "cpu", "environment", "method", "unit", "rows", "holds"} <= set(content)
    assert content["environment"]["packages"]["torch"]
    for row in content["rows"]:
        assert {"subject", "what", "figures", "median", "min", "max", "ratio"} <= set(row)
        assert len(row["figures"]) == 3
        assert row["ratio"] is None or {"median", "min", "max", "budget", "holds"} == set(row["ratio"])
    assert sys.prefix not in text
    table = (tmp_path / f"{result['benchmark']}.md").read_text()
    assert sys.prefix not in table
    assert content["cpu"] in table
    assert {line.count("|") for line in table.splitlines() if line.startswith("|")} == {7}


def test_interleaved_takes_turns_and_drops_the_first_round():
    """Every other round runs backwards; the warm-up is not recorded."""
    order, seconds = [], iter(range(100))
    calls = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    times = measurements.measure_in_turn(calls, 2, lambda turn: None, lambda: float(next(seconds)))
    assert "".join(order) == "ba" + "ab" + "ba"
    assert times == {"a": [1.0, 1.0], "b": [1.0, 1.0]}


def test_one_thread_is_put_back(monkeypatch):
    """Afterwards torch and the environment are as before, also after an error."""
    import torch

    monkeypatch.setenv("PARITY_THREADS", "3")
    before = torch.get_num_threads()
    with contextlib.suppress(KeyError), measurements.one_thread():
        assert (torch.get_num_threads(), os.environ["PARITY_THREADS"]) == (1, "1")
        raise KeyError
    assert (torch.get_num_threads(), os.environ["PARITY_THREADS"]) == (before, "3")


@pytest.mark.filterwarnings("ignore")  # warnings of the bare call
def test_the_calls_of_an_export_write_the_same_file_and_are_proven(tmp_path):
    """The bare call and ours do the same work: equal nodes; ours adds only metadata."""
    import onnx

    path = tmp_path / "model.onnx"
    name, calls = benchmarks.export_calls("bert", "default", path)
    nodes = []
    for call in calls.values():
        path.unlink(missing_ok=True)
        call()
        nodes.append([node.op_type for node in onnx.load(str(path)).graph.node])
    assert name == "bert default, opset 11"
    assert len(nodes) == 4
    assert nodes.count(nodes[0]) == 4


def test_process_measures_wall_time_and_peak_memory():
    """A child that sleeps and fills 64 MiB shows in both."""
    usage = benchmarks.process([sys.executable, "-c", "import time; x = b'x' * (64 << 20); time.sleep(0.2)"])
    assert usage["wall"] >= 0.2
    assert usage["peak"] >= 64
    assert usage["cpu"] > 0


def test_process_tells_a_failure():
    """A failing command gives no measurement."""
    with pytest.raises(ParityError, match="exit status 3: no such model"):
        benchmarks.process([sys.executable, "-c", "import sys; print('no such model', file=sys.stderr); sys.exit(3)"])


def test_a_command_that_writes_no_file_is_no_measurement():
    """Exit status 0 alone does not count."""
    with pytest.raises(ParityError, match=r"wrote no model\.onnx"):
        benchmarks.measure_alternately({"parity": [sys.executable, "-c", ""]}, 1)


def test_alternating_gives_fresh_directories_and_drops_the_warm_up():
    """Each run gets a directory that does not exist yet, and creates it."""
    code = "import pathlib, sys; p = pathlib.Path(sys.argv[1]); p.mkdir(); (p / 'model.onnx').touch()"
    found = benchmarks.measure_alternately({name: [sys.executable, "-c", code] for name in ("a", "b")}, 2)
    assert {name: len(runs) for name, runs in found.items()} == {"a": 2, "b": 2}


def test_the_command_benchmark_stays_small():
    """A child's peak memory starts at its parent's size, so no module that it needs imports torch."""
    code = "import sys, parity.reports.measuring.benchmarks; sys.exit('torch' in sys.modules or 'onnx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [[], ["import"], ["export", "--rounds", "0"], ["export", "--rounds", "some"], ["command"]],
    ids=["nothing", "unknown", "no rounds", "not a number", "no peer"],
)
def test_bad_arguments_are_refused(arguments):
    """An impossible measurement is refused with exit status 2 before anything runs."""
    with pytest.raises(SystemExit) as caught:
        benchmarks.main(arguments)
    assert caught.value.code == 2


@pytest.mark.parametrize("option", ["--python", "--peer-python", "--model"])
def test_a_path_that_is_not_there_is_named(option, tmp_path, capsys):
    """The message has the option and the path."""
    paths = {"--python": sys.executable, "--peer-python": sys.executable, "--model": str(tmp_path)}
    paths[option] = str(tmp_path / "absent")
    arguments = [text for pair in paths.items() for text in pair]
    assert benchmarks.main(["command", *arguments, "--output", str(tmp_path)]) == 2
    assert f"{option} {tmp_path / 'absent'}: no such file" in capsys.readouterr().err


def test_the_matrix_is_held_to_its_budgets():
    """CPU minutes, memory and the gain of a second worker each exceed the budget separately."""
    from parity.reports.measuring import benchmark_matrix

    one_worker = {"wall": 17.0, "cpu": 16.5, "peak": 900.0, "checks": 9, "cells": 3}
    two_workers = {**one_worker, "wall": 9.0, "cpu": 17.0}
    assert benchmark_matrix.result(one_worker, two_workers)["holds"]
    assert not benchmark_matrix.result(one_worker, {**two_workers, "cpu": 18.5})["holds"]
    assert not benchmark_matrix.result(one_worker, {**two_workers, "peak": 2100.0})["holds"]
    assert not benchmark_matrix.result(one_worker, {**two_workers, "wall": 10.5})["holds"]
    assert "two workers" in measurements.table(benchmark_matrix.result(one_worker, two_workers))
