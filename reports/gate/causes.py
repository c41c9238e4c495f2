"""Group failures and warnings by cause: one entry with a pattern of the affected cells, a message and a command.

Failures have one cause if they have the same exception class and place, and messages that differ only in names,
numbers, ids and paths. For a warning of an upstream package, category and module stand for class and place.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from parity.records import CRASH
from parity.reports.gate.changes import RED as RED
from parity.reports.gate.changes import count_text

# Runs a check again, followed by `-k`; `--pyargs` because an installation has the tests in the package.
COMMAND = "pytest --pyargs parity.architectures"
# Options that add cells to a run.
_CELLS_OF = ("--architecture", "--neuron-emulate")
# Follows the number of warnings.
WARNED = "of upstream packages: they fail nothing now, but the next releases may"
# Number of causes to list; the rest is counted.
LISTED = 10
# Number of pairs of architecture and feature that a line names; if there are more, it names the first and counts.
NAMED = 3
_LONGEST = 400

# (exception, place, pattern).
Key = tuple[str, str, str]

# The first alternative that matches wins.
_VARIABLE = re.compile(
    r"(?P<cell>\b[a-z0-9][a-z0-9-]*-(?:onnx\d+|torchscript|neuron)(?:-[a-z0-9-]+)?\b)"
    r"|(?P<quoted>'[^']*'|\"[^\"]*\"|`[^`]*`)"
    r"|(?P<path>(?:\b[A-Za-z]:)?(?:[./~]?[\\/][\w.@+-]+)+)"
    r"|(?P<name>\b[A-Za-z_]\w*(?:[._]\w+)+(?<![._])|\b_\w+)"
    r"|(?P<type>\b(?!\w*(?:Error|Exception|Warning|Mismatch|Gap)\b)[A-Z]\w*[a-z0-9]\w*[A-Z]\w*)"
    r"|(?P<number>(?<![A-Za-z])(?:0x[0-9a-fA-F]+|[-−]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?)(?:st|nd|rd|th)?\b)"
)
_WORDS = {"cell": "CELL", "quoted": "NAME", "path": "PATH", "name": "NAME", "type": "NAME", "number": "N"}
# Prefixes of a message: boundary and reproducer; sizes; output.
_BOUNDARY = re.compile(r"^.{1,80}? \(python [^)]*\): ")
_SIZES = re.compile(r"^at [^:]*: ")
_SUBJECT = re.compile(r"^[\w.]+: ")


@dataclass(frozen=True)
class Cause:
    """Several failures with one cause.

    Args:
        exception: the class; empty for a failure without one, such as a worker that died. The category of a warning.
        place: the innermost frame of parity or of an upstream package, `module:function`. The module of a warning.
        pattern: the first line of the message without the parts that differ.
        lines: the records, in the order of the run.
    """

    exception: str
    place: str
    pattern: str
    lines: tuple[Mapping[str, Any], ...]

    @property
    def key(self) -> Key:
        """Identifies the cause."""
        return self.exception, self.place, self.pattern

    @property
    def title(self) -> str:
        """Exception and place in a few words; for a failure without an exception, its kind."""
        if self.exception:
            return " in ".join(filter(None, (self.exception, self.place)))
        if all(line["status"] == "xpassed" for line in self.lines):
            return "deviation that passes again"
        return "worker that died" if all(line["stage"] == CRASH for line in self.lines) else "failure"

    @property
    def size(self) -> str:
        """How many checks and cells are affected."""
        return f"{count_text(len(self.lines), 'check')} of {count_text(self.cells, 'cell')}"

    @property
    def cells(self) -> int:
        """How many cells are affected."""
        return len({line["id"] for line in self.lines})

    @property
    def smallest(self) -> Mapping[str, Any]:
        """The record that took the shortest time."""
        return min(self.lines, key=lambda line: line["seconds"])

    @property
    def message(self) -> str:
        """The whole message of the smallest case, on one line."""
        text = " ".join((self.smallest["error"] or "").split())
        return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"

    def command(self, run: str = COMMAND) -> str:
        """The command that runs only the smallest case.

        Args:
            run: the command up to its `-k`.
        """
        return f'{run} -k "test_{self.smallest["check"]}[{self.smallest["id"]}]"'

    def as_json(self, run: str = COMMAND) -> dict[str, Any]:
        """The cause as JSON data."""
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
    """The first line of a message with placeholders for its names, numbers, ids and paths."""
    first = next((line for line in message.strip().splitlines() if line.strip()), "")
    first = _SUBJECT.sub("NAME: ", _SIZES.sub("", _BOUNDARY.sub("", first)))
    return _VARIABLE.sub(lambda match: _WORDS[match.lastgroup or "name"], first)[:_LONGEST]


def key_of(line: Mapping[str, Any]) -> Key:
    """Exception, place and pattern of a record."""
    cause = line.get("cause") or {}
    return cause.get("exception", ""), cause.get("place", ""), pattern_of(line["error"] or "")


def causes_of(lines: Iterable[Mapping[str, Any]]) -> list[Cause]:
    """The causes of all red records; those that affect most cells come first."""
    return _grouped(line for line in lines if line["status"] in RED)


def warning_causes(lines: Iterable[Mapping[str, Any]], known: Collection[Key] = ()) -> list[Cause]:
    """The causes of the warnings in records; those that affect most cells come first.

    Args:
        lines: the records.
        known: keys of warnings to leave out, because they are not new.
    """
    # Shape them as failures, so that both are grouped and listed the same way.
    failures = (
        {**line, "error": each["text"], "cause": {"exception": each["category"], "place": each["module"]}}
        for line in lines
        for each in line.get("warnings") or ()
    )
    return [cause for cause in _grouped(failures) if cause.key not in known]


def _grouped(lines: Iterable[Mapping[str, Any]]) -> list[Cause]:
    groups: dict[Key, list[Mapping[str, Any]]] = {}
    for line in lines:
        groups.setdefault(key_of(line), []).append(line)
    causes = [Cause(*key, tuple(group)) for key, group in groups.items()]
    return sorted(causes, key=lambda cause: (-cause.cells, -len(cause.lines)))


def affected(lines: Sequence[Mapping[str, Any]]) -> str:
    """The affected cells in a few words: `*-with-past`, `* default`, `bert *`, or the first names and a count."""
    pairs = list(dict.fromkeys((line["architecture"], line["feature"]) for line in lines))
    architectures, features = ({pair[place] for pair in pairs} for place in (0, 1))
    if len(pairs) > 2 and len(features) > 1 and all(feature.endswith("-with-past") for feature in features):
        text = f"{_single(architectures)}*-with-past ({len(pairs)})".replace("**", "*")
    elif len(pairs) > 2 and len(features) == 1:
        text = f"* {_single(features)}({len(pairs)})"
    elif len(pairs) > 2 and len(architectures) == 1:
        text = f"{_single(architectures)}* ({len(pairs)})"
    else:
        names = [f"{architecture} {feature}" for architecture, feature in pairs]
        text = f"{names[0]} … ({len(names)})" if len(names) > NAMED else ", ".join(names)
    for field, usual in (("format", "onnx"), ("attention", "eager")):
        values = {line[field] for line in lines}
        text += f", {_single(values).strip()}" if len(values) == 1 and usual not in values else ""
    return text


def rerun_command(environment: Mapping[str, Any]) -> str:
    """The command that repeats checks of a run, up to its `-k`, with the options that add its cells."""
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


def cause_lines(causes: Sequence[Cause], run: str = COMMAND, *, listed: int = LISTED, noun: str = "cause") -> list[str]:
    """The largest causes in three lines each, and one line for all others.

    Args:
        causes: the largest first.
        run: see `Cause.command`.
        listed: how many have lines of their own.
        noun: the word for the others.
    """
    lines = []
    for number, cause in enumerate(causes[:listed], 1):
        lines.append(f"{number}. {cause.size}: {affected(cause.lines)}: {cause.title}")
        lines += [f"   {cause.message}", f"   {cause.command(run)}"]
    rest = causes[listed:]
    if rest:
        checks = sum(len(cause.lines) for cause in rest)
        lines.append(f"and {count_text(len(rest), noun)} more, of {count_text(checks, 'check')}")
    return lines


def listing(red: Sequence[Cause], warnings: Sequence[Cause], run: str = COMMAND) -> dict[str, Any]:
    """`causes` and `warnings` of an outcome, each with `lines` for people and `all` for machines.

    Args:
        red: the causes of red checks.
        warnings: the causes of new warnings; they get the lines that red causes leave free.
        run: see `Cause.command`.
    """
    return {
        name: {
            "lines": cause_lines(causes, run, listed=listed, noun=noun) if listed else [],
            "all": [cause.as_json(run) for cause in causes],
        }
        for name, causes, listed, noun in (
            ("causes", red, LISTED, "cause"),
            ("warnings", warnings, LISTED - min(len(red), LISTED), "warning"),
        )
    }


def sections(outcome: Mapping[str, Any], subject: str, *, markdown: str = "") -> list[str]:
    """The causes and warnings of `listing` as text, each under a title; no lines if there are none.

    Args:
        outcome: has `causes` and `warnings`.
        subject: what the causes explain.
        markdown: the marks before a title, such as `##`; empty for text.
    """
    lines = []
    for name, noun, rest in (("causes", "cause", f"of {subject}"), ("warnings", "new warning", WARNED)):
        causes = outcome[name]
        title = f"{count_text(len(causes['all']), noun)} {rest}"
        if not causes["all"]:
            continue
        if markdown:
            fence = ["", "```text", *causes["lines"], "```"] if causes["lines"] else []
            lines += ["", f"{markdown} {title}", *fence]
        else:
            lines += ["", f"{title}{':' if causes['lines'] else ''}", *causes["lines"]]
    return lines
