"""Trace verdicts: deliberately wrong models reach each of them, and a good trace gets none of the bad ones."""

import dataclasses

import pytest

from parity.declaration import TracedAxis
from parity.errors import UsageError
from parity.fixtures.controls.trace_specimens import DOCUMENT_ERROR, SPECIMENS
from parity.fixtures.trace_verdicts import differences, is_proven

BY_NAME = {specimen.name: specimen for specimen in SPECIMENS}


def of_axis(specimen):
    return next(each for each in specimen.judgement()[1] if each.axis == specimen.axis)


@pytest.mark.parametrize("specimen", SPECIMENS, ids=str)
def test_specimen_gets_its_verdict(specimen):
    """The axis gets the specimen's verdict, with its error or difference."""
    found = of_axis(specimen)
    assert found.outcome == specimen.outcome
    assert specimen.text in found.text


@pytest.mark.parametrize("specimen", SPECIMENS, ids=str)
def test_specimen_is_right_at_its_traced_shape(specimen):
    """No comparison at the traced shape detects any of them."""
    assert is_proven(specimen.judgement()[0])


@pytest.mark.parametrize("specimen", SPECIMENS, ids=str)
def test_other_axes_of_a_specimen_generalise(specimen):
    """The fault is in one axis, and the verdict blames no other."""
    others = [each for each in specimen.judgement()[1] if each.axis != specimen.axis]
    assert others
    assert {each.outcome for each in others} == {"generalises"}


def test_error_of_the_document_is_the_whole_text():
    """Traced at length 7 and run at 3, the text is torch's own sentence, without the interpreter's traceback."""
    assert of_axis(BY_NAME["frozen-length"]).text == DOCUMENT_ERROR
    assert DOCUMENT_ERROR.startswith(
        "The expanded size of the tensor (3) must match the existing size (7) at non-singleton dimension 2"
    )


def test_silently_wrong_goes_before_raises():
    """An axis that raises at longer texts and is wrong at shorter ones is silently wrong; both are listed."""
    found = of_axis(BY_NAME["frozen-arange"])
    assert (found.at("wrong"), found.at("raises")[0]) == ([1, 7], 9)


def test_right_sizes_of_a_frozen_branch_are_told():
    """Below the branch the trace is right, and the table shows it."""
    from parity.torchscript import table

    lines = table(BY_NAME["frozen-branch"].judgement()[1])
    line = next(index for index, text in enumerate(lines) if text.startswith("sequence"))
    assert lines[line].endswith("silently wrong")
    assert lines[line + 1] == "    right at 1, 7, 9, 10; wrong at 11, 13, 17, 29, 40"
    assert lines[line + 2].startswith("    last_hidden_state: error ratio")
    assert not lines[line + 3].startswith(" ")


def test_the_table_fits_a_terminal():
    """Sizes that do not fit next to their verdict are listed below it."""
    from parity.samples import Sample
    from parity.torchscript import Verdict, table
    from parity.torchscript.verdicts import Trial

    def verdict(sizes):
        trials = [Trial(Sample({"past_decoder_sequence": size}, "", {}), "right", "") for size in sizes]
        return Verdict("past_decoder_sequence", 8, "generalises", tuple(trials))

    short, long = table([verdict([1, 2])]), table([verdict(range(100, 130))])
    assert short[1].endswith("right at 1, 2")
    assert max(map(len, long)) <= 76
    assert " ".join(line.strip() for line in long[2:]) == f"right at {', '.join(map(str, range(100, 130)))}"


def test_block_sparse_model_is_handed_back_as_it_was():
    """A short text changes BigBird permanently: neither trace nor reference leaves that in the caller's model."""
    specimen = BY_NAME["block-sparse-traced-short"]
    kinds = {type(module).__name__ for module in specimen.model().modules()}
    assert specimen.judgement()
    assert "BigBirdBlockSparseAttention" in kinds
    assert "BigBirdSelfAttention" not in kinds


def test_trial_tells_how_far_it_is_from_bit_equal():
    """A trace of weights moved by one ulp passes by the error ratio, and the text says that it is not bit-equal."""
    import copy

    from parity.fixtures.checkpoints import tiny_model
    from parity.reference import move_weights
    from parity.torchscript import export, verdict

    model = tiny_model("bert")
    moved = copy.deepcopy(model)
    move_weights(moved)
    traced = export(moved, dict(BY_NAME["healthy"].judgement()[0].example), prove=False)
    found = verdict(traced, model, sizes={"batch": (1,), "sequence": (5,)})
    assert {each.outcome for each in found} == {"generalises"}
    assert all(trial.text.startswith("not bit-equal, error ratio ") for trial in found[0].trials)


