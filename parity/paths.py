"""The kind of file that a path leads to, checked before anything is opened or replaced."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from parity.errors import UsageError

# Kinds of files that are not regular, in words.
_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISLNK, "a link"),
)


def kind_of(mode: int) -> str:
    """The kind of a file with this `st_mode`; empty for a regular file."""
    return next((words for holds, words in _KINDS if holds(mode)), "")


def require_regular(path: Path, role: str, advice: str = "give the path of one that exists") -> None:
    """Refuse to read anything but a regular file, without opening it; links are followed.

    Args:
        path: the path.
        role: its name in messages, such as `file`.
        advice: what to do if nothing exists there.

    Raises:
        UsageError: the file is of another kind, or missing.
    """
    try:
        kind = kind_of(os.stat(path).st_mode)
    except (OSError, ValueError):
        raise UsageError(f"{role} {path}: no such file; {advice}") from None
    if kind:
        raise UsageError(f"{role} {path}: is {kind}, should be a regular file")


def require_replaceable(path: Path) -> None:
    """Refuse to replace a link, which may lead to somebody else's file, or anything but a file.

    Raises:
        UsageError: names its kind.
    """
    try:
        kind = kind_of(os.lstat(path).st_mode)
    except (OSError, ValueError):
        return
    if kind == "a link":
        raise UsageError(
            f"output {path}: is a link to {os.readlink(path)}, should be a file or nothing; give what it leads to, or"
            " remove the link"
        )
    if kind:
        raise UsageError(f"output {path}: is {kind}, should be a file or nothing; give another place")


def short(path: Path) -> str:
    """The path for a message: printable, and at most 300 characters long."""
    text = str(path) if str(path).isprintable() else ascii(str(path))[1:-1]
    return text if len(text) <= 300 else f"{text[:140]}…{text[-140:]}"
