"""Each relation fails on a file with a leak, on a one-line model without it, and if it is not declared."""

import contextlib
import dataclasses
import weakref
from types import SimpleNamespace

import numpy as np
import pytest

from parity.architectures.conformance import test_relations
from parity.errors import SessionError
from parity.fixtures import subjects
from parity.fixtures.controls.faults import HEALTHY, RELATION_SPECIMENS, SPECIMENS
from parity.judge import relations
from parity.judge.findings import failures
from parity.judge.pool import Answers, Pool
from parity.registry import architecture
from parity.reruns import RerunClaims, _LazyBackend, relation_answers
from parity.sessions import OnnxSession

BERT = SimpleNamespace(architecture="bert", feature="default", group="bert-default", dtype="float32")
WRONG_VALUE = next(specimen for specimen in SPECIMENS if specimen.name == "wrong-value")


def judge_backend(bert, relation, run, other=None):
    """Failures of one relation of a backend, or of `other` compared with it."""
    pool = test_relations.pool_of(BERT, relation)
    first = [run(inputs) for inputs in pool.inputs]
    if other is None:
        second = test_relations.ask(bert, pool, relation, run, first)
    else:
        second = [other(inputs) for inputs in pool.inputs]
    return failures(test_relations.judge(pool, relation, first, second))


@pytest.mark.parametrize("specimen", RELATION_SPECIMENS, ids=str)
def test_each_relation_catches_its_leak(bert, specimen):
    """The relation fails on the file with its leak and names itself; it holds for a healthy file."""
    (row,) = judge_backend(bert, specimen.caught_by, specimen.session().run)
    assert row.check == "relation"
    assert row.message.startswith(f"last_hidden_state: {specimen.caught_by}: the two sides differ by")
    assert judge_backend(bert, specimen.caught_by, HEALTHY.session().run) == []


def test_a_leak_that_is_symmetric_needs_the_batch_of_one(bert):
    """Every permutation keeps a mean over the batch: only the batch of one detects it."""
    leak = next(s for s in RELATION_SPECIMENS if s.name == "batch-mean-leak")
    assert judge_backend(bert, "batch-permutation", leak.session().run) == []


def test_optimisations_that_change_the_answer_are_caught(bert):
    """Two sessions of different files, in place of one file's, differ."""
    assert judge_backend(bert, "optimisations", HEALTHY.session().run, HEALTHY.session().run) == []
    (row,) = judge_backend(bert, "optimisations", HEALTHY.session().run, WRONG_VALUE.session().run)
    assert "optimisations" in row.message


def test_unoptimised_session_is_another(bert, tmp_path):
    """Without optimisations ONNX Runtime runs the graph unchanged: equally right, but with other bits."""
    HEALTHY.write(bert, tmp_path / "model.onnx")
    (inputs,) = subjects.pool("bert", "default", "other").inputs[3:4]
    runs = [OnnxSession(tmp_path / "model.onnx", optimise=on).run(inputs) for on in (True, False)]
    assert failures(relations.judge_determinism(*runs))


def test_a_relation_of_another_shape_fails():
    """Different shapes differ, even if they broadcast."""
    two_rows, one_row = ([{"y": np.ones((rows, 3), np.float32)}] * 8 for rows in (2, 1))
    pool = dataclasses.replace(Pool.from_answers(two_rows, two_rows, two_rows, two_rows), unit={"y": 1e-7})
    (finding,) = relations.judge_relation("any", pool, one_row)
    assert "shape (1, 3), should be (2, 3)" in finding.message
    with pytest.raises(ValueError, match="7 inputs, should be at least 8"):
        relations.judge_relation("any", pool[1:], two_rows[1:])


def test_only_an_input_that_a_relation_leaves_alone_is_not_compared():
    """The file's own answer is at no distance from itself; an equal one is compared, and one that differs fails."""
    answers = [{"y": np.ones((2, 3))}] * 8
    pool = dataclasses.replace(Pool.from_answers(answers, answers, answers, answers), unit={"y": 1e-7})
    assert relations.judge_relation("any", pool, pool.actual)[0].measurements == {"ratio": 0}
    assert relations.judge_relation("any", pool, [{"y": np.ones((2, 3))}] * 8)[0].measurements == {"ratio": 0}
    (finding,) = relations.judge_relation("any", pool, [*pool.actual[1:], {"y": np.full((2, 3), 1 + 1e-5)}])
    assert not finding.passed


