"""Signals, streams that cannot be written, and lack of memory: one line each that says what is on the disk."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from parity import console, interruptions
from parity.errors import ExportError, OutputError
from parity.shortage import memory_shortage

ROOT = Path(__file__).parents[2]
ENDINGS = [
    (signal.SIGINT, 130, "interrupted"),
    (signal.SIGTERM, 143, "terminated"),
    (signal.SIGHUP, 129, "hung up"),
]


@pytest.fixture(autouse=True)
def handlers():
    """The signal handlers of a terminal, whatever started the tests; afterwards they must be restored."""
    before = {number: signal.getsignal(number) for number, _, _ in ENDINGS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number):
    os.kill(os.getpid(), number)


def ended(capsys, body, **options):
    """Status and lines on standard error of a command with that body."""
    status = console.run_guarded("parity x", body, **options)
    return status, [line for line in capsys.readouterr().err.splitlines() if not line.startswith("note: ")]


@pytest.mark.parametrize(("number", "status", "word"), ENDINGS)
def test_a_signal_is_one_line(capsys, number, status, word):
    """Each has its exit status, and reports that nothing was written."""
    assert ended(capsys, lambda: send(number)) == (status, [f"parity x: error: {word}; nothing was written"])


@pytest.mark.parametrize(("number", "status", "word"), ENDINGS)
def test_more_signals_change_nothing(capsys, number, status, word):
    """Signals during the handling of the first are ignored: cleaning up completes."""
    cleaned = []

    def body():
        try:
            send(number)
        finally:
            for other, _, _ in ENDINGS:
                send(other)
            cleaned.append(True)

    assert ended(capsys, body) == (status, [f"parity x: error: {word}; nothing was written"])
    assert cleaned == [True]


def test_what_is_kept_is_told(capsys):
    """For a run of many parts, instead of the files written; the next command starts without it."""

    def body():
        interruptions.keep("what was run is kept")
        send(signal.SIGTERM)

    assert ended(capsys, body) == (143, ["parity x: error: terminated; what was run is kept"])
    again = ended(capsys, lambda: send(signal.SIGTERM))
    assert again == (143, ["parity x: error: terminated; nothing was written"])


def test_what_is_written_is_told(capsys, tmp_path):
    """After the file is delivered, an interruption names it."""
    (tmp_path / "model.onnx").write_text("whole")

    def body():
        interruptions.deliver([tmp_path / "model.onnx", tmp_path / "gone.onnx"])
        send(signal.SIGTERM)

    assert ended(capsys, body) == (143, [f"parity x: error: terminated; already written: {tmp_path / 'model.onnx'}"])


def test_a_library_that_wraps_the_interruption(capsys):
    """numpy raises an ImportError if its import is interrupted: it is reported as an interruption."""

    def body():
        try:
            send(signal.SIGINT)
        except KeyboardInterrupt:
            raise ImportError("its extensions could not be loaded") from None

    assert ended(capsys, body) == (130, ["parity x: error: interrupted; nothing was written"])


class Deleted:
    """Sends a signal while it is deleted, when Python drops exceptions."""

    def __del__(self):
        send(signal.SIGTERM)


def test_a_signal_while_an_object_is_deleted(capsys):
    """The interruption is raised again, and ends the command."""
    hook = sys.unraisablehook

    def body():
        Deleted()
        time.sleep(5)
        return 0

    assert ended(capsys, body) == (143, ["parity x: error: terminated; nothing was written"])
    assert sys.unraisablehook is hook


def test_a_signal_that_a_library_drops(capsys):
    """The command is not reported as successful."""

    def body():
        try:
            send(signal.SIGINT)
        except BaseException:
            return 0

    assert ended(capsys, body) == (130, ["parity x: error: interrupted; nothing was written"])


def test_a_signal_after_the_end(capsys):
    """In a process of the command, a signal after the report adds no second line."""
    before = {number: signal.getsignal(number) for number, _, _ in ENDINGS}
    try:
        interruptions.begin()
        assert ended(capsys, lambda: send(signal.SIGHUP)) == (129, ["parity x: error: hung up; nothing was written"])
        for number, _, _ in ENDINGS:
            send(number)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_an_ignored_signal_stays_ignored(capsys):
    """A signal ignored by nohup does not end the command."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert ended(capsys, lambda: send(signal.SIGHUP) or 0) == (0, [])
        with interruptions.deferred():
            send(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


def test_signals_wait_while_they_are_deferred():
    """A signal is handled at the end of a part that must be completed."""
    lines = []

    def work():
        with interruptions.deferred():
            send(signal.SIGINT)
            lines.append("done")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert lines == ["done"]


@pytest.mark.parametrize("command", ["parity.onnx", "parity.cli"])
def test_the_first_line_is_guarded(tmp_path, command):
    """Ctrl-C while the command's own packages are imported gives no traceback."""
    (tmp_path / "lazy_loader.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(5)\n"
    )
    code = "\n".join(
        [
            "import signal, sys",
            "signal.signal(signal.SIGINT, signal.default_int_handler)",
            f"sys.argv = [{('-m' if command == 'parity.onnx' else '/usr/bin/parity')!r}]",
            f"sys.orig_argv = ['python', '-m', {command!r}]",
            f"import {command}",
            "import lazy_loader",
        ]
    )
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    process = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=False)
    assert (process.returncode, process.stderr) == (130, "parity: error: interrupted; nothing was written\n")


