"""Shards make up the whole, each check once, and only a whole can be merged; earlier failures run first."""

import json
import re

import pytest

from parity import records
from parity.fixtures.controls import specimens
from parity.reports import __main__ as command
from parity.reports.gate import shards

PLUGINS = ("-p", "parity.fixtures.plugin", "-p", "parity.reports.recording.plugin", "-p", "no:cacheprovider")
CELLS = "[bert-default-onnx or [gpt2-default-onnx or [vit- or [resnet- or plain"
SUITE = """
import pytest

pytestmark = pytest.mark.cells(features=("default",), opsets=(11, 12, 13))

def test_one(cell):
    pass

def test_other(cell):
    assert cell.id != "vit-default-onnx13"
"""


@pytest.fixture
def suite(pytester):
    """Two tests of cells, and a file with a test without a cell."""
    pytester.makepyfile(test_suite=SUITE, test_plain="def test_plain(): pass")

    def run(*arguments):
        result = pytester.runpytest(*PLUGINS, "-k", CELLS, *arguments)
        return result, {line.partition(" ")[0] for line in result.outlines if "PASSED" in line or "FAILED" in line}

    return run


def test_the_union_of_all_shards_is_the_whole(suite, pytester):
    """Three shards: disjoint, together everything, the same in a second run, and each model in one of them."""
    _, whole = suite("-v", "--records", "whole.jsonl")
    parts = [suite("-v", "--shard", f"{index}/3", "--records", f"{index}.jsonl")[1] for index in (1, 2, 3)]
    assert sum(map(len, parts)) == len(whole) > 20
    assert set.union(*parts) == whole
    assert all(parts)
    assert suite("-v", "--shard", "2/3", "--records", "again.jsonl")[1] == parts[1]
    runs = [records.read(pytester.path / f"{index}.jsonl") for index in (1, 2, 3)]
    models = [{(line["architecture"], line["feature"]) for line in lines} for _, lines in runs]
    assert sum(map(len, models)) == len(set.union(*models))
    assert [environment["shard"]["index"] for environment, _ in runs] == [1, 2, 3]
    assert len({environment["shard"]["whole"] for environment, _ in runs}) == 1


def test_the_merge_of_all_shards_is_the_whole(suite, pytester, monkeypatch):
    """Merged, they have the same statuses as one run of everything; one shard has two workers."""
    monkeypatch.chdir(pytester.path)
    suite("--records", "whole.jsonl")
    suite("--shard", "1/2", "--records", "1.jsonl")
    suite("--shard", "2/2", "--records", "2.jsonl", "-n", "2")
    assert command.main(["--merge", "2.jsonl", "1.jsonl", "--output", "merged.jsonl"]) == 0
    environment, lines = records.read(pytester.path / "merged.jsonl")
    _, expected = records.read(pytester.path / "whole.jsonl")
    statuses = [{(line["id"], line["check"]): line["status"] for line in each} for each in (lines, expected)]
    assert statuses[0] == statuses[1]
    assert "failed" in statuses[0].values()
    assert len(environment["workers"]) == 3
    assert "shard" not in environment


def test_recorded_time_decides(suite, pytester):
    """A model with most of the recorded time has a shard for itself."""
    path = pytester.path / "reports" / "baseline" / "seconds.csv"
    path.parent.mkdir(parents=True)
    path.write_text("model,seconds\ngpt2-default,1000\nbert-default,1\nvit-default,1\nresnet-default,1\n")
    suite("--shard", "1/2", "--records", "1.jsonl")
    _, lines = records.read(pytester.path / "1.jsonl")
    assert {(line["architecture"], line["feature"]) for line in lines} == {("gpt2", "default")}


