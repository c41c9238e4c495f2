"""Values that the plug-ins of one run share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from parity import records
from parity.errors import UsageError
from parity.fixtures.selection import directory_of

# The shard of the run, if it is one.
SHARD = pytest.StashKey[dict[str, Any]]()
# The part of the matrix that the run left out.
PART = pytest.StashKey[dict[str, Any]]()


def records_path(config: pytest.Config) -> Path:
    """The file for the records of the run.

    Raises:
        UsageError: the name ends as an interrupted run's does.
    """
    # Keep the records that `--only-changed` selects by.
    name = "records-again.jsonl" if config.getoption("only_changed") else "records.jsonl"
    path = config.getoption("records") or directory_of(config) / "reports" / "out" / name
    if path.suffix == records.PARTIAL:
        raise UsageError(
            f"--records {path}: ends in {records.PARTIAL}, the ending of an interrupted run's; give another name"
        )
    return path


def lines_before(config: pytest.Config) -> list[dict[str, Any]]:
    """The records of an interrupted run with `--only-changed`, which the same command continues.

    Raises:
        UsageError: the file is damaged.
    """
    partial = records.partial_of(records_path(config))
    return records.load(partial)[1] if config.getoption("only_changed") and partial.exists() else []
