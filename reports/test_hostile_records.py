"""A wrong file of records, a baseline or a table gives one sentence with file, place, value and expected value."""

import json
import os
import re

import pytest

from parity import records
from parity.fixtures.controls import specimens
from parity.reports import __main__ as command
from parity.reports.gate import baseline, shards

OUTSIDE = "../../outside"


def change(place, **items):
    """A function that changes the environment (place 0) or a check."""
    return lambda lines: lines[place].update(items)


def packages(**versions):
    return lambda lines: lines[0]["packages"].update(versions)


def text_of(line):
    """A function that replaces the first check by a text."""
    return lambda lines: lines.__setitem__(1, line)


LINES = {
    "environment twice": (lambda lines: lines.append(lines[0]), r"line 14: is a second environment"),
    "environment last": (lambda lines: lines.append(lines.pop(0)), "should begin with the environment"),
    "version of a number": (packages(torch=3), r"packages\.torch: is 3, should be a version"),
    "version with NUL": (packages(torch="2\0"), r"packages\.torch: is .*, should be a version"),
    "long version": (packages(torch="2." * 2500), r"packages\.torch: is .*…, should be a version"),
    "version of a path": (packages(torch=OUTSIDE), r"packages\.torch: is .*, should be a version"),
    "version of words": (packages(torch="two"), r"packages\.torch: is two, should be a version"),
    "arguments of a number": (change(0, arguments=3), r"environment\.arguments: is 3, should be a list"),
    "date of a number": (change(0, date=3), r"environment\.date: is 3, should be a printable text"),
    "workers of words": (change(0, workers=["x"]), r"environment\.workers\[0\]: is .x., should be an object"),
    "seconds NaN": (change(1, seconds=float("nan")), "seconds: is NaN, should be a number from 0 to"),
    "seconds inf": (change(1, seconds=float("inf")), "seconds: is Infinity, should be a number from 0 to"),
    "seconds 1e308": (change(1, seconds=1e308), "seconds: is 1e.308, should be a number from 0 to"),
    "ratio of a word": (change(1, outputs={"a": {"ratio": "b"}}), r"outputs\.a\.ratio: is .b., should be a number"),
    "ratio of a list": (change(1, outputs={"a": {"ratio": [1]}}), r"outputs\.a\.ratio: is a list of 1 items"),
    "outputs of numbers": (change(1, outputs={"a": 1}), r"outputs\.a: is 1, should be an object"),
    "opset of digits": (text_of('{"opset": ' + "1" * 5000 + "}"), "line 2: is no valid JSON"),
    "large opset": (change(1, opset=10**30), "opset: is a whole number of 100 bits, should be a whole number from 1"),
    "brackets": (text_of("[" * 100_000), "line 2: is nested too deeply"),
    "a list": (text_of("[]"), "line 2: should be a JSON object"),
    "surrogate": (change(1, id="a\ud800"), r"record\.id: is .*, should be a printable text"),
    "line break": (change(1, id="a\nb"), r"id: is .*, should be a printable text"),
    "error of a number": (change(1, error=3), "error: is 3, should be a text"),
    "stage of a list": (change(1, stage=[]), "stage: is a list of 0 items, should be a printable text"),
    "check of two words": (change(1, check="a b"), "check: is .a b., should be the name of a test"),
    "verdict of a word": (change(1, verdicts=["x"]), r"verdicts\[0\]: is .x., should be an object"),
    "warning of a word": (change(1, warnings=["x"]), r"warnings\[0\]: is .x., should be an object"),
    "neuron of a word": (change(1, neuron={"share": "x"}), "neuron: has no operators"),
    "unknown": (change(1, colour="red"), "has colour, which the schema does not know"),
    "kind": (change(1, kind="other"), "kind: is .other., should be one of check"),
    "shard of a word": (change(0, shard="x"), r"environment\.shard: is .x., should be an object"),
    "opsets of a selection": (
        change(
            0, selection={"options": {}, "tests": [], "left_out": [{"models": [], "checks": {"a": ["onnx1..9999"]}}]}
        ),
        "should be what follows a model in the id of a cell",
    ),
}
ACTIONS = (["--check"], ["--accept"], ["--diff", "good.jsonl"], ["--merge"], [])


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The working directory, with good records and a good baseline."""
    monkeypatch.chdir(tmp_path)
    records.write(tmp_path / "good.jsonl", specimens.environment(), specimens.run())
    assert command.main(["--accept", "good.jsonl"]) == 0
    return tmp_path


def run(capsys, *arguments):
    capsys.readouterr()
    status = command.main([*map(str, arguments)])
    return status, capsys.readouterr().err


@pytest.mark.parametrize("case", LINES)
def test_wrong_records(place, capsys, case):
    """Every action refuses them with status 2 and writes nothing."""
    spoil, message = LINES[case]
    lines = [json.loads(line) for line in (place / "good.jsonl").read_text().splitlines()]
    spoil(lines)
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (place / "wrong.jsonl").write_text("\n".join(texts))
    before = {path: path.read_bytes() for path in sorted(place.rglob("*")) if path.is_file()}
    for action in ACTIONS:
        status, err = run(capsys, *action, "wrong.jsonl")
        assert status == 2
        assert err.startswith("python -m parity.reports: error: ")
        assert len(err.splitlines()) == 1
        if action != ["--merge"]:
            assert re.search(message, err), err
    assert {path: path.read_bytes() for path in sorted(place.rglob("*")) if path.is_file()} == before


@pytest.mark.parametrize("action", ["--check", "--accept"])
def test_records_of_no_known_environment(place, capsys, action):
    """Without a version of any deciding package, there is no baseline for them."""
    records.write(place / "wrong.jsonl", {**specimens.environment(), "packages": {"numpy": "1"}}, specimens.run())
    status, err = run(capsys, action, "wrong.jsonl")
    assert (status, "names no version of transformers, torch, onnxruntime" in err) == (2, True)


def test_good_records(place, capsys):
    """The control; a ratio that is not a number is a valid result, and can be read back."""
    lines = [specimens.line(outputs={"a": {"ratio": float("nan"), "worst": float("inf")}})]
    records.write(place / "other.jsonl", specimens.environment(), lines)
    assert records.read(place / "other.jsonl")[1][0]["outputs"]["a"]["worst"] == float("inf")
    assert run(capsys, "--check", "good.jsonl")[0] == 0


KINDS = {
    "FIFO": os.mkfifo,
    "directory": os.mkdir,
    "device": lambda path: os.symlink("/dev/zero", path),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["records", "baseline", "seconds", "warnings", "history"])
def test_what_is_no_regular_file_is_not_opened(place, capsys, name, kind):
    """Reading a FIFO or a device would not end."""
    directory = place / "reports" / "baseline"
    path = {
        "records": place / "x.jsonl",
        "history": place / "x.jsonl",
        "baseline": directory / f"{specimens.NAME}.csv",
        "seconds": directory / "seconds.csv",
        "warnings": directory / "warnings.json",
    }[name]
    path.unlink(missing_ok=True)
    KINDS[kind](path)
    arguments = {
        "records": ["--check", path],
        "history": ["good.jsonl", "--history", path],
        "seconds": ["--accept", "good.jsonl"],
    }.get(name, ["--check", "good.jsonl"])
    status, err = run(capsys, *arguments)
    assert status == 2
    assert f"{path.name}: is a {kind}, should be a regular file" in err


TABLES = {
    "cell,status,checks\nbert,fine,contract\n": r"line 2: status: is .fine., should be one of",
    "cell,status,checks\nbert,passed\n": "line 2: has 2 columns, should have cell, status, checks",
    "cell,status\n": "should begin with cell,status,checks",
    "": "should begin with cell,status,checks",
    'cell,status,checks\n"bert': "is no CSV file",
}


@pytest.mark.parametrize("text", TABLES, ids=range(len(TABLES)))
def test_wrong_baselines(place, capsys, text):
    """The message has the line and the column."""
    (place / "reports" / "baseline" / f"{specimens.NAME}.csv").write_text(text)
    status, err = run(capsys, "--check", "good.jsonl")
    assert status == 2
    assert re.search(TABLES[text], err)
    assert "write it again with --accept" in err


@pytest.mark.parametrize("value", ["x", "nan", "inf", "-1", "1e300", "9" * 5000, ""])
def test_wrong_seconds(tmp_path, value):
    """Times that are not numbers, or out of range."""
    path = tmp_path / "seconds.csv"
    path.write_text(f"model,seconds\nbert-default,{value}\n")
    with pytest.raises(ValueError, match=r"line 2: seconds: is .*, should be a number from 0 to 1e"):
        shards.read_seconds(path)
    path.write_text("model,seconds\nbert-default,1.5\n")
    assert shards.read_seconds(path) == {"bert-default": 1.5}


@pytest.mark.parametrize("text", ["[]", "{", "[" * 10**5, '{"a": 3}', '{"a": [["b"]]}', '{"a": [["b", "c", 3]]}'])
def test_wrong_warnings(place, capsys, text):
    """The accepted warnings must be mapped to their environment."""
    (place / "reports" / "baseline" / "warnings.json").write_text(text)
    status, err = run(capsys, "--check", "good.jsonl")
    assert status == 2
    assert "warnings.json" in err
    assert "write it again with --accept" in err


def test_a_baseline_is_written_whole_or_not(place, monkeypatch):
    """A failure while writing keeps the old file and leaves nothing next to it."""
    path = place / "reports" / "baseline" / f"{specimens.NAME}.csv"
    before = path.read_bytes()
    monkeypatch.setattr(baseline, "as_csv", lambda statuses: "cell\ud800")
    with pytest.raises(UnicodeEncodeError):
        baseline.accept(path, (specimens.environment(), specimens.run()), baseline.Allowance())
    monkeypatch.setattr(baseline, "as_csv", lambda statuses: "half")
    monkeypatch.setattr("parity.files.os.replace", _fail)
    with pytest.raises(OSError, match="input/output"):
        baseline.accept(path, (specimens.environment(), specimens.run()), baseline.Allowance())
    assert path.read_bytes() == before
    assert {each.name for each in path.parent.iterdir()} == {path.name, "seconds.csv"}


def _fail(source, target):
    raise OSError(5, "input/output error")
