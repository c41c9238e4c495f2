"""The gate passes what was accepted and nothing else; what an upgrade did is told worst first."""

import json
import re

import pytest

from parity import records
from parity.fixtures.controls import specimens
from parity.reports import __main__ as command
from parity.reports.gate import baseline
from parity.reports.gate.changes import Change, change_lines

CELL = "bert-default-onnx11"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty directory to work in, and a function that writes records there."""
    monkeypatch.chdir(tmp_path)

    def write(name, lines, environment=None):
        records.write(tmp_path / name, environment or specimens.environment(), lines)
        return name

    return write


@pytest.fixture
def gate(place, capsys):
    """Accept one run, then check another: exit status and what is said."""

    def check(before, after, *options):
        place("records.jsonl", before)
        assert command.main(["--accept", "records.jsonl"]) == 0
        place("records.jsonl", after)
        capsys.readouterr()
        return command.main(["--check", "records.jsonl", *options]), capsys.readouterr().out

    return check


def test_an_equal_run_passes(gate):
    """The same statuses, in another order and with other times and ratios, are all as accepted."""
    again = [{**line, "seconds": 9.0, "outputs": {}} for line in reversed(specimens.run())]
    status, text = gate(specimens.run(), again)
    assert status == 0
    assert text == f"{specimens.NAME}: 6 cells: 11 passed, 1 xfailed: all is as accepted\n"


SEEDED = {
    "a cell removed": (
        lambda run: specimens.drop_cell(run, CELL),
        "disappeared: 2 checks",
        f"{CELL} contract, traced_sizes: passed → not there",
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
        "gpt2-default-onnx17 traced_sizes: not there → passed",
    ),
    "a check that is gone": (
        lambda run: [line for line in run if line["check"] != "contract"],
        "disappeared: 6 checks",
        "bert-default-onnx11–13 contract: passed → not there",
    ),
    "a cell that is skipped": (
        lambda run: specimens.change_records(run, CELL, status="skipped", error="Skipped: no device"),
        "disappeared: 1 check",
        f"{CELL} traced_sizes: passed → skipped",
    ),
}


# What only --prune accepts: it takes something away.
TAKEN_AWAY = ("a cell removed", "a check that is gone")


@pytest.mark.parametrize("seed", SEEDED)
def test_a_seeded_change_fails_until_it_is_accepted(gate, capsys, seed):
    """Each kind of change fails with its list and the one command; that command makes the gate pass."""
    change, heading, line = SEEDED[seed]
    status, text = gate(specimens.run(), change(specimens.run()))
    assert status == 1
    assert heading in text
    assert line in text
    accepting = "python -m parity.reports --accept records.jsonl" + " --prune" * (seed in TAKEN_AWAY)
    assert text.endswith(f"accept it with: {accepting}\n")
    assert command.main(accepting.split()[3:]) == 0
    assert command.main(["--check", "records.jsonl"]) == 0


def test_a_part_of_the_matrix_takes_nothing_away(place, tmp_path, capsys):
    """Accepting a run of one cell changes that cell; the rows of all others stay, and so does what the run skipped."""
    place("records.jsonl", specimens.run())
    assert command.main(["--accept", "records.jsonl"]) == 0
    place("part.jsonl", [specimens.line(opset=11, status="failed")])
    assert command.main(["--accept", "part.jsonl"]) == 0
    assert (
        capsys.readouterr()
        .out.splitlines()[-1]
        .endswith("12 checks of 6 cells; 1 regressed; 11 checks without a result in this run stay")
    )
    place("whole.jsonl", specimens.change_records(specimens.run(), CELL, status="failed"))
    assert command.main(["--check", "whole.jsonl"]) == 0


def test_prune_goes_with_accept(place, capsys):
    """Alone it would do nothing: exit status 2."""
    assert command.main(["--prune"]) == 2
    assert "goes with --accept" in capsys.readouterr().err


def test_every_change_is_in_json_and_markdown(gate):
    """Both say what the text says."""
    after = specimens.change_records(specimens.run(), CELL, status="failed")
    status, text = gate(specimens.run(), after, "--format", "json")
    result = json.loads(text)
    assert (status, result["ok"], result["changed"]) == (1, False, {"regressed": 1})
    status, text = gate(specimens.run(), after, "--format", "markdown")
    assert "### regressed: 1 check" in text
    assert f"- {CELL} traced_sizes: passed → failed" in text


def test_an_environment_without_baseline_fails(place, capsys):
    """All is new until it is accepted; another environment's baseline does not count."""
    place("records.jsonl", specimens.run())
    assert command.main(["--accept", "records.jsonl"]) == 0
    place("other.jsonl", specimens.run(), specimens.environment(onnxruntime="1.26.0"))
    assert command.main(["--check", "other.jsonl"]) == 1
    assert "no baseline yet" in capsys.readouterr().out


