"""The warnings of upstream packages that were accepted: `warnings.json` beside the baselines.

Environment → exception, place and pattern of each, as in `Cause`. A warning that is not among them is new. It fails
nothing: the gate, a difference and the page report it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from parity.errors import UsageError
from parity.reports.gate.causes import Key, warning_causes

FILE = "warnings.json"


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
        path.write_text(json.dumps(dict(sorted(whole.items())), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _read(path: Path) -> dict[str, list[list[str]]]:
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read: {error}; remove it, then write it again with --accept") from error
    whole = isinstance(content, dict) and all(
        isinstance(entry, list) and len(entry) == 3 and all(isinstance(each, str) for each in entry)
        for entries in content.values()
        for entry in (entries if isinstance(entries, list) else [None])
    )
    if not whole:
        raise UsageError(
            f"{path}: should map each environment to lists of category, module and text; remove it, then write it again"
            " with --accept"
        )
    return dict(content)
