"""A check that kills its worker, or hangs, fails; everything else runs, and all results are recorded."""

from types import SimpleNamespace

import pytest

from parity import records
from parity.fixtures.plugin import pytest_xdist_make_scheduler

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
    """When the worker dies, that one check fails once, with stage crash; all other checks of all cells pass."""
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


# Kills the process that writes the records: its own, or the controller.
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
def test_a_run_that_is_broken_off_is_taken_up(pytester, monkeypatch, workers):
    """The controller is killed: the records of finished checks are complete lines, and --only-changed runs the rest."""
    # Otherwise it is that of the worker that runs this test.
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
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
    # If the continuing run is interrupted too, the next one uses its records as well.
    (pytester.path / "again.jsonl").rename(pytester.path / "again.partial")
    text = (pytester.path / "again.partial").read_text().splitlines(keepends=True)
    (pytester.path / "again.partial").write_text("".join(text[:2]))
    pytester.runpytest_subprocess(*options, "--records", "again.jsonl").assert_outcomes(passed=1)
    assert [each["check"] for each in records.read(pytester.path / "again.jsonl")[1]] == ["dies", "after"]


def test_the_name_of_a_partial_is_none_for_records(pytester):
    """In one sentence, before anything runs."""
    pytester.makepyfile(test_suite="def test_x(cell): pass")
    result = pytester.runpytest(*PLUGINS, "--records", "out.partial", "-k", "resnet-default-onnx11")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --records out.partial: ends in .partial, the ending of an interrupted run*"])


class Worker:
    """A scheduler's view of a worker: the items sent to it, and whether it must end."""

    def __init__(self, name):
        self.gateway = SimpleNamespace(id=name)
        self.shutting_down, self.sent = False, []

    def send_runtest_some(self, indices):
        self.sent += indices

    def shutdown(self):
        self.shutting_down = True


IDS = [f"test_a.py::test_{check}[{model}-onnx11]" for model in ("bert-default", "vit-default") for check in range(4)]


def start_two():
    """A scheduler with two workers that have started."""
    from xdist.remote import Producer

    config = SimpleNamespace(
        getvalue=lambda name: ["2*popen"], option=SimpleNamespace(loadscopereorder=True, numprocesses=2)
    )
    scheduler = pytest_xdist_make_scheduler(config, Producer("x", enabled=False))
    workers = [Worker("gw0"), Worker("gw1")]
    for worker in workers:
        scheduler.add_node(worker)
    for worker in workers:
        scheduler.add_node_collection(worker, IDS)
    scheduler.schedule()
    return scheduler, workers


@pytest.mark.parametrize("dead", [1, 2])
def test_what_a_dead_worker_had_not_run_is_run(dead):
    """Another worker ends, or starts, before the replacements of dead workers have collected."""
    scheduler, workers = start_two()
    sent = [set(worker.sent) for worker in workers]
    assert sent[0] | sent[1] == {*range(len(IDS))}
    crashed = {scheduler.remove_node(worker) for worker in workers[:dead]}
    places = [Worker(f"gw{2 + number}") for number in range(dead)]
    for place in places:
        scheduler.add_node(place)
    for worker in workers[dead:]:
        for index in worker.sent:
            scheduler.mark_test_complete(worker, index)
        assert scheduler.remove_node(worker) is None
    for place in places:
        scheduler.add_node_collection(place, IDS)
        scheduler.schedule()
        for index in place.sent:
            scheduler.mark_test_complete(place, index)
    assert len(crashed) == dead
    # Each check runs once, and only those that killed a worker are left out.
    run = [index for worker in (*workers[dead:], *places) for index in worker.sent]
    assert sorted(IDS[index] for index in run) == sorted({*IDS} - crashed)
    assert scheduler.tests_finished
