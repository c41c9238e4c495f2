"""Errors that report, each in its library's own words, that memory has run out."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator

_WORDS = re.compile(
    r"can't allocate memory|cannot allocate memory|failed to allocate memory|unable to allocate|bad_?alloc"
    r"|out of memory|failed to map segment|not enough memory",
    re.IGNORECASE,
)
# The amount that was requested, in the words of torch, ONNX Runtime and numpy.
_NEED = re.compile(r"(?:allocate|buffer of size) (\d+(?:\.\d+)? ?(?:bytes|[KMGTP]i?B)?)")


def memory_shortage(error: BaseException) -> str:
    """One sentence on the amount needed and what to do; empty for an error of another kind."""
    each = next((each for each in _chain(error) if _is_shortage(each)), None)
    if each is None:
        return ""
    need = _NEED.search(str(each))
    amount = need[1].strip() if need else ""
    if amount.isdecimal():
        amount += " bytes"
    asked = f" ({amount} were asked for at once)" if amount else ""
    return (
        f"out of memory{asked}; end other programs, give smaller sizes where the command has them, or take a machine"
        " with more memory"
    )


def _is_shortage(error: BaseException) -> bool:
    return (
        isinstance(error, MemoryError)
        or getattr(error, "errno", None) == errno.ENOMEM
        or (isinstance(error, (RuntimeError, ImportError, OSError)) and bool(_WORDS.search(str(error))))
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        yield each
        each = each.__cause__ or each.__context__
