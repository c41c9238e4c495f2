"""Every outcome of a check of a cell becomes one line that follows the schema, written once."""

import json
import re

import pytest

from parity import records
from parity.errors import ParityError

PLUGINS = ("-p", "parity.fixtures.plugin", "-p", "parity.reports.recording.plugin", "-p", "no:cacheprovider")

SUITE = """
import pytest
from parity.errors import ExportError, ValueMismatch

@pytest.fixture
def broken(cell):
    raise ExportError("no such operator")

def test_right(cell, measurements):
    outputs = {"logits": {"shape": [1], "ratio": 0.5, "worst": 1e-7}}
    measurements(outputs=outputs, validated_at=[{"sizes": {"batch": 2}}])

def test_wrong(cell):
    raise ValueMismatch("logits: 2 of 12 values differ")

def test_unbuilt(cell, broken):
    pass

def test_gated(cell):
    pytest.skip("no device here")

@pytest.mark.skip(reason="not in this environment")
def test_marked(cell):
    pass

@pytest.mark.xfail(raises=ValueMismatch, strict=True, reason="upstream 1")
def test_tracked(cell):
    raise ValueMismatch("as expected")

@pytest.mark.xfail(raises=ValueMismatch, strict=True, reason="upstream 2")
def test_mended(cell):
    pass

def test_without_a_cell():
    pass
"""


@pytest.fixture
def run(pytester):
    pytester.makepyfile(test_suite=SUITE)

    def runs(*arguments):
        result = pytester.runpytest(*PLUGINS, "--records", "out.jsonl", "-k", "resnet-default-onnx11", *arguments)
        return result, records.read(pytester.path / "out.jsonl")

    return runs


EXPECTED = {
    "right": ("passed", None, None),
    "wrong": ("failed", "values", "logits: 2 of 12 values differ"),
    "unbuilt": ("error", "export", "no such operator"),
    "gated": ("skipped", None, "Skipped: no device here"),
    "marked": ("skipped", None, "Skipped: not in this environment"),
    "tracked": ("xfailed", "values", "upstream 1"),
    "mended": ("xpassed", None, "[XPASS(strict)] upstream 2"),
}


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "two-workers"])
def test_each_outcome_has_its_status(run, workers):
    """Passed, failed, error, skipped, expected failure and unexpected pass differ, with stage and reason."""
    _, (environment, lines) = run(*workers)
    assert environment["packages"]["torch"]
    assert {line["check"]: (line["status"], line["stage"], line["error"]) for line in lines} == EXPECTED
    assert len(lines) == len(EXPECTED)


@pytest.mark.parametrize(("workers", "count"), [((), 1), (("-n", "2"), 2)], ids=["alone", "two-workers"])
def test_what_each_worker_used_is_on_record(run, workers, count):
    """CPU seconds and peak memory of every worker, or of the one process."""
    _, (environment, _) = run(*workers)
    assert len(environment["workers"]) == count
    assert all(worker["cpu"] > 0 and worker["peak"] > 10 for worker in environment["workers"])


def test_measured_figures_are_on_record(run):
    """The line of a check has its ratio, worst difference and sizes."""
    _, (_, lines) = run()
    (right,) = [line for line in lines if line["check"] == "right"]
    assert right["outputs"] == {"logits": {"ratio": 0.5, "worst": 1e-7}}
    assert right["sizes"] == [{"sizes": {"batch": 2}}]
    assert (right["architecture"], right["feature"], right["opset"]) == ("resnet", "default", 11)


def test_every_stage_is_in_the_schema():
    """Those of all errors, of other exceptions and of a crash; the schema names each."""
    stages = {error.stage for error in [ParityError, *_subclasses(ParityError)]} | {"test", "crash"}
    assert {*records.STAGES} == stages
    assert all(stage in records.FIELDS["stage"][1].split(": one of ")[1].split(", ") for stage in stages)


def _subclasses(error):
    for each in error.__subclasses__():
        if each.__module__ == error.__module__:
            yield from (each, *_subclasses(each))


def test_a_run_with_failures_fails(run):
    """Checks recorded as failed, error or fixed are red in pytest too."""
    result, _ = run()
    result.assert_outcomes(passed=1, failed=2, errors=1, skipped=2, xfailed=1)


