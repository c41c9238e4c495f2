"""Exports of one process take turns, and what they patch is put back exactly, also when two of them overlap."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
Result = TypeVar("Result")

_ABSENT = object()


class _Turn:
    """One lock for all that changes torch, transformers or a model for a while; a thread may take it again."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        if hasattr(os, "register_at_fork"):
            # A thread that holds it does not live on in the child.
            os.register_at_fork(after_in_child=self.renew)

    def renew(self) -> None:
        self.lock = threading.RLock()


_TURN = _Turn()


@contextlib.contextmanager
def turn() -> Iterator[None]:
    """Inside, no other thread is: exporters patch torch, which all threads share."""
    with _TURN.lock:
        yield


def in_turn(function: Callable[P, Result]) -> Callable[P, Result]:
    """The function, of which one call runs at a time, also beside other such functions."""

    @functools.wraps(function)
    def call(*args: P.args, **options: P.kwargs) -> Result:
        with turn():
            return function(*args, **options)

    return call


def shared(function: Callable[[], Iterator[None]]) -> Callable[[], contextlib.AbstractContextManager[None]]:
    """A context manager without arguments of which overlapping uses are one: the first enters, the last leaves."""
    make = contextlib.contextmanager(function)
    stack, count = contextlib.ExitStack(), 0
    lock = threading.RLock()

    @contextlib.contextmanager
    @functools.wraps(function)
    def context() -> Iterator[None]:
        nonlocal count
        with lock:
            if not count:
                stack.enter_context(make())
            count += 1
        try:
            yield
        finally:
            with lock:
                count -= 1
                if not count:
                    stack.close()

    return context


@shared
def without_warnings() -> Iterator[None]:
    """Inside, nothing warns: filters belong to the process, and Python's own context does not bear overlapping."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class Substitutes:
    """Attributes of modules and classes that others stand in for; the last one that was put there is seen."""

    def __init__(self) -> None:
        # Owner and name → the owner, what stood there at first, and what stands in for it: by whom, what.
        self._places: dict[tuple[int, str], tuple[Any, Any, list[tuple[object, Any]]]] = {}

    def put(self, owner: Any, name: str, value: Any, holder: object) -> None:
        """Put a value in the place of the attribute, for `holder`."""
        with turn():
            own = getattr(owner, "__dict__", {}).get(name, _ABSENT)
            _, _, standing = self._places.setdefault((id(owner), name), (owner, own, []))
            standing.append((holder, value))
            setattr(owner, name, value)

    def remove(self, owner: Any, name: str, holder: object) -> None:
        """Take out what was put there for `holder`, if it was; after the last one the attribute is as it was."""
        with turn():
            _, own, standing = self._places.get((id(owner), name), (owner, _ABSENT, []))
            place = next((place for place, (each, _) in enumerate(standing) if each is holder), None)
            if place is None:
                return
            del standing[place]
            if standing:
                setattr(owner, name, standing[-1][1])
                return
            del self._places[id(owner), name]
            if own is _ABSENT:
                delattr(owner, name)
            else:
                setattr(owner, name, own)


SUBSTITUTES = Substitutes()
