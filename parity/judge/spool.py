"""Answers that are too large for memory together: beyond a limit they are on disk until they are used."""

from __future__ import annotations

import errno
import math
import mmap
import os
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from parity.errors import OutputError

# Bytes of a spool's arrays that stay in memory.
IN_MEMORY = 1 << 26
# The number of elements to compute with at once, if a result needs more memory than its operands.
BLOCK = 1 << 22
_ALIGNMENT = 64


class Spool:
    """Keeps arrays: in memory up to a total number of bytes, the others in a temporary file.

    The file has no name; it is removed with the last of its arrays.

    Args:
        memory: the bytes that stay in memory.
    """

    def __init__(self, memory: int | None = None) -> None:
        self._room = IN_MEMORY if memory is None else memory
        self._file: _File | None = None

    def keep(self, arrays: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """The arrays by the same names; an array on disk cannot be written to.

        Raises:
            OutputError: the temporary directory has no space for them.
        """
        if isinstance(arrays, _SpooledArrays):
            return arrays
        held: dict[str, np.ndarray | _Place] = {}
        for name, array in arrays.items():
            if array.nbytes <= self._room:
                self._room -= array.nbytes
                held[name] = array
            else:
                held[name] = self._write(array)
        if all(isinstance(each, np.ndarray) for each in held.values()):
            return dict(arrays)
        return _SpooledArrays(held)

    def _write(self, array: np.ndarray) -> _Place:
        self._file = self._file or _File()
        offset = self._file.append(_bytes(np.ascontiguousarray(array)))
        return _Place(self._file, offset, array.dtype, array.shape)


class _File:
    """A temporary file, which is closed when nothing refers to it."""

    def __init__(self) -> None:
        self._stream = tempfile.TemporaryFile(prefix="parity-answers-")  # noqa: SIM115
        self._memory: mmap.mmap | None = None
        weakref.finalize(self, self._stream.close)

    def append(self, content: memoryview) -> int:
        """Write at the end; returns the offset of the content."""
        try:
            # At a multiple of the size of every element: arrays are used where they are.
            offset = self._stream.seek(-(-self._stream.seek(0, 2) // _ALIGNMENT) * _ALIGNMENT)
            self._stream.write(content)
            self._stream.flush()
        except OSError as error:
            raise OutputError(
                f"temporary directory {tempfile.gettempdir()}: it has no space for {len(content):,} bytes of answers"
                f" ({os.strerror(error.errno or errno.EIO)}); free some, or set TMPDIR to another directory"
            ) from error
        return offset

    def memory(self, size: int) -> mmap.mmap:
        """The file as memory, with at least this many bytes.

        One mapping serves all arrays until the file has grown: each takes a file descriptor.

        Raises:
            OutputError: the file is shorter.
        """
        descriptor = self._stream.fileno()
        if os.fstat(descriptor).st_size < size:
            raise OutputError(
                f"temporary directory {tempfile.gettempdir()}: a file of answers has lost its end; run it again"
            )
        if self._memory is None or len(self._memory) < size:
            self._memory = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
        return self._memory


@dataclass(frozen=True)
class _Place:
    """The place of an array in a file."""

    file: _File
    offset: int
    dtype: np.dtype
    shape: tuple[int, ...]

    def read(self) -> np.ndarray:
        size = math.prod(self.shape) * self.dtype.itemsize
        if not size:
            return np.empty(self.shape, self.dtype)
        return np.ndarray(self.shape, self.dtype, self.file.memory(self.offset + size), self.offset)


class _SpooledArrays(Mapping[str, np.ndarray]):
    def __init__(self, held: Mapping[str, np.ndarray | _Place]) -> None:
        self._held = held

    def __getitem__(self, name: str) -> np.ndarray:
        held = self._held[name]
        return held.read() if isinstance(held, _Place) else held

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)


def _bytes(array: np.ndarray) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def blocks(*arrays: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Arrays of one shape as flat blocks of at most `BLOCK` elements, in parallel; none if there are no elements.

    Of arrays on disk, only one block is in memory.
    """
    flat = [array.reshape(-1) for array in arrays]
    for start in range(0, flat[0].size, BLOCK):
        yield tuple(each[start : start + BLOCK] for each in flat)
        for each in flat:
            release(each)


def release(array: np.ndarray) -> None:
    """Free the memory of all arrays that are on disk with this one, if it is; they are read again when needed."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap) and hasattr(base, "madvise"):
        base.madvise(mmap.MADV_DONTNEED)


def are_equal_in_bits(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether two arrays have the same bits; those of another size have not."""
    if first.nbytes != second.nbytes:
        return False
    one, other = (np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in (first, second))
    return all(np.array_equal(here, there) for here, there in blocks(one, other))
