"""The committed baselines are as `--accept` writes them, and have every cell of their architectures."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from parity.architectures.conformance.fifty import FIFTY
from parity.architectures.conformance.matrix import cells
from parity.environment import describe
from parity.errors import UsageError
from parity.opsets import MAXIMUM_OPSET
from parity.reports.gate import baseline, shards

DIRECTORY = Path(__file__).parent / "baseline"
PROVEN, MOST_DEVIATING = ("passed", "xfailed"), 8
OF_EVERY_FILE = ("contract", "traced_sizes", "other_sizes")
# No architecture has a higher floor; only opsets below all recorded ones may be missing.
HIGHEST_FLOOR = 13
COMMITTED = sorted(DIRECTORY.glob("transformers-*.csv"))


def faults(path):
    """The signs of manual edits in a baseline."""
    whole = baseline.as_csv(baseline.read(path)) == path.read_text(encoding="utf-8")
    return [] if whole else ["not as --accept writes it"]


def test_the_committed_baselines_are_written_by_accept():
    """Sorted, with known statuses, each check once."""
    assert COMMITTED
    assert {path.name: faults(path) for path in COMMITTED} == {path.name: [] for path in COMMITTED}
    assert shards.read_seconds(DIRECTORY / shards.SECONDS.name)


def test_an_edited_baseline_is_seen(tmp_path):
    """Another order and an unknown status are faults; an unchanged file has none."""
    path = tmp_path / "transformers-1.csv"
    path.write_text(baseline.as_csv({("a-onnx11", "contract"): "passed", ("b-onnx11", "contract"): "xfailed"}))
    assert faults(path) == []
    path.write_text("cell,status,checks\nb-onnx11,xfailed,contract\na-onnx11,passed,contract\n")
    assert faults(path) == ["not as --accept writes it"]
    path.write_text("cell,status,checks\na-onnx11,fine,contract\n")
    with pytest.raises(UsageError, match='line 2: status: is "fine", should be one of passed'):
        faults(path)


def incomplete(accepted, declared):
    """The cells that only one of both has; beyond the fifty, only those of accepted architectures.

    An added architecture is no fault here: the gate lists it as new until it is accepted.
    """
    known = {cell.architecture for cell in declared if cell.id in accepted} | {*FIFTY}
    expected = {cell.id for cell in declared if cell.architecture in known}
    return sorted(accepted ^ expected)


def test_the_baseline_of_this_environment_has_every_cell():
    """Every declared cell is accepted, and every accepted cell is declared."""
    path = baseline.path_of(DIRECTORY, describe())
    if not path.exists():
        pytest.skip(f"{path.stem} has no committed baseline; tox -e gate tells how it is made")
    assert incomplete({cell for cell, _ in baseline.read(path)}, cells()) == []


def test_a_cell_that_is_missing_is_seen_and_an_architecture_that_is_added_is_not():
    """A missing or outdated cell is reported; an added architecture needs no other edit."""
    accepted = {cell.id for cell in cells()}
    added = replace(cells()[0], architecture="added")
    assert incomplete(accepted, (*cells(), added)) == []
    assert incomplete(accepted - {"vit-default-onnx17"}, cells()) == ["vit-default-onnx17"]
    assert incomplete({each for each in accepted if not each.startswith("vit-")}, cells())
    assert incomplete({*accepted, "vit-default-onnx9"}, cells()) == ["vit-default-onnx9"]


def list_broken_promises(statuses):
    """The breaches of the promise in a baseline: an unproven file of the fifty, or more than 8 deviating features."""
    # Environments differ in the lowest opset and in the models with sdpa attention.
    opsets = {(cell.group, check): set() for cell in cells() if cell.architecture in FIFTY for check in OF_EVERY_FILE}
    groups, breaches, deviating = {group for group, _ in opsets}, [], set()
    for (cell, check), status in statuses.items():
        group, opset, attention = re.fullmatch(r"(.+?)(?:-onnx(\d+)(-sdpa)?)?", cell).groups()
        if opset and group in groups:
            opsets.setdefault((group, check), set()).update(() if attention else (int(opset),))
            deviating |= {group} if status == "xfailed" else set()
            breaches += [] if status in PROVEN else [f"{cell} {check}: {status}"]
    for (group, check), having in opsets.items():
        if check in OF_EVERY_FILE:
            lacking = set(range(min((*having, HIGHEST_FLOOR)), MAXIMUM_OPSET + 1)) - having
            breaches += [f"{group} {check}: no result at {', '.join(map(str, sorted(lacking)))}"] if lacking else []
    if len(deviating) > MOST_DEVIATING:
        breaches.append(f"{len(deviating)} architecture × feature deviate: {', '.join(sorted(deviating))}")
    return breaches


@pytest.mark.parametrize("generation", ["4.46.3", "5.23.0", "5.24.0"])
def test_every_file_of_the_fifty_is_proven_on_both_generations(generation):
    """All results are green or strict deviations, which affect at most 8 of 248 pairs of architecture and feature."""
    (path,) = DIRECTORY.glob(f"transformers-{generation}-*.csv")
    assert list_broken_promises(baseline.read(path)) == []


def test_a_broken_promise_is_seen():
    """A failure, a skip, a file without a result, and a ninth feature with a deviation."""
    files = [cell for cell in cells() if cell.architecture in FIFTY and cell.format == "onnx"]
    statuses = {(cell.id, check): "passed" for cell in files for check in OF_EVERY_FILE}
    assert list_broken_promises(statuses) == []
    for status in ("failed", "skipped"):
        assert list_broken_promises({**statuses, (files[0].id, "contract"): status}) == [
            f"{files[0].id} contract: {status}"
        ]
    lacking = {key: status for key, status in statuses.items() if key != ("vit-default-onnx17", "traced_sizes")}
    assert list_broken_promises(lacking) == ["vit-default traced_sizes: no result at 17"]
    highest = {key: status for key, status in statuses.items() if key[0].partition("-sdpa")[0].endswith("onnx20")}
    assert len(list_broken_promises(highest)) == len(OF_EVERY_FILE) * len({cell.group for cell in files})
    one_of_each = list({cell.group: cell for cell in files}.values())
    deviating = {(cell.id, "contract"): "xfailed" for cell in one_of_each[:9]}
    assert list_broken_promises({**statuses, **dict(list(deviating.items())[:8])}) == []
    (breach,) = list_broken_promises({**statuses, **deviating})
    assert breach.startswith("9 architecture × feature deviate")
