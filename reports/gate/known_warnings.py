"""The warnings of upstream packages that were accepted: `warnings.json` beside the baselines.

Environment → exception, place and pattern of each, as in `Cause`. A warning that is not among them is new. It fails
nothing: the gate, a difference and the page report it.
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
    """The warnings that were accepted for an environment; none where there is no file.

    Args:
        environment: as `baseline.environment_of` names it.

    Raises:
        UsageError: the file is not one that `accept` has written.
    """
    return {(category, module, text) for category, module, text in _read(path).get(environment, ())}


def accept(path: Path, environment: str, lines: Iterable[Mapping[str, Any]]) -> None:
    """Add the warnings of records to those that were accepted; without any, no file is written.

    Args:
        environment: as `baseline.environment_of` names it.
        lines: the records of a run of it, of the whole matrix or of a part.
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
