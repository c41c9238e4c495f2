"""A check that kills its worker, or never ends, fails; everything else goes on, and all of it is on record."""

import pytest

from parity import records

PLUGINS = ("-p", "parity.fixtures.plugin", "-p", "parity.reports.recording.plugin", "-p", "no:cacheprovider")

SUITE = """
import os
import signal
import time

def test_before(cell):
    pass

def test_dies(cell):
    {deed}

def test_after(cell):
    pass
"""
DEEDS = {
    "killed": 'os.kill(os.getpid(), signal.SIGKILL) if cell.id == "distilbert-default-onnx11" else None',
    # The one that takes its place collects while the other worker ends.
    "killed beside a slow one": (
        'time.sleep(1) if cell.architecture == "resnet" else None\n'
        '    os.kill(os.getpid(), signal.SIGKILL) if cell.id == "distilbert-default-onnx11" else None'
    ),
    "hanging": 'time.sleep(600) if cell.id == "distilbert-default-onnx11" else None',
}


@pytest.mark.parametrize("deed", DEEDS)
def test_one_bad_check_fails_alone(pytester, deed):
    """The worker's end fails that one check, once, with stage crash; all other checks of all cells pass."""
    pytester.makepyfile(test_suite=SUITE.format(deed=DEEDS[deed]))
    limits = ("-o", "faulthandler_timeout=3", "-o", "faulthandler_exit_on_timeout=true")
    cells = "distilbert-default-onnx11 or distilbert-default-onnx12 or resnet-default-onnx11"
    result = pytester.runpytest_subprocess(*PLUGINS, *limits, "--records", "out.jsonl", "-k", cells, "-n", "2")
    result.assert_outcomes(passed=8, failed=1)
    _, lines = records.read(pytester.path / "out.jsonl")
    (bad,) = [line for line in lines if line["status"] != "passed"]
    assert (bad["id"], bad["check"], bad["status"], bad["stage"]) == (
        "distilbert-default-onnx11",
        "dies",
        "error",
        "crash",
    )
    assert "crashed" in bad["error"]
    assert len(lines) == 9


# Kills the process that writes the records: its own, or that of the controller.
CONTROLLER = """
import os
import signal
import time

def test_before(cell):
    pass

def test_dies(cell):
    if os.path.exists("deadly"):
        time.sleep(1)
        os.kill(os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid(), signal.SIGKILL)
        time.sleep(60)

def test_after(cell):
    pass
"""


@pytest.mark.parametrize("workers", [(), ("-n", "1")], ids=["alone", "one-worker"])
def test_a_run_that_is_broken_off_is_taken_up(pytester, workers):
    """The controller is killed: what ran is there in whole lines, and --only-changed runs the rest."""
    pytester.makepyfile(test_suite=CONTROLLER)
    (pytester.path / "deadly").touch()
    options = (*PLUGINS, "-k", "resnet-default-onnx11", "--records", "out.jsonl", *workers)
    pytester.runpytest_subprocess(*options)
    assert not (pytester.path / "out.jsonl").exists()
    (line,) = records.read(pytester.path / "out.partial")[1]
    assert (line["check"], line["status"]) == ("before", "passed")
    with (pytester.path / "out.partial").open("a") as stream:
        stream.write('{"kind": "check", "id": "res')
    (pytester.path / "deadly").unlink()
    options = (*PLUGINS, "-k", "resnet-default-onnx11", "--only-changed", "out.jsonl", *workers)
    pytester.runpytest_subprocess(*options, "--records", "again.jsonl").assert_outcomes(passed=2)
    assert [each["check"] for each in records.read(pytester.path / "again.jsonl")[1]] == ["dies", "after"]
    assert not (pytester.path / "again.partial").exists()
    # A run that takes up is broken off itself: the next one has its records, too.
    (pytester.path / "again.jsonl").rename(pytester.path / "again.partial")
    text = (pytester.path / "again.partial").read_text().splitlines(keepends=True)
    (pytester.path / "again.partial").write_text("".join(text[:2]))
    pytester.runpytest_subprocess(*options, "--records", "again.jsonl").assert_outcomes(passed=1)
    assert [each["check"] for each in records.read(pytester.path / "again.jsonl")[1]] == ["dies", "after"]


def test_the_name_of_a_partial_is_none_for_records(pytester):
    """One sentence, before anything is run."""
    pytester.makepyfile(test_suite="def test_x(cell): pass")
    result = pytester.runpytest(*PLUGINS, "--records", "out.partial", "-k", "resnet-default-onnx11")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --records out.partial: ends in .partial, as those of a run that was broken*"])
