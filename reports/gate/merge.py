"""Merge the records of all shards of a run; refuse a missing or repeated shard."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from parity import records
from parity.errors import UsageError
from parity.reports.gate.parts import FIELD, Part, part_of

# Fields that all shards must have in common → their names in messages.
_COMMON = {"parity": "parity", "python": "Python", "packages": "packages", "schema": "schema"}

# (environment, records); the records go into another file.
_Shard = tuple[Mapping[str, Any], Sequence[dict[str, Any]]]


def merge_shards(runs: Mapping[Path, _Shard]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The environment and the records of the whole run.

    Raises:
        UsageError: lists every reason why these are not the shards of one run: not a shard, other environments, other
            divisions, a shard that is missing, repeated or incomplete, a check in two shards.
    """
    wrong = [
        f"{path}: is no shard; run pytest with --shard I/N" for path, (run, _) in runs.items() if not run.get("shard")
    ]
    if wrong:
        raise UsageError("\n".join(wrong))
    first, *others = runs
    reference = runs[first][0]
    for path in others:
        environment = runs[path][0]
        wrong += [
            f"{path}: another {name} than {first}: {_difference(environment[key], reference[key])}"
            for key, name in _COMMON.items()
            if environment[key] != reference[key]
        ]
        for key, name in (("of", "number of shards"), ("whole", "division of the cells")):
            if environment["shard"][key] != reference["shard"][key]:
                got, should = environment["shard"][key], reference["shard"][key]
                wrong.append(f"{path}: another {name} than {first}: {got}, should be {should}")
    wrong += _gaps(runs, reference["shard"]["of"])
    if wrong:
        raise UsageError("\n".join(wrong))
    ordered = sorted(runs.values(), key=lambda run: run[0]["shard"]["index"])
    lines = [line for _, shard_lines in ordered for line in shard_lines]
    whole = {key: value for key, value in reference.items() if key not in ("kind", "schema", "shard")}
    part = functools.reduce(Part.join, (part_of(environment) for environment, _ in ordered))
    part = dataclasses.replace(part, options={k: v for k, v in part.options.items() if k != "--shard"})
    whole = {**whole, FIELD: part.as_json()} if part else {k: v for k, v in whole.items() if k != FIELD}
    whole["workers"] = [worker for environment, _ in ordered for worker in environment.get("workers", ())]
    return whole, lines


def _gaps(runs: Mapping[Path, _Shard], count: int) -> list[str]:
    """Why these are not the `count` shards of a run: one is missing, repeated or incomplete."""
    files: dict[int, list[Path]] = {index: [] for index in range(1, count + 1)}
    checks: dict[tuple[str, str], Path] = {}
    wrong = []
    for path, (environment, lines) in runs.items():
        shard = environment["shard"]
        files.setdefault(shard["index"], []).append(path)
        if len(lines) != shard["checks"]:
            wrong.append(f"{path}: {len(lines):,} checks of cells, should have {shard['checks']:,}: it was cut short")
        for key in [(line["id"], line["check"]) for line in lines]:
            other = checks.setdefault(key, path)
            if other is not path and len(files[shard["index"]]) == 1:
                wrong.append(f"{path}: {' '.join(key)} is in {other} too")
                break
    for index, paths in sorted(files.items()):
        if not paths:
            wrong.append(f"shard {index}/{count}: is missing")
        elif len(paths) > 1:
            wrong.append(f"shard {index}/{count}: was given {len(paths)} times: {', '.join(map(str, paths))}")
    return wrong


def _difference(got: Any, should: Any) -> str:
    if not isinstance(got, Mapping):
        return f"{got}, should be {should}"
    names = [name for name in {**got, **should} if got.get(name) != should.get(name)]
    return ", ".join(f"{name} {got.get(name)}, should be {should.get(name)}" for name in names)


def write(path: Path, runs: Mapping[Path, _Shard]) -> int:
    """Write the whole run's records; returns their number."""
    environment, lines = merge_shards(runs)
    records.write(path, environment, lines)
    return len(lines)
