"""Schemas of the data in files; a `SchemaError` names the place, the value, and what it should be.

A schema is a function of a value and its place. Written here because the hosts that read our files (AWS Inf1, the gate
of a workflow) have no schema library.
"""

from __future__ import annotations

import csv
import json
import math
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from parity.paths import kind_of, short

# Refuses a value at a place, or returns.
Schema = Callable[[Any, str], None]

# The most elements of a tensor that is made only because a file says so.
LARGEST_TENSOR = 1 << 28
# The most bytes of a file that is read as a whole.
_LARGEST_FILE = 1 << 30


class SchemaError(ValueError):
    """The text is `place: is X, should be Y`."""


def parse_json(text: str | bytes, *, constants: bool = False) -> Any:
    """The value of a JSON text.

    Args:
        constants: take NaN and Infinity, which Python writes and JSON does not have.

    Raises:
        SchemaError: it is not valid JSON; the message has no text of Python's exception.
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


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
        SchemaError: it is not a regular file (links are followed, nothing is opened), cannot be read, or is not UTF-8.
    """
    name = short(path)
    try:
        status = os.stat(path)
        if kind := kind_of(status.st_mode):
            raise SchemaError(f"{name}: is {kind}, should be a regular file")
        if status.st_size > _LARGEST_FILE:
            raise SchemaError(f"{name}: has {status.st_size} bytes, should have at most {_LARGEST_FILE}")
        return path.read_bytes().decode("utf-8")
    except UnicodeError:
        raise SchemaError(f"{name}: is no text in UTF-8") from None
    except FileNotFoundError:
        raise SchemaError(f"{name}: no such file") from None
    except OSError as error:
        raise SchemaError(f"{name}: cannot be read ({error.strerror or 'the system refuses it'})") from None


def read_json(path: Path, schema: Schema | None = None, *, constants: bool = False) -> Any:
    """The value of a JSON file.

    Args:
        path: of the file.
        schema: of the value; None takes any value.
        constants: see `parse_json`.

    Raises:
        SchemaError: begins with the path; see `read_text`, `parse_json` and the schema.
    """
    content = read_text(path)
    try:
        value = parse_json(content, constants=constants)
        # An escape may stand for half of a character.
        if "\\ud" in content.lower() and not _is_unicode(json.dumps(value, ensure_ascii=False)):
            raise SchemaError("has half of a character, which no file can hold")
    except SchemaError as error:
        raise SchemaError(f"{short(path)}: {error}") from None
    if schema:
        schema(value, short(path))
    return value


def read_table(path: Path, columns: Mapping[str, Schema]) -> list[dict[str, str]]:
    """The rows of a CSV file below its heading.

    Args:
        columns: the heading, with the schema of each column.

    Raises:
        SchemaError: begins with the path, and the line; see `read_text`.
    """
    name, heading = short(path), list(columns)
    try:
        # Not splitlines, which ends lines at other characters too.
        rows = list(csv.reader(read_text(path).split("\n"), strict=True))
    except csv.Error:
        raise SchemaError(f"{name}: is no CSV file") from None
    if not rows or rows[0] != heading:
        raise SchemaError(f"{name}: should begin with {','.join(heading)}")
    table = []
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(heading) and row:
            raise SchemaError(f"{name}: line {number}: has {len(row)} columns, should have {', '.join(heading)}")
        for column, value in zip(heading, row, strict=bool(row)):
            columns[column](value, f"{name}: line {number}: {column}")
        if row:
            table.append(dict(zip(heading, row, strict=True)))
    return table


def text(longest: int = 1000) -> Schema:
    """A string that can be printed and encoded."""

    def check(value: Any, place: str) -> None:
        if not isinstance(value, str) or len(value) > longest or not value.isprintable():
            _refuse(value, place, f"a printable text of at most {longest} characters")

    return check


