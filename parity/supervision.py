"""A command in a child process: if a library ends that, one sentence is printed and its stages are removed."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NoReturn

from parity import interruptions, publication, stages
from parity.console import erase_line, fail, leave, prepare_streams

# Signal → its usual meaning, and what to do.
_REASONS = {
    "SIGALRM": "it did not end in time; give a longer --timeout, or a file that ends",
    "SIGBUS": "a file was truncated while it was read, perhaps because a program writes to the checkpoint; run the"
    " command again when nothing writes to it",
    "SIGFPE": "an operator of the file divided whole numbers by zero; export the file again",
    "SIGKILL": "it was killed, probably because the system ran out of memory; end other programs, give smaller sizes"
    " where the command has them, or take a machine with more memory",
}
_OTHER = "a library ended the process; PARITY_TRACEBACK=1 runs it where a debugger can follow"


def run_process(command: str, main: Callable[[], int]) -> NoReturn:
    """Run a command's `main` as this process, and end it with its exit status.

    Args:
        command: its name in messages.
    """
    prepare_streams()
    leave(supervise(command, main) if _may_fork() else main())


def _may_fork() -> bool:
    """Whether a child process can do the work; a debugger or a profiler would not follow it."""
    watched = sys.gettrace() or sys.getprofile() or os.environ.get("PARITY_TRACEBACK") or "coverage" in sys.modules
    return hasattr(os, "fork") and not watched and threading.active_count() == 1


def supervise(command: str, main: Callable[[], int]) -> int:
    """The exit status of `main` in a child; 1 if a signal that the child does not handle ended it."""
    news, child_news = os.pipe()
    life, parent_life = os.pipe()
    # Blocked, so that no signal is lost between the fork and the handler.
    signal.pthread_sigmask(signal.SIG_BLOCK, interruptions.NUMBERS)
    child = os.fork()
    if child == 0:
        os.close(news)
        os.close(parent_life)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, interruptions.NUMBERS)
        _work(main, child_news, life)
    os.close(child_news)
    os.close(life)

    def forward(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    # On a terminal the child gets the signal itself as well; a repeated signal changes nothing.
    for number in interruptions.NUMBERS:
        if signal.getsignal(number) not in (signal.SIG_IGN, None):
            signal.signal(number, forward)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, interruptions.NUMBERS)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status):
        return os.WEXITSTATUS(status)
    with open(news, "rb") as stream:
        _clear(stream.read())
    # The child may have left a line of progress.
    erase_line()
    name = signal.Signals(os.WTERMSIG(status)).name
    message = f"{name}: {_REASONS.get(name, _OTHER)}; {interruptions.what_is_left()}"
    return fail(command, message, 1, "killed", "--json" in sys.argv)


def _work(main: Callable[[], int], news: int, life: int) -> NoReturn:
    """Run `main` in the child and end the child with its status."""
    os.set_blocking(news, False)
    interruptions.announce_to(news)
    threading.Thread(target=_end_with_parent, args=(life,), daemon=True).start()
    try:
        status = main()
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        if isinstance(stop.code, str):
            sys.stderr.write(f"{stop.code}\n")
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    leave(status)


def _end_with_parent(life: int) -> None:
    os.read(life, 1)  # returns when the parent ends: nothing is ever written
    os.kill(os.getpid(), signal.SIGTERM)


def _clear(news: bytes) -> None:
    """Remove the dead child's stages and the directories that it left empty; complete what it began to publish."""
    lines = [line.partition(":") for line in os.fsdecode(news).split("\0") if line]
    for kind, _, text in reversed(lines):
        path = Path(text)
        with contextlib.suppress(OSError):
            if kind == "delivered":
                interruptions.deliver([path])
            elif path.name.startswith(stages.PREFIX):
                interruptions.deliver(path.parent / name for name in publication.complete(path.parent))
            else:
                path.rmdir()
