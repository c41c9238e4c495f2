"""Writing an artifact so that a reader sees the old file or the whole new one, never a part."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from parity.errors import OutputError, UsageError

_FULL = (errno.ENOSPC, errno.EDQUOT)


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


def require_regular(path: Path, role: str) -> None:
    """Refuse, unopened, to read what is no regular file when links are followed.

    Args:
        role: what the path stands for in messages, such as `file`.

    Raises:
        UsageError: it is something else, or nothing.
    """
    try:
        kind = kind_of(os.stat(path).st_mode)
    except (OSError, ValueError):
        raise UsageError(f"{role} {path}: no such file; give the path of one that exists") from None
    if kind:
        raise UsageError(f"{role} {path}: is {kind}, should be a regular file")


def output_file(output: Path) -> Path:
    """The ONNX file that an output argument names: a file itself, or `model.onnx` in a directory."""
    return output if output.suffix == ".onnx" or output.is_file() else output / "model.onnx"


@contextlib.contextmanager
def staging_directory(destination: Path) -> Iterator[Path]:
    """A fresh directory beside `destination`, gone afterwards whatever happens; missing parents are made.

    Raises:
        OutputError: the directory cannot be made or written, before any work is done.
    """
    missing = [parent for parent in (destination.parent, *destination.parent.parents) if not parent.exists()]
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        if destination.is_dir():
            raise IsADirectoryError(f"{destination} is a directory")
        stage = Path(tempfile.mkdtemp(prefix=".parity-", dir=destination.parent))
    except OSError as error:
        raise OutputError(
            f"output {destination}: cannot be written ({error.strerror or error}); give a directory that exists or can"
            " be made, and that this user may write"
        ) from error
    try:
        yield stage
    except Exception as error:
        if getattr(error, "errno", None) not in _FULL and "No space left" not in str(error):
            raise
        failure = OutputError(f"output {destination}: its disk has no space left; free some, or give another place")
        failure.errno = errno.ENOSPC  # so that an outer stage can put its own destination in
        raise failure from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        for parent in missing:
            with contextlib.suppress(OSError):
                parent.rmdir()  # only what was made for this and is still empty


@contextlib.contextmanager
def isolated_copy(model: Path, names: Iterable[str]) -> Iterator[Path]:
    """The model in a fresh directory with the files of these names, as far as they are there, and nothing else.

    They are links, which cost nothing; copies where the disk has none.

    Args:
        names: relative to the model's directory; others than in or below that are left out.
    """
    with contextlib.ExitStack() as stack:
        copy = _place_to_link(model, stack) / model.name
        for name in (model.name, *names):
            source, target = model.parent / name, Path(os.path.normpath(copy.parent / name))
            if copy.parent in target.parents and source.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                _link(source, target)
        yield copy


def _place_to_link(model: Path, stack: contextlib.ExitStack) -> Path:
    """A fresh directory on the model's own disk where one can be made, else any."""
    for parent in (None, model.parent):
        with contextlib.suppress(OSError):
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=".parity-", dir=parent)))
            if directory.stat().st_dev == model.stat().st_dev:
                return directory
    return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="parity-")))


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def replace(staged_file: Path, destination: Path) -> None:
    """Move one finished file to where it was asked for.

    Raises:
        OutputError: the move fails; what stood there is still there.
    """
    try:
        os.replace(staged_file, destination)
    except OSError as error:
        raise OutputError(f"output {destination}: cannot be written: {error.strerror or error}") from error
