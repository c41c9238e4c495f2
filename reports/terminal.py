"""Markdown for a terminal: a table that is wider than the terminal becomes a list."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterator, Sequence

WIDTH = 80


def narrow(markdown: str) -> str:
    """The text with lines of at most `WIDTH` columns; single words may be longer.

    A row of a wide table becomes one paragraph, `column: value; …`, below its first cell.
    """
    lines: list[str] = []
    for is_table, group in itertools.groupby(markdown.splitlines(), lambda line: line.startswith("|")):
        block = list(group)
        if is_table and max(map(len, block)) > WIDTH:
            lines += _as_list(block)
        elif is_table:
            lines += block
        else:
            lines += [part for line in block for part in _wrap(line) or [""]]
    return "\n".join(lines)


def _as_list(table: Sequence[str]) -> Iterator[str]:
    """The rows of a table; rows with the same first cell are below it together."""
    heads, _, *rows = ([cell.strip() for cell in line.strip("|").split(" | ")] for line in table)
    for first, group in itertools.groupby(rows, lambda row: row[0]):
        yield from _wrap(first)
        for row in group:
            text = "; ".join(f"{head}: {cell}" for head, cell in zip(heads[1:], row[1:], strict=True) if cell)
            yield from _wrap(text, "    ", "        ")


def _wrap(text: str, indent: str = "", further: str = "") -> list[str]:
    """The lines of a paragraph; the first has one indent, further ones another."""
    wrapper = textwrap.TextWrapper(WIDTH, indent, further, break_on_hyphens=False, break_long_words=False)
    return wrapper.wrap(text)
