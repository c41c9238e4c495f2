"""Prints every `--help` and every message, one after the other, to be read aloud: `python docs/messages.py`.

A message is a text in the source that reaches a user: of an exception, a finding, a warning or a line that is printed,
a sentence that a function returns, or one in a constant of a module. `{…}` stands for a value.
"""

from __future__ import annotations

import ast
import contextlib
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("parity", "architectures/conformance", "reports")
# Functions that take a message, and the place of it among their arguments.
TAKERS = {
    **dict.fromkeys(("warn", "complain", "error", "UsageError", "say", "progress", "print_text", "keep"), 0),
    "fail": 1,
    "Finding": 3,
}


def texts(node: ast.expr | None) -> Iterator[str]:
    """The texts that an expression may be, with `{…}` in the place of each value."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        parts = [
            part.value if isinstance(part, ast.Constant) else f"{{{ast.unparse(part.value)}}}" for part in node.values
        ]
        yield "".join(map(str, parts))
    elif isinstance(node, ast.BinOp):
        yield f"{next(texts(node.left), '{…}')}{next(texts(node.right), '{…}')}"
    elif isinstance(node, ast.IfExp):
        yield from (*texts(node.body), *texts(node.orelse))


def messages(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and text of each message of a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            yield from ((node.lineno, text) for argument in node.exc.args[:1] for text in texts(argument))
        elif isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in TAKERS and len(node.args) > TAKERS[name]:
                yield from ((node.lineno, text) for text in texts(node.args[TAKERS[name]]))
        elif isinstance(node, (ast.Assign, ast.Return)) and _is_message(node):
            yield from ((node.lineno, text) for text in texts(node.value))
    yield from _constants(tree)


def _constants(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and text of each sentence in a constant of a module, alone or as a value of a mapping."""
    for node in getattr(tree, "body", ()):
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            values = node.value.values if isinstance(node.value, ast.Dict) else [node.value]
            sentences = ((value.lineno, text) for value in values for text in texts(value))
            yield from ((line, text) for line, text in sentences if len(text.split()) > 3 and "\n" not in text)


def _is_message(node: ast.Assign | ast.Return) -> bool:
    """Whether a value is a message: by its name, or as a sentence that a function makes."""
    if isinstance(node, ast.Return):
        return isinstance(node.value, ast.JoinedStr) or any(len(text.split()) > 3 for text in texts(node.value))
    return ast.unparse(node.targets[0]) in ("message", "text", "why", "reason")


def by_file() -> dict[str, list[tuple[int, str]]]:
    """File → its messages, in the order of the lines; those of two words or more."""
    found = {}
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).parts
            if "tests" in parts or path.name.startswith("test_") or "out" in parts:
                continue
            lines = dict.fromkeys(messages(ast.parse(path.read_text(encoding="utf-8"))))
            lines = sorted(each for each in lines if len(each[1].split()) > 2)
            if lines:
                found["/".join(parts)] = lines
    return found


def helps() -> Iterator[tuple[str, str]]:
    """Name of each command, and the help that it prints on a terminal of 80 columns."""
    from parity import cli

    os.environ["COLUMNS"] = "80"
    for name in ("", *cli.COMMANDS):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            cli.main([*filter(None, [name]), "--help"])
        yield f"parity {name}".strip(), printed.getvalue().rstrip()


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    for command, text in helps():
        print(f"=== {command} --help\n\n{text}\n")
    for file, lines in by_file().items():
        print(f"=== {file}\n")
        for line, message in lines:
            print(f"{line}: {message}")
        print()
