"""What the plug-ins of one run hand to each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from parity import records
from parity.errors import UsageError
from parity.fixtures.selection import directory_of

# Which shard the run is, if it is one.
SHARD = pytest.StashKey[dict[str, Any]]()
# What the run left out.
PART = pytest.StashKey[dict[str, Any]]()


def records_path(config: pytest.Config) -> Path:
    """Where the records of the run go.

    Raises:
        UsageError: the name is that of a run that was broken off.
    """
    # Records of a part do not take the place of those that they were chosen by.
    name = "records-again.jsonl" if config.getoption("only_changed") else "records.jsonl"
    path = config.getoption("records") or directory_of(config) / "reports" / "out" / name
    if path.suffix == records.PARTIAL:
        raise UsageError(
            f"--records {path}: ends in {records.PARTIAL}, the ending of an interrupted run's; give another name"
        )
    return path


def lines_before(config: pytest.Config) -> list[dict[str, Any]]:
    """The records of the same run with `--only-changed` that was broken off before; they become part of this one's.

    Raises:
        UsageError: the file is damaged.
    """
    partial = records.partial_of(records_path(config))
    return records.load(partial)[1] if config.getoption("only_changed") and partial.exists() else []
