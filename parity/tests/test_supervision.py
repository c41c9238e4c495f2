"""A library ends the process of a command: one sentence, status 1, and no partial file."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# A command that makes a stage in a new directory, writes half a file, then does what its argument says.
COMMAND = """
import os, signal, sys, time
from pathlib import Path
from parity.console import run_guarded
from parity.files import staging_directory
from parity.interruptions import begin, limit_time
from parity.publication import publish_file
from parity.supervision import run_process

output, act = Path(sys.argv[1]) / "new" / "model.onnx", sys.argv[2]

def work():
    with staging_directory(output) as stage:
        (stage / "model.onnx").write_text("half")
        if act == "published":
            for name in ("prefill.onnx", "config.json"):
                (stage / name).write_text("whole")
            from parity import publication
            own, moved = publication._rename, []
            def rename(source, target):
                own(source, target)
                moved.append(target)
                if len(moved) == 2:
                    os.kill(os.getpid(), signal.SIGKILL)
            publication._rename = rename
            new = publication.Publication(stage, output.parent)
            for name in ("model.onnx", "prefill.onnx"):
                new.add_entry(stage / name, name)
            new.add(stage / "config.json", "config.json")
            new.commit()
        if act == "delivered":
            publish_file(stage / "model.onnx", output)
            os.kill(os.getpid(), signal.SIGSEGV)
        if act.startswith("SIG"):
            os.kill(os.getpid(), getattr(signal, act))
        if act == "endless":
            limit_time(0.3)
            while True:
                pass
        if act == "wait":
            print("waiting", os.getpid(), flush=True)
            time.sleep(30)
    return int(act)

begin()
run_process("parity x", lambda: run_guarded("parity x", work))
"""


def start(tmp_path, act, **options):
    command = [sys.executable, "-c", COMMAND, str(tmp_path), act]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=ROOT, text=True, **pipes, **options)


def run(tmp_path, act):
    process = start(tmp_path, act)
    out, err = process.communicate(timeout=30)
    lines = [line for line in err.splitlines(keepends=True) if not line.startswith("note: ")]
    return process.returncode, out, "".join(lines)


@pytest.mark.parametrize(
    ("act", "words"),
    [
        ("SIGBUS", "a file was truncated while it was read"),
        ("SIGABRT", "a library ended the process"),
        ("SIGSEGV", "a library ended the process"),
        ("SIGKILL", "it was killed, probably because the system ran out of memory"),
    ],
)
def test_a_process_that_is_ended(tmp_path, act, words):
    """Its stage and the directories that it created are gone."""
    status, out, err = run(tmp_path, act)
    assert (status, out) == (1, "")
    assert err.startswith(f"parity x: error: {act}: {words}")
    assert err.endswith("; nothing was written\n")
    assert len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_end_is_ended(tmp_path):
    """Like a file with an endless loop, whose operators run no line of Python."""
    status, _, err = run(tmp_path, "endless")
    assert status == 1
    assert err == (
        "parity x: error: SIGALRM: it did not end in time; give a longer --timeout, or a file that ends; nothing was"
        " written\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_what_was_delivered_is_told(tmp_path):
    """A library that ends the process after the file was delivered."""
    status, _, err = run(tmp_path, "delivered")
    assert status == 1
    assert err.endswith(f"; already written: {tmp_path / 'new' / 'model.onnx'}\n")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["model.onnx"]


def test_a_publication_that_had_begun_is_ended(tmp_path):
    """The supervisor completes a killed process's publication, and reports it."""
    status, _, err = run(tmp_path, "published")
    assert status == 1
    assert len(err.splitlines()) == 1
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"model.onnx", "prefill.onnx", "config.json"}
    (names,) = (line.partition("already written: ")[2] for line in err.splitlines())
    assert {Path(name).name for name in names.split(", ")} == {"model.onnx", "prefill.onnx", "config.json"}


@pytest.mark.parametrize("status", ["0", "1", "2"])
def test_the_status_is_that_of_the_command(tmp_path, status):
    """The control: a process that ends by itself prints nothing more."""
    assert run(tmp_path, status) == (int(status), "", "")


@pytest.mark.parametrize(
    ("number", "status", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated"), (signal.SIGHUP, 129, "hung up")],
)
def test_signals_reach_the_work(tmp_path, number, status, word):
    """A signal to the started process ends the work once."""
    with start(tmp_path, "wait", preexec_fn=terminal) as process:
        assert process.stdout.readline().startswith("waiting")
        process.send_signal(number)
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (status, f"parity x: error: {word}; nothing was written\n")
    assert list(tmp_path.iterdir()) == []


def terminal():
    """Reset signals to their state in a terminal's shell, whatever started the tests."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def test_the_work_ends_with_its_parent(tmp_path):
    """If the started process is killed, the working one does not continue alone."""
    with start(tmp_path, "wait") as process:
        worker = int(process.stdout.readline().split()[1])
        process.send_signal(signal.SIGKILL)
        process.wait()
    for _ in range(200):
        if not Path(f"/proc/{worker}").exists() or not list(tmp_path.iterdir()):
            break
        time.sleep(0.05)
    assert list(tmp_path.iterdir()) == []
    assert worker != os.getpid()
