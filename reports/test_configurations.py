"""The lane of drawn configurations: even over architectures, kept, gone on with, and red when one is not right."""

import json
import sys

import pytest

from parity.errors import UsageError, ValueMismatch
from parity.fixtures import configurations as drawn
from parity.registry import architectures
from parity.reports.lanes import configurations
from parity.reports.lanes.configurations import (
    CRASHED,
    EXHAUSTED,
    FAILED,
    PASSED,
    REFUSED,
    Draw,
    Ledger,
    Worker,
    draws,
    main,
)

ONE, TWO, THREE = (Draw("bert", "default", 17, number, 3, 7) for number in range(3))
# Answers as the worker does, without judging anything: `clip` is wrong, and at `deit` the process dies.
STAND_IN = """
import json, os, sys
for line in sys.stdin:
    draw = json.loads(line)
    if draw["architecture"] == "deit":
        os._exit(7)
    status, error = ("failed", "clip is wrong") if draw["architecture"] == "clip" else ("passed", "")
    print(json.dumps({"status": status, "error": error, "changes": {"n": draw["number"]}}), flush=True)
"""


@pytest.fixture
def stand_in(monkeypatch):
    """A worker that judges nothing."""
    monkeypatch.setattr(configurations.Worker.__init__, "__defaults__", ((sys.executable, "-c", STAND_IN),))


def line(draw, status=PASSED, code="now", error=""):
    return {**vars(draw), "status": status, "code": code, "error": error, "changes": {"n": 1}}


def test_a_run_that_is_broken_off_has_tried_all_alike():
    """Of any beginning of the list no architecture has two more in a round than another that has a feature left."""
    every = draws(2, 7)
    present = [each for each in architectures() if not each.gap]
    first = [draw.architecture for draw in every[: len(present)]]
    assert sorted(first) == sorted(each.name for each in present)
    half = len(every) // 2
    assert {(draw.architecture, draw.feature) for draw in every[:half]} == {
        (draw.architecture, draw.feature) for draw in every[half:]
    }
    assert len({draw.key for draw in every}) == len(every)
    assert {draw.architecture for draw in draws(1, 7, ["bert", "vit"])} == {"bert", "vit"}


def test_all_rounds_are_more_than_three_thousand():
    """With every feature that this environment has."""
    assert len(draws(configurations.ROUNDS, 7)) >= 3_000


def test_what_was_tried_is_kept(tmp_path):
    """With the seed of the first run; a line that is half written is none."""
    path = tmp_path / "out" / "kept.jsonl"
    ledger = Ledger(path, 7)
    ledger.add(line(ONE))
    ledger.add(line(TWO, FAILED, error="wrong"))
    with path.open("a") as stream:
        stream.write('{"architecture": "be')
    again = Ledger(path, 99)
    assert again.seed == 7
    assert again.lines == ledger.lines
    assert again.missing([ONE, TWO, THREE], "now") == [THREE]


def test_other_code_tries_again_what_failed(tmp_path):
    """First; what was right with it is tried again on request, at the end."""
    ledger = Ledger(tmp_path / "kept.jsonl", 7)
    ledger.add(line(ONE, REFUSED))
    ledger.add(line(TWO, CRASHED, error="died"))
    assert ledger.missing([ONE, TWO, THREE], "later") == [TWO, THREE]
    assert ledger.missing([ONE, TWO, THREE], "later", again=True) == [TWO, THREE, ONE]
    ledger.add(line(TWO, PASSED, "later"))
    assert ledger.missing([ONE, TWO, THREE], "later", again=True) == [THREE, ONE]


@pytest.mark.parametrize("text", ["notes\n", '{"id": 1}\n', '{"seed": 1}\n{"seed": 2}\n', '{"seed": null}\n'])
def test_another_file_is_left_alone(tmp_path, text):
    """It is no record of configurations."""
    path = tmp_path / "notes.md"
    path.write_text(text)
    with pytest.raises(UsageError, match="no record of configurations"):
        Ledger(path, 7)
    assert main(["--home", str(path)]) == 2
    assert path.read_text() == text


def test_a_process_that_dies_costs_one_configuration(stand_in):
    """It is on record as crashed; another process judges the next one."""
    worker = Worker()
    died, other = Draw("deit", "default", 17, 0, 1, 7), Draw("vit", "default", 17, 0, 1, 7)
    lines = [worker.judge(each) for each in (other, died, other)]
    worker.stop()
    assert [each["status"] for each in lines] == [PASSED, CRASHED, PASSED]
    assert lines[1]["error"] == "deit default, number 0: the process ended with status 7"


