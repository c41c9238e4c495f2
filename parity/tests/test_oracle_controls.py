"""Determinism, the unchanged reference, decisions and the order of the verdict: each can fail."""

import copy
import dataclasses

import numpy as np
import pytest

from parity.fixtures import subjects
from parity.fixtures.controls.faults import HEALTHY
from parity.judge import relations
from parity.judge.findings import Finding, failures
from parity.sessions import OnnxSession

# --- determinism


def test_a_noisy_session_is_caught(bert):
    """Two runs that differ in the last bit of a value differ; NaN equals NaN."""
    (inputs,) = subjects.pool("bert", "default", "traced").inputs[:1]
    answer = HEALTHY.session().run(inputs)
    array = answer["last_hidden_state"].copy()
    array[0, 0, 0] = np.nextafter(array[0, 0, 0], np.float32(9))
    (row,) = relations.judge_determinism(answer, {"last_hidden_state": array}, "somewhere")
    assert (row.check, row.passed) == ("determinism", False)
    assert "two runs on one input differ at 1 of" in row.message
    empty = {"y": np.array([np.nan, np.inf])}
    assert failures(relations.judge_determinism(empty, {"y": empty["y"].copy()})) == []
    assert len(failures(relations.judge_determinism(empty, {}))) == 1


# --- the reference unchanged by the export


def weight(model):
    model.encoder.layer[1].output.dense.bias.data[3] += 1e-6


def mode(model):
    model.encoder.layer[0].train()


def configuration(model):
    model.config.layer_norm_eps = 1e-3


def behaviour(model):
    model.embeddings.register_forward_hook(lambda module, inputs, output: output * 1.000001)


@pytest.mark.parametrize(
    ("change", "kind"), [(weight, "state"), (mode, "mode"), (configuration, "configuration"), (behaviour, "answer")]
)
def test_an_exporter_that_changes_the_model_is_caught(bert, change, kind):
    """Each change that an exporter can leave behind is named; an untouched copy has none."""
    model = copy.deepcopy(bert.model)
    assert subjects.changes(dataclasses.replace(bert, model=model)) == []
    change(model)
    assert subjects.changes(dataclasses.replace(bert, model=model))[0].startswith(kind)


# --- decisions


@dataclasses.dataclass(frozen=True)
class Close(subjects.TinyModel):
    """A subject whose tokens 20 and 21 differ only by `gap` in their biases."""

    gap: float = 0.0

    def fresh_model(self):
        model = super().fresh_model()
        decoder = model.cls.predictions.decoder
        decoder.weight.data[21] = decoder.weight.data[20]
        decoder.bias.data[20] = decoder.bias.data[21] + self.gap
        decoder.bias.data[20:22] += 12
        return model

    def __repr__(self):
        return super().__repr__()


def test_a_file_with_another_argmax_alone_is_caught(tmp_path):
    """Two close candidates in another order are within the ratio: the decision fails, with a reason."""
    from parity.reference import answers

    original = subjects.subject("bert", "masked-lm")
    fields = {field.name: getattr(original, field.name) for field in dataclasses.fields(original) if field.init}
    right, wrong = Close(**fields, gap=6e-6), Close(**fields, gap=-6e-6)
    other = subjects.pool("bert", "masked-lm", "other")
    pool = dataclasses.replace(other, answers=answers(right.fresh_model(), original.onnx_config, other.samples))
    outcomes = []
    for subject in (right, wrong):
        HEALTHY.write(subject, tmp_path / "model.onnx")
        outcomes.append(subjects.verdict(original, OnnxSession(tmp_path / "model.onnx"), pool).failures)
    assert outcomes[0] == []
    (row,) = outcomes[1]
    assert row.check == "decision"
    assert "argmax" in row.message
    assert "got candidate 21, should be 20" in row.message


# --- the order of the verdict

CHECKS = ("opset", "determinism", "nonfinite", "ratio", "decision", "relation")


@pytest.mark.parametrize("count", range(len(CHECKS)))
def test_the_first_failure_is_the_reason(count):
    """With every fault from one check on, that check is named first: contract, determinism, …, relations."""
    from parity.validation import Criteria, claims_of, compare

    wrong = CHECKS[count:]
    subject, pool = subjects.subject("bert", "masked-lm"), subjects.pool("bert", "masked-lm", "other")
    pool = dataclasses.replace(pool, answers=(close(pool.answers[0]), *pool.answers[1:]))
    calls = []
    # The first sample runs twice; then rows are permuted if there are several, which this file ignores.
    several = [index for index, sample in enumerate(pool.samples) if sample.sizes["batch"] > 1]
    places = [0, *range(len(pool.samples)), *several]

    def run(inputs):
        place = places[len(calls)]
        calls.append(inputs)
        array = pool.answers[place].eager["logits"].copy()
        if "determinism" in wrong and len(calls) == 2:
            array[0, 0, 0] += 1e-6
        if "nonfinite" in wrong and place == 5:
            array[0, 0, 0] = np.nan
        if "ratio" in wrong and place == 6:
            array += 1e-3
        if "decision" in wrong and place == 0:
            array[0, 0, :2] = array[0, 0, 1::-1].copy()
        return {"logits": array}

    contract = [Finding("opset", "file", False, "opset: …")] if "opset" in wrong else []
    claims = claims_of(
        subject.source, [None, *pool.samples], lambda: subjects.float64(subject), relations=["batch-permutation"]
    )
    claims = dataclasses.replace(claims, place=None)
    findings = compare(run, subject.onnx_config, pool, Criteria(claims=claims), first=contract).failures
    assert findings[0].check == CHECKS[count]


def close(answers):
    """The answers with two leading candidates at the first place, 30 times the noise apart."""
    gap = 3e-5

    def front(outputs):
        array = outputs["logits"].copy()
        array[0, 0, :2] = array.max() + 1
        array[0, 0, 1] -= gap
        return {"logits": array}

    return dataclasses.replace(
        answers, eager=front(answers.eager), exact=front(answers.exact), jittered=front(answers.jittered)
    )
