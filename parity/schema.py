"""What data that a file hands over must look like; a `SchemaError` says where it does not, and what it should be.

A schema is a function of a value and its place. Written here because the hosts that read our files (AWS Inf1, the gate
of a workflow) have no schema library.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

# Refuses a value at a place, or returns.
Schema = Callable[[Any, str], None]

# Elements that a tensor may have which is made only because a file says so.
LARGEST_TENSOR = 1 << 28


class SchemaError(ValueError):
    """The text is `place: is X, should be Y`."""


def parse_json(text: str | bytes, *, constants: bool = False) -> Any:
    """The value of a JSON text.

    Args:
        constants: take NaN and Infinity, which Python writes and JSON does not have.

    Raises:
        SchemaError: it is none, in words and without the text of Python's exception.
    """
    try:
        return json.loads(text, parse_constant=float if constants else _no_constant)
    except RecursionError:
        raise SchemaError("is nested too deeply to be read") from None
    except ValueError as error:
        line = getattr(error, "lineno", 0)
        raise SchemaError(f"is no valid JSON{f' (line {line})' if line else ''}") from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def text(longest: int = 1000) -> Schema:
    """A string that can be printed and encoded."""

    def check(value: Any, place: str) -> None:
        if not isinstance(value, str) or len(value) > longest or not value.isprintable():
            _refuse(value, place, f"a printable text of at most {longest} characters")

    return check


def whole(lowest: int, highest: int = (1 << 63) - 1) -> Schema:
    """A whole number between two, both included."""

    def check(value: Any, place: str) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
            _refuse(value, place, f"a whole number from {lowest} to {highest}")

    return check


def flag(value: Any, place: str) -> None:
    """`true` or `false`."""
    if not isinstance(value, bool):
        _refuse(value, place, "true or false")


def choice(*values: str) -> Schema:
    """One of some words."""

    def check(value: Any, place: str) -> None:
        if not isinstance(value, str) or value not in values:
            _refuse(value, place, f"one of {', '.join(values)}")

    return check


def maybe(schema: Schema) -> Schema:
    """`null`, or what the schema takes."""

    def check(value: Any, place: str) -> None:
        if value is not None:
            schema(value, place)

    return check


def items(schema: Schema, *, smallest: int = 0, largest: int = 10_000) -> Schema:
    """A list whose items are of one schema."""

    def check(value: Any, place: str) -> None:
        if not isinstance(value, list) or not smallest <= len(value) <= largest:
            _refuse(value, place, f"a list of {smallest} to {largest} items")
        for index, item in enumerate(value):
            schema(item, f"{place}[{index}]")

    return check


def entries(key: Schema, schema: Schema, *, largest: int = 10_000) -> Schema:
    """An object with keys of one schema and values of another."""

    def check(value: Any, place: str) -> None:
        if not isinstance(value, dict) or len(value) > largest:
            _refuse(value, place, f"an object of at most {largest} entries")
        for name, item in value.items():
            key(name, f"a key of {place}")
            schema(item, f"{place}.{name}")

    return check


def table(schemas: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None) -> Schema:
    """An object with these keys; keys that are not named are ignored, since a newer parity may have written them."""

    def check(value: Any, place: str) -> None:
        if not isinstance(value, dict):
            _refuse(value, place, f"an object with {', '.join(schemas)}")
        missing = [name for name in schemas if name not in value]
        if missing:
            raise SchemaError(f"{place}: has no {', '.join(missing)}, should have {', '.join(schemas)}")
        for name, schema in {**schemas, **(optional or {})}.items():
            if name in value:
                schema(value[name], f"{place}.{name}")

    return check


def _refuse(value: Any, place: str, should: str) -> NoReturn:
    raise SchemaError(f"{place}: is {_describe(value)}, should be {should}")


def _describe(value: Any) -> str:
    """A value in a few printable characters."""
    if isinstance(value, dict):
        return f"an object of {len(value)} entries"
    if isinstance(value, list):
        return f"a list of {len(value)} items"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 1 << 64:
        return f"a whole number of {value.bit_length()} bits"
    words = json.dumps(value)
    return words if len(words) <= 40 else f"{words[:40]}…"