class Full(io.StringIO):
    """A stream on a full disk."""

    def write(self, text):
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("stdout", [Full(), None], ids=["full", "closed"])
@pytest.mark.parametrize("as_json", [False, True])
def test_a_result_that_cannot_be_printed(capsys, monkeypatch, tmp_path, stdout, as_json):
    """The file stays delivered; one line on standard error reports the problem, and the status is 1."""
    (tmp_path / "model.onnx").write_text("whole")

    def body():
        interruptions.deliver([tmp_path / "model.onnx"])
        if as_json:
            console.print_result({"status": "passed"})
        else:
            console.Console().say("All good")
        return 0

    monkeypatch.setattr(sys, "stdout", stdout)
    status, lines = ended(capsys, body, as_json=as_json)
    assert status == 1
    assert len(lines) == 1
    assert lines[0].startswith("parity x: error: standard output cannot be written (")
    assert lines[0].endswith(f"written: {tmp_path / 'model.onnx'}")


def test_nothing_to_print_is_no_failure(monkeypatch):
    """A quiet command with both streams closed succeeds; so does a command without standard error."""
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)

    def quiet():
        console.Console(quiet=True).say("All good")
        console.Console().progress("working")
        return 0

    assert console.run_guarded("parity x", quiet) == 0
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(sys, "stderr", Full())

    def complaining():
        console.complain("warning: …")
        console.Console().say("All good")
        return 0

    assert console.run_guarded("parity x", complaining) == 0
    assert sys.stdout.getvalue() == "All good\n"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_any_encoding(monkeypatch, encoding):
    """Characters that it lacks are escaped; nothing is lost or raised."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    assert console.run_guarded("parity x", lambda: console.Console().say("-[✓] café") or 0) == 0
    text = raw.getvalue().decode(encoding)
    assert text.rstrip() == (
        "-[✓] café" if encoding == "utf-8" else "-[✓] café".encode(encoding, "backslashreplace").decode(encoding)
    )


SHORTAGES = {
    "python": (MemoryError(), "out of memory; "),
    "torch": (
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: can't allocate memory: you tried to"
            " allocate 6400000000 bytes. Error code 12 (Cannot allocate memory)"
        ),
        "out of memory (6400000000 bytes were asked for at once); ",
    ),
    "numpy": (
        MemoryError("Unable to allocate 7.45 GiB for an array with shape (100000000, 10)"),
        "(7.45 GiB were asked",
    ),
    "runtime": (RuntimeError("Failed to allocate memory for requested buffer of size 4096"), "(4096 bytes were asked"),
    "loader": (ImportError("libtorch_cpu.so: failed to map segment from shared object"), "out of memory; "),
    "system": (OSError(12, "Cannot allocate memory"), "out of memory; "),
}


@pytest.mark.parametrize("case", SHORTAGES)
@pytest.mark.parametrize("wrapped", [False, True])
def test_memory_that_runs_out(capsys, case, wrapped):
    """It is reported as such, with the requested amount, also inside an error of ours."""
    error, message = SHORTAGES[case]

    def body():
        if not wrapped:
            raise error
        try:
            raise error
        except Exception as inner:
            raise ExportError("the exporter failed") from inner

    status, lines = ended(capsys, body)
    assert (status, len(lines)) == (1, 1)
    assert message in lines[0]
    assert "end other programs" in lines[0]


def test_other_errors_are_no_shortage():
    """The control: a full disk and a wrong value are reported as such."""
    for error in (OutputError("its disk has no space left"), ValueError("allocate 3 bytes"), OSError(28, "No space")):
        assert memory_shortage(error) == ""


def test_a_removed_working_directory(capsys, monkeypatch, tmp_path):
    """One sentence, before a library ends the process."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    status, lines = ended(capsys, lambda: 0)
    assert status == 2
    assert lines == [
        "parity x: error: working directory: it was removed while this shell was in it; change to one that exists"
    ]


@pytest.mark.parametrize("text", ["0", "-1", "1e3", "1000001", str(10**18), str(10**30), "٣", "1" * 5000])
@pytest.mark.parametrize("command", ["torchscript", "neuron"])
def test_absurd_sizes_are_refused(capsys, command, text):
    """As a usage error with the largest allowed value, before anything is imported or allocated."""
    from parity import cli

    with pytest.raises(SystemExit) as stop:
        cli.main([command, "-m", "x", f"--batch={text}", "out"])
    assert stop.value.code == 2
    assert f"got {text[:30]}, should be a whole number from 1 to 1000000" in capsys.readouterr().err


def test_a_failure_as_json_is_one_object(capsys):
    """An interruption too."""
    assert console.run_guarded("parity x", lambda: send(signal.SIGTERM), as_json=True) == 143
    out = json.loads(capsys.readouterr().out)
    assert out == {"status": "failed", "stage": "interrupted", "error": "terminated; nothing was written"}


def test_no_memory_for_the_note(capsys, monkeypatch):
    """The one line is printed even if there is no memory to look for newer packages."""

    def refuse():
        raise MemoryError

    monkeypatch.setattr(console, "newer_than_tested", refuse)
    assert console.fail("parity x", "out of memory", 1, "memory", False) == 1
    assert capsys.readouterr().err == "parity x: error: out of memory\n"
