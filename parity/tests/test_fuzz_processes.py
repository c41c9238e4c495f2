"""Interrupted processes from seeds: signals, kills, full disks and little memory during export and publication.

A sample in every run, and all with `pytest -m fuzz`; see test_fuzz.
"""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from parity import publication, stages

ROOT = Path(__file__).parents[2]
NAMES = ("model.onnx", "prefill.onnx", "model.onnx_data", "config.json")
SIZE = 50_000
# Cases in the sample and in all, for each kind.
COUNTS = (5, 80)
KINDS = ("signal", "kill", "disk", "memory")

# A command that slowly writes a set of files in a stage and publishes it; arguments: directory, kind, number.
COMMAND = """
from parity.interruptions import begin
begin()
print("begun", flush=True)
import os, resource, signal, sys, time
from pathlib import Path
from parity import publication
from parity.console import run_guarded
from parity.files import staging_directory
from parity.publication import Publication
from parity.supervision import run_process

directory, kind, number = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
names, size = sys.argv[5:], int(sys.argv[4])
count = 0

def watch(own):
    def call(*arguments):
        global count
        count += 1
        if kind == "signal":
            time.sleep(0.01)
        if kind == "kill" and count == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return own(*arguments)
    return call

def work():
    for name in ("_write", "_rename", "_unlink", "_sync"):
        setattr(publication, name, watch(getattr(publication, name)))
    if kind == "disk":
        resource.setrlimit(resource.RLIMIT_FSIZE, (number, number))
    if kind == "memory":
        resource.setrlimit(resource.RLIMIT_DATA, (number, number))
    with staging_directory(directory / names[0]) as stage:
        print("made", flush=True)
        new = Publication(stage, directory)
        for name in names:
            block = bytearray(100 << 20) if kind == "memory" else b""
            (stage / name).write_bytes(b"new " + b"x" * size)
            (new.add_entry if name.endswith(".onnx") else new.add)(stage / name, name)
            del block
        new.commit()
    return 0

run_process("parity x", lambda: run_guarded("parity x", work))
"""


def pytest_generate_tests(metafunc):
    if "case" in metafunc.fixturenames:
        count = COUNTS["fuzz" in (metafunc.config.option.markexpr or "")]
        cases = [(kind, number) for kind in KINDS for number in range(count)]
        metafunc.parametrize("case", cases, ids=[f"{kind}-{number}" for kind, number in cases])


def start(directory, kind, number):
    command = [sys.executable, "-c", COMMAND, directory, kind, number, SIZE, *NAMES]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([*map(str, command)], cwd=ROOT, text=True, preexec_fn=terminal, **pipes)


def terminal():
    """Reset signals to their state in a terminal's shell, whatever started the tests."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def versions(directory):
    """Name → `old` or `new` version of each file; fails on any other or partial file."""
    assert [path.name for path in directory.iterdir() if path.name.startswith(stages.PREFIX)] == []
    sizes = {"old": 4, "new": 4 + SIZE}
    present = {}
    for path in sorted(directory.iterdir()):
        content = path.read_bytes()
        present[path.name] = content[:3].decode()
        assert len(content) == sizes[present[path.name]], path
    return present


@pytest.mark.fuzz
def test_unlucky_processes(tmp_path, case):
    """Afterwards the old or the new set is complete, no stage is left, and at most one line is printed."""
    kind, number = case
    draw = random.Random(f"{kind}-{number}")
    old = dict.fromkeys(NAMES if draw.random() < 0.7 else (), "old")
    for name in old:
        (tmp_path / name).write_text("old ")
    sizes = (0, 1000, SIZE, SIZE + 3, SIZE + 4, 10**6)
    limits = {"signal": 0, "kill": draw.randint(1, 25), "disk": draw.choice(sizes)}
    process = start(tmp_path, kind, limits.get(kind, draw.randint(1, 200) << 20))
    if kind == "signal":
        # A signal before the first line of our code is handled by the interpreter.
        assert process.stdout.readline() == "begun\n"
        if draw.random() < 0.7:
            assert process.stdout.readline() == "made\n"
        time.sleep(draw.random() * 0.3)
        for _ in range(draw.randint(1, 3)):
            process.send_signal(draw.choice((signal.SIGINT, signal.SIGTERM, signal.SIGHUP)))
    _, err = process.communicate(timeout=100)
    lines = [line for line in err.splitlines() if not line.startswith("note: ")]
    known = {"signal": (0, 129, 130, 143), "kill": (0, 1), "disk": (0, 1), "memory": (0, 1)}[kind]
    assert process.returncode in known, err
    assert len(lines) == (process.returncode != 0), err
    assert all("error: " in line and "Traceback" not in line for line in lines), err
    publication.complete(tmp_path)
    present = versions(tmp_path)
    whole = dict.fromkeys(NAMES, "new")
    # After the last rename, an interrupted command must report that it has written the files.
    assert present in ([whole] if process.returncode == 0 else [old, whole]), (present, err)
    if process.returncode and present == whole:
        assert "already written: " in err


def test_a_half_written_file_would_be_seen(tmp_path):
    """The controls of these assertions: a stage, half a file, and a good set."""
    (tmp_path / "model.onnx").write_text("old ")
    assert versions(tmp_path) == {"model.onnx": "old"}
    (tmp_path / "model.onnx").write_bytes(b"new x")
    with pytest.raises(AssertionError):
        versions(tmp_path)
    (tmp_path / "model.onnx").write_text("old ")
    (tmp_path / f"{stages.PREFIX}x").mkdir()
    with pytest.raises(AssertionError):
        versions(tmp_path)
    assert len(KINDS) * COUNTS[0] == 20
    assert len(KINDS) * COUNTS[1] >= 300
