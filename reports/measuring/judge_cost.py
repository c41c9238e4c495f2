"""`parity benchmarks judge`: the CPU seconds that the suite spends on a cell, less those of its export and session."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from parity.errors import ParityError

if TYPE_CHECKING:
    from parity.architectures.conformance.matrix import Cell

_Result = TypeVar("_Result")
# Fixtures whose time does not count as the judge's.
APART = ("artifact", "session")
ROOT = Path(__file__).resolve().parents[2]


class Stopwatch:
    """pytest plug-in: CPU seconds of the checks of each cell, in this process.

    Args:
        architectures: the names of those whose cells are run; other tests are left out.

    Attributes:
        seconds: (architecture, cell id) → CPU seconds of all its checks. Models and references that cells share count
            for the cell that creates them.
    """

    def __init__(self, architectures: Sequence[str], clock: Callable[[], float] = time.process_time) -> None:
        self._architectures, self._clock = architectures, clock
        self._apart = 0.0
        self.seconds: dict[tuple[str, str], float] = defaultdict(float)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if self._cell(item) is not None]

    def pytest_collection_finish(self) -> None:
        # So that the imports do not count for the first cell. Earlier, pytest has not loaded all its plug-ins.
        import transformers  # noqa: F401

        from parity import features  # noqa: F401

    def _cell(self, item: pytest.Item) -> Cell | None:
        cell = item.callspec.params.get("cell") if hasattr(item, "callspec") else None
        return cell if cell is not None and cell.architecture in self._architectures else None

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, _Result, _Result]:
        before, self._apart = self._clock(), 0.0
        result = yield
        cell = self._cell(item)
        if cell is not None:
            self.seconds[cell.architecture, cell.id] += self._clock() - before - self._apart
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Generator[None, _Result, _Result]:
        before = self._clock()
        result = yield
        if fixturedef.argname in APART:
            self._apart += self._clock() - before
        return result


def measure(architectures: Sequence[str]) -> dict[str, list[float]]:
    """Architecture → CPU seconds of the judge of each of its cells, in the order in which they ran.

    Raises:
        ParityError: a check fails, so that its judge stopped early, or an architecture has no cells.
    """
    watch = Stopwatch(architectures)
    with tempfile.TemporaryDirectory() as directory:
        options = ["-q", "-p", "no:cacheprovider", f"--rootdir={ROOT}", f"--confcutdir={ROOT}"]
        options += ["--records", str(Path(directory) / "records.jsonl"), str(ROOT / "architectures")]
        status = pytest.main(options, plugins=[watch])
    seconds = {name: [s for (own, _), s in watch.seconds.items() if own == name] for name in architectures}
    if status != pytest.ExitCode.OK or not all(seconds.values()):
        raise ParityError(f"judge: pytest ended with {status!r}; the time of a run that fails is not comparable")
    return seconds


def summary(seconds: Sequence[float]) -> str:
    """The number of cells and their mean, in words."""
    return f"judge of {len(seconds)} cells, mean {statistics.mean(seconds):.3f}"