def test_answers_are_compared_one_at_a_time():
    """The next answer is computed when earlier ones are free: those of a pool may not fit in memory together."""
    answers = [{"y": np.ones((2, 3))}] * 8
    pool = dataclasses.replace(Pool.from_answers(answers, answers, answers, answers), unit={"y": 1e-7})
    alive = []

    def compute(inputs):
        # `zip` refers to those of two turns.
        assert sum(each() is not None for each in alive) <= 2
        answer = np.ones((2, 3 + relations.PADDING))
        alive.append(weakref.ref(answer))
        return {"y": answer}

    second = relation_answers(SIGNATURE, "padding-right", compute, [BATCH] * 8, answers)
    assert alive == []
    assert relations.judge_relation("any", pool, second)[0].passed
    assert len(alive) == 8


TOKENS = {0: "batch", 1: "sequence"}
SIGNATURE = relations.PaddedSignature({"input_ids": TOKENS, "attention_mask": TOKENS}, {"y": TOKENS}, pad=7)
BATCH = {
    "input_ids": np.array([[3, 1, 4, 1], [5, 9, 2, 6], [5, 3, 5, 8]]),
    "attention_mask": np.ones((3, 4), np.int64),
}


def toy(relative, masked):
    """A one-line model: tokens plus their mean, with a weight for the position."""

    def run(inputs):
        ids, mask = inputs["input_ids"].astype(float), inputs["attention_mask"] if masked else 1
        mean = (ids * mask).sum(1, keepdims=True) / np.broadcast_to(mask, ids.shape).sum(1, keepdims=True)
        return {"y": ids + mean + (0 if relative else np.arange(ids.shape[1]))}

    return run


@pytest.mark.parametrize(
    ("run", "broken"),
    [
        (toy(relative=True, masked=True), set()),
        (toy(relative=False, masked=True), {"padding-left"}),
        (toy(relative=True, masked=False), {"padding-left", "padding-right"}),
        (lambda inputs: {"y": inputs["input_ids"] - inputs["input_ids"][0]}, {"batch-permutation", "batch-of-one"}),
        (lambda inputs: {"y": inputs["input_ids"] - inputs["input_ids"].mean(0)}, {"batch-of-one"}),
    ],
    ids=["healthy", "absolute positions", "mask ignored", "first row leaks", "mean of the batch leaks"],
)
def test_each_relation_on_a_model_of_one_line(run, broken):
    """Exactly the model without a relation breaks it."""
    first = run(BATCH)
    second = {name: ask(run, BATCH, SIGNATURE, first)["y"] for name, ask in relations.RELATIONS.items()}
    found = {name for name, array in second.items() if not np.allclose(array, first["y"])}
    assert found == broken


def test_what_padding_lengthens():
    """Left padding comes before the past; without a mask over the tokens there is no padding."""
    mask, cache = {0: "batch", 1: "past_sequence + sequence"}, {0: "batch", 2: "past_sequence"}
    decoder = relations.PaddedSignature(
        {"input_ids": TOKENS, "past_key_values.0.key": cache, "attention_mask": mask}, {}
    )
    assert (decoder.padding_axes("left"), decoder.padding_axes("right")) == ({"past_sequence"}, {"sequence"})
    assert not relations.applies("padding-left", relations.PaddedSignature({"pixel_values": {0: "batch"}}, {}))
    assert not relations.applies("padding-left", relations.PaddedSignature({"input_ids": TOKENS}, {}))


@pytest.mark.parametrize(
    ("recorded", "message"),
    [
        ("batch-permutation batch-of-one padding-right padding-left", r"lost \['padding-left'\], new \[\]"),
        ("batch-permutation padding-right", r"lost \[\], new \['batch-of-one'\]"),
    ],
)
def test_the_record_binds_in_both_directions(bert, monkeypatch, recorded, message):
    """A declared relation that the model lacks fails by name, and so does one that it has undeclared."""
    declared = dataclasses.replace(architecture("bert"), relations={"default": recorded})
    monkeypatch.setattr(test_relations, "architecture", lambda name: declared)
    with pytest.raises(AssertionError, match=message):
        test_relations.test_float64_has_the_recorded_relations(BERT, bert)


# The commands judge the file alone, and if that fails, also the float64 model.


def judge_claim(bert, specimen, relation, exactly):
    """Failures of one claim about a file, whatever its error ratio."""
    from parity.validation import claims_of

    pool = subjects.pool("bert", "default", "other")
    claims = claims_of(bert.source, pool.samples, exactly, relations=[relation], longest=bert.longest)
    claims = dataclasses.replace(claims, place=None)
    run = specimen.session().run
    return failures(claims.judge(run, pool.with_actual([run(inputs) for inputs in pool.inputs])))


