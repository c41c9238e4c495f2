"""pytest plug-in: selects a part of the matrix, for one of several machines (`--shard`) or by an earlier run."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from parity import records
from parity.errors import UsageError
from parity.fixtures.selection import cell_of, check_of, directory_of
from parity.reports.gate.changes import Statuses, statuses
from parity.reports.gate.shards import SECONDS, assignment, read_seconds, shard, weights
from parity.reports.recording.stash import SHARD, lines_before

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController

_BEFORE = pytest.StashKey[Statuses]()
# Key of the earlier statuses in `workerinput`.
_NAME = "before"


def pytest_addoption(parser: pytest.Parser) -> None:
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


def pytest_configure(config: pytest.Config) -> None:
    path = config.getoption("only_changed")
    try:
        if path:
            config.stash[_BEFORE] = _statuses_before(config, path)
            # xdist would begin with the model that has most tests, not with the checks that failed.
            config.option.loadscopereorder = False
        if config.getoption("shard"):
            read_seconds(_seconds_file(config))
    except UsageError as error:
        raise pytest.UsageError(str(error)) from error


def _statuses_before(config: pytest.Config, path: Path) -> Statuses:
    """Statuses of earlier runs; workers get them from the controller, so that a restarted worker knows the same."""
    if hasattr(config, "workerinput"):
        return {(cell, check): status for cell, check, status in config.workerinput[_NAME]}
    return {**statuses(records.load_latest(path)), **statuses(lines_before(config))}


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: WorkerController) -> None:
    if _BEFORE in node.config.stash:
        node.workerinput[_NAME] = [[*key, status] for key, status in node.config.stash[_BEFORE].items()]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # Last, because a shard is a part of what -k, -m and similar options have selected.
    if _BEFORE in config.stash:
        _keep(config, items, items_to_rerun(items, config.stash[_BEFORE]))
    if config.getoption("shard"):
        index, count = config.getoption("shard")
        mine, config.stash[SHARD] = part(items, index, count, read_seconds(_seconds_file(config)))
        _keep(config, items, mine)


def _keep(config: pytest.Config, items: list[pytest.Item], selection: Sequence[pytest.Item]) -> None:
    known = set(selection)
    config.hook.pytest_deselected(items=[item for item in items if item not in known])
    items[:] = selection


def items_to_rerun(items: Sequence[pytest.Item], before: Statuses) -> list[pytest.Item]:
    """The items that failed before, then those without a result; a skip is no result."""
    known = {item: before.get((cell.id, check_of(item))) for item in items if (cell := cell_of(item))}
    failed = [item for item, status in known.items() if status in ("failed", "error", "xpassed")]
    return failed + [item for item, status in known.items() if status in (None, "skipped")]


def part(
    items: Sequence[pytest.Item], index: int, count: int, seconds: Mapping[str, float]
) -> tuple[list[pytest.Item], dict[str, Any]]:
    """The items of one shard in their order, and its description for `--merge`.

    All tests of one model stay together, and so do those of one file that have no cell. Equal items and seconds give
    equal shards on every machine; `whole` is a fingerprint of all shards.

    Args:
        items: the selected tests.
        index, count: number of this shard, from 1, and of all.
        seconds: unit (a model or a file) → recorded seconds.
    """
    units = {item: _unit(item) for item in items}
    shares = assignment(weights(Counter(units.values()), seconds), count)
    mine = [item for item in items if shares[units[item]] == index]
    names = sorted(f"{shares[units[item]]} {item.nodeid.rpartition('/')[2]}" for item in items)
    whole = hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
    checks = sum(1 for item in mine if cell_of(item))
    return mine, {"index": index, "of": count, "whole": whole, "checks": checks}


def _unit(item: pytest.Item) -> str:
    cell = cell_of(item)
    return cell.group if cell else item.nodeid.partition("::")[0].rpartition("/")[2]


def _seconds_file(config: pytest.Config) -> Path:
    return config.getoption("shard_seconds") or directory_of(config) / SECONDS