def prose(longest: int = 100_000) -> Schema:
    """A string of several lines that can be encoded, such as the message of another program."""

    def check(value: Any, place: str) -> None:
        if not isinstance(value, str) or len(value) > longest or "\0" in value or not _is_unicode(value):
            _refuse(value, place, f"a text of at most {longest} characters")

    return check


def _is_unicode(value: str) -> bool:
    """Whether it has no half of a character, which JSON can write and no file can hold."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def pattern(expression: str, should: str) -> Schema:
    """A string that a regular expression matches as a whole.

    Args:
        should: the expression in words.
    """
    compiled = re.compile(expression)

    def check(value: Any, place: str) -> None:
        if not isinstance(value, str) or not compiled.fullmatch(value):
            _refuse(value, place, should)

    return check


def number(lowest: float, highest: float) -> Schema:
    """A finite number between two, both included."""

    def check(value: Any, place: str) -> None:
        real = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not real or not lowest <= value <= highest:
            _refuse(value, place, f"a number from {lowest:g} to {highest:g}")

    return check


def digits(lowest: float, highest: float) -> Schema:
    """A string with a finite number between two, as in a table."""
    check_number = number(lowest, highest)

    def check(value: Any, place: str) -> None:
        try:
            own = float(value) if len(value) <= 40 else math.nan
        except ValueError:
            _refuse(value, place, f"a number from {lowest:g} to {highest:g}")
        check_number(own, place)

    return check


def measured(value: Any, place: str) -> None:
    """A computed number: NaN and the infinities are valid, too."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or (abs(value) > 1e300 and math.isfinite(value)):
        _refuse(value, place, "a number")


def anything(value: Any, place: str) -> None:
    """Any value; nothing may depend on it."""


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
    """`null`, or a value that the schema takes."""

    def check(value: Any, place: str) -> None:
        if value is not None:
            schema(value, place)

    return check


def either(*schemas: Schema) -> Schema:
    """A value that one of several schemas takes; the last schema refuses all others."""

    def check(value: Any, place: str) -> None:
        for schema in schemas[:-1]:
            try:
                return schema(value, place)
            except SchemaError:
                continue
        return schemas[-1](value, place)

    return check


def items(schema: Schema, *, smallest: int = 0, largest: int = 10_000) -> Schema:
    """A list of items of one schema.

    Args:
        schema: of each item.
        smallest, largest: bounds of the number of items.
    """

    def check(value: Any, place: str) -> None:
        if not isinstance(value, list) or not smallest <= len(value) <= largest:
            _refuse(value, place, f"a list of {smallest} to {largest} items")
        for index, item in enumerate(value):
            schema(item, f"{place}[{index}]")

    return check


def entries(key: Schema, schema: Schema, *, largest: int = 10_000) -> Schema:
    """An object with keys of one schema and values of another.

    Args:
        key: the schema of each key.
        schema: the schema of each value.
        largest: the largest number of entries.
    """

    def check(value: Any, place: str) -> None:
        if not isinstance(value, dict) or len(value) > largest:
            _refuse(value, place, f"an object of at most {largest} entries")
        for name, item in value.items():
            key(name, f"a key of {place}")
            schema(item, f"{place}.{_describe(name)[1:-1]}")

    return check


def table(
    schemas: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None, *, closed: bool = False
) -> Schema:
    """An object with these keys; other keys are ignored, since a newer parity may have written them.

    Args:
        schemas: key → schema of its value.
        optional: the same, for keys that may be missing.
        closed: refuse other keys.
    """

    def check(value: Any, place: str) -> None:
        if not isinstance(value, dict):
            _refuse(value, place, f"an object with {', '.join(schemas)}")
        missing = [name for name in schemas if name not in value]
        if missing:
            raise SchemaError(f"{place}: has no {', '.join(missing)}, should have {', '.join(schemas)}")
        unknown = [name for name in value if closed and name not in schemas and name not in (optional or {})]
        if unknown:
            names = ", ".join(ascii(name)[1:-1][:40] for name in unknown[:5])
            raise SchemaError(f"{place}: has {names}, which the schema does not know; should have {', '.join(schemas)}")
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