def never():
    raise AssertionError("the model was asked for, though the file had given no reason")


@pytest.mark.parametrize("specimen", RELATION_SPECIMENS, ids=str)
def test_a_claimed_relation_that_the_file_has_lost_is_told(bert, specimen):
    """The commands' verdict names the relation; for a healthy file the model is not run."""
    (row,) = judge_claim(bert, specimen, specimen.caught_by, lambda: subjects.float64(bert))
    assert (row.check, row.passed) == ("relation", False)
    assert specimen.caught_by in row.message
    assert judge_claim(bert, HEALTHY, specimen.caught_by, never) == []


def test_a_relation_that_the_model_has_not_is_no_fault_of_the_file(bert):
    """Left padding shifts absolute positions: claimed of this model, it fails on the file, but also on the model."""
    assert "padding-left" not in architecture("bert").relations_of("default")
    calls = []

    def exactly():
        calls.append(bert)
        return subjects.float64(bert)

    assert judge_claim(bert, HEALTHY, "padding-left", exactly) == []
    assert calls == [bert]


@pytest.mark.parametrize(("raises", "failed"), [(True, []), (False, ["run"])])
def test_a_question_that_the_file_refuses(raises, failed):
    """Inputs that the file refuses are a failure, unless the model refuses them too."""

    class Model:
        def __enter__(self):
            return refuse if raises else answer

        def __exit__(self, *_):
            pass

    def refuse(inputs):
        raise RuntimeError("no batch of one")

    def answer(inputs):
        return {"y": inputs["input_ids"].astype(float)}

    def file(inputs):
        if len(inputs["input_ids"]) == 1:
            raise SessionError("no batch of one")
        return answer(inputs)

    claims = RerunClaims(SIGNATURE, Model, relations=["batch-of-one"])
    findings = claims.judge(file, asked_of([SimpleNamespace(padding="", tokens=4, extreme=False)] * 8, answer(BATCH)))
    assert [finding.check for finding in failures(findings)] == failed


def asked_of(samples, answer):
    """A pool of one input with the same answer of file and model."""
    answers = [Answers(answer, answer, answer)] * len(samples)
    return Pool(samples, answers, [BATCH] * len(samples), [answer] * len(samples), unit={"y": 1e-7})


@pytest.mark.parametrize(
    ("limits", "room"),
    [
        ({}, 3),
        ({"longest": 7}, 3),
        ({"longest": 6}, 0),
        ({"allowed": {"sequence": range(4, 8)}}, 3),
        ({"allowed": {"sequence": range(4, 7)}}, 0),
    ],
)
def test_only_inputs_with_room_are_padded(limits, room):
    """Inputs without padding are extended up to the model's maximum; the others keep their answer."""
    lengths = []

    def run(inputs):
        lengths.append(inputs["input_ids"].shape[1])
        return {"y": np.zeros(inputs["input_ids"].shape)}

    claims = RerunClaims(SIGNATURE, never, relations=["padding-right"], **limits)
    samples = [SimpleNamespace(padding=padding, tokens=4, extreme=False) for padding in ("", "", "", *["left"] * 5)]
    assert failures(claims.judge(run, asked_of(samples, {"y": np.zeros((3, 4))}))) == []
    assert lengths == [4 + relations.PADDING] * room


@pytest.mark.parametrize("relation", ["padding-right", "batch-permutation"])
def test_samples_of_extreme_values_are_not_run_again(relation):
    """They are the largest, and their own answers are judged; a relation is tried with all others."""
    asked = []

    def run(inputs):
        asked.append(inputs)
        return {"y": np.zeros(inputs["input_ids"].shape)}

    claims = RerunClaims(SIGNATURE, never, relations=[relation])
    samples = [SimpleNamespace(padding="", tokens=4, extreme=extreme) for extreme in (*[False] * 6, True, True)]
    assert failures(claims.judge(run, asked_of(samples, {"y": np.zeros((3, 4))}))) == []
    assert len(asked) == 6


def test_the_float64_model_is_loaded_once_and_only_when_it_is_run():
    """It is large: if the file keeps all claims it is not loaded, and it is closed by what opened it."""
    events = []

    @contextlib.contextmanager
    def model():
        events.append("loaded")
        yield lambda inputs: {"y": inputs["x"] + 1}
        events.append("closed")

    with contextlib.ExitStack() as stack:
        run = _LazyBackend(model, stack)
        assert events == []
        assert [run({"x": value}) for value in (1, 2)] == [{"y": 2}, {"y": 3}]
        assert events == ["loaded"]
    assert events == ["loaded", "closed"]
