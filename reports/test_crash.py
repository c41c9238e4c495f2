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
