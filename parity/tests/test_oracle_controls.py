"""Decisions, determinism, relations, the unchanged reference and the vacuity guard: each is shown to fail."""

import copy
import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from parity.architectures import test_relations, test_vacuity
from parity.architectures.registry import architecture
from parity.fixtures import subjects
from parity.fixtures.specimens import DEAD_SPECIMENS, HEALTHY, RELATION_SPECIMENS, SPECIMENS
from parity.judge import relations, vacuity
from parity.judge.rows import Row, failures
from parity.sessions import OnnxSession

BERT = SimpleNamespace(architecture="bert", feature="default", group="bert-default")
WRONG_VALUE = next(specimen for specimen in SPECIMENS if specimen.name == "wrong-value")


@pytest.fixture(scope="module")
def bert():
    return subjects.subject("bert", "default")


@pytest.fixture(scope="module")
def file(bert, tmp_path_factory):
    """A session of a specimen, each made once."""
    sessions = {}

    def session(specimen):
        if specimen.name not in sessions:
            path = tmp_path_factory.mktemp(specimen.name) / "model.onnx"
            specimen.write(bert, path)
            sessions[specimen.name] = OnnxSession(path)
        return sessions[specimen.name]

    return session


def related(bert, relation, run, other=None):
    """Failures of one relation of a backend; of `other` against it where that is given."""
    pool = test_relations.pool_of(BERT, relation)
    first = [run(inputs) for inputs in subjects.arrays(bert, pool)]
    if other is None:
        second = test_relations.asked(bert, pool, relation, run, first)
    else:
        second = [other(inputs) for inputs in subjects.arrays(bert, pool)]
    return failures(test_relations.judged(pool, relation, first, second))


# --- relations


@pytest.mark.parametrize("specimen", RELATION_SPECIMENS, ids=str)
def test_each_relation_catches_its_leak(bert, file, specimen):
    """The relation made for this leak fails on its file and names itself; on a healthy file it holds."""
    (row,) = related(bert, specimen.caught_by, file(specimen).run)
    assert row.check == "relation"
    assert row.message.startswith(f"last_hidden_state: {specimen.caught_by}: the two sides differ by")
    assert related(bert, specimen.caught_by, file(HEALTHY).run) == []


def test_a_leak_that_is_symmetric_needs_the_batch_of_one(bert, file):
    """The mean over the batch stands every permutation: it takes the batch of one to see it."""
    leak = next(s for s in RELATION_SPECIMENS if s.name == "batch-mean-leak")
    assert related(bert, "batch-permutation", file(leak).run) == []


def test_optimisations_that_change_the_answer_are_caught(bert, file):
    """Two sessions that should be one file's, and are those of different files, differ."""
    assert related(bert, "optimisations", file(HEALTHY).run, file(HEALTHY).run) == []
    (row,) = related(bert, "optimisations", file(HEALTHY).run, file(WRONG_VALUE).run)
    assert "optimisations" in row.message


def test_unoptimised_session_is_another(bert, tmp_path):
    """Without optimisations ONNX Runtime runs the graph as it is: as right, but not the same bits."""
    HEALTHY.write(bert, tmp_path / "model.onnx")
    (inputs,) = subjects.arrays(bert, subjects.pool("bert", "default", "other"))[3:4]
    runs = [OnnxSession(tmp_path / "model.onnx", optimise=on).run(inputs) for on in (True, False)]
    assert failures(relations.repeated(*runs))


def test_a_relation_of_another_shape_fails():
    """Sides of different shapes differ, whatever broadcasts."""
    pool = [{"y": np.ones((2, 3), np.float32)}] * 8
    other = [{"y": np.ones((1, 3), np.float32)}] * 8
    (row,) = relations.rows("any", pool, other, exact=pool, noise={"y": 1e-7})
    assert "shape (1, 3), should be (2, 3)" in row.message
    with pytest.raises(ValueError, match="7 inputs, should be at least 8"):
        relations.rows("any", pool[1:], pool[1:], exact=pool[1:], noise={})


TOKENS = {0: "batch", 1: "sequence"}
FORM = relations.Form({"input_ids": TOKENS, "attention_mask": TOKENS}, {"y": TOKENS}, pad=7)
BATCH = {
    "input_ids": np.array([[3, 1, 4, 1], [5, 9, 2, 6], [5, 3, 5, 8]]),
    "attention_mask": np.ones((3, 4), np.int64),
}


