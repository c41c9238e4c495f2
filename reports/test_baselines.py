"""The committed baselines are what `--accept` writes, and have every cell that is declared."""

from pathlib import Path

import pytest

from parity.architectures.matrix import cells
from parity.environment import describe
from parity.reports import baseline, records, shards

DIRECTORY = Path(__file__).parent / "baseline"
COMMITTED = sorted(DIRECTORY.glob("transformers-*.csv"))


def faults(path):
    """What of a baseline was edited by hand."""
    of = baseline.read(path)
    found = [f"{cell} {check}: {status}" for (cell, check), status in of.items() if status not in records.STATUSES]
    if baseline.written(of) != path.read_text(encoding="utf-8"):
        found.append("not as --accept writes it")
    return found


def test_the_committed_baselines_are_written_by_accept():
    """Sorted, with known statuses, each check once."""
    assert COMMITTED
    assert {path.name: faults(path) for path in COMMITTED} == {path.name: [] for path in COMMITTED}
    assert shards.read_seconds(DIRECTORY / shards.SECONDS.name)


def test_an_edited_baseline_is_seen(tmp_path):
    """Another order and an unknown status are faults; what was written is none."""
    path = tmp_path / "transformers-1.csv"
    path.write_text(baseline.written({("a-onnx11", "contract"): "passed", ("b-onnx11", "contract"): "xfailed"}))
    assert faults(path) == []
    path.write_text("cell,status,checks\nb-onnx11,xfailed,contract\na-onnx11,fine,contract\n")
    assert faults(path) == ["a-onnx11 contract: fine", "not as --accept writes it"]


def test_the_baseline_of_this_environment_has_every_cell():
    """What is declared is accepted, and what is accepted is declared."""
    path = baseline.path_of(DIRECTORY, describe())
    if not path.exists():
        pytest.skip(f"{path.stem} has no committed baseline; tox -e gate tells how it is made")
    assert {cell for cell, _ in baseline.read(path)} == {cell.id for cell in cells()}
