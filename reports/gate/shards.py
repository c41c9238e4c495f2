"""Divide models into shards of about equal time, from recorded times; the same on every machine."""

from __future__ import annotations

import argparse
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from parity import schema
from parity.errors import UsageError
from parity.files import replace_text
from parity.schema import SchemaError

SECONDS = Path("reports/baseline/seconds.csv")
_COLUMNS = ["model", "seconds"]
# Smaller changes of a time are ignored, because the file is committed.
_FACTOR = 1.5


def shard(text: str) -> tuple[int, int]:
    """`2/4` as numbers."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    index, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= index <= count:
        raise argparse.ArgumentTypeError(f"got {text}, should be I/N with 1 ≤ I ≤ N, such as 2/4")
    return index, count


def weights(counts: Mapping[str, int], seconds: Mapping[str, float]) -> dict[str, float]:
    """Unit → its recorded seconds; a unit without a record gets the average for its number of tests."""
    known = [unit for unit in counts if unit in seconds]
    each = sum(seconds[unit] for unit in known) / sum(counts[unit] for unit in known) if known else 1.0
    return {unit: seconds.get(unit, each * count) for unit, count in counts.items()}


def assignment(seconds: Mapping[str, float], count: int) -> dict[str, int]:
    """Unit → shard from 1: the longest first, each to the shard with the smallest load."""
    loads = dict.fromkeys(range(1, count + 1), 0.0)
    shares = {}
    for unit in sorted(seconds, key=lambda unit: (-seconds[unit], unit)):
        shares[unit] = min(loads, key=loads.__getitem__)
        loads[shares[unit]] += seconds[unit]
    return shares


def read_seconds(path: Path) -> dict[str, float]:
    """Model → recorded seconds; empty if there is no such file.

    Raises:
        UsageError: the file was not written by `write_seconds`.
    """
    if not os.path.lexists(path):
        return {}
    try:
        rows = schema.read_table(path, {"model": schema.text(300), "seconds": schema.digits(0, 1e9)})
    except SchemaError as error:
        raise UsageError(f"{error}; --accept writes it") from None
    return {row["model"]: float(row["seconds"]) for row in rows}


def write_seconds(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Update the seconds of the models in the records; small changes leave the file as it is."""
    seconds = read_seconds(path)
    totals: dict[str, float] = defaultdict(float)
    for line in lines:
        totals[f"{line['architecture']}-{line['feature']}"] += line["seconds"]
    for model, took in totals.items():
        before = seconds.get(model)
        if before is None or not before / _FACTOR <= took <= before * _FACTOR:
            seconds[model] = round(took, 1)
    text = "\n".join([",".join(_COLUMNS), *(f"{model},{took}" for model, took in sorted(seconds.items()))])
    replace_text(path, text + "\n")
