"""Parts that all commands share: checked arguments, progress, one-line errors, exit statuses, interruption."""

from __future__ import annotations

import argparse
import contextlib
import errno
import gc
import json
import logging
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn, TextIO

from parity import interruptions
from parity.environment import newer_than_tested
from parity.errors import ParityError, UsageError
from parity.shortage import memory_shortage

# The values of --attention.
ATTENTIONS = ("eager", "sdpa")
# The values of --preprocessor.
PREPROCESSORS = ("auto", "tokenizer", "feature_extractor", "image_processor", "processor")


def tolerance(text: str) -> float:
    """An argument that is an absolute tolerance: a finite number, not negative."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"got {text}, should be a number ≥ 0 such as 1e-5")
    return value


# No machine has the memory for a larger size.
_LARGEST_SIZE = 1_000_000


def whole_number(text: str) -> int:
    """An argument that is a whole number from 1 to `_LARGEST_SIZE`."""
    digits = text.isascii() and text.isdecimal() and len(text) < 20
    if not digits or not 1 <= int(text) <= _LARGEST_SIZE:
        raise argparse.ArgumentTypeError(f"got {text[:30]}, should be a whole number from 1 to {_LARGEST_SIZE}")
    return int(text)


def feature_option(p: argparse.ArgumentParser, purpose: str, default: str | None = "default") -> None:
    """Add `--feature` and its alias `--task`, the name in optimum.

    Args:
        p: the parser.
        purpose: the help, without the default.
        default: the feature if the option is missing.
    """
    names = "auto: the task it was saved for; task names of optimum and of pipelines work too"
    p.add_argument("--feature", "--task", metavar="NAME", default=default, help=f"{purpose} ({names})")


def model_option(p: argparse.ArgumentParser) -> None:
    """Add `--model`."""
    p.add_argument("-m", "--model", required=True, help="directory of a checkpoint, or model id on the Hub")


def checkpoint_options(p: argparse.ArgumentParser) -> None:
    """Add the options that locate the checkpoint and its tokenizer, and `--allow-unused`."""
    p.add_argument("--cache_dir", metavar="DIR", help="directory for checkpoints that are downloaded from the Hub")
    p.add_argument("--revision", help="branch, tag or commit of the checkpoint on the Hub (default: main)")
    p.add_argument("--subfolder", help="folder of the checkpoint within the directory or the Hub's repository")
    p.add_argument("--tokenizer", help="directory or Hub id of the tokenizer (default: the checkpoint's own)")
    p.add_argument(
        "--allow-unused",
        action="store_true",
        help="continue although the model does not use whole layers of the checkpoint",
    )


def preprocessor_option(p: argparse.ArgumentParser) -> None:
    """Add `--preprocessor`."""
    names = ", ".join(PREPROCESSORS)
    text = f"which part of the checkpoint makes the inputs: {names} (default: %(default)s)"
    p.add_argument("--preprocessor", choices=PREPROCESSORS, default="auto", metavar="KIND", help=text)


def overwrite_option(p: argparse.ArgumentParser) -> None:
    """Add `--overwrite`."""
    text = "replace files in the output that no earlier export of this model wrote"
    p.add_argument("--overwrite", action="store_true", help=text)


def log_options(p: argparse.ArgumentParser) -> None:
    """Add `--quiet` and `--json`."""
    p.add_argument("--quiet", action="store_true", help="print errors and warnings only")
    p.add_argument("--json", action="store_true", help="print one JSON object; the log goes to standard error")


def thorough_option(p: argparse.ArgumentParser) -> None:
    """Add `--thorough`."""
    p.add_argument(
        "--thorough",
        action="store_true",
        help="try every id and every position of the model's tables too, which takes many times as long",
    )


class _Streams:
    """Print lines on standard output and standard error; a stream that refuses a line does not stop an export.

    Attributes:
        refusal: why standard output did not take a line; empty if it took all.
        live: whether the terminal shows a line of progress, which the next line replaces.
    """

    def __init__(self) -> None:
        self.refusal = ""
        self.live = False

    def prepare(self) -> None:
        """Begin anew; characters that the encoding of a stream lacks are written as escapes from here on."""
        self.refusal = ""
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")

    def emit(self, line: str, stream: TextIO | None, *, end: str = "\n") -> None:
        """Write a line to a stream.

        Args:
            line: the text.
            stream: `sys.stdout` or `sys.stderr`, which may be None.
            end: written after the text.
        """
        is_result = stream is None or stream is not sys.stderr
        try:
            if stream is None:
                raise OSError(errno.EBADF, "it is closed")
            print(line, end=end, file=stream, flush=True)
        except (OSError, ValueError) as error:
            if is_result:
                self.refusal = self.refusal or str(getattr(error, "strerror", None) or error)


_STREAMS = _Streams()


def print_result(outcome: Mapping[str, Any]) -> None:
    """Print the one JSON object of a command on standard output."""
    _STREAMS.emit(json.dumps(outcome), sys.stdout)


def print_text(text: str, *, end: str = "\n") -> None:
    """Print the result of a command on standard output; if the stream refuses it, the exit status is 1."""
    _STREAMS.emit(text, sys.stdout, end=end)


def prepare_streams() -> None:
    """Write characters that the encoding of a stream lacks as escapes, in `--help` too."""
    _STREAMS.prepare()


def complain(line: str) -> None:
    """Print a line on standard error, in place of a line of progress."""
    if _STREAMS.live:
        erase_line()
    _STREAMS.emit(line, sys.stderr)


def erase_line() -> None:
    """Erase the line of progress, if standard error is a terminal."""
    _STREAMS.live = False
    if sys.stderr is not None and sys.stderr.isatty():
        _STREAMS.emit("\r\x1b[K", sys.stderr, end="")


class Console:
    """The destination of a command's lines.

    Args:
        quiet: show only errors and warnings.
        as_json: keep standard output for one JSON object; log lines go to standard error.
    """

    def __init__(self, *, quiet: bool = False, as_json: bool = False) -> None:
        self._quiet = quiet
        self._as_json = as_json
        self._live = not quiet and sys.stderr is not None and sys.stderr.isatty()
        # If a caller in this process replaced the stream, it gets only errors and warnings.
        self._steps = not quiet and not self._live and sys.stderr is sys.__stderr__
        self._step = ""

    def say(self, line: str) -> None:
        """Print a line of the log."""
        if not self._quiet:
            self.clear()
            if self._as_json:
                complain(line)
            else:
                _STREAMS.emit(line, sys.stdout)

    def warn(self, line: str) -> None:
        """Print a warning on standard error, also if the command is quiet."""
        self.clear()
        complain(f"warning: {line}")

    def progress(self, line: str) -> None:
        """Report the current step; on a terminal each line replaces the one before.

        In a file or a pipe, each step has one line, although it may run at many sizes: `STEP at SIZES`.
        """
        if self._live:
            self._clear()
            _STREAMS.emit(line[:100], sys.stderr, end="")
            _STREAMS.live = True
        step = line.partition(" at ")[0]
        if self._steps and step != self._step:
            self._step = step
            complain(f"… {step}")

    def clear(self) -> None:
        """Remove what `progress` left on the terminal."""
        if self._live:
            self._clear()

    def _clear(self) -> None:
        if self._live:
            erase_line()


def run_guarded(command: str, main: Callable[[], int], *, as_json: bool = False) -> int:
    """Run a command's body; return its exit status: 0, 1 (failure), 2 (usage), or 130, 143, 129 (interrupted).

    Set PARITY_TRACEBACK to see where an error comes from.

    Args:
        command: its name, which begins each error.
        main: the body, which returns 0 or 1.
        as_json: print the outcome of a failure as one JSON object too.
    """
    # Many short calls on few threads: threads that spin while they wait take the cores from those that work.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    _STREAMS.prepare()
    interruptions.forget()
    with _quiet_libraries(), interruptions.Guard() as guard:
        try:
            try:
                status = _with_note(_run(command, main, guard, as_json))
                guard.settle()
                # A library may have swallowed the interruption.
                return _end(command, guard.interruption, as_json) if guard.interruption else status
            except Exception as error:
                if os.environ.get("PARITY_TRACEBACK") and guard.interruption is None:
                    raise
                # Libraries turn an interruption into errors of their own.
                return _end(command, guard.interruption or error, as_json)
        except KeyboardInterrupt as interruption:
            guard.settle()
            return _end(command, interruption, as_json)


def _run(command: str, main: Callable[[], int], guard: interruptions.Guard, as_json: bool) -> int:
    """The status of the body, or 1 if it succeeded but could not print its result."""
    _require_directory()
    status = main()
    if status == 0 and _STREAMS.refusal:
        files = interruptions.delivered()
        written = f"; written: {', '.join(files)}" if files else ""
        complain(f"{command}: error: standard output cannot be written ({_STREAMS.refusal}){written}")
        return 1
    return status


def _require_directory() -> None:
    try:
        os.getcwd()
    except OSError:
        raise UsageError(
            "working directory: it was removed while this shell was in it; change to one that exists"
        ) from None


@contextlib.contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Inside, transformers and the Hub's client report errors only, and Python looks for cycles less often."""
    libraries = [logging.getLogger(name) for name in ("transformers", "huggingface_hub")]
    levels, threshold = [library.level for library in libraries], gc.get_threshold()
    for library in libraries:
        library.setLevel(logging.ERROR)
    # Looking for cycles every 700 objects while torch and transformers are imported costs a twentieth of the time.
    gc.set_threshold(20_000, 20, 100)
    try:
        yield
    finally:
        for library, level in zip(libraries, levels, strict=True):
            library.setLevel(level)
        gc.set_threshold(*threshold)