def test_trace_of_other_weights_is_silently_wrong():
    """The control: the same with other weights is silently wrong."""
    from parity.fixtures.checkpoints import tiny_model
    from parity.torchscript import verdict

    traced, _ = BY_NAME["healthy"].judgement()
    found = verdict(traced, tiny_model("bert", seed=1), sizes={"batch": (1,), "sequence": (5,)})
    assert {each.outcome for each in found} == {"silently wrong"}


def test_size_that_model_and_trace_refuse_is_no_fault():
    """Beyond the position table both raise: the verdict says that the model fixes the axis, with its error."""
    from parity.fixtures.checkpoints import tiny_model
    from parity.torchscript import verdict

    traced, _ = BY_NAME["healthy"].judgement()
    found = verdict(traced, tiny_model("bert"), sizes={"batch": (1,), "sequence": (41, 50)})
    sequence = next(each for each in found if each.axis == "sequence")
    assert (sequence.outcome, sequence.at("refused")) == ("fixed by the model", [41, 50])
    assert sequence.text


@pytest.mark.parametrize(
    ("outcomes", "verdict"),
    [
        (["right", "right"], "generalises"),
        (["right", "refused"], "generalises"),
        (["right", "raises", "refused"], "raises"),
        (["right", "raises", "wrong"], "silently wrong"),
        (["refused", "refused"], "fixed by the model"),
    ],
)
def test_worst_trial_decides(outcomes, verdict):
    """One wrong answer outweighs everything, one error all others."""
    from parity.samples import Sample
    from parity.torchscript.verdicts import Trial, outcome_of

    assert outcome_of([Trial(Sample({}, "", {}), outcome, "") for outcome in outcomes]) == verdict


@pytest.mark.parametrize(
    ("axis", "sizes"),
    [
        ("batch", [1, 3, 5, 8]),
        ("sequence", [1, 7, 9, 13, 17, 29, 38]),
        ("past_sequence", [0, 9, 11, 13, 21, 29, 40]),
    ],
)
def test_sizes_reach_the_ends_and_leave_the_traced_one_out(axis, sizes):
    """The smallest, the longest that fits with the past, and both neighbours of the traced size."""
    from parity.fixtures.checkpoints import tiny_model
    from parity.fixtures.preprocessors import preprocessor
    from parity.onnx.features import constructor
    from parity.samples import SampleSource
    from parity.torchscript.verdicts import sizes_of

    model = tiny_model("gpt2", "causal-lm-with-past")
    source = SampleSource(constructor("gpt2", "causal-lm-with-past")(model.config), preprocessor("gpt2"), model.config)
    assert sizes_of(source, axis, 48) == sizes
    compared = sizes_of(source, axis, 48, (24, 2048))
    assert {*compared} - {*sizes} == {23, 24, 25}


def test_comparisons_of_sizes_are_noted():
    """While a model is traced its sizes are tensors; numbers that others are compared with are none of a branch."""
    import torch

    from parity.torchscript.comparisons import SizeComparisons
    from parity.turns import without_warnings

    def forward(ids):
        length = ids.shape[1]
        longer = (length > 24) or (length == 7) or 5 <= length < 30 or ids.dim() == 11 or len([1]) == 13
        return ids * 2 if longer else ids * (ids > 17)

    with SizeComparisons() as comparisons, without_warnings():
        torch.jit.trace(forward, torch.ones(2, 3, dtype=torch.long), check_trace=False)
    assert comparisons.numbers == (24, 7, 5)
    assert SizeComparisons().numbers == ()


def test_a_branch_at_one_length_is_seen_by_its_number():
    """No list of lengths has it; what the code compares its length with does, in the trace that is in memory."""
    from dataclasses import replace

    from parity.fixtures.controls.trace_specimens import SPECIMENS
    from parity.torchscript import verdict
    from parity.torchscript.verdicts import SILENTLY_WRONG

    (specimen,) = [each for each in SPECIMENS if each.name == "frozen-at-a-number"]
    trace, verdicts = specimen.judgement()
    assert trace.compared == (27,)
    assert [each.outcome for each in verdicts if each.axis == "sequence"] == [SILENTLY_WRONG]
    blind = verdict(replace(trace, compared=()), specimen.model())
    assert SILENTLY_WRONG not in [each.outcome for each in blind]