def toy(relative, masked):
    """A model of one line: tokens, and their mean, with a weight for the position."""

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
    """Every relation is broken by the model without it, and by no other."""
    first = run(BATCH)
    second = {name: ask(run, BATCH, FORM, first)["y"] for name, ask in relations.RELATIONS.items()}
    found = {name for name, array in second.items() if not np.allclose(array, first["y"])}
    assert found == broken


def test_what_padding_lengthens():
    """Left padding stands before the past; without a mask over the tokens there is no padding."""
    mask, cache = {0: "batch", 1: "past_sequence + sequence"}, {0: "batch", 2: "past_sequence"}
    decoder = relations.Form({"input_ids": TOKENS, "past_key_values.0.key": cache, "attention_mask": mask}, {})
    assert (decoder.padded("left"), decoder.padded("right")) == ({"past_sequence"}, {"sequence"})
    assert not relations.applies("padding-left", relations.Form({"pixel_values": {0: "batch"}}, {}))
    assert not relations.applies("padding-left", relations.Form({"input_ids": TOKENS}, {}))


@pytest.mark.parametrize(
    ("recorded", "told"),
    [
        ("batch-permutation batch-of-one padding-right padding-left", r"lost \['padding-left'\], new \[\]"),
        ("batch-permutation padding-right", r"lost \[\], new \['batch-of-one'\]"),
    ],
)
def test_the_record_binds_in_both_directions(bert, monkeypatch, recorded, told):
    """A relation on record that the model has not, and one that it has off the record, both fail by name."""
    declared = dataclasses.replace(architecture("bert"), relations={"default": recorded})
    monkeypatch.setattr(test_relations, "architecture", lambda name: declared)
    with pytest.raises(AssertionError, match=told):
        test_relations.test_float64_has_the_recorded_relations(BERT, bert)


# --- determinism


def test_a_noisy_session_is_caught(bert, file):
    """Two runs that differ in the last bit of one value are two answers, NaN with NaN is one."""
    (inputs,) = subjects.arrays(bert, subjects.pool("bert", "default", "traced"))[:1]
    one = file(HEALTHY).run(inputs)
    array = one["last_hidden_state"].copy()
    array[0, 0, 0] = np.nextafter(array[0, 0, 0], np.float32(9))
    (row,) = relations.repeated(one, {"last_hidden_state": array}, "somewhere")
    assert "two runs on one input differ at 1 of" in row.message
    empty = {"y": np.array([np.nan, np.inf])}
    assert failures(relations.repeated(empty, {"y": empty["y"].copy()})) == []
    assert len(failures(relations.repeated(empty, {}))) == 1


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
    ("change", "told"), [(weight, "state"), (mode, "mode"), (configuration, "configuration"), (behaviour, "answer")]
)
def test_an_exporter_that_changes_the_model_is_caught(bert, change, told):
    """Each thing that an exporter can leave behind is named; an untouched copy has none."""
    model = copy.deepcopy(bert.model)
    assert subjects.changes(dataclasses.replace(bert, model=model)) == []
    change(model)
    assert subjects.changes(dataclasses.replace(bert, model=model))[0].startswith(told)


# --- vacuity


def effects(of, run, dead):
    pool = subjects.pool(of.architecture, of.feature, "varied")
    first, changed = subjects.each_changed(of, pool)
    with subjects.float64(of) as exactly:
        exact = test_vacuity.answers_of(exactly, first, changed)
    actual = exact if run is None else test_vacuity.answers_of(run, first, changed)
    return failures(vacuity.effects(*exact, *actual, noise=pool.noise, dead=dead))


@pytest.mark.parametrize("specimen", DEAD_SPECIMENS, ids=str)
def test_an_input_without_effect_is_caught(bert, file, specimen):
    """A file whose output does not move with an input fails, and the input is named."""
    assert f"{specimen.caught_by}: no effect on last_hidden_state of the file, should have as in the reference" in [
        row.message for row in effects(bert, file(specimen).run, dead=())
    ]


def test_a_dead_input_that_is_alive_is_caught(bert, file):
    """Declaring the mask dead fails where the reference depends on it."""
    (row,) = effects(bert, file(HEALTHY).run, dead=("attention_mask",))
    assert row.message == "attention_mask: is declared dead, but last_hidden_state of the reference depends on it"


def test_a_dead_input_that_is_not_declared_is_caught():
    """The encoder's tokens beside a cross-attention cache have no effect, and must be declared."""
    bart = subjects.subject("bart", "default-with-past")
    assert [row.subject for row in effects(bart, None, dead=())] == ["input_ids"]
    assert effects(bart, None, dead=("input_ids",)) == []


