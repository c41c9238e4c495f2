"""Directories in which files are made before they are moved to their place, and those that dead processes left."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from parity.interruptions import announce, deferred

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

PREFIX = ".parity-"
# Lists the moves of a publication that has begun; see `parity.publication`.
JOURNAL = "publication.json"
_LOCK = "lock"
_NAME = re.compile(rf"{re.escape(PREFIX)}(?P<host>[0-9a-f]{{8}})-(?P<pid>\d+)-(?P<start>[0-9a-f]{{8}})-\w+")


class Stage:
    """A fresh directory in `directory`, whose name and lock show its process; the lock ends with the process.

    Raises:
        OSError: the directory cannot be made.
    """

    def __init__(self, directory: Path) -> None:
        prefix = f"{PREFIX}{_host()}-{os.getpid()}-{_start(os.getpid())}-"
        self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=directory))
        announce("made", self.path)
        self._lock = _take(self.path / _LOCK)

    def close(self) -> None:
        """Remove the directory, unless its publication began and could not be completed: the next run does that."""
        with deferred():
            if not (self.path / JOURNAL).exists():
                shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Inside, no other process publishes into the directory; no effect if the file system has no locks."""
    lock = None
    if fcntl is not None:
        with contextlib.suppress(OSError):
            lock = os.open(directory, os.O_RDONLY)
            fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if lock is not None:
            os.close(lock)


def abandoned(directory: Path) -> Iterator[Path]:
    """Stages of dead processes in the directory; while a stage is yielded, no other process gets it."""
    stages: list[Path] = []
    with contextlib.suppress(OSError):
        stages = sorted(path for path in directory.iterdir() if path.name.startswith(PREFIX) and _is_own(path))
    for path in stages:
        with _claim(path) as claimed:
            if claimed:
                yield path


def _is_own(path: Path) -> bool:
    """Whether it is a directory of this user: stages of others are not completed."""
    status = path.lstat()
    return stat.S_ISDIR(status.st_mode) and (not hasattr(os, "geteuid") or status.st_uid == os.geteuid())


@contextlib.contextmanager
def fresh_directory(parent: Path) -> Iterator[Path]:
    """A directory for files that are not published, removed afterwards; those of dead processes are removed too.

    Raises:
        OSError: the directory cannot be made.
    """
    for path in abandoned(parent):
        if not (path / JOURNAL).exists():
            shutil.rmtree(path, ignore_errors=True)
    stage = Stage(parent)
    try:
        yield stage.path
    finally:
        stage.close()


@contextlib.contextmanager
def _claim(stage: Path) -> Iterator[bool]:
    """Whether the stage's process is dead; then the stage is ours inside."""
    if not (stage / _LOCK).exists():
        yield _is_dead(stage.name)  # killed before it had its lock
        return
    lock = None
    with contextlib.suppress(OSError):
        lock = _take(stage / _LOCK)
    try:
        yield lock is not None
    finally:
        if lock is not None:
            os.close(lock)


def _take(path: Path) -> int | None:
    """A lock that ends with the process; None if another process has it, or the file system has no locks."""
    if fcntl is None:
        return None
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    return lock


def _is_dead(name: str) -> bool:
    """Whether the process in a stage's name ran on this host and is dead."""
    match = _NAME.fullmatch(name)
    if match is None or match["host"] != _host() or os.name != "posix":
        return False
    pid = int(match["pid"])
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return match["start"] != _start(pid)


def _host() -> str:
    """A hash of this machine and of the pid namespace of this process."""
    space = ""
    with contextlib.suppress(OSError):
        space = os.readlink("/proc/self/ns/pid")
    return _short(f"{platform.node()} {space}")


def _start(pid: int) -> str:
    """A hash of a process's start, which differs for later processes with the same pid; a constant if unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        # The name, the second field, may contain spaces and brackets.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return _short(boot + fields[19])
    except (OSError, IndexError):
        return _short("")


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