def test_trace_that_ignores_its_mask_is_not_delivered(tmp_path):
    """It is right on its example and on any values without padding; the proof at the traced shape includes padding."""
    from parity.errors import ValueMismatch
    from parity.fixtures.controls.trace_specimens import ignores_mask
    from parity.torchscript import export

    example = dict(BY_NAME["healthy"].judgement()[0].example)
    with pytest.raises(ValueMismatch, match="at the traced shape: last_hidden_state: error ratio"):
        export(ignores_mask(), example, tmp_path / "model.pt", feature="default")
    assert not any(tmp_path.iterdir())


def test_a_trace_that_ignores_its_mask_is_silently_wrong_together():
    """Without the proof, the verdicts on single axes miss it, but the one on all axes together does not."""
    from parity.fixtures.controls.trace_specimens import ignores_mask
    from parity.torchscript import export, verdict

    model = ignores_mask()
    example = dict(BY_NAME["healthy"].judgement()[0].example)
    traced = export(model, example, feature="default", prove=False)
    found = {each.axis: each.outcome for each in verdict(traced, model)}
    assert found["all of these together"] == "silently wrong"


def test_images_are_tried_on_either_side():
    """If both sides have names, one sample is taller than wide, and one wider than tall."""
    from types import SimpleNamespace

    from parity.torchscript.verdicts import _meetings

    source = SimpleNamespace(axes={"batch": 2, "height": 32, "width": 32}, axis_sizes={})
    sides = {"height": [16, 31, 64], "width": [16, 31, 64]}
    assert [*_meetings(source, sides)] == [{"height": 64, "width": 16}, {"width": 64, "height": 16}]


def test_trace_without_axes_is_refused():
    """Without named axes there is nothing to judge, and the message says so."""
    from parity.fixtures.checkpoints import tiny_model
    from parity.torchscript import verdict

    traced, _ = BY_NAME["healthy"].judgement()
    nameless = dataclasses.replace(traced, inputs={name: {} for name in traced.inputs})
    with pytest.raises(UsageError, match="name no axis"):
        verdict(nameless, tiny_model("bert"))


def test_verdicts_are_json():
    """Every trial is in the JSON form, with its sizes, outcome and text."""
    import json

    found = json.loads(json.dumps([each.as_json() for each in BY_NAME["frozen-branch"].judgement()[1]]))
    sequence = next(each for each in found if each["axis"] == "sequence")
    assert (sequence["traced"], sequence["verdict"]) == (8, "silently wrong")
    assert {"sizes", "padding", "outcome", "text"} == set(sequence["trials"][0])


@pytest.mark.parametrize("specimen", [each for each in SPECIMENS if each.outcome != "generalises"], ids=str)
def test_a_verdict_is_held_against_its_declaration_in_both_directions(specimen):
    """A right declaration gives no difference; a declaration to generalise, another text, or another axis does."""
    verdicts = specimen.judgement()[1]
    own = of_axis(specimen)
    declared = TracedAxis(own.axis, own.outcome, own.text[:40], issue="https://example.org/1")
    assert differences(verdicts, {own.axis: declared}) == []
    (undeclared,) = differences(verdicts, {})
    assert undeclared.startswith(f"{own.axis}: declared as generalises, found {own.outcome}")
    (other_text,) = differences(verdicts, {own.axis: dataclasses.replace(declared, text="something else")})
    assert "something else" in other_text
    (healthy, *_) = (each for each in verdicts if each.axis != own.axis)
    wrong = differences(verdicts, {own.axis: declared, healthy.axis: dataclasses.replace(declared, axis=healthy.axis)})
    assert wrong == [f"{healthy.axis}: declared as {own.outcome}, found generalises: "]
    assert "depth: is declared" in differences(verdicts, {own.axis: declared, "depth": declared})[0]


@pytest.mark.parametrize(
    ("outcome", "text", "issue"),
    [("silently wrong", "logits: ", ""), ("generalises", "x", ""), ("raises", "", "")],
    ids=["no-thread", "no-outcome", "no-text"],
)
def test_a_declared_axis_needs_its_evidence(outcome, text, issue):
    """Silently wrong without an upstream thread, a name that is no exception, an error without a text are refused."""
    with pytest.raises(ValueError, match="sequence: "):
        TracedAxis("sequence", outcome, text, issue)
