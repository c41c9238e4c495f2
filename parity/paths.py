"""What a path leads to, asked before anything is opened or replaced."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from parity.errors import UsageError

# What a path may lead to that is no regular file, as people call it.
_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISLNK, "a link"),
)


def kind_of(mode: int) -> str:
    """What a file of that `st_mode` is; empty for a regular one."""
    return next((words for holds, words in _KINDS if holds(mode)), "")


def require_regular(path: Path, role: str, advice: str = "give the path of one that exists") -> None:
    """Refuse, unopened, to read what is no regular file when links are followed.

    Args:
        role: what the path stands for in messages, such as `file`.
        advice: what to do where there is nothing.

    Raises:
        UsageError: it is something else, or nothing.
    """
    try:
        kind = kind_of(os.stat(path).st_mode)
    except (OSError, ValueError):
        raise UsageError(f"{role} {path}: no such file; {advice}") from None
    if kind:
        raise UsageError(f"{role} {path}: is {kind}, should be a regular file")


def require_replaceable(path: Path) -> None:
    """Refuse to put a file in the place of a link, which may lead to somebody else's, or of what is no file.

    Raises:
        UsageError: says what it is.
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
    """The path as a message shows it: printable, and not thousands of characters."""
    text = str(path) if str(path).isprintable() else ascii(str(path))[1:-1]
    return text if len(text) <= 300 else f"{text[:140]}…{text[-140:]}"
