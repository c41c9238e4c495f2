"""Padding to the traced length gives the answers of unpadded eager, at any length up to it."""

import dataclasses

import numpy as np
import pytest

from parity.errors import UsageError
from parity.fixtures import subjects

CELLS = [("bert", "default"), ("bert", "token-classification"), ("gpt2", "causal-lm"), ("t5", "seq2seq-lm")]
LONGEST = 16


def trace_subject(pair, length=LONGEST, names=None):
    """The subject, and its trace with that length of every text."""
    from parity.torchscript import export

    subject = subjects.subject(*pair)
    sizes = {axis: length for axis in subject.source.axes if "sequence" in axis}
    inputs = subject.source.resize(sizes).inputs
    return subject, export(subject.fresh_model(), {n: t for n, t in inputs.items() if names is None or n in names})


@pytest.fixture(scope="module", params=CELLS, ids="-".join)
def case(request):
    """A subject, its trace, and its runner."""
    from parity.torchscript import Runner

    subject, trace = trace_subject(request.param)
    return subject, trace, Runner(trace)


def requests(subject):
    """Samples of lengths 1, 7 and the longest, and one with padded rows."""
    texts = [axis for axis in subject.source.axes if "sequence" in axis]
    sizes = [(1, 1), (3, 7), (2, LONGEST)]
    plain = [subject.source.resize({"batch": b, **dict.fromkeys(texts, n)}, seed=n) for b, n in sizes]
    return [*plain, subject.source.resize({"batch": 3, **dict.fromkeys(texts, 9)}, seed=5, padding="right")]


def test_answers_are_those_of_unpadded_eager(case):
    """Shapes are the request's own, and every value at a real position agrees by the error ratio."""
    from parity.judge import ratio
    from parity.judge.pool import Pool
    from parity.reference import answers

    subject, _, runner = case
    samples = [*requests(subject), *requests(subject)[:3], requests(subject)[1]]
    reference = answers(subject.fresh_model(), subject.onnx_config, samples)
    got = [{name: tensor.numpy() for name, tensor in runner(sample.inputs).items()} for sample in samples]
    got = [{name: answer[name] for name in subject.onnx_config.outputs} for answer in got]
    for exact, other in zip(reference, got, strict=True):
        assert {n: a.shape for n, a in exact.eager.items()} == {n: a.shape for n, a in other.items()}
    mask = real_positions(samples)
    findings = ratio.judge_ratio(Pool.from_answers(*(at(mask, side) for side in (*sides(reference), got))))
    assert [finding.message for finding in findings if not finding.passed] == []


def sides(answers):
    return [a.exact for a in answers], [a.eager for a in answers], [a.jittered for a in answers]


def real_positions(samples):
    """For each sample a mask (batch, sequence) that is 0 at its own padding."""
    name = "decoder_attention_mask" if "decoder_attention_mask" in samples[0].inputs else "attention_mask"
    return [sample.inputs[name].numpy().astype(bool) for sample in samples]


def at(masks, answers):
    return [{name: array[mask] for name, array in each.items()} for mask, each in zip(masks, answers, strict=True)]


def test_padding_without_a_mask_would_be_seen(case):
    """The control: the same requests padded by hand without a mask give other answers."""
    import torch

    subject, trace, runner = case
    sample = requests(subject)[1]
    padded = [runner._pad(trace, name, tensor) for name, tensor in sample.inputs.items()]
    unmasked = [torch.ones_like(t) if "mask" in n else t for n, t in zip(sample.inputs, padded, strict=True)]
    # Padding on the right does not affect a causal decoder.
    if subject.architecture == "gpt2":
        unmasked[0] = unmasked[0].flip(-1)
    name = next(iter(trace.outputs))
    other = trace(*unmasked)[0].numpy()[:, :7]
    assert np.abs(other - runner(sample.inputs)[name].numpy()).max() > 1e-3


def test_longer_requests_are_refused(case):
    """One token more than traced gives one message with both lengths."""
    subject, _, runner = case
    axis = next(axis for axis in runner.axes)
    sample = subject.source.resize({axis: LONGEST + 1})
    with pytest.raises(UsageError, match=rf"request: .*{axis} 17.* is longer than what was traced \(.*{axis} 16"):
        runner(sample.inputs)


@pytest.fixture(scope="module")
def buckets():
    """The bert subject and its traces at 4, 8 and 16 tokens, unordered."""
    pairs = [trace_subject(("bert", "default"), length) for length in (8, 16, 4)]
    return pairs[0][0], [trace for _, trace in pairs]


