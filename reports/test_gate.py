"""The gate passes only what was accepted; the effects of an upgrade are listed worst first."""

import json
import re

import pytest

from parity import records
from parity.fixtures.controls import specimens
from parity.reports import __main__ as command
from parity.reports.gate import baseline
from parity.reports.gate.changes import Change, change_lines, statuses

CELL = "bert-default-onnx11"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty working directory, and a function that writes records there."""
    monkeypatch.chdir(tmp_path)

    def write(name, lines, environment=None):
        records.write(tmp_path / name, environment or specimens.environment(), lines)
        return name

    return write


@pytest.fixture
def gate(place, capsys):
    """A function that accepts one run, then checks another; returns exit status and output."""

    def check(before, after, *options):
        place("records.jsonl", before)
        assert command.main(["--accept", "records.jsonl"]) == 0
        place("records.jsonl", after)
        capsys.readouterr()
        return command.main(["--check", "records.jsonl", *options]), capsys.readouterr().out

    return check


def test_an_equal_run_passes(gate):
    """The same statuses in another order, with other times and ratios, are as accepted."""
    again = [{**line, "seconds": 9.0, "outputs": {}} for line in reversed(specimens.run())]
    status, text = gate(specimens.run(), again)
    assert status == 0
    assert text == f"{specimens.NAME}: 6 cells: 11 passed, 1 xfailed: all is as accepted\n"


SEEDED = {
    "a cell removed": (
        lambda run: specimens.drop_cell(run, CELL),
        "disappeared: 2 checks",
        f"{CELL} contract, traced_sizes: passed → missing",
    ),
    "a status flipped": (
        lambda run: specimens.change_records(run, CELL, status="failed", error="wrong"),
        "regressed: 1 check",
        f"{CELL} traced_sizes: passed → failed",
    ),
    "a deviation that passes again": (
        lambda run: specimens.change_records(run, "bert-default-onnx12", status="xpassed", error="[XPASS(strict)]"),
        "fixed: 1 check",
        "bert-default-onnx12 traced_sizes: xfailed → xpassed; a deviation passes again: remove it",
    ),
    "a deviation that is gone": (
        lambda run: specimens.change_records(run, "bert-default-onnx12", status="passed", error=None),
        "fixed: 1 check",
        "bert-default-onnx12 traced_sizes: xfailed → passed",
    ),
    "a new deviation": (
        lambda run: specimens.change_records(run, CELL, status="xfailed", error="upstream"),
        "regressed: 1 check",
        f"{CELL} traced_sizes: passed → xfailed",
    ),
    "a cell that is new": (
        lambda run: [*run, specimens.line("gpt2")],
        "new: 1 check",
        "gpt2-default-onnx17 traced_sizes: missing → passed",
    ),
    "a check that is gone": (
        lambda run: [line for line in run if line["check"] != "contract"],
        "disappeared: 6 checks",
        "bert-default-onnx11–13 contract: passed → missing",
    ),
    "a cell that is skipped": (
        lambda run: specimens.change_records(run, CELL, status="skipped", error="Skipped: no device"),
        "disappeared: 1 check",
        f"{CELL} traced_sizes: passed → skipped",
    ),
}


# Changes that --accept needs an option for.
ALLOWANCES = {
    "a cell removed": " --drop 2",
    "a check that is gone": " --drop 6",
    "a status flipped": " --even-failed",
    "a deviation that passes again": " --even-failed",
}


@pytest.mark.parametrize("seed", SEEDED)
def test_a_seeded_change_fails_until_it_is_accepted(gate, capsys, seed):
    """Each kind of change fails with its list and one command; that command makes the gate pass."""
    change, heading, line = SEEDED[seed]
    status, text = gate(specimens.run(), change(specimens.run()))
    assert status == 1
    assert heading in text
    assert line in text
    accepting = f"python -m parity.reports --accept records.jsonl{ALLOWANCES.get(seed, '')}"
    assert text.endswith(f"accept it with: {accepting}\n")
    assert command.main(accepting.split()[3:]) == 0
    assert command.main(["--check", "records.jsonl"]) == 0


def test_a_part_of_the_matrix_takes_nothing_away(place, tmp_path, capsys):
    """Accepting a run of one cell changes only that cell; other rows stay, and so do those that the run skipped."""
    place("records.jsonl", specimens.run())
    assert command.main(["--accept", "records.jsonl"]) == 0
    place("part.jsonl", [specimens.line(opset=11, status="failed")])
    assert command.main(["--accept", "part.jsonl", "--even-failed"]) == 0
    assert (
        capsys.readouterr()
        .out.splitlines()[-1]
        .endswith(
            "12 checks of 6 cells; 1 regressed; accepted although red: 1 failed; 11 checks without a result in this run"
            " stay: --drop 11 drops them"
        )
    )
    place("whole.jsonl", specimens.change_records(specimens.run(), CELL, status="failed"))
    assert command.main(["--check", "whole.jsonl"]) == 0


@pytest.mark.parametrize("option", [["--drop", "2"], ["--even-failed"]])
def test_what_accept_is_allowed_goes_with_accept(place, capsys, option):
    """Without it they have no effect: exit status 2."""
    assert command.main(option) == 2
    assert "works only with --accept" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "message"), [(1, "2 checks have no result any more"), (3, "should be --drop 2")])
def test_a_wrong_number_drops_nothing(place, tmp_path, capsys, number, message):
    """The checks are listed, the baseline stays; the right number drops them, and none are left to drop."""
    place("records.jsonl", specimens.run())
    assert command.main(["--accept", "records.jsonl"]) == 0
    path = tmp_path / "reports" / "baseline" / f"{specimens.NAME}.csv"
    before = path.read_bytes()
    place("records.jsonl", specimens.drop_cell(specimens.run(), CELL))
    assert command.main(["--accept", "records.jsonl", "--drop", str(number)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert f"{CELL} contract, traced_sizes: passed → missing" in error
    assert path.read_bytes() == before
    assert command.main(["--accept", "records.jsonl", "--drop", "2"]) == 0
    assert f"dropped:\n  {CELL} contract, traced_sizes: passed → missing" in capsys.readouterr().out
    assert command.main(["--accept", "records.jsonl", "--drop", "2"]) == 2
    assert "every check that was selected has a result" in capsys.readouterr().err


@pytest.mark.parametrize("status", ["failed", "error", "xpassed"])
def test_what_is_red_is_accepted_only_when_told(place, tmp_path, capsys, status):
    """The number is reported; a failure accepted before, or a check that passes, needs no option."""
    place("records.jsonl", specimens.run())
    assert command.main(["--accept", "records.jsonl"]) == 0
    path = tmp_path / "reports" / "baseline" / f"{specimens.NAME}.csv"
    before = path.read_bytes()
    place("records.jsonl", specimens.change_records(specimens.run(), CELL, status=status))
    assert command.main(["--accept", "records.jsonl"]) == 2
    assert f"1 {status}, but not in the baseline" in capsys.readouterr().err
    assert path.read_bytes() == before
    assert command.main(["--accept", "records.jsonl", "--even-failed"]) == 0
    assert f"accepted although red: 1 {status}" in capsys.readouterr().out
    assert command.main(["--accept", "records.jsonl"]) == 0
    assert "although" not in capsys.readouterr().out


def test_every_change_is_in_json_and_markdown(gate):
    """Both contain the same as the text."""
    after = specimens.change_records(specimens.run(), CELL, status="failed")
    status, text = gate(specimens.run(), after, "--format", "json")
    result = json.loads(text)
    assert (status, result["ok"], result["changed"]) == (1, False, {"regressed": 1})
    status, text = gate(specimens.run(), after, "--format", "markdown")
    assert "### regressed: 1 check" in text
    assert f"- {CELL} traced_sizes: passed → failed" in text


def test_without_any_baseline_all_is_new(place, capsys):
    """Exit status 1 until something is accepted."""
    place("records.jsonl", specimens.run())
    assert command.main(["--check", "records.jsonl"]) == 1
    assert "no baseline yet, and there is none near it" in capsys.readouterr().out


@pytest.fixture
def near(place, capsys):
    """A function that accepts one run, then checks another of an environment without a baseline."""

    def check(lines, **environment):
        place("records.jsonl", specimens.run())
        assert command.main(["--accept", "records.jsonl"]) == 0
        place("other.jsonl", lines, specimens.environment(onnxruntime="1.26.0", **environment))
        capsys.readouterr()
        return command.main(["--check", "other.jsonl"]), capsys.readouterr().out

    return check


def test_an_environment_without_a_baseline_is_compared_with_the_nearest(near):
    """It is named, with the differences; new results are counted, and do not fail."""
    status, text = near([*specimens.run(), specimens.line("gpt2")])
    assert status == 0
    assert "6 cells" not in text
    assert "nothing is worse than in the nearest baseline" in text
    assert f"{specimens.NAME}.csv: onnxruntime 1.32.0 → 1.26.0" in text
    assert "new: 1 check" in text
    assert "gpt2" not in text
    assert text.endswith("A baseline of its own is made with: python -m parity.reports --accept other.jsonl\n")


@pytest.mark.parametrize(
    ("lines", "line"),
    [
        (specimens.change_records(specimens.run(), CELL, status="failed"), f"{CELL} traced_sizes: passed → failed"),
        (specimens.change_records(specimens.run(), CELL, status="xfailed"), f"{CELL} traced_sizes: passed → xfailed"),
        (specimens.drop_cell(specimens.run(), CELL), f"{CELL} contract, traced_sizes: passed → missing"),
        ([*specimens.run(), specimens.line("gpt2", status="failed")], "test_traced_sizes[gpt2-default-onnx17]"),
    ],
    ids=["regressed", "deviation", "gone", "new and red"],
)
def test_what_is_worse_than_in_the_nearest_fails(near, lines, line):
    """The control: a worse status, a missing check, and a new check that fails."""
    status, text = near(lines)
    assert status == 1
    assert "worse than in the nearest baseline" in text
    assert line in text


@pytest.mark.parametrize(
    ("packages", "name"),
    [
        ({"transformers": "5.23.1"}, "transformers-5.23.0-torch-2.13.0-onnxruntime-1.32.0"),
        ({"transformers": "5.25.0"}, "transformers-5.24.0-torch-2.13.0-onnxruntime-1.32.0"),
        ({"transformers": "4.57.6"}, "transformers-4.46.3-torch-2.13.0-onnxruntime-1.32.0"),
        ({"transformers": "5.24.0", "torch": "2.12.0"}, "transformers-5.24.0-torch-2.13.0-onnxruntime-1.32.0"),
        ({"transformers": "5.24.0", "torch": "1.13.1+cpu"}, "transformers-5.24.0-torch-1.13.0-onnxruntime-1.18.0"),
        ({"transformers": "4.46.3", "onnxruntime": None}, "transformers-5.24.0-torch-2.13.0"),
    ],
)
def test_the_nearest_baseline(tmp_path, packages, name):
    """The same packages first, then the smallest difference in the first differing number of the version."""
    files = (
        "transformers-4.46.3-torch-2.13.0-onnxruntime-1.32.0",
        "transformers-5.23.0-torch-2.13.0-onnxruntime-1.32.0",
        "transformers-5.24.0-torch-2.13.0-onnxruntime-1.32.0",
        "transformers-5.24.0-torch-1.13.0-onnxruntime-1.18.0",
        "transformers-5.24.0-torch-2.13.0",
        "seconds",
    )
    for each in files:
        (tmp_path / f"{each}.csv").write_text("")
    assert baseline.nearest(tmp_path, specimens.environment(**packages)).stem == name


def test_a_run_of_nothing_fails(gate):
    """Records without a check are not accepted, not even with an empty baseline."""
    status, text = gate([], [])
    assert status == 1
    assert "no result" in text


def test_the_baseline_has_statuses_only(place, tmp_path):
    """Runs that differ only in times, ratios and order give the same text; reading it returns the statuses."""
    first = baseline.as_csv({("a-onnx11", "contract"): "passed", ("a-onnx11", "parity"): "xfailed"})
    second = baseline.as_csv({("a-onnx11", "parity"): "xfailed", ("a-onnx11", "contract"): "passed"})
    assert first == second == "cell,status,checks\na-onnx11,passed,contract\na-onnx11,xfailed,parity\n"
    (tmp_path / "b.csv").write_text(first)
    assert baseline.as_csv(baseline.read(tmp_path / "b.csv")) == first


def test_what_was_run_again_counts_as_it_went_last(place):
    """A second file of the same environment replaces only the checks that it has."""
    bad = specimens.change_records(specimens.run(), CELL, status="failed")
    place("whole.jsonl", bad)
    place("again.jsonl", [specimens.line(opset=11)])
    place("good.jsonl", specimens.run())
    assert command.main(["--accept", "good.jsonl"]) == 0
    assert command.main(["--check", "whole.jsonl"]) == 1
    assert command.main(["--check", "whole.jsonl", "again.jsonl"]) == 0
    assert command.main(["--check", "again.jsonl", "whole.jsonl"]) == 1


def test_opsets_that_changed_alike_share_a_line():
    """Another status or another attention gets its own line."""
    cells = [f"bert-default-onnx{opset}" for opset in (11, 12, 13, 17)]
    changes = [Change(cell, "contract", "passed", "failed") for cell in [*cells, "bert-default-onnx14-sdpa"]]
    changes += [Change("bert-default-onnx18", "contract", "xfailed", "failed")]
    changes += [Change("bert-default-torchscript", "contract", "passed", "failed")]
    assert change_lines(changes) == [
        "bert-default-onnx11–13, 17 contract: passed → failed",
        "bert-default-onnx14-sdpa contract: passed → failed",
        "bert-default-onnx18 contract: xfailed → failed",
        "bert-default-torchscript contract: passed → failed",
    ]


@pytest.fixture
def diff(place, capsys):
    """A function that compares two runs; returns exit status and output."""

    def compare_runs(before, after, *options, **packages):
        place("old.jsonl", before)
        place("new.jsonl", after, specimens.environment(**packages))
        capsys.readouterr()
        return command.main(["--diff", "old.jsonl", "new.jsonl", *options]), capsys.readouterr().out

    return compare_runs


def test_equal_runs_have_no_difference(diff):
    """Exit status 0, with a message."""
    status, text = diff(specimens.run(), specimens.run())
    assert status == 0
    assert "no error ratio has moved" in text
    assert "The same packages." in text


@pytest.mark.parametrize(
    "seed", [name for name in SEEDED if "new" not in name and "again" not in name and "gone" not in name]
)
def test_a_seeded_regression_is_in_the_difference(diff, seed):
    """A worse or missing result gives exit status 1."""
    change, heading, line = SEEDED[seed]
    status, text = diff(specimens.run(), change(specimens.run()))
    assert status == 1
    assert heading in text
    assert line in text


def test_a_ratio_that_grew_is_told(diff):
    """From 0.8 to 3 every check still passes; a move below 1 or a smaller ratio is no regression."""
    grown = specimens.change_records(specimens.run(), CELL, outputs={"logits": {"ratio": 3.0, "worst": 3e-6}})
    status, text = diff(specimens.run(), grown)
    assert status == 1
    assert f"{CELL} traced_sizes, logits: 0.8 → 3" in text
    assert diff(grown, specimens.run())[0] == 0
    small = specimens.change_records(specimens.run(), CELL, outputs={"logits": {"ratio": 0.95, "worst": 3e-6}})
    halved = specimens.change_records(specimens.run(), CELL, outputs={"logits": {"ratio": 0.4, "worst": 3e-6}})
    status, text = diff(halved, small)
    assert status == 0
    assert "no error ratio has moved" in text


def test_an_upgrade_is_told_worst_first(diff):
    """Packages, then regressed, disappeared, new and fixed, then ratios, with the errors."""
    after = specimens.change_records(specimens.run(), CELL, status="failed", error="no such operator")
    after = specimens.drop_cell(after, "vit-default-onnx11")
    after = specimens.change_records(after, "bert-default-onnx12", status="passed", error=None)
    after = specimens.change_records(after, "vit-default-onnx13", outputs={"logits": {"ratio": 2.5, "worst": 1.0}})
    after = [*after, specimens.line("gpt2")]
    parts = [
        "transformers  5.23.0 → 6.0.0",
        "regressed: 1 cell",
        f"{CELL}: passed → failed",
        "regressed: 1 check",
        f"{CELL} traced_sizes: passed → failed: no such operator",
        "disappeared: 2 checks",
        "new: 1 check",
        "fixed: 1 check",
        "vit-default-onnx13 traced_sizes, logits: 0.8 → 2.5",
    ]
    for options in ((), ("--format", "markdown")):
        status, text = diff(specimens.run(), after, *options, transformers="6.0.0")
        assert status == 1
        places = [text.index(part) for part in parts if options == () or "→ 6" not in part]
        assert places == sorted(places)
    status, text = diff(specimens.run(), after, "--format", "json", transformers="6.0.0")
    result = json.loads(text)
    assert result["packages"] == {"transformers": ["5.23.0", "6.0.0"]}
    assert {kind: len(changes) for kind, changes in result["changes"].items()} == {
        "regressed": 1,
        "disappeared": 2,
        "new": 1,
        "fixed": 1,
    }
    assert result["cells"]["regressed"] == [{"cell": CELL, "before": "passed", "after": "failed"}]
    assert result["cells"]["disappeared"] == [{"cell": "vit-default-onnx11", "before": "passed", "after": None}]
    assert result["changes"]["regressed"][0]["error"] == "no such operator"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--check", "missing.jsonl"], "missing.jsonl: no such file"),
        (["--check", "."], "directory"),
        (["--check", "text.jsonl"], "text.jsonl: .*damaged"),
        (["--check", "list.jsonl"], "JSON object"),
        (["--check", "cut.jsonl"], "cut.jsonl: .*damaged"),
        (["--check", "binary.jsonl"], "binary.jsonl"),
        (["--check", "good.jsonl", "other.jsonl"], "other.jsonl: is of .*1.26.0.*, should be of .*1.32.0"),
        (["--diff", "good.jsonl", "missing.jsonl"], "missing.jsonl"),
        (["--diff", "good.jsonl", "good.jsonl", "--", "good.jsonl"], "got a third file"),
        (["--merge"], "got no records"),
        (["--merge", "good.jsonl", "good.jsonl"], "given twice"),
        (["--merge", "good.jsonl"], "is no shard"),
        (["--check", "good.jsonl", "--baseline", "bad"], "should begin with cell,status,checks"),
        ([], "records.jsonl: no such file"),
    ],
)
def test_bad_input_is_one_message(place, tmp_path, capsys, arguments, message):
    """Exit status 2 and advice; no traceback."""
    place("good.jsonl", specimens.run())
    place("other.jsonl", specimens.run(), specimens.environment(onnxruntime="1.26.0"))
    (tmp_path / "text.jsonl").write_text("hello\n")
    (tmp_path / "list.jsonl").write_text("[1, 2]\n")
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "cut.jsonl").write_text((tmp_path / "good.jsonl").read_text()[:-30])
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / f"{specimens.NAME}.csv").write_text("statuses\n")
    assert command.main(arguments) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert re.search(message, error)


def test_wrong_options_are_usage(capsys):
    """The parser refuses two actions at once."""
    with pytest.raises(SystemExit) as refused:
        command.main(["--check", "--accept"])
    assert refused.value.code == 2


@pytest.fixture
def pair(place, tmp_path, capsys):
    """A function that compares two runs, each as records or as its baseline; returns exit status and output."""

    def compare(before, after, kinds, *options):
        for name, lines, version in (("old", before, "5.23.0"), ("new", after, "5.24.0")):
            environment = specimens.environment(transformers=version)
            place(f"{name}.jsonl", lines, environment)
            path = tmp_path / baseline.path_of(tmp_path, environment).name
            path.write_text(baseline.as_csv(statuses(lines)))
            path.rename(tmp_path / f"{name}.csv") if kinds == "renamed" else None
        names = {"records": "{}.jsonl", "renamed": "{}.csv"}
        files = [names.get(kinds, "").format(name) for name in ("old", "new")]
        if kinds in ("baselines", "baseline and records", "records and baseline"):
            csv = [f"transformers-{version}-torch-2.13.0-onnxruntime-1.32.0.csv" for version in ("5.23.0", "5.24.0")]
            first, _, last = kinds.replace("baselines", "baseline and baseline").partition(" and ")
            files = [csv[0] if first == "baseline" else "old.jsonl", csv[1] if last == "baseline" else "new.jsonl"]
        capsys.readouterr()
        return command.main(["--diff", *files, *options]), capsys.readouterr().out

    return compare


KINDS_OF_FILES = ("records", "baselines", "baseline and records", "records and baseline", "renamed")


@pytest.mark.parametrize("kinds", KINDS_OF_FILES)
def test_a_difference_takes_baselines_and_records_alike(pair, kinds):
    """Equal runs have none, any of them shows a failure; a baseline has no messages and no Python version."""
    status, text = pair(specimens.run(), specimens.run(), kinds)
    assert status == 0
    lines = text.splitlines()
    names = ("old", "new") if kinds == "renamed" else ("transformers-5.23.0-", "transformers-5.24.0-")
    assert all(name in lines[0] for name in names)
    assert lines[2] == "Nothing is worse."
    assert ("error ratios were not compared, as a baseline has none" in text) == (kinds != "records")
    assert ("no error ratio has moved" in text) == (kinds == "records")
    assert lines[3].startswith("Reproduce it with: python -m parity.reports --diff ")
    assert ("transformers  5.23.0 → 5.24.0" in text) == (kinds != "renamed")
    assert "python" not in text.replace("python -m", "")
    worse = specimens.change_records(specimens.run(), CELL, status="failed", error="no such operator")
    status, text = pair(specimens.run(), worse, kinds)
    assert status == 1
    assert f"{CELL} traced_sizes: passed → failed" in text
    known = kinds in ("records", "baseline and records")
    assert ("no such operator" in text) == known
    cause = "; the largest cause is a failure" if known else ""
    assert text.splitlines()[2] == f"Worse: 1 check of 1 cell{cause}."
    fixed, text = pair(worse, specimens.run(), kinds)
    assert (fixed, "fixed: 1 check" in text) == (0, True)


def test_what_is_new_and_red_is_worse(diff):
    """A new check that passes is not, nor is a skip that disappeared."""
    assert diff(specimens.run(), [*specimens.run(), specimens.line("gpt2")])[0] == 0
    assert diff(specimens.run(), [*specimens.run(), specimens.line("gpt2", status="error")])[0] == 1
    skipped = specimens.change_records(specimens.run(), CELL, status="skipped")
    left = [line for line in specimens.run() if (line["id"], line["check"]) != (CELL, "traced_sizes")]
    assert diff(skipped, left)[0] == 0
    assert diff(specimens.run(), left)[0] == 1
