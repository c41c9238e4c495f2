"""pytest plug-in: what a run left out of the matrix because it was told to, for its records."""

from __future__ import annotations

from typing import Any

import pytest

from parity.fixtures.selection import UNIVERSE
from parity.reports.gate.parts import Part
from parity.reports.recording.selection import cell_of, check_of
from parity.reports.recording.stash import PART
from parity.words import TESTS

# Option → what pytest calls its value.
_OPTIONS = {
    "-k": "keyword",
    "-m": "markexpr",
    "--architecture": "architecture",
    "--feature": "feature",
    "--opset": "opset",
    "--format": "format",
    "--deselect": "deselect",
    "--only-changed": "only_changed",
    "--shard": "shard",
    "paths": "file_or_dir",
}


def pytest_collection_finish(session: pytest.Session) -> None:
    universe = session.config.stash.get(UNIVERSE, {})
    selected = {(cell.id, check_of(item)) for item in session.items if (cell := cell_of(item))}
    checks = {(cell, check) for check, cells in universe.items() for cell in cells} - selected
    session.config.stash[PART] = Part({}, frozenset(TESTS) - set(universe), frozenset(checks)).as_json()


def options_of(config: pytest.Config) -> dict[str, Any]:
    """What chose the tests of a run: the options that were given, as they are written."""
    options: dict[str, Any] = {}
    for name, attribute in _OPTIONS.items():
        value = getattr(config.option, attribute, None)
        if value:
            options[name] = [str(each) for each in value] if isinstance(value, list) else str(value)
    if config.getoption("shard"):
        options["--shard"] = "/".join(map(str, config.getoption("shard")))
    return options