def test_a_run_of_nothing_fails(gate):
    """Records without a single check are not accepted, not even beside an empty baseline."""
    status, text = gate([], [])
    assert status == 1
    assert "no result" in text


def test_the_baseline_has_statuses_only(place, tmp_path):
    """Its text is the same for runs that differ in times, ratios and order; reading it gives what was written."""
    first = baseline.as_csv({("a-onnx11", "contract"): "passed", ("a-onnx11", "parity"): "xfailed"})
    second = baseline.as_csv({("a-onnx11", "parity"): "xfailed", ("a-onnx11", "contract"): "passed"})
    assert first == second == "cell,status,checks\na-onnx11,passed,contract\na-onnx11,xfailed,parity\n"
    (tmp_path / "b.csv").write_text(first)
    assert baseline.as_csv(baseline.read(tmp_path / "b.csv")) == first


def test_what_was_run_again_counts_as_it_went_last(place):
    """A second file of the same environment takes the place of those checks alone."""
    bad = specimens.change_records(specimens.run(), CELL, status="failed")
    place("whole.jsonl", bad)
    place("again.jsonl", [specimens.line(opset=11)])
    place("good.jsonl", specimens.run())
    assert command.main(["--accept", "good.jsonl"]) == 0
    assert command.main(["--check", "whole.jsonl"]) == 1
    assert command.main(["--check", "whole.jsonl", "again.jsonl"]) == 0
    assert command.main(["--check", "again.jsonl", "whole.jsonl"]) == 1


def test_opsets_that_changed_alike_share_a_line():
    """Neither another status nor another attention is folded in."""
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
    """Exit status and what is said of two runs."""

    def compare_runs(before, after, *options, **packages):
        place("old.jsonl", before)
        place("new.jsonl", after, specimens.environment(**packages))
        capsys.readouterr()
        return command.main(["--diff", "old.jsonl", "new.jsonl", *options]), capsys.readouterr().out

    return compare_runs


def test_equal_runs_have_no_difference(diff):
    """Exit status 0, and said so."""
    status, text = diff(specimens.run(), specimens.run())
    assert status == 0
    assert "no error ratio has moved" in text
    assert "The same packages." in text


@pytest.mark.parametrize(
    "seed", [name for name in SEEDED if "new" not in name and "again" not in name and "gone" not in name]
)
def test_a_seeded_regression_is_in_the_difference(diff, seed):
    """What is worse, or gone, is exit status 1."""
    change, heading, line = SEEDED[seed]
    status, text = diff(specimens.run(), change(specimens.run()))
    assert status == 1
    assert heading in text
    assert line in text


def test_a_ratio_that_grew_is_told(diff):
    """From 0.8 to 3 every check still passes; a move below 1 and one that shrank are no regression."""
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
        (["--check", "missing.jsonl"], "missing.jsonl: No such file"),
        (["--check", "."], "directory"),
        (["--check", "text.jsonl"], "text.jsonl: .*damaged"),
        (["--check", "list.jsonl"], "JSON object"),
        (["--check", "cut.jsonl"], "cut.jsonl: .*damaged"),
        (["--check", "binary.jsonl"], "binary.jsonl"),
        (["--check", "good.jsonl", "other.jsonl"], "other.jsonl: of .*1.26.0.*, should be of .*1.32.0"),
        (["--diff", "good.jsonl", "missing.jsonl"], "missing.jsonl"),
        (["--diff", "good.jsonl", "good.jsonl", "--", "good.jsonl"], "takes two files"),
        (["--merge"], "got no records"),
        (["--merge", "good.jsonl", "good.jsonl"], "given twice"),
        (["--merge", "good.jsonl"], "is no shard"),
        (["--check", "good.jsonl", "--baseline", "bad"], "should begin with cell,status,checks"),
        ([], "records.jsonl: No such file"),
    ],
)
def test_bad_input_is_one_message(place, tmp_path, capsys, arguments, message):
    """Exit status 2 and what to do; no traceback."""
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
    """Two actions at once are refused by the parser."""
    with pytest.raises(SystemExit) as refused:
        command.main(["--check", "--accept"])
    assert refused.value.code == 2
