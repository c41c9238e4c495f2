"""The property tests detect faults, shrink them, write a reproducer, and fail without examples."""

import inspect
import subprocess
import sys
from types import SimpleNamespace

import pytest
from hypothesis import settings
from hypothesis import strategies as st

from parity.architectures.conformance.matrix import Cell, cells
from parity.errors import ValueMismatch
from parity.fixtures import plugin, profiles, properties, reproducer, sizes, subjects
from parity.fixtures.controls.faults import HEALTHY, OPSET, SPECIMENS

BERT = Cell("bert", "default", "onnx", "onnxruntime", OPSET)
BAKED = next(specimen for specimen in SPECIMENS if specimen.name == "baked-sequence")
EXAMPLE = sizes.Example({"batch": 1, "sequence": 1}, name="the smallest")
own_given = properties.given


@pytest.fixture(scope="module")
def files(bert, tmp_path_factory):
    """The healthy file, and the file that is right only at its export's sequence length."""
    directory = tmp_path_factory.mktemp("files")
    for specimen in (HEALTHY, BAKED):
        specimen.write(bert, directory / f"{specimen}.onnx")
    return SimpleNamespace(healthy=directory / f"{HEALTHY}.onnx", baked=directory / f"{BAKED}.onnx")


@pytest.fixture
def recorder():
    """The recorded failures of a property test, and the function that records them."""
    failures = []

    def keep(number, example, message):
        failures.append((number, example, message))
        return f"{number}.py"

    return SimpleNamespace(failures=failures, keep=keep)


def run(path):
    from parity.sessions import OnnxSession

    return OnnxSession(path).run


def test_a_healthy_file_passes(bert, files, recorder):
    """The control: no failure is found or recorded."""
    verdicts = properties.judge_drawn_sizes(bert, run(files.healthy), recorder.keep)
    assert len(verdicts) == settings().max_examples
    assert all(verdict.ratios() for verdict in verdicts)
    assert recorder.failures == []


def test_a_baked_sequence_is_found_and_shrunk(bert, files, recorder):
    """Drawn sizes find the fault; the recorded example is the smallest: one row of one token, no padding."""
    with pytest.raises(ValueMismatch, match="error ratio") as caught:
        properties.judge_drawn_sizes(bert, run(files.baked), recorder.keep)
    number, smallest, _ = recorder.failures[-1]
    assert (number, smallest) == (0, sizes.Example({"batch": 1, "sequence": 1}))
    notes = "\n".join(caught.value.__notes__)
    assert "'sequence': 1" in notes
    assert "python 0.py" in notes


def test_a_loosened_limit_finds_nothing(bert, files, recorder):
    """With a limit of a billion the same file passes at the same sizes: the limit finds the fault."""
    from parity.validation import Criteria

    loose = Criteria(limit=1e9)
    properties.judge_drawn_sizes(bert, run(files.baked), recorder.keep, loose)
    assert properties.judge_boundaries(bert, run(files.baked), recorder.keep, loose)
    assert recorder.failures == []


def test_all_failing_boundaries_are_told(bert, files, recorder):
    """One message names exactly the failing boundaries, and the axis that explains them."""
    with pytest.raises(ValueMismatch) as caught:
        properties.judge_boundaries(bert, run(files.baked), recorder.keep)
    bad = {example.name for _, example, _ in recorder.failures}
    good = {example.name for example in sizes.boundaries(bert.source, bert.longest)} - bad
    assert good == {"the sizes of the export, mixed token types", "a fully masked row"}
    assert {name for name in bad | good if f"{name} (python" in str(caught.value)} == bad
    assert "axis sequence: the file is right if sequence is 8" in str(caught.value)


def test_a_property_that_drew_nothing_fails():
    """If no phase draws, hypothesis skips; the property fails."""
    never = settings(settings(), phases=())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(properties, "given", lambda strategy: lambda test: never(own_given(strategy)(test)))
        with pytest.raises(AssertionError, match="drew nothing"):
            properties.check_property(st.integers(), lambda example: None)
    tried = properties.check_property(st.integers(), lambda example: None)
    assert 0 < len(tried) <= settings().max_examples


def test_a_reproducer_judges_a_file(files, tmp_path):
    """Given the faulty file, the script exits 1 with the message."""
    path = reproducer.write(tmp_path, BERT, 1, EXAMPLE, "last_hidden_state: error ratio 9, should be at most 4")
    assert path.name == "bert-default-onnx17-1.py"
    command = [sys.executable, str(path), "--file", str(files.baked)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, "last_hidden_state: error ratio" in done.stdout) == (1, True), done.stderr


def test_a_reproducer_exports_for_itself(tmp_path):
    """Without a file it exports its healthy cell again and exits 0; it names model, versions and failure."""
    path = reproducer.write(tmp_path, BERT, 2, EXAMPLE, "last_hidden_state: error ratio 9, should be at most 4")
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "passed"), done.stderr
    text = path.read_text(encoding="utf-8")
    assert all(part in text for part in ("vocab_size=96", "transformers ", "onnxruntime ", "error ratio 9"))
    code = [line for line in text.split('"""')[2].splitlines() if line and not line.startswith("#")]
    assert len(code) <= 15


