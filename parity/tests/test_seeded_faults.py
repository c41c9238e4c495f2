"""Faults that neither a short text nor a check of weights shows: values on a tiny model reveal each.

A fault changes the exported model, or the mask traced into its file, but not the reference.
"""

from __future__ import annotations

import copy
import functools

import pytest

from parity.environment import at_least
from parity.fixtures import subjects
from parity.fixtures.checkpoints import tiny_model
from parity.judge.findings import failures
from parity.sessions import OnnxSession

OPSET = 17


def with_inputs(own, change):
    """A copy of the configuration whose `complete_inputs` is `change` of the inputs and of the original's result."""
    config = copy.copy(own)
    config.complete_inputs = lambda inputs, parameters: change(inputs, own.complete_inputs(inputs, parameters))
    return config


def with_mask(own, hide=None, fill=None, padding=None):
    """The configuration, with another mask than the model's own traced into its file.

    Args:
        own: the configuration.
        hide: places of queries and of keys, in tokens → keys hidden from a query; None hides only padding.
        fill: added to the scores of hidden keys; None is the lowest number.
        padding: keys after that place are seen, though they are padding; None hides all padding.
    """
    import torch

    def change(inputs, complete):
        mask, length = inputs["attention_mask"], inputs["input_ids"].shape[1]
        keys = torch.arange(mask.shape[1])[None]
        queries = keys[:, -length:].transpose(0, 1)
        hidden = (mask == 0)[:, None, None]
        if padding is not None:
            hidden = hidden & (keys < padding)[None, None]
        hidden = hidden | (hide(queries, keys) if hide else keys + 0 * queries < 0)[None, None]
        lowest = torch.finfo(torch.float32).min if fill is None else fill
        return {**complete, "attention_mask": hidden.float() * lowest}

    return with_inputs(own, change)


def sees_itself_and_before(queries, keys):
    """The keys that a causal model hides."""
    return keys > queries


def window(size):
    """The keys that a causal window of that size hides."""
    return lambda queries, keys: (keys > queries) | (keys <= queries - size)


@functools.lru_cache(maxsize=4)
def pool(architecture, feature):
    """The suite's inputs at other sizes than the export's, with the reference's answers."""
    return subjects.pool(architecture, feature, "other")


def judge_values(architecture, feature, path, *, model=None, onnx_config=None):
    """The failures, by values only, of the file of a changed model or configuration."""
    from parity.onnx import export

    subject = subjects.subject(architecture, feature)
    export(subject.preprocessor, model or subject.fresh_model(), onnx_config or subject.onnx_config, OPSET, path)
    return subjects.verdict(subject, OnnxSession(path), pool(architecture, feature)).failures


def negate(tensor, *index):
    """Flip the sign of one element."""
    tensor[index] = -tensor[index]


def blank(tensor, *index):
    """Set a part to zero."""
    tensor[index] = 0


