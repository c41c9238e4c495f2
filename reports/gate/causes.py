"""Failures → causes: what fails alike is one entry, with what it affects, one message and a command that shows it.

Alike are failures of one exception class at one place whose messages differ in names, numbers, ids and paths alone.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from parity.reports.gate.changes import RED as RED
from parity.reports.gate.changes import count_text

# What runs a check again, before `-k`; installed, the tests are in the package.
COMMAND = "pytest --pyargs parity.architectures"
# Options of a run without which some of its cells are not there.
_CELLS_OF = ("--architecture", "--neuron-emulate")
# Causes that are listed; the rest is counted.
LISTED = 10
# Architectures with their feature that a line names before it counts them.
NAMED = 5
_LONGEST = 400

# The first that matches a part of a message takes it.
_VARIABLE = re.compile(
    r"(?P<cell>\b[a-z0-9][a-z0-9-]*-(?:onnx\d+|torchscript|neuron)(?:-[a-z0-9-]+)?\b)"
    r"|(?P<quoted>'[^']*'|\"[^\"]*\"|`[^`]*`)"
    r"|(?P<path>(?:\b[A-Za-z]:)?(?:[./~]?[\\/][\w.@+-]+)+)"
    r"|(?P<name>\b[A-Za-z_]\w*(?:[._]\w+)+(?<![._])|\b_\w+)"
    r"|(?P<type>\b(?!\w*(?:Error|Exception|Warning|Mismatch|Gap)\b)[A-Z]\w*[a-z0-9]\w*[A-Z]\w*)"
    r"|(?P<number>(?<![A-Za-z])(?:0x[0-9a-fA-F]+|[-−]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?)(?:st|nd|rd|th)?\b)"
)
_WORDS = {"cell": "CELL", "quoted": "NAME", "path": "PATH", "name": "NAME", "type": "NAME", "number": "N"}
# Where a message begins with the sizes that it is about, and with an output.
_SIZES = re.compile(r"^at [^:]*: ")
_SUBJECT = re.compile(r"^[\w.]+: ")


@dataclass(frozen=True)
class Cause:
    """What several failures have in common.

    Args:
        exception: the class; empty for a failure without one, such as a worker that died.
        place: the innermost frame of parity or of a package that it stands on, `module:function`.
        pattern: the first line of the message without what differs.
        lines: the records, in the order of the run.
    """

    exception: str
    place: str
    pattern: str
    lines: tuple[Mapping[str, Any], ...]

    @property
    def cells(self) -> int:
        """How many cells fail by it."""
        return len({line["id"] for line in self.lines})

    @property
    def smallest(self) -> Mapping[str, Any]:
        """The record that took the shortest time."""
        return min(self.lines, key=lambda line: line["seconds"])

    @property
    def message(self) -> str:
        """One whole message, on one line, of the smallest case."""
        text = " ".join((self.smallest["error"] or "").split())
        return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"

    def command(self, run: str = COMMAND) -> str:
        """What runs the smallest case alone.

        Args:
            run: the command up to its `-k`.
        """
        return f'{run} -k "test_{self.smallest["check"]}[{self.smallest["id"]}]"'

    def as_json(self, run: str = COMMAND) -> dict[str, Any]:
        """For machines."""
        return {
            "exception": self.exception,
            "place": self.place,
            "pattern": self.pattern,
            "checks": len(self.lines),
            "cells": self.cells,
            "affected": affected(self.lines),
            "message": self.message,
            "command": self.command(run),
        }


def pattern_of(message: str) -> str:
    """The first line of a message without the names, numbers, ids and paths in it."""
    first = next((line for line in message.strip().splitlines() if line.strip()), "")
    first = _SUBJECT.sub("NAME: ", _SIZES.sub("", first))
    return _VARIABLE.sub(lambda match: _WORDS[match.lastgroup or "name"], first)[:_LONGEST]


def key_of(line: Mapping[str, Any]) -> tuple[str, str, str]:
    """Exception, place and pattern of a record."""
    cause = line.get("cause") or {}
    return cause.get("exception", ""), cause.get("place", ""), pattern_of(line["error"] or "")


def causes_of(lines: Iterable[Mapping[str, Any]]) -> list[Cause]:
    """The causes of what is red, those of most cells first."""
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for line in lines:
        if line["status"] in RED:
            groups.setdefault(key_of(line), []).append(line)
    causes = [Cause(*key, tuple(group)) for key, group in groups.items()]
    return sorted(causes, key=lambda cause: (-cause.cells, -len(cause.lines)))


def affected(lines: Sequence[Mapping[str, Any]]) -> str:
    """What is affected, in a few words: `*-with-past`, `* default`, `bert *`, or the first few and how many."""
    pairs = list(dict.fromkeys((line["architecture"], line["feature"]) for line in lines))
    architectures, features = ({pair[place] for pair in pairs} for place in (0, 1))
    if len(pairs) > 2 and len(features) > 1 and all(feature.endswith("-with-past") for feature in features):
        text = f"{_single(architectures)}*-with-past ({len(pairs)})".replace("**", "*")
    elif len(pairs) > 2 and len(features) == 1:
        text = f"* {_single(features)}({len(pairs)})"
    elif len(pairs) > 2 and len(architectures) == 1:
        text = f"{_single(architectures)}* ({len(pairs)})"
    else:
        text = ", ".join(f"{architecture} {feature}" for architecture, feature in pairs[:NAMED])
        text += f" … ({len(pairs)})" if len(pairs) > NAMED else ""
    for field, usual in (("format", "onnx"), ("attention", "eager")):
        values = {line[field] for line in lines}
        text += f", {_single(values).strip()}" if len(values) == 1 and usual not in values else ""
    return text


def rerun_command(environment: Mapping[str, Any]) -> str:
    """What runs checks of a run again, up to its `-k`: with the options that its cells come from."""
    arguments: list[str] = list(environment.get("arguments", ()))
    options: list[str] = []
    for position, argument in enumerate(arguments):
        if argument in _CELLS_OF[:1]:
            options += arguments[position : position + 2]
        elif argument.partition("=")[0] in _CELLS_OF:
            options.append(argument)
    return shlex.join([*COMMAND.split(), *options])


def _single(values: set[str]) -> str:
    return f"{next(iter(values))} " if len(values) == 1 else ""


def cause_lines(causes: Sequence[Cause], run: str = COMMAND) -> list[str]:
    """The largest causes in three lines each, and one line for all others.

    Args:
        run: see `Cause.command`.
    """
    lines = []
    for number, cause in enumerate(causes[:LISTED], 1):
        kind = " in ".join(filter(None, (cause.exception or "failure", cause.place)))
        size = f"{count_text(len(cause.lines), 'check')} of {count_text(cause.cells, 'cell')}"
        lines.append(f"{number}. {size}: {affected(cause.lines)}: {kind}")
        lines += [f"   {cause.message}", f"   {cause.command(run)}"]
    rest = causes[LISTED:]
    if rest:
        checks = sum(len(cause.lines) for cause in rest)
        lines.append(f"and {count_text(len(rest), 'cause')} more, of {count_text(checks, 'check')}")
    return lines
