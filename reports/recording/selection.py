"""pytest plug-in: a part of the matrix, for one of several machines (`--shard`) or by an earlier run."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

from parity import records
from parity.errors import UsageError
from parity.reports.gate.changes import statuses
from parity.reports.gate.shards import SECONDS, divided, read_seconds, shard, weights
from parity.reports.recording.stash import SHARD

_BEFORE = pytest.StashKey[dict]()


def pytest_addoption(parser):
    group = parser.getgroup("parity")
    group.addoption("--shard", type=shard, metavar="I/N", help="run part I of N of what is selected; join with --merge")
    group.addoption(
        "--shard-seconds",
        type=Path,
        help=f"recorded time of each model, the same file on all machines (default: {SECONDS})",
    )
    group.addoption(
        "--only-changed",
        type=Path,
        metavar="RECORDS",
        help="run the checks of cells that failed there first, then those that have no result there, and no others;"
        " under -n one model after the other, those with failures first",
    )


def pytest_configure(config):
    path = config.getoption("only_changed")
    try:
        if path:
            _, lines = records.load(path)
            config.stash[_BEFORE] = statuses(lines)
            # xdist would begin with the model that has most tests, not with what has failed.
            config.option.loadscopereorder = False
        if config.getoption("shard"):
            read_seconds(_seconds_file(config))
    except UsageError as error:
        raise pytest.UsageError(str(error)) from error


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    # Last: a shard is a part of what -k, -m and the like have left.
    if _BEFORE in config.stash:
        _keep(config, items, changed(items, config.stash[_BEFORE]))
    if config.getoption("shard"):
        index, of = config.getoption("shard")
        mine, config.stash[SHARD] = part(items, index, of, read_seconds(_seconds_file(config)))
        _keep(config, items, mine)


def _keep(config, items, kept):
    chosen = set(kept)
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = kept


def cell_of(item):
    """The cell that a test is about; None where it is about none."""
    return item.callspec.params.get("cell") if hasattr(item, "callspec") else None


def check_of(item) -> str:
    """The claim of a test: its name without `test_`."""
    return item.originalname.removeprefix("test_")


def changed(items, before: Mapping) -> list:
    """The items of cells that failed before, then those that have no result there; a skip is none."""
    known = {item: before.get((cell_of(item).id, check_of(item))) for item in items if cell_of(item)}
    failed = [item for item, status in known.items() if status in ("failed", "error", "xpassed")]
    return failed + [item for item, status in known.items() if status in (None, "skipped")]


def part(items, index: int, of: int, seconds: Mapping[str, float]) -> tuple[list, dict]:
    """The items of one shard in their order, and what is noted of it for `--merge`.

    All tests of one model stay together, and those of one file that are about no cell. The same items and seconds give
    the same parts everywhere; `whole` is a fingerprint of all parts.
    """
    units = {item: _unit(item) for item in items}
    shares = divided(weights(Counter(units.values()), seconds), of)
    mine = [item for item in items if shares[units[item]] == index]
    names = sorted(f"{shares[units[item]]} {item.nodeid.rpartition('/')[2]}" for item in items)
    whole = hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
    noted = {"index": index, "of": of, "whole": whole, "checks": sum(1 for item in mine if cell_of(item))}
    return mine, noted


def _unit(item):
    cell = cell_of(item)
    return cell.group if cell else item.nodeid.partition("::")[0].rpartition("/")[2]


def _seconds_file(config):
    return config.getoption("shard_seconds") or config.rootpath / SECONDS