@pytest.mark.parametrize(("names", "status"), [(["bert", "vit"], 0), (["bert", "clip"], 1), (["vit", "deit"], 1)])
def test_a_run_tells_what_is_not_right(stand_in, tmp_path, capsys, names, status):
    """Exit status 1 if one failed or died; the same command again has nothing to do, and says the same."""
    home = tmp_path / "kept.jsonl"
    options = ["--home", str(home), "--rounds", "2", "--processes", "2", "--seed", "7", "--architecture", *names]
    assert main(options) == status
    first = capsys.readouterr().out
    count = len(draws(2, 7, names))
    assert f"{count} of {count} tried" in first
    assert ("clip is wrong" in first) is ("clip" in names)
    assert ("status 7" in first) is ("deit" in names)
    kept = home.read_text()
    assert main(options) == status
    assert capsys.readouterr().out.splitlines()[-1] == first.splitlines()[-1]
    assert home.read_text() == kept
    assert {json.loads(each).get("seed") for each in kept.splitlines()} == {7}


def test_a_run_that_has_no_time_begins_none(stand_in, tmp_path, capsys):
    """`--minutes`: what is missing is tried the next time."""
    options = ["--home", str(tmp_path / "kept.jsonl"), "--rounds", "1", "--architecture", "bert"]
    assert main([*options, "--minutes", "0"]) == 0
    assert " 0 of " in f" {capsys.readouterr().out.splitlines()[-1]}"
    assert main(options) == 0
    assert "0 to try" not in capsys.readouterr().out


def test_the_same_seed_draws_the_same():
    """Different ones, none of them the declared one; another seed draws others."""
    once = drawn.draw("bert", "default", 5, 7)
    assert len({str(changes) for changes in once}) == 5
    assert {} not in once
    assert drawn.draw("bert", "default", 5, 7) == once
    assert drawn.draw("bert", "default", 5, 8) != once


def test_what_fails_is_shrunk(monkeypatch):
    """The smallest of those that fail is told, once, with the command that judges it again."""

    def judge(architecture, feature, changes, opset):
        if changes.get("hidden_act"):
            raise ValueMismatch("wrong")
        return "verdict"

    monkeypatch.setattr(drawn, "judge", judge)
    every = drawn.draw("bert", "default", 8, 7)
    wrong = [changes for changes in every if changes.get("hidden_act")]
    assert len(wrong) > 1
    assert max(map(len, wrong)) > 1
    for changes in every:
        arguments = ("bert", "default", changes, 17)
        if changes in wrong:
            with pytest.raises(ValueMismatch) as caught:
                drawn.judge_and_shrink(*arguments, count=8, seed=7)
            told, command = str(caught.value).splitlines()
            assert told == "bert default with hidden_act='relu': ValueMismatch: wrong"
            assert command.startswith("reproduce it with: python -c ")
        else:
            assert drawn.judge_and_shrink(*arguments, count=8, seed=7) == "verdict"


def test_the_worker_judges():
    """The real one: a file that is right, a refusal that is declared, and what is wrong."""
    refused = next(n for n, changes in enumerate(drawn.draw("ibert", "default", 8, 7)) if changes.get("quant_mode"))
    cases = (("vit", "default", 0), ("ibert", "default", refused), ("vit", "telepathy", 0))
    worker = Worker()
    outcomes = [worker.judge(Draw(name, feature, 17, number, 8, 7)) for name, feature, number in cases]
    worker.stop()
    assert [outcome["status"] for outcome in outcomes] == [PASSED, REFUSED, FAILED]
    for (name, feature, number), outcome in zip(cases[:2], outcomes, strict=False):
        assert outcome["changes"] == json.loads(json.dumps(drawn.draw(name, feature, 8, 7)[number]))


def test_a_worker_whose_parent_is_gone_ends_without_a_word():
    """It has an answer that nobody reads; the parent has said what is to be said."""
    own = Worker()
    process = own._start()
    question, answers = process.stdin, process.stdout
    answers.close()
    question.write(json.dumps(vars(Draw("vit", "telepathy", 17, 0, 1, 7))) + "\n")
    question.close()
    assert process.wait() == 0


def test_a_configuration_is_counted_once():
    """A draw beyond the different configurations of a declaration is none, and not among those that were tried."""
    beyond = Draw("bert", "default", 17, 10**4, 3, 7)
    assert configurations.answer(json.dumps(vars(beyond)))["status"] == EXHAUSTED
    lines = {ONE.key: line(ONE), beyond.key: line(beyond, EXHAUSTED)}
    (text,) = configurations.summary([ONE, TWO, beyond], lines, "now")
    assert text.startswith("1 of 2 tried (1 passed), 1 of them with this code")