def test_one_worker_has_all_opsets_of_a_model(pytester):
    """Under a plain -n 2, the cells of one architecture and feature run on one worker."""
    pytester.makepyfile(test_a="def test_a(cell): pass", test_b="def test_b(cell): pass")
    result = pytester.runpytest(*PLUGINS, "--records", "out.jsonl", "-n", "2", "-v", "-k", "bert-default or resnet")
    runs = re.findall(r"\[(gw\d)\].*PASSED test_[ab]\.py::test_[ab]\[(.*)-onnx\d+\]", result.stdout.str())
    workers = {}
    for worker, group in runs:
        workers.setdefault(group, set()).add(worker)
    assert len(runs) == 2 * 10 * len(workers)
    assert len(workers) >= 3
    assert {len(names) for names in workers.values()} == {1}
    assert len(set.union(*workers.values())) == 2


GOOD = {
    "kind": "check",
    "id": "bert-default-onnx11",
    "architecture": "bert",
    "feature": "default",
    "format": "onnx",
    "runtime": "onnxruntime",
    "opset": 11,
    "attention": "eager",
    "variant": "",
    "check": "contract",
    "status": "passed",
    "stage": None,
    "error": None,
    "outputs": {},
    "verdicts": [],
    "sizes": [],
    "seconds": 0.5,
}


def test_a_good_record_passes():
    """The schema accepts what the plug-in writes."""
    records.validate(GOOD)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"status": "fine"}, 'status: is "fine", should be one of passed, failed'),
        ({"opset": "11"}, 'opset: is "11", should be a whole number from 1 to 999'),
        ({"colour": "red"}, "has colour, which the schema does not know"),
        ({"id": None}, "id"),
    ],
)
def test_a_record_off_the_schema_is_refused(change, message):
    """A wrong status, a wrong type and an unknown field are each named."""
    with pytest.raises(ValueError, match=message):
        records.validate({**GOOD, **change})


def test_a_missing_field_is_refused():
    """Every field is required."""
    for field in records.FIELDS:
        with pytest.raises(ValueError, match=field):
            records.validate({name: value for name, value in GOOD.items() if name != field})


def test_a_refused_record_leaves_the_old_file(tmp_path):
    """If a run cannot be written, the file of the run before stays."""
    path = tmp_path / "records.jsonl"
    environment = {"parity": "1", "python": "3", "packages": {}}
    records.write(path, environment, [GOOD])
    before = path.read_bytes()
    with pytest.raises(ValueError, match="status"):
        records.write(path, environment, [GOOD, {**GOOD, "status": "fine"}])
    assert path.read_bytes() == before


def test_a_file_of_another_schema_is_refused(tmp_path):
    """Reading begins with the environment and its schema."""
    path = tmp_path / "records.jsonl"
    path.write_text(json.dumps({"kind": "environment", "schema": 99}) + "\n")
    with pytest.raises(ValueError, match="schema 4"):
        records.read(path)


def test_a_file_of_schema_3_is_read_by_todays_names(tmp_path):
    """There the runtime was called engine; a line with both, or neither, is refused."""
    path = tmp_path / "records.jsonl"
    records.write(path, {"parity": "0", "python": "3", "packages": {}}, [GOOD])
    first, line = map(json.loads, path.read_text().splitlines())
    old = {"engine" if name == "runtime" else name: value for name, value in line.items()}
    path.write_text("\n".join(map(json.dumps, ({**first, "schema": 3}, old))) + "\n")
    environment, lines = records.read(path)
    assert (environment["schema"], lines) == (records.SCHEMA, [GOOD])
    path.write_text("\n".join(map(json.dumps, (first, old))) + "\n")
    with pytest.raises(ValueError, match="has no runtime, should have"):
        records.read(path)


ELSEWHERE = """
import pytest
from parity.fixtures.sizes import Example

@pytest.mark.cells(opsets=(17,), attention=("eager",))
def test_contract(cell, reproductions):
    print(reproductions(1, Example({"batch": 1}), "wrong"))
"""


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "two-workers"])
def test_records_are_where_pytest_was_started(pytester, workers):
    """Not in its rootdir, which follows a configuration file further up; the same for reproductions."""
    pytester.makepyprojecttoml("[tool.pytest.ini_options]\nminversion = '9'\n")
    pytester.makepyfile(test_suite=ELSEWHERE)
    work = pytester.mkdir("work")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(work)
        result = pytester.runpytest_subprocess(
            *PLUGINS, "--architecture=resnet", *workers, pytester.path / "test_suite.py"
        )
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines([f"rootdir: {pytester.path}"])
    _, lines = records.read(work / "reports" / "out" / "records.jsonl")
    assert len(lines) == 2
    scripts = {path.name for path in (work / "reports" / "out" / "reproductions").iterdir()}
    assert scripts == {f"resnet-{feature}-onnx17-1.py" for feature in ("default", "image-classification")}
    assert not (pytester.path / "reports").exists()