# Name → ((architecture, feature), end of the weight's name, its change).
WEIGHTS = {
    "one row of the embeddings": ("bert", "default", "word_embeddings.weight", lambda w: blank(w, 57)),
    "the last row of the embeddings": ("bert", "default", "word_embeddings.weight", lambda w: blank(w, -1)),
    "one position": ("bert", "default", "position_embeddings.weight", lambda w: blank(w, 23)),
    "the last position": ("bert", "default", "position_embeddings.weight", lambda w: blank(w, -1)),
    "a token type": ("bert", "default", "token_type_embeddings.weight", lambda w: blank(w, 1)),
    "one element": ("bert", "default", "layer.1.intermediate.dense.weight", lambda w: negate(w, 3, 4)),
    "a head's bias of queries": ("bert", "default", "layer.0.attention.self.query.bias", lambda w: blank(w, slice(8))),
    "a head's bias of values": ("bert", "default", "layer.1.attention.self.value.bias", lambda w: blank(w, slice(8))),
    "the last position of a decoder": ("gpt2", "causal-lm-with-past", "wpe.weight", lambda w: blank(w, -1)),
    "the last bucket of distances": (
        "t5",
        "seq2seq-lm",
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
        lambda w: blank(w, -1),
    ),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_changed_weight_is_rejected_by_its_values(name, tmp_path):
    """Only the file's outputs are used, not its weights."""
    import torch

    architecture, feature, end, change = WEIGHTS[name]
    model = subjects.subject(architecture, feature).fresh_model()
    (weight,) = [parameter for own, parameter in model.named_parameters() if own.endswith(end)]
    with torch.no_grad():
        change(weight)
    checks = {each.check for each in judge_values(architecture, feature, tmp_path / "model.onnx", model=model)}
    assert "ratio" in checks


@pytest.mark.parametrize("name", ["one row of the embeddings", "one element", "the last position of a decoder"])
def test_changed_weight_is_rejected_by_the_account(name, tmp_path):
    """The same files, by their weights only, as `parity check` compares them."""
    import torch

    from parity.onnx import export
    from parity.onnx.proof import Artifact

    architecture, feature, end, change = WEIGHTS[name]
    subject = subjects.subject(architecture, feature)
    model = subject.fresh_model()
    with torch.no_grad():
        change(next(parameter for own, parameter in model.named_parameters() if own.endswith(end)))
    export(subject.preprocessor, model, subject.onnx_config, OPSET, tmp_path / "model.onnx")
    findings = Artifact.read(tmp_path / "model.onnx").judge_weights(subject.fresh_model(), subject.source)
    assert [each.subject.endswith(end) for each in failures(findings)] == [True]


BERT, GPT2 = ("bert", "default"), ("gpt2", "causal-lm-with-past")
# Name → ((architecture, feature), arguments of `with_mask`).
MASKS = {
    "a mask that leaks a ten-thousandth": (BERT, {"fill": -9.2}),
    "a mask that leaks a little of what comes later": (GPT2, {"hide": sees_itself_and_before, "fill": -9.2}),
    "filled with -100": (BERT, {"fill": -100.0}),
    "filled with -1e4": (BERT, {"fill": -1e4}),
    "open beyond the traced length": (BERT, {"padding": 8}),
    "open beyond four times the traced length": (BERT, {"padding": 32}),
    "causal, open by one": (GPT2, {"hide": lambda queries, keys: keys > queries + 1}),
    "causal, and not its own": (GPT2, {"hide": lambda queries, keys: (keys >= queries) & (keys > 0)}),
    "a window of 32": (GPT2, {"hide": window(32)}),
    "a window one short of the longest text": (GPT2, {"hide": window(47)}),
}


TAKES_MASKS = pytest.mark.skipif(
    not at_least("transformers", "5"), reason="transformers 4 has no mask with four axes for BERT, or for GPT-2"
)


@TAKES_MASKS
@pytest.mark.parametrize("name", MASKS)
def test_wrong_mask_is_rejected(name, tmp_path):
    """No weight has changed: only lengths and paddings show it."""
    (architecture, feature), options = MASKS[name]
    config = with_mask(subjects.subject(architecture, feature).onnx_config, **options)
    checks = {each.check for each in judge_values(architecture, feature, tmp_path / "model.onnx", onnx_config=config)}
    assert "ratio" in checks


@TAKES_MASKS
@pytest.mark.parametrize(("subject", "options"), [(BERT, {}), (GPT2, {"hide": sees_itself_and_before})])
def test_the_masks_are_right_without_a_fault(subject, options, tmp_path):
    """The control: such a mask that hides the same as the model's passes like the model's own."""
    config = with_mask(subjects.subject(*subject).onnx_config, **options)
    assert judge_values(*subject, tmp_path / "model.onnx", onnx_config=config) == []


def other_config(architecture, **items):
    """The tiny model with other items in its configuration and the same weights."""
    from parity.fixtures import checkpoints

    own = checkpoints.tiny_config

    def tiny_config(name, changes=None):
        config = own(name, changes)
        for item, value in items.items():
            setattr(config, item, value)
        return config

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "tiny_config", tiny_config)
        return tiny_model(architecture)


# Name → (architecture, wrong items in the exported configuration).
WINDOWS = {
    "wider by one on each side": ("modernbert", {"local_attention": 8}),
    "narrower by one on each side": ("modernbert", {"local_attention": 4}),
    "none": ("modernbert", {"local_attention": 4096}),
    "a causal one wider by one": ("gpt-neo", {"window_size": 6}),
    "a causal one narrower by one": ("gpt-neo", {"window_size": 4}),
    "wider than the traced length": ("longformer", {"attention_window": [12, 12]}),
}


@pytest.mark.parametrize("name", WINDOWS)
def test_wrong_window_is_rejected(name, tmp_path):
    """All weights are right, and so are most tokens of a short text."""
    architecture, items = WINDOWS[name]
    subjects.skip_without(architecture)
    model = other_config(architecture, **items)
    checks = {each.check for each in judge_values(architecture, "default", tmp_path / "model.onnx", model=model)}
    assert checks & {"ratio", "run"}


@pytest.mark.parametrize("own", [GPT2, ("t5", "seq2seq-lm-with-past")], ids=["gpt2", "t5"])
def test_presents_that_are_cut_are_rejected(own, tmp_path):
    """Caches of at most 32 tokens are right for no longer texts; a model without a table has long ones too."""
    import onnx

    from parity.onnx import export

    subject = subjects.subject(*own)
    path = tmp_path / "model.onnx"
    export(subject.preprocessor, subject.fresh_model(), subject.onnx_config, OPSET, path)
    model = onnx.load(path)
    for name, value in (("starts", [-32]), ("ends", [2**62]), ("axes", [2])):
        model.graph.initializer.append(onnx.helper.make_tensor(name, onnx.TensorProto.INT64, [1], value))
    names = [output.name for output in model.graph.output if output.name.startswith("present.")]
    presents = [name for name in names if ".encoder." not in name]
    for node in model.graph.node:
        for values in (node.input, node.output):
            values[:] = [f"{name}.whole" if name in presents else name for name in values]
    for name in presents:
        model.graph.node.append(onnx.helper.make_node("Slice", [f"{name}.whole", "starts", "ends", "axes"], [name]))
    onnx.save(model, path)
    wrong = subjects.verdict(subject, OnnxSession(path), pool(*own)).failures
    assert {each.check for each in wrong} == {"shape"}
    assert {each.subject for each in wrong} == set(presents)


