"""Signals that end a command: each ends it once, and none while files are moved or removed."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType

# Signal → exit status and the word for it. Windows has no SIGHUP.
_ENDINGS = {
    signal.SIGINT: (130, "interrupted"),
    signal.SIGTERM: (143, "terminated"),
    **({signal.SIGHUP: (129, "hung up")} if hasattr(signal, "SIGHUP") else {}),
}
NUMBERS = tuple(_ENDINGS)
# Seconds in which a repeated signal is taken for impatience; later ones count, in case the first was lost.
_PATIENCE = 5.0


class Interruption(KeyboardInterrupt):
    """A signal that ends the command.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number
        self.status, self.word = _ENDINGS[signal.Signals(number)]


class Guard:
    """Raise an `Interruption` on the first signal inside; signals that follow at once do nothing.

    Attributes:
        interruption: the last one raised.
    """

    def __init__(self) -> None:
        self.interruption: Interruption | None = None
        self._since = 0.0
        self._previous: dict[int, object] = {}

    def __enter__(self) -> Guard:
        if threading.current_thread() is threading.main_thread():
            for number in _ENDINGS:
                # The process that started the command, such as nohup, may have set a signal to be ignored.
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._previous[number] = signal.signal(number, self._raise)
        self._hook, sys.unraisablehook = sys.unraisablehook, self._send_again
        return self

    def __exit__(self, *exception: object) -> None:
        sys.unraisablehook = self._hook
        for number, handler in self._previous.items():
            # If the process is the command, only its exit status is left to report.
            own = signal.SIG_IGN if handler is _end else handler
            signal.signal(number, own)  # type: ignore[arg-type]  # what it was

    def settle(self) -> None:
        """Raise on no further signal: the one that came is being reported."""
        self._since = float("inf")

    def _send_again(self, unraisable: sys.UnraisableHookArgs) -> None:
        """Python drops an exception that is raised while an object is deleted; send the signal again a moment later."""
        if not isinstance(unraisable.exc_value, Interruption):
            self._hook(unraisable)
            return
        self._since = float("-inf")
        threading.Timer(0.01, os.kill, (os.getpid(), unraisable.exc_value.number)).start()

    def _raise(self, number: int, frame: FrameType | None) -> None:
        if time.monotonic() - self._since < _PATIENCE and self.interruption:
            return
        self._since, self.interruption = time.monotonic(), Interruption(number)
        raise self.interruption


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Delay signals to the end, for work that takes milliseconds and must not be left half done."""
    if threading.current_thread() is not threading.main_thread():
        yield  # handlers run in the main thread only
        return
    waiting: list[int] = []
    previous: dict[int, object] = {}
    try:
        for number in _ENDINGS:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                previous[number] = signal.signal(number, lambda number, frame: waiting.append(number))
        yield
    finally:
        for changed, handler in previous.items():
            signal.signal(changed, handler)  # type: ignore[arg-type]  # what it was
        for late in dict.fromkeys(waiting):
            signal.raise_signal(late)


_delivered: dict[Path, None] = {}
_kept: list[str] = []


_news: int | None = None


def announce_to(descriptor: int) -> None:
    """Report to a parent process, through a pipe, the files that it would have to report or to clear."""
    global _news
    _news = descriptor


def limit_time(seconds: float) -> None:
    """End this process after this time, in whatever library it is then; only if a parent reports why."""
    if _news is not None:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds)


def limit_memory() -> None:
    """Refuse allocations of more memory than this machine has free, before the system ends other programs.

    Only if a parent reports why, and on Linux, which reports how much is free.
    """
    if _news is None:
        return
    with contextlib.suppress(OSError, ValueError, ImportError, KeyError):
        import resource

        free = _kilobytes("/proc/meminfo")["MemAvailable"] + _kilobytes("/proc/self/status")["VmData"]
        _, highest = resource.getrlimit(resource.RLIMIT_DATA)
        limit = free << 10 if highest == resource.RLIM_INFINITY else min(free << 10, highest)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, highest))


def _kilobytes(table: str) -> dict[str, int]:
    """Name → number in a table of the system with lines such as `VmData: 1024 kB`."""
    lines = (line.split() for line in Path(table).read_text(encoding="utf-8").splitlines())
    return {words[0].rstrip(":"): int(words[1]) for words in lines if words[-1] == "kB"}


def announce(kind: str, path: Path) -> None:
    """Report a file that is delivered or a directory that was made to the parent process, if it listens."""
    if _news is not None:
        with contextlib.suppress(OSError):
            os.write(_news, os.fsencode(f"{kind}:{path.absolute()}\0"))


def deliver(paths: Iterable[Path]) -> None:
    """Remember files under their final names, for the message of an interruption."""
    for path in paths:
        _delivered[path] = None
        announce("delivered", path)


def forget() -> None:
    """Begin anew for another command."""
    _delivered.clear()
    _kept.clear()


def keep(text: str) -> None:
    """Say from here on what an interruption leaves, such as `what was run is kept`."""
    _kept[:] = [text]


def delivered() -> list[str]:
    """The remembered files that exist."""
    return [str(path) for path in _delivered if path.exists()]


def what_is_left() -> str:
    """The files that an interruption or a crash has left under their final names, or else the text of `keep`."""
    files = delivered()
    return f"already written: {', '.join(files)}" if files else (_kept or ["nothing was written"])[0]


def ending(word: str) -> str:
    """The message of an interruption."""
    return f"{word}; {what_is_left()}"


def begin() -> None:
    """End the process with one line on a signal: from the first line of a command until it has its own guard.

    Only for a process that is a command: handlers belong to the process.
    """
    for number in _ENDINGS:
        if signal.getsignal(number) not in (signal.SIG_IGN, None):
            signal.signal(number, _end)


def _end(number: int, frame: FrameType | None) -> None:
    status, word = _ENDINGS[signal.Signals(number)]
    with contextlib.suppress(OSError):
        os.write(2, f"parity: error: {ending(word)}\n".encode(errors="replace"))
    os._exit(status)