@pytest.mark.parametrize(("length", "bucket"), [(1, 4), (4, 4), (5, 8), (9, 16), (16, 16)])
def test_request_runs_in_the_smallest_bucket(buckets, length, bucket):
    """Each length goes to the smallest trace that fits, and gets its answer."""
    from parity.torchscript import Runner

    subject, traces = buckets
    lengths = []

    def watch(trace):
        own = trace.module
        return dataclasses.replace(
            trace, module=lambda *tensors: (lengths.append(tensors[0].shape[1]), own(*tensors))[1]
        )

    runner = Runner(*map(watch, traces))
    answer = runner(subject.source.resize({"sequence": length}).inputs)
    assert lengths == [bucket]
    assert answer["last_hidden_state"].shape[1] == length
    assert runner.longest == {"sequence": 16}


def test_files_serve_as_traces(buckets, tmp_path):
    """A runner from a path gives the trace's answers, and a missing mask means that nothing is masked."""
    import torch

    from parity.torchscript import Runner, export

    subject, traces = buckets
    export(subject.fresh_model(), dict(traces[0].example), tmp_path / "bert8.pt")
    inputs = dict(subject.source.resize({"sequence": 5}, seed=2).inputs)
    reference = Runner(traces[0])(inputs)
    inputs.pop("attention_mask")
    actual = Runner(tmp_path / "bert8.pt")(**inputs)
    assert torch.allclose(actual["last_hidden_state"], reference["last_hidden_state"], rtol=0, atol=1e-5)
    assert actual["pooler_output"].shape == (2, 32)


def test_batch_can_be_padded_too(buckets):
    """For a trace with a fixed batch, rows are repeated and cut off again."""
    import torch

    from parity.torchscript import Runner

    subject, traces = buckets
    inputs = subject.source.resize({"batch": 1, "sequence": 5}, seed=2).inputs
    found = Runner(traces[0], axes=["batch", "sequence"])(inputs)["last_hidden_state"]
    torch.testing.assert_close(found, Runner(traces[0])(inputs)["last_hidden_state"], rtol=0, atol=1e-5)
    with pytest.raises(UsageError, match="batch 3"):
        Runner(traces[0], axes=["batch", "sequence"])(subject.source.resize({"batch": 3, "sequence": 5}).inputs)


def test_traces_that_cannot_be_padded_are_refused(buckets):
    """No mask, a past, no text, answers that change with padding, other inputs, no trace: each with its reason."""
    from parity.torchscript import Runner

    without_mask = trace_subject(("bert", "default"), 8, ("input_ids", "token_type_ids"))[1]
    with pytest.raises(UsageError, match="no attention_mask, so padding would be read as text"):
        Runner(without_mask)
    with pytest.raises(UsageError, match="with past key values requests cannot be padded"):
        Runner(trace_subject(("gpt2", "causal-lm-with-past"), 8)[1])
    with pytest.raises(UsageError, match="axes: none to pad, the trace has batch"):
        Runner(trace_subject(("vit", "image-classification"))[1])
    with pytest.raises(UsageError, match="answers of bert default change with padding, in PyTorch too"):
        Runner(dataclasses.replace(buckets[1][0], padding=False))
    with pytest.raises(UsageError, match="their inputs or outputs are not the same"):
        Runner(buckets[1][0], without_mask)
    with pytest.raises(UsageError, match="none is given"):
        Runner()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda inputs: inputs.pop("token_type_ids"), "should be input_ids, attention_mask, token_type_ids"),
        (lambda inputs: inputs.update(pixel_values=inputs["input_ids"]), "got input_ids, .*pixel_values"),
        (
            lambda inputs: inputs.update(input_ids=inputs["input_ids"][0]),
            r"shape \(5,\), should have the axes batch, seq",
        ),
        (lambda inputs: inputs.update(token_type_ids=inputs["input_ids"][:, :3]), "sequence is 3 in token_type_ids, 5"),
    ],
    ids=["missing", "unknown", "too few axes", "other length"],
)
def test_requests_that_cannot_be_right_are_refused(buckets, change, message):
    """One message has the input and the expected value."""
    from parity.torchscript import Runner

    subject, traces = buckets
    inputs = dict(subject.source.resize({"sequence": 5}).inputs)
    change(inputs)
    with pytest.raises(UsageError, match=message):
        Runner(traces[0])(inputs)