def test_clamped_images_are_rejected(tmp_path):
    """Drawn pixels stay below 5, except in every second row of a batch."""
    import torch

    from parity.onnx import export

    subject = subjects.subject("vit", "default")
    path = tmp_path / "model.onnx"

    def change(inputs, complete):
        return {**complete, "pixel_values": inputs["pixel_values"].clamp(-6, 6)}

    export(subject.preprocessor, subject.fresh_model(), with_inputs(subject.onnx_config, change), OPSET, path)
    inputs = pool("vit", "default")
    assert not subjects.verdict(subject, OnnxSession(path), inputs).passed
    assert torch.tensor([float(each["pixel_values"].max()) for each in inputs[:8].inputs]).max() < 6


@pytest.mark.parametrize("limit", [6, None])
@pytest.mark.parametrize("place", [0, 1], ids=["keys", "values"])
def test_clamped_caches_are_rejected(tmp_path, place, limit):
    """The same for keys and values of a past; without a clamp the file passes."""

    own = subjects.subject(*GPT2).onnx_config
    config = copy.copy(own)

    def complete_inputs(inputs, parameters):
        caches = [list(pair) for pair in inputs["past_key_values"]]
        for pair in caches:
            pair[place] = pair[place].clamp(-limit, limit) if limit else pair[place] * 1
        return own.complete_inputs({**inputs, "past_key_values": [tuple(pair) for pair in caches]}, parameters)

    config.complete_inputs = complete_inputs
    failures = judge_values(*GPT2, tmp_path / "model.onnx", onnx_config=config)
    assert bool(failures) is (limit is not None)


@pytest.mark.parametrize(("batch", "rejected"), [(4, True), (7, True), (8, False)])
def test_batch_that_is_cut_is_rejected(batch, rejected, tmp_path):
    """A file that is right for the first rows of a batch, and repeats the first for the others."""
    import torch

    from parity.onnx import export

    subject = subjects.subject("vit", "default")

    def change(inputs, complete):
        pixels = inputs["pixel_values"]
        rows = torch.arange(pixels.shape[0])
        return {**complete, "pixel_values": pixels[rows * (rows < batch)]}

    path = tmp_path / "model.onnx"
    export(subject.preprocessor, subject.fresh_model(), with_inputs(subject.onnx_config, change), OPSET, path)
    passed = subjects.verdict(subject, OnnxSession(path), pool("vit", "default")).passed
    assert passed is not rejected


def test_thorough_tries_every_id(monkeypatch, tmp_path):
    """Only thorough samples reveal a row that no sample draws, if weights are not compared."""
    import torch

    from parity import shapes
    from parity.onnx import export
    from parity.onnx.proof import Artifact, Reference, judge_file

    subject, own = subjects.subject(*BERT), shapes.choose_samples
    monkeypatch.setattr(shapes, "choose_samples", lambda source, **options: own(source, **options)[:9])
    monkeypatch.setattr(Artifact, "judge_weights", lambda *_: [])
    samples = shapes.choose_samples(subject.source, longest=subject.longest)
    drawn_ids = {int(i) for sample in samples for i in sample.inputs["input_ids"].flatten()}
    (row, *_) = sorted({*range(5, subject.source.vocabulary)} - drawn_ids)
    model = subject.fresh_model()
    with torch.no_grad():
        model.embeddings.word_embeddings.weight[row] = 0
    path = tmp_path / "model.onnx"
    export(subject.preprocessor, model, subject.onnx_config, OPSET, path)
    verdicts = [
        judge_file(Artifact.read(path), Reference(subject.fresh_model, subject.source, thorough=thorough))
        for thorough in (False, True)
    ]
    assert [verdict.passed for verdict in verdicts] == [True, False]
    assert {each.check for each in verdicts[1].failures} >= {"ratio"}


def test_command_rejects_a_missing_window(tmp_path):
    """`parity check`: a text of 64 tokens does not reach ModernBERT's window of 128; one longer than it is tried."""
    from parity.check import main
    from parity.fixtures.checkpoints import save_checkpoint
    from parity.fixtures.controls import commands
    from parity.onnx import export

    subjects.skip_without("modernbert")
    subject = subjects.subject("modernbert", "default")
    model = other_config("modernbert", local_attention=128)
    save_checkpoint(tmp_path / "checkpoint", "modernbert")
    model.save_pretrained(tmp_path / "checkpoint")
    files = {"right": model, "wrong": other_config("modernbert", local_attention=4096)}
    status = {}
    for name, exported in files.items():
        config = type(subject.onnx_config).from_model_config(exported.config)
        export(subject.preprocessor, exported, config, OPSET, tmp_path / f"{name}.onnx")
        status[name], log, errors = commands.run(
            tmp_path / "checkpoint", tmp_path / f"{name}.onnx", "--feature=default", command=main
        )
        assert "- tried: tokens 1–129, ids 0–95" in log
    assert status == {"right": 0, "wrong": 1}
    assert "at batch 1 × sequence 129: last_hidden_state: " in errors