def moves(**outputs):
    return {name: np.full(4, value, np.float64) for name, value in outputs.items()}


def test_effects_of_the_file_alone_are_caught():
    """A file that moves where the reference does not fails; so does an output that nothing moves."""
    before, noise = moves(y=1, z=1), {"y": 1e-7, "z": 1e-7}
    told = [
        [
            row.message
            for row in failures(vacuity.effects(before, {"x": here}, before, {"x": there}, noise=noise, dead=d))
        ]
        for here, there, d in (
            (moves(y=2, z=2), moves(y=2, z=2), ()),
            (moves(y=2, z=1), moves(y=2, z=1.01), ()),
            (before, moves(y=1, z=1 + 1e-15), ("x",)),
        )
    ]
    unmoved = ["y: no input has an effect on it, should have", "z: no input has an effect on it, should have"]
    assert told == [
        [],
        ["x: has an effect on z of the file, should have none", unmoved[1]],
        ["x: is declared dead, but z of the file depends on it", *unmoved],
    ]


def test_an_output_that_says_nothing_is_caught(bert):
    """A reference that answers zero, next to nothing, or always the same, proves nothing."""
    from parity.reference import answers

    model = bert.fresh_model()
    norm = model.encoder.layer[-1].output.LayerNorm
    told = []
    for gain, bias in ((0, 0), (1e-9, 0), (0, 1)):
        norm.weight.data.fill_(gain)
        norm.bias.data.fill_(bias)
        found = answers(model, bert.onnx_config, subjects.pool("bert", "default", "traced").samples, exact=False)
        (row,) = vacuity.outputs([answer.eager for answer in found])
        told.append(row.message)
    assert [" ".join(message.split()[1:3]) for message in told] == ["rms 0", "rms 1e-09", "the same"]


# --- decisions


@dataclasses.dataclass(frozen=True)
class Close(subjects.Subject):
    """A subject whose tokens 20 and 21 are as good as one another, but for `gap` in their biases."""

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
    """Two close candidates in another order are within the ratio: the decision is what fails, and says why."""
    from parity.reference import answers

    of = subjects.subject("bert", "masked-lm")
    fields = {field.name: getattr(of, field.name) for field in dataclasses.fields(of)}
    right, wrong = Close(**fields, gap=6e-6), Close(**fields, gap=-6e-6)
    samples = subjects.pool("bert", "masked-lm", "other").samples
    pool = subjects.Pool(samples, tuple(answers(right.fresh_model(), of.onnx_config, samples)))
    told = []
    for subject in (right, wrong):
        HEALTHY.write(subject, tmp_path / "model.onnx")
        told.append(subjects.verdict(of, OnnxSession(tmp_path / "model.onnx"), pool).failures)
    assert told[0] == []
    (row,) = told[1]
    assert row.check == "decision"
    assert "argmax" in row.message
    assert "got candidate 21, should be 20" in row.message


# --- the order of the verdict

CHECKS = ("opset", "determinism", "nonfinite", "ratio", "decision", "relation")


@pytest.mark.parametrize("count", range(len(CHECKS)))
def test_the_first_failure_is_the_reason(count):
    """With every fault from one check on, that check is the first to be named: contract, determinism, …, relations."""
    from parity.validation import compare

    wrong = CHECKS[count:]
    of, pool = subjects.subject("bert", "masked-lm"), subjects.pool("bert", "masked-lm", "other")
    pool = subjects.Pool(pool.samples, (close(pool.answers[0]), *pool.answers[1:]))
    calls = []

    def run(inputs):
        calls.append(inputs)
        place = max(len(calls) - 2, 0)  # the first sample is run twice
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

    contract = [Row("opset", "file", False, "opset: …")] if "opset" in wrong else []
    found = compare(run, of.onnx_config, pool.samples, pool.answers, first=contract).failures
    other = [{"logits": array["logits"] + 1e-3} for array in pool.exact]
    found += failures(test_relations.judged(pool, "batch-permutation", pool.exact, other))
    assert found[0].check == CHECKS[count]


def close(answers):
    """The answers with two candidates in front at the first place, nearly equal: 30 times the noise apart."""
    gap = 3e-5

    def front(outputs):
        array = outputs["logits"].copy()
        array[0, 0, :2] = array.max() + 1
        array[0, 0, 1] -= gap
        return {"logits": array}

    return dataclasses.replace(
        answers, eager=front(answers.eager), exact=front(answers.exact), jittered=front(answers.jittered)
    )
