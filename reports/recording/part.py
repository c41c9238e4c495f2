"""pytest plug-in: records which part of the matrix the options of a run left out."""

from __future__ import annotations

from typing import Any

import pytest

from parity.fixtures.selection import UNIVERSE
from parity.reports.gate.parts import Part
from parity.reports.recording.selection import cell_of, check_of
from parity.reports.recording.stash import PART
from parity.words import TESTS

# Option → its attribute in `config.option`.
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
    """The options that selected the tests of a run, as they were given."""
    options: dict[str, Any] = {}
    for name, attribute in _OPTIONS.items():
        value = getattr(config.option, attribute, None)
        if value:
            options[name] = [str(each) for each in value] if isinstance(value, list) else str(value)
    if config.getoption("shard"):
        options["--shard"] = "/".join(map(str, config.getoption("shard")))
    return options
