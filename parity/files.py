"""Write an artifact so that a reader sees the old file or the whole new one, never a part."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from parity import publication, stages
from parity.errors import OutputError, ParityError, UsageError
from parity.interruptions import announce
from parity.paths import kind_of, require_replaceable, short

logger = logging.getLogger("parity.files")

_FULL = (errno.ENOSPC, errno.EDQUOT)
# Other errors of a disk on a write.
_REFUSALS = (errno.EFBIG, errno.EIO, errno.EROFS)


def output_file(output: Path) -> Path:
    """The ONNX file that an output argument names: a file itself, or `model.onnx` in a directory."""
    return output if output.suffix == ".onnx" or output.is_file() else output / "model.onnx"


@contextlib.contextmanager
def staging_directory(destination: Path) -> Iterator[Path]:
    """A fresh directory next to `destination`, always removed afterwards; missing parents are made.

    Exports that dead processes left next to it are completed or removed first: see `publication.complete`.

    Raises:
        UsageError: the destination is a link, a device or the like.
        OutputError: the directory cannot be made or written, before any work is done.
    """
    try:
        os.fsencode(destination).decode("utf-8")
        if "\0" in str(destination):
            raise ValueError("its name has a NUL byte")
        missing = [parent for parent in (destination.parent, *destination.parent.parents) if not parent.exists()]
        for parent in reversed(missing):
            announce("made", parent)
        destination.parent.mkdir(parents=True, exist_ok=True)
        if destination.is_dir():
            raise IsADirectoryError(f"{destination} is a directory")
        require_replaceable(destination)
        if names := publication.complete(destination.parent):
            logger.warning("%s: an export that was broken off is complete: %s", destination.parent, ", ".join(names))
        stage = stages.Stage(destination.parent)
    except (OSError, ValueError) as error:
        if isinstance(error, ParityError):
            raise
        why = (
            "its name is not valid UTF-8"
            if isinstance(error, UnicodeError)
            else getattr(error, "strerror", None) or error
        )
        raise OutputError(
            f"output {short(destination)}: cannot be written ({why}); give a"
            " directory that exists or can be made, and that this user may write"
        ) from error
    try:
        yield stage.path
    except Exception as error:
        reason = _disk_reason(error)
        if not reason:
            raise
        failure = OutputError(f"output {destination}: {reason}")
        failure.errno = getattr(error, "errno", None) or errno.ENOSPC  # so that an outer stage puts its own name in
        raise failure from error
    finally:
        stage.close()
        for parent in missing:
            with contextlib.suppress(OSError):
                parent.rmdir()  # only what was made for this and is still empty


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """The path for a small file that replaces `path` once it is whole; a link to a file is followed.

    Raises:
        UsageError: `path` leads to something other than a regular file.
    """
    with contextlib.suppress(FileNotFoundError):
        if kind := kind_of(os.stat(path).st_mode):
            raise UsageError(f"output {short(path)}: is {kind}, should be a file or nothing; give another place")
    target = Path(os.path.realpath(path))
    partial = target.with_name(f".{target.name}-{os.getpid()}")
    try:
        yield partial
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def replace_text(path: Path, text: str) -> None:
    """Write a text file whose old content stays until the new one is whole.

    Raises:
        UsageError: see `replacing`.
    """
    content = text.encode("utf-8")
    with replacing(path) as partial:
        partial.write_bytes(content)


def _disk_reason(error: Exception) -> str:
    """The disk's error on a write of ours, and what to do; empty for other errors."""
    number = getattr(error, "errno", None)
    if number in _FULL or "No space left" in str(error):
        return "its disk has no space left; free some, or give another place"
    if number in _REFUSALS:
        return f"cannot be written: {os.strerror(number)}; give another place"
    return ""


def require_room(path: Path, size: int) -> None:
    """Refuse to begin a file of that size if the disk, a quota or a limit of the process has no room for it.

    For writers that end the process when a write fails, as torch's does for TorchScript files.

    Raises:
        OSError: with the errno that writing would have.
    """
    if not hasattr(os, "posix_fallocate"):
        if shutil.disk_usage(path.parent).free < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, size)
    finally:
        os.close(descriptor)
        path.unlink()


@contextlib.contextmanager
def isolated_copy(model: Path, names: Iterable[str]) -> Iterator[Path]:
    """The model in a fresh directory, with those files of these names that exist, and nothing else.

    The files are links, which cost nothing, or copies if the disk has no links.

    Args:
        names: relative to the model's directory; names outside of it are left out.
    """
    with contextlib.ExitStack() as stack:
        # Below the fresh directory, because a lock file is in that.
        copy = _place_to_link(model, stack) / "copy" / model.name
        copy.parent.mkdir()
        for name in (model.name, *names):
            source, target = model.parent / name, Path(os.path.normpath(copy.parent / name))
            if copy.parent in target.parents and source.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                _link(source, target)
        yield copy


def _place_to_link(model: Path, stack: contextlib.ExitStack) -> Path:
    """A fresh directory on the model's own disk if possible, else on any."""
    temporary = Path(tempfile.gettempdir())
    for parent in (temporary, model.parent):
        with contextlib.suppress(OSError):
            directory = stack.enter_context(stages.fresh_directory(parent))
            if directory.stat().st_dev == model.stat().st_dev:
                return directory
    return stack.enter_context(stages.fresh_directory(temporary))


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)
