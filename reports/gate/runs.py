"""Load either side of a comparison: records or a baseline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from parity import records
from parity.reports.gate import baseline, known_warnings
from parity.reports.gate.changes import Run
from parity.reports.gate.parts import FORMAT, names_of

# Field of the environment of a baseline: its name.
FIELD = "baseline"


def load_run(path: Path) -> Run:
    """The environment and the records of a file; those of a baseline have a status but no measurements.

    Raises:
        UsageError: the file is neither records nor a baseline.
    """
    return from_baseline(path) if path.suffix == ".csv" else records.load(path)


def from_baseline(path: Path) -> Run:
    """A baseline as a run; its environment has the keys of the warnings accepted with it.

    Raises:
        UsageError: the file is no baseline.
    """
    known = known_warnings.read(path.parent / known_warnings.FILE, path.stem)
    environment = {FIELD: path.stem, "packages": baseline.name_of(path), "warnings": sorted(known)}
    return environment, [_line(*key, status) for key, status in baseline.read(path).items()]


def _line(cell: str, check: str, status: str) -> dict[str, Any]:
    architecture, feature = names_of(cell)
    match = FORMAT.search(cell)
    return {
        "id": cell,
        "architecture": architecture,
        "feature": feature,
        "format": match[1] if match else "",
        "attention": "sdpa" if "-sdpa" in cell else "eager",
        "check": check,
        "status": status,
        "error": None,
        "outputs": {},
        "seconds": 0.0,
    }
