"""Exports of one process take turns, and their patches are undone exactly, also if two of them overlap."""

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
    """One lock for all code that changes torch, transformers or a model for a while; a thread may take it again."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        if hasattr(os, "register_at_fork"):
            # The thread that holds it does not exist in the child.
            os.register_at_fork(after_in_child=self.renew)

    def renew(self) -> None:
        self.lock = threading.RLock()


_TURN = _Turn()


@contextlib.contextmanager
def turn() -> Iterator[None]:
    """Inside, no other thread is in its turn: exporters patch torch, which all threads share."""
    with _TURN.lock:
        yield


def in_turn(function: Callable[P, Result]) -> Callable[P, Result]:
    """The function, limited to one call at a time, together with other such functions."""

    @functools.wraps(function)
    def call(*args: P.args, **options: P.kwargs) -> Result:
        with turn():
            return function(*args, **options)

    return call


def shared(function: Callable[[], Iterator[None]]) -> Callable[[], contextlib.AbstractContextManager[None]]:
    """A context manager without arguments; overlapping uses share one context: the first enters, the last leaves."""
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
    """Inside, nothing warns: filters belong to the process, and uses of Python's own context must not overlap."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class Substitutes:
    """Substitutes for attributes of modules and classes; the last substitute that was put is visible."""

    def __init__(self) -> None:
        # (id of the owner, name) → owner, original value, and the substitutes with their holders.
        self._places: dict[tuple[int, str], tuple[Any, Any, list[tuple[object, Any]]]] = {}

    def put(self, owner: Any, name: str, value: Any, holder: object) -> None:
        """Replace an attribute by a value, for `holder`.

        Args:
            owner: the module or class.
            name: the attribute.
            value: its substitute.
            holder: identifies the substitute for `remove`.
        """
        with turn():
            own = getattr(owner, "__dict__", {}).get(name, _ABSENT)
            _, _, standing = self._places.setdefault((id(owner), name), (owner, own, []))
            standing.append((holder, value))
            setattr(owner, name, value)

    def remove(self, owner: Any, name: str, holder: object) -> None:
        """Remove the substitute of `holder`, if there is one; after the last, the attribute has its original value.

        Args:
            owner: the module or class.
            name: the attribute.
            holder: see `put`.
        """
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
