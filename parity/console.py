"""What all commands share: arguments that are checked, progress, one-line errors, exit statuses, clean interruption."""

from __future__ import annotations

import argparse
import gc
import json
import logging
import math
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from parity.environment import newer_than_tested
from parity.errors import ParityError

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


def whole_number(text: str) -> int:
    """An argument that is a whole number from 1 up."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text}, should be a whole number ≥ 1")
    return int(text)


def feature_option(p: argparse.ArgumentParser, purpose: str, default: str | None = "default") -> None:
    """Add `--feature`, and `--task` as optimum calls it.

    Args:
        purpose: the help, without the default.
    """
    names = "auto: what it was saved for; names of optimum's tasks and of pipelines are taken too"
    p.add_argument("--feature", "--task", default=default, help=f"{purpose} ({names})")


def checkpoint_options(p: argparse.ArgumentParser) -> None:
    """Add what says where the checkpoint lies and how much of it must be used."""
    p.add_argument("--cache_dir", help="where checkpoints from the Hub are kept")
    p.add_argument("--revision", help="branch, tag or commit of the checkpoint on the Hub (default: main)")
    p.add_argument("--subfolder", help="where it lies within the directory or the Hub's repository")
    p.add_argument(
        "--allow-unused", action="store_true", help="go on when the model leaves out whole layers of the checkpoint"
    )


class Console:
    """Where a command's lines go.

    Args:
        quiet: only errors and warnings are shown.
        as_json: standard output is left to one JSON object; log lines go to standard error.
    """

    def __init__(self, *, quiet: bool = False, as_json: bool = False) -> None:
        self._quiet = quiet
        self._log = sys.stderr if as_json else sys.stdout
        self._live = not quiet and sys.stderr.isatty()

    def say(self, line: str) -> None:
        """A line of the log."""
        if not self._quiet:
            self._clear()
            print(line, file=self._log, flush=True)

    def warn(self, line: str) -> None:
        """A warning, on standard error, however quiet the command is."""
        self._clear()
        print(f"warning: {line}", file=sys.stderr, flush=True)

    def progress(self, line: str) -> None:
        """What is being done now; on a terminal each line takes the place of the one before."""
        if self._live:
            self._clear()
            print(line[:100], end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Remove what `progress` left on the terminal."""
        if self._live:
            self._clear()

    def _clear(self) -> None:
        if self._live:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def run_guarded(command: str, main: Callable[[], int], *, as_json: bool = False) -> int:
    """Run a command's body; its exit status: 0, 1 for a failure, 2 for usage, 130 and 143 when interrupted.

    Set PARITY_TRACEBACK to see where an error comes from.
    """
    # Many short calls on few threads: threads that spin while they wait take the cores from those that work.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    libraries = [logging.getLogger(name) for name in ("transformers", "huggingface_hub")]
    levels, threshold = [library.level for library in libraries], gc.get_threshold()
    for library in libraries:
        library.setLevel(logging.ERROR)
    # Looking for cycles every 700 objects while torch and transformers are imported costs a twentieth of the time.
    gc.set_threshold(20_000, 20, 100)
    main_thread = threading.current_thread() is threading.main_thread()
    previous = signal.signal(signal.SIGTERM, _terminate) if main_thread else None
    try:
        return _with_note(main())
    except ParityError as error:
        if os.environ.get("PARITY_TRACEBACK"):
            raise
        return _fail(command, str(error), error.exit_status, error.stage, as_json)
    except KeyboardInterrupt:
        return _fail(command, "interrupted; nothing was written", 130, "interrupted", as_json)
    except _Termination:
        return _fail(command, "terminated; nothing was written", 143, "interrupted", as_json)
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except Exception as error:
        if os.environ.get("PARITY_TRACEBACK"):
            raise
        text = " ".join(str(error).split())[:500]
        message = f"{type(error).__name__}: {text}; PARITY_TRACEBACK=1 shows where"
        return _fail(command, message, 1, "unexpected", as_json)
    finally:
        for library, level in zip(libraries, levels, strict=True):
            library.setLevel(level)
        gc.set_threshold(*threshold)
        if main_thread:
            signal.signal(signal.SIGTERM, previous)


def _with_note(status: int) -> int:
    """The status; that of a failure, after the line on packages that are newer than any that was tried."""
    note = newer_than_tested() if status == 1 else ""
    if note:
        print(f"note: {note}", file=sys.stderr)
    return status


def leave(status: int) -> NoReturn:
    """End the process with that status, without a second of taking torch apart."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


class _Termination(BaseException):
    pass


def _terminate(signum: int, frame: FrameType | None) -> NoReturn:
    raise _Termination


def _fail(command: str, message: str, status: int, stage: str, as_json: bool) -> int:
    print(f"{command}: error: {message}", file=sys.stderr)
    if as_json:
        print(json.dumps({"status": "failed", "stage": stage, "error": message}))
    return _with_note(status)