@pytest.mark.parametrize("wrong", ["0/2", "3/2", "2", "a/b", "-1/2", "1/0"])
def test_a_shard_that_cannot_be_is_refused(suite, wrong):
    """As a usage error, before anything is collected."""
    result, ran = suite(f"--shard={wrong}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert not ran


def test_the_division_is_balanced():
    """No shard is more than a third above the mean, with one model without a record."""
    seconds = shards.weights({f"m{i}": 10 for i in range(40)}, {f"m{i}": float(i + 1) for i in range(39)})
    shares = shards.assignment(seconds, 4)
    loads = [sum(weight for unit, weight in seconds.items() if shares[unit] == index) for index in (1, 2, 3, 4)]
    assert sorted(set(shares.values())) == [1, 2, 3, 4]
    assert max(loads) < 1.05 * sum(loads) / 4


def test_recorded_seconds_change_only_when_they_matter(tmp_path):
    """A model that took a fifth more keeps its line; one that took twice as long does not."""
    path = tmp_path / "seconds.csv"
    shards.write_seconds(path, [specimens.line(seconds=10.0), specimens.line("vit", seconds=10.0)])
    shards.write_seconds(path, [specimens.line(seconds=12.0), specimens.line("vit", seconds=20.0)])
    assert shards.read_seconds(path) == {"bert-default": 10.0, "vit-default": 20.0}


def make_shard(index, count=2, whole="abc", checks=6):
    return {"index": index, "of": count, "whole": whole, "checks": checks}


@pytest.fixture
def merge(tmp_path, monkeypatch, capsys):
    """A function that merges two shards, either of them changed; returns exit status and message."""
    monkeypatch.chdir(tmp_path)
    halves = [
        [line for line in specimens.run() if line["architecture"] == architecture] for architecture in ("bert", "vit")
    ]

    def run(first=None, second=None, lines=None, **packages):
        records.write(tmp_path / "1.jsonl", specimens.environment(shard=first or make_shard(1)), halves[0])
        other = specimens.environment(shard=second or make_shard(2), **packages)
        records.write(tmp_path / "2.jsonl", other, halves[1] if lines is None else lines)
        status = command.main(["--merge", "1.jsonl", "2.jsonl", "--output", "whole.jsonl"])
        return status, capsys.readouterr().err

    return run


def test_two_halves_are_joined(merge, tmp_path):
    """The control: they have no fault."""
    assert merge() == (0, "")
    assert records.read(tmp_path / "whole.jsonl")[1] == specimens.run()


WRONG = {
    "missing": ({"first": make_shard(1, count=3), "second": make_shard(2, count=3)}, "shard 3/3: is missing"),
    "doubled": ({"second": make_shard(1)}, "shard 1/2: was given 2 times"),
    "other environment": (
        {"transformers": "4.46.3"},
        "another packages than .*: transformers 4.46.3, should be 5.23.0",
    ),
    "other division": ({"second": make_shard(2, whole="xyz")}, "another division of the cells"),
    "other number": ({"second": make_shard(2, count=4)}, "another number of shards"),
    "cut short": ({"lines": [specimens.line("vit")]}, "1 checks of cells, should have 6: it was cut short"),
    "overlapping": ({"lines": specimens.run()[:6]}, "bert-default-onnx11 contract is in 1.jsonl too"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_no_whole_is_refused(merge, tmp_path, wrong):
    """A missing or repeated shard, mixed environments, different divisions, an incomplete run."""
    change, message = WRONG[wrong]
    status, error = merge(**change)
    assert status == 2
    assert re.search(message, error)
    assert not (tmp_path / "whole.jsonl").exists()


def test_only_what_failed_or_has_no_result_runs(suite, pytester):
    """Failed first, then skipped and new; neither passed checks nor tests without a cell run."""
    _, lines = suite("--records", "whole.jsonl")[0], records.read(pytester.path / "whole.jsonl")[1]
    lines = specimens.change_records(lines, "gpt2-default-onnx12", "one", status="skipped")
    lines = [line for line in lines if (line["id"], line["check"]) != ("bert-default-onnx11", "other")]
    records.write(pytester.path / "old.jsonl", specimens.environment(), lines)
    result, _ = suite("-v", "--only-changed", "old.jsonl")
    ran = [line.partition(" ")[0].partition("::")[2] for line in result.outlines if "::" in line and "%]" in line]
    assert ran == [
        "test_other[vit-default-onnx13]",
        "test_other[bert-default-onnx11]",
        "test_one[gpt2-default-onnx12]",
    ]
    assert {path.name for path in (pytester.path / "reports" / "out").glob("*.jsonl")} == {"records-again.jsonl"}


def test_what_failed_is_the_first_of_a_worker_too(suite, pytester):
    """xdist would begin with the model that has most tests, here one without any result."""
    _, lines = suite("--records", "whole.jsonl")[0], records.read(pytester.path / "whole.jsonl")[1]
    lines = [line for line in lines if line["architecture"] != "bert"]
    records.write(pytester.path / "old.jsonl", specimens.environment(), lines)
    suite("-n", "1", "--only-changed", "old.jsonl", "--records", "again.jsonl")
    ids = [line["id"] for line in records.read(pytester.path / "again.jsonl")[1]]
    assert ids[0] == "vit-default-onnx13"
    assert len(ids) > 2
    assert {name.partition("-")[0] for name in ids[1:]} == {"bert"}


def test_records_that_are_not_there_are_usage(suite):
    """--only-changed with a wrong path runs nothing, also with workers."""
    for workers in ((), ("-n", "2")):
        result, ran = suite("--only-changed", "missing.jsonl", *workers)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        assert not ran


@pytest.mark.parametrize("there", [True, False])
def test_an_attention_that_no_model_has_here_is_skipped_and_a_mark_of_nothing_is_an_error(pytester, there):
    """torch 1.13 has no sdpa, so its checks are skipped there; an opset that no file has is always a mistake."""
    pytester.makepyfile(
        test_suite="""
        import pytest

        @pytest.mark.cells(attention=("sdpa",), opsets=(20,), features=("masked-lm",))
        def test_sdpa(cell):
            assert cell.attention == "sdpa"
        """,
        test_wrong="""
        import pytest

        @pytest.mark.cells(opsets=(9,))
        def test_nine(cell):
            pass
        """,
    )
    without = """
    from parity.fixtures import plugin

    found = tuple(cell for cell in plugin.cells() if cell.attention == "eager")
    plugin.cells = lambda: found
    """
    pytester.makeconftest("" if there else without)
    chosen = (*PLUGINS, "-rs", "-k", "bert-masked-lm or none", "test_suite.py")
    result = pytester.runpytest_subprocess(*chosen)
    if there:
        assert result.parseoutcomes()["passed"] > 1
    else:
        result.assert_outcomes(skipped=1)
        result.stdout.fnmatch_lines(["*no model has sdpa attention with torch*"])
    wrong = pytester.runpytest_subprocess(*PLUGINS, "test_wrong.py")
    wrong.stdout.fnmatch_lines(["*its mark cells selects no cell*"])
    assert wrong.ret != 0


def test_the_peak_of_a_check_is_its_own(pytester):
    """Memory that one check held does not count for the next one, but for its worker."""
    body = "def test_{}(cell):\n    {}\n"
    pytester.makepyfile(test_suite=body.format("large", "bytearray(300 << 20)") + body.format("small", "pass"))
    pytester.runpytest_subprocess(*PLUGINS, "--records", "out.jsonl", "-k", "resnet-default-onnx11")
    environment, lines = records.read(pytester.path / "out.jsonl")
    peaks = {line["check"]: line.get("peak") for line in lines}
    if None in peaks.values():
        pytest.skip("this system does not tell the peak of a part of a process's life")
    assert peaks["large"] > peaks["small"] + 250
    assert environment["workers"][0]["peak"] >= peaks["large"] - 1


def test_the_environment_of_a_shard_is_written_as_json(suite, pytester):
    """Even without any cell, so that --merge can distinguish it from a missing shard."""
    suite("--shard", "1/1", "--records", "out.jsonl", "-k", "plain")
    first = json.loads((pytester.path / "out.jsonl").read_text().splitlines()[0])
    assert first["shard"]["checks"] == 0