def _with_note(status: int) -> int:
    """The status; after a failure, print a note if packages are newer than the tested ones."""
    # The failure is reported already: if memory does not suffice for the note, leave it out.
    with contextlib.suppress(MemoryError, OSError, ImportError):
        if status == 1 and (note := newer_than_tested()):
            complain(f"note: {note}")
    return status


def leave(status: int) -> NoReturn:
    """End the process with this status at once: tearing torch down takes a second."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(status)


def _end(command: str, error: BaseException, as_json: bool) -> int:
    """Print the one line of an error and return its exit status."""
    if isinstance(error, KeyboardInterrupt):
        word = getattr(error, "word", "interrupted")
        return fail(command, interruptions.ending(word), getattr(error, "status", 130), "interrupted", as_json)
    if shortage := memory_shortage(error):
        return fail(command, shortage, 1, "memory", as_json)
    if isinstance(error, ParityError):
        return fail(command, str(error), error.exit_status, error.stage, as_json)
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        # pathlib raises it wherever a path is first looked at.
        refusal = UsageError(f"path {str(error.filename)[:40]}…: is too long for the file system; give a shorter one")
        return fail(command, str(refusal), refusal.exit_status, refusal.stage, as_json)
    text = " ".join(str(error).split())[:500]
    message = f"an unexpected error ({type(error).__name__}: {text}); PARITY_TRACEBACK=1 shows where"
    return fail(command, message, 1, "unexpected", as_json)


def fail(command: str, message: str, status: int, stage: str, as_json: bool) -> int:
    """Print the one line of a failure and return its exit status.

    Args:
        command: its name, which begins the line.
        message: what failed, and what to do.
        status: the exit status.
        stage: of the failure, for the JSON object.
        as_json: print the failure as one JSON object too.
    """
    complain(f"{command}: error: {message}")
    if as_json:
        print_result({"status": "failed", "stage": stage, "error": message})
    return _with_note(status)
