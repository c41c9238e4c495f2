"""The accepted warnings of upstream packages: `warnings.json` next to the baselines.

Environment → exception, place and pattern of each, as in `Cause`. Any other warning is new: the gate, a difference
and the page report it, but nothing fails.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from parity import schema
from parity.errors import UsageError
from parity.files import replace_text
from parity.reports.gate.causes import Key, warning_causes
from parity.schema import SchemaError

FILE = "warnings.json"
# Environment → category, module and text of each.
_WARNINGS = schema.entries(schema.text(), schema.items(schema.items(schema.prose(), smallest=3, largest=3)))


def read(path: Path, environment: str) -> set[Key]:
    """The warnings that were accepted for an environment; empty if there is no file.

    Args:
        path: of the file.
        environment: a name from `baseline.environment_of`.

    Raises:
        UsageError: the file was not written by `accept`.
    """
    return {(category, module, text) for category, module, text in _read(path).get(environment, ())}


def accept(path: Path, environment: str, lines: Iterable[Mapping[str, Any]]) -> None:
    """Add the warnings of records to the accepted ones; without any, no file is written.

    Args:
        path: of the file.
        environment: a name from `baseline.environment_of`.
        lines: the records of one of its runs, of the whole matrix or a part.
    """
    before = _read(path)
    known = {tuple(each) for each in before.get(environment, ())}
    after = known | {cause.key for cause in warning_causes(lines)}
    if after != known:
        whole = {**before, environment: sorted(after)}
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_text(path, json.dumps(dict(sorted(whole.items())), ensure_ascii=False, indent=1) + "\n")


def _read(path: Path) -> dict[str, list[list[str]]]:
    if not os.path.lexists(path):
        return {}
    try:
        return dict(schema.read_json(path, _WARNINGS))
    except SchemaError as error:
        raise UsageError(f"{error}; remove it, then write it again with --accept") from None