@pytest.mark.parametrize(
    ("architecture", "feature", "boundaries"),
    [
        ("bert", "multiple-choice", {"sequence": {1, 2, 14, 15, 16, 37, 40}, "choice": {1, 3}}),
        ("gpt2", "causal-lm-with-past", {"sequence": {1, 2, 7, 8, 9, 47, 48}, "past_sequence": {0, 1, 47}}),
        ("bart", "default", {"encoder_sequence": {1, 2, 7, 8, 9, 48}, "decoder_sequence": {1, 2, 7, 8, 9, 47, 48}}),
        ("bart", "default-with-past", {"past_decoder_sequence": {0, 1, 47}, "encoder_sequence": {1, 47, 48}}),
        ("resnet", "default", {"batch": {1, 2, 3}, "height": {1, 32, 33, 37, 64}, "width": {1, 31, 32, 96}}),
        ("vit", "default", {"batch": {1, 2, 3}}),
    ],
)
def test_boundaries_hold_the_sizes_that_matter(architecture, feature, boundaries):
    """For every axis: the smallest size, those around the export's, a prime, the maximum; nothing above it."""
    subject = subjects.subject(architecture, feature)
    examples = sizes.boundaries(subject.source, subject.longest)
    assert len({example.name for example in examples}) == len(examples)
    for axis, some in boundaries.items():
        assert some <= {example.sizes[axis] for example in examples}, axis
    if subject.longest:
        assert max(example.samples(subject)[0].tokens for example in examples) == subject.longest


def test_boundaries_pad_every_way():
    """No padding, left, right, in one row only, and a fully masked row."""
    subject = subjects.subject("gpt2", "causal-lm-with-past")
    examples = sizes.boundaries(subject.source, subject.longest)
    assert {example.padding for example in examples} == {"", "left", "right", "whole"}
    by_name = {example.name: example.samples(subject)[0].inputs["attention_mask"] for example in examples}
    assert by_name["a fully masked row"].any(dim=1).tolist() == [True, False]
    one_row = by_name["a prime length, padding in one row only"]
    assert one_row.all(dim=1).tolist() == [True, False]
    assert one_row.any(dim=1).all()


def test_boundaries_differ_between_encoder_and_decoder():
    """Decoder and encoder lengths differ in at least half of the boundaries."""
    subject = subjects.subject("t5", "seq2seq-lm")
    found = [example.sizes for example in sizes.boundaries(subject.source, subject.longest)]
    assert sum(s["encoder_sequence"] != s["decoder_sequence"] for s in found) * 2 >= len(found)


@pytest.mark.parametrize("name", ["bert", "roberta", "gpt2", "t5", "bart"])
def test_the_whole_vocabulary_is_tried_once(name):
    """The tokens of one boundary run through every id, in each of its eight inputs."""
    subject = subjects.subject(name, "default")
    (whole,) = (e for e in sizes.boundaries(subject.source, subject.longest) if e.whole_vocabulary)
    for sample in whole.samples(subject):
        ids = [v.unique().tolist() for k, v in sample.inputs.items() if k.endswith("input_ids")]
        assert ids == [list(range(96))] * len(ids)


def test_token_types_are_mixed():
    """A row of the boundary for token types has both."""
    subject = subjects.subject("bert", "default")
    (mixed,) = (e for e in sizes.boundaries(subject.source, subject.longest) if "mixed token types" in e.name)
    assert mixed.samples(subject)[0].inputs["token_type_ids"].unique().tolist() == [0, 1]


def test_drawn_sizes_stay_within_the_maximum():
    """Sequence and past fit into the position table together, and every named axis is drawn."""
    subject = subjects.subject("gpt2", "causal-lm-with-past")
    many = settings(settings(), max_examples=200)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(properties, "given", lambda strategy: lambda test: many(own_given(strategy)(test)))
        examples = properties.check_property(sizes.examples(subject.source, subject.longest), lambda example: None)
    assert all(set(example.sizes) == set(subject.source.axes) for example in examples)
    totals = {example.sizes["sequence"] + example.sizes["past_sequence"] for example in examples}
    assert max(totals) <= 48
    assert len(totals) > 10


def test_every_profile_sets_every_field():
    """No field depends on a profile that hypothesis loads itself."""
    fields = set(inspect.signature(settings.__init__).parameters) - {"self", "parent"}
    for profile in profiles.PROFILES.values():
        assert fields <= set(profile)
        assert profile["report_multiple_bugs"] is False
        assert profile["database"] is None
        assert profile["deadline"] is None
    assert profiles.PROFILES["default"]["derandomize"]
    assert not profiles.PROFILES["nightly"]["derandomize"]
    assert profiles.PROFILES["nightly"]["max_examples"] > profiles.PROFILES["default"]["max_examples"]


def test_an_unknown_profile_is_refused(pytester, monkeypatch):
    """A misspelled profile is an error that lists the known ones, and no test runs."""
    monkeypatch.setenv("HYPOTHESIS_PROFILE", "nigthly")
    pytester.makepyfile("def test_nothing(): pass")
    done = pytester.runpytest_subprocess("-p", "parity.fixtures.plugin", "-p", "no:cacheprovider")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(["*HYPOTHESIS_PROFILE: got 'nigthly', should be one of default, nightly"])


@pytest.mark.parametrize(("profile", "opsets"), [("", {17}), ("default", {17}), ("nightly", set(range(11, 21)))])
def test_the_nightly_profile_takes_every_opset(monkeypatch, profile, opsets):
    """Tests that need only one opset for each model run at all of them."""
    monkeypatch.setenv("HYPOTHESIS_PROFILE", profile)
    assert {cell.opset for cell in cells() if plugin.Selection(every_opset=False).has(cell)} == opsets
