"""Models in halves: for ONNX bfloat16 is refused before tracing; float16, and TorchScript, keep the model's type."""

import contextlib
import copy
import functools
import json
import re

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from parity import check, loading, torchscript
from parity.errors import DtypeMismatch, ExportError, UsageError, ValueMismatch
from parity.fixtures import subjects
from parity.fixtures.checkpoints import save_checkpoint, tiny_model
from parity.fixtures.controls import commands
from parity.fixtures.preprocessors import preprocessor
from parity.onnx import export, validate_model_outputs
from parity.onnx.__main__ import main
from parity.onnx.features import constructor
from parity.releases import dtype_option
from parity.torchscript.__main__ import main as torchscript_main

HALVES = ("bfloat16", "float16")
run = functools.partial(commands.run, command=main)


def example(model_type, feature, dtype):
    """The dummy inputs of an architecture in a dtype."""
    from parity.dtypes import cast_floats, torch_dtype

    inputs = subjects.subject(model_type, feature).source.dummy
    return cast_floats({name: value for name, value in inputs.items() if value is not None}, torch_dtype(dtype))


def sentence(dtype):
    """The refusal; before transformers 4.56 the option of from_pretrained has another name."""
    import torch

    (option,) = dtype_option(torch.float32)
    return (
        f"model: its weights are {dtype}, should be float32 or float16; load it with"
        f" from_pretrained(…, {option}=torch.float32)"
    )


@pytest.mark.parametrize(("model_type", "feature"), [("bert", "default"), ("llama", "causal-lm-with-past")])
def test_onnx_refuses_bfloat16_before_the_trace(tmp_path, monkeypatch, model_type, feature):
    """One sentence with the option of from_pretrained; the model is not called, and nothing is written."""
    dtype, tokenizer = "bfloat16", subjects.subject(model_type, feature).preprocessor
    model = tiny_model(model_type, feature, dtype=dtype)
    monkeypatch.setattr(type(model), "forward", None)
    config = constructor(model_type, feature)(model.config)
    for act in (
        lambda: export(tokenizer, model, config, 17, tmp_path / "model.onnx"),
        lambda: validate_model_outputs(config, tokenizer, model, tmp_path / "none.onnx", ["logits"], 1),
    ):
        with pytest.raises(UsageError) as refusal:
            act()
        assert str(refusal.value) == sentence(dtype)
    assert list(tmp_path.iterdir()) == []


def test_one_layer_of_another_type_is_enough(tmp_path):
    """A float32 model with one bfloat16 layer is refused; the same model in float32 is not."""
    model = tiny_model("bert")
    model.pooler.dense.bfloat16()
    config = constructor("bert", "default")(model.config)
    with pytest.raises(UsageError, match="its weights are bfloat16, should be float32 or float16"):
        export(preprocessor("bert"), model, config, 17, tmp_path / "model.onnx")
    export(preprocessor("bert"), model.float(), config, 17, tmp_path / "model.onnx")


# T5 keeps some of its weights in float32. from_pretrained chooses sdpa if a model has it.
FLOAT16 = [
    ("bert", "default", "sdpa"),
    ("clip", "default", "sdpa"),
    ("gpt2", "causal-lm-with-past", "eager"),
    ("gpt2", "causal-lm-with-past", "sdpa"),
    ("llama", "causal-lm-with-past", "eager"),
    ("t5", "seq2seq-lm-with-past", "eager"),
    ("vit", "image-classification", "eager"),
]


@pytest.mark.parametrize(("model_type", "feature", "attention"), FLOAT16)
def test_float16_is_exported_and_judged_in_its_unit(tmp_path, caplog, model_type, feature, attention):
    """The file has the model's type and passes with the atol of float32; one whose matrices are × 1.05 fails."""
    import torch

    tokenizer, path = subjects.subject(model_type, feature).preprocessor, tmp_path / "model.onnx"
    model = tiny_model(model_type, feature, dtype="float16", attention=attention)
    config = constructor(model_type, feature)(model.config)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    _, outputs = export(tokenizer, model, config, 17, path)
    file = onnx.load(path)
    assert {each.type.tensor_type.elem_type for each in file.graph.output} == {onnx.TensorProto.FLOAT16}
    caplog.set_level("INFO", logger="parity.onnx")
    validate_model_outputs(config, tokenizer, model, path, outputs, config.atol_for_validation)
    assert "all values within the error ratio" in caplog.text
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    for tensor in file.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT16 and len(tensor.dims) == 2:
            values = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array((values * 1.05).astype(values.dtype), tensor.name))
    onnx.save(file, path)
    with pytest.raises(ValueMismatch):
        validate_model_outputs(config, tokenizer, model, path, outputs, config.atol_for_validation)


MASKS = {
    "causal": lambda states: {"is_causal": True},
    "boolean": lambda states: {"attn_mask": (states[..., :1] > states[..., :1].transpose(-1, -2))},
}


@pytest.mark.parametrize("mask", MASKS)
def test_a_file_of_another_type_than_the_model_is_refused(tmp_path, monkeypatch, mask):
    """torch's exporter adds masks of float32 numbers: without our patch the file computes in float32 from there on.

    Which masks a model gives to its attention depends on the release of transformers: so this one has its own.
    """
    from torch.nn import functional

    from parity.onnx import exporter

    model = tiny_model("bert", dtype="float16")
    forward = type(model).forward

    @functools.wraps(forward)
    def attend(self, *args, **options):
        outputs = forward(self, *args, **options)
        states = outputs["last_hidden_state"]
        outputs["last_hidden_state"] = functional.scaled_dot_product_attention(
            states, states, states, **MASKS[mask](states)
        )
        return outputs

    monkeypatch.setattr(type(model), "forward", attend)
    config, path = constructor("bert", "default")(model.config), tmp_path / "model.onnx"
    _, outputs = export(preprocessor("bert"), model, config, 17, path)
    validate_model_outputs(config, preprocessor("bert"), model, path, outputs, config.atol_for_validation)
    path.unlink()
    monkeypatch.setattr(exporter, "masks_in_the_type_of_queries", contextlib.nullcontext)
    with pytest.raises(ExportError, match="output last_hidden_state: dtype float32, should be float16"):
        export(preprocessor("bert"), model, config, 17, path)
    assert not path.exists()


@pytest.mark.parametrize(("model_type", "feature"), [("bert", "default"), ("gpt2", "causal-lm-with-past")])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_model_of_another_type_than_the_file_is_refused(tmp_path, model_type, feature, dtype):
    """transformers 5 loads a checkpoint in the type that it is stored in: one sentence with both types."""
    tokenizer, path = subjects.subject(model_type, feature).preprocessor, tmp_path / "model.onnx"
    model = tiny_model(model_type, feature, dtype=dtype)
    config = constructor(model_type, feature)(model.config)
    _, outputs = export(tokenizer, model, config, 17, path)
    (other,) = {"float16", "float32"} - {dtype}
    with pytest.raises(DtypeMismatch) as refusal:
        validate_model_outputs(
            config, tokenizer, tiny_model(model_type, feature, dtype=other), path, outputs, config.atol_for_validation
        )
    name = {"bert": "last_hidden_state", "gpt2": "past_key_values.0.key"}[model_type]
    assert str(refusal.value).startswith(
        f"{name}: is {dtype} in the file, should be {other} as in the reference model;"
    )
    assert str(refusal.value).endswith(f"=torch.{dtype})")
    assert "\n" not in str(refusal.value)


def test_a_model_that_overflows_in_halves_is_not_judged(tmp_path):
    """Its file is as wrong as the model: the sentence says so, and that float32 helps."""
    model, path = tiny_model("bert", dtype="float16"), tmp_path / "model.onnx"
    model.encoder.layer[0].intermediate.dense.weight.data *= 3e4
    config = constructor("bert", "default")(model.config)
    _, outputs = export(preprocessor("bert"), model, config, 17, path)
    with pytest.raises(ValueMismatch) as refusal:
        validate_model_outputs(config, preprocessor("bert"), model, path, outputs, config.atol_for_validation)
    assert re.fullmatch(
        r"last_hidden_state: \d+ of \d+ values are not finite in PyTorch itself, and are in float64: the model"
        r" overflows in float16; export it in float32",
        str(refusal.value),
    )


def test_values_that_overflow_are_counted():
    """In the model's own answers and in those of moved weights; none in float32, or if float64 is infinite too."""
    from parity.judge.pool import Answers
    from parity.judge.values import judge_overflow

    def answers(dtype, exact, eager, jittered):
        sides = (np.array(eager, dtype), np.array(exact), np.array(jittered, dtype))
        return [Answers(*({"logits": side} for side in sides))]

    nan, inf = np.nan, np.inf
    (finding,) = judge_overflow(answers(np.float16, [1.0, 2.0, inf, 4.0], [1.0, nan, inf, 4.0], [1.0, 2.0, inf, inf]))
    assert (finding.check, finding.passed) == ("nonfinite", False)
    assert finding.message.startswith("logits: 2 of 4 values are not finite in PyTorch itself")
    assert judge_overflow(answers(np.float16, [1.0, inf], [1.0, inf], [1.0, inf])) == []
    assert judge_overflow(answers(np.float32, [1.0, 2.0], [1.0, inf], [1.0, inf])) == []
    assert judge_overflow(answers(np.int8, [1.0, 2.0], [1, 2], [1, 2])) == []


def test_attention_with_masks_in_the_type_of_its_queries():
    """The answers are torch's own, also for rows that attend to nothing; the function is restored."""
    import torch
    from torch.nn import functional

    from parity.traceable import masks_in_the_type_of_queries

    attend = functional.scaled_dot_product_attention
    query, key, value = torch.randn((3, 2, 4, 5, 8), generator=torch.Generator().manual_seed(0)).double()
    mask = torch.rand((2, 1, 5, 5), generator=torch.Generator().manual_seed(1)) < 0.5
    mask[0, :, 2] = False
    options = [
        {},
        {"is_causal": True},
        {"attn_mask": mask, "scale": 0.5},
        {"attn_mask": mask.double()},
        {"attn_mask": mask[0, 0]},
    ]
    own = [attend(query, key, value, **each) for each in options]
    shorter = attend(query[..., :3, :], key, value, is_causal=True)
    with masks_in_the_type_of_queries():
        assert functional.scaled_dot_product_attention is not attend
        answers = [functional.scaled_dot_product_attention(query, key, value, **each) for each in options]
        other = functional.scaled_dot_product_attention(query[..., :3, :], key, value, is_causal=True)
    assert functional.scaled_dot_product_attention is attend
    for answer, reference in zip([*answers, other], [*own, shorter], strict=True):
        torch.testing.assert_close(answer, reference)
    assert (answers[2][0, :, 2] == 0).all()


def flip_last(model):
    """Change the sign of the last element of the largest table."""
    tensor = max(model.graph.initializer, key=lambda each: len(each.raw_data))
    values = numpy_helper.to_array(tensor).copy()
    values.flat[-1] *= -1
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def turn_softmax(model):
    """Compute the first softmax over queries instead of keys."""
    next(node for node in model.graph.node if node.op_type == "Softmax").attribute[0].i = -2


def test_a_float16_file_is_judged_by_the_check(tmp_path):
    """The model is loaded in the type that the file names; one element of a weight and another axis are faults."""
    save_checkpoint(tmp_path, "bert")
    model, path = tiny_model("bert", dtype="float16"), tmp_path / "model.onnx"
    model.save_pretrained(tmp_path)
    export(preprocessor("bert"), model, constructor("bert", "default")(model.config), 17, path)
    status, out, _ = run(tmp_path, path, "--json", command=check.main)
    assert (status, json.loads(out)["status"]) == (0, "passed")
    checks = []
    for spoil in (flip_last, turn_softmax):
        file = onnx.load(path)
        spoil(file)
        onnx.save(file, tmp_path / "spoiled.onnx")
        status, out, _ = run(tmp_path, tmp_path / "spoiled.onnx", "--json", command=check.main)
        assert status == 1
        checks.append({failure["check"] for failure in json.loads(out)["failures"]})
    assert "weights" in checks[0]
    assert "ratio" in checks[1]


def test_weights_in_float64_return_to_their_own_types():
    """A model in float16 that keeps a buffer in float32 does so after it has been in float64."""
    import torch

    from parity.reference import float64_weights

    model = tiny_model("llama", "causal-lm", dtype="float16")
    model.model.rotary_emb.inv_freq.data = model.model.rotary_emb.inv_freq.data.float() + 1e-5
    for layer in model.model.layers:
        layer.register_buffer("shared", model.model.rotary_emb.inv_freq)
    before = {name: (each.dtype, each.clone()) for name, each in [*model.named_parameters(), *model.named_buffers()]}
    assert {str(dtype) for dtype, _ in before.values()} == {"torch.float16", "torch.float32"}
    with float64_weights(model):
        assert {str(each.dtype) for each in model.parameters()} == {"torch.float64"}
    after = {name: (each.dtype, each) for name, each in [*model.named_parameters(), *model.named_buffers()]}
    for name, (dtype, tensor) in before.items():
        assert after[name][0] == dtype
        assert torch.equal(after[name][1], tensor)


@pytest.mark.parametrize(
    ("model_type", "feature", "dtype"),
    [
        ("bert", "default", "bfloat16"),
        ("gpt2", "causal-lm", "float16"),
        ("llama", "causal-lm-with-past", "bfloat16"),
        ("vit", "image-classification", "float16"),
    ],
)
def test_torchscript_keeps_their_type(tmp_path, model_type, feature, dtype):
    """Traced, proven and run in the model's own type, and right at other sizes of every axis."""
    model, inputs = tiny_model(model_type, feature, dtype=dtype), example(model_type, feature, dtype)
    trace = torchscript.export(model, inputs, tmp_path / "model.pt", feature=feature)
    assert trace.proof
    from parity.torchscript.model import nested_inputs
    from parity.torchscript.verdicts import GENERALISES
    from parity.traceable import Layout

    config = constructor(model_type, feature)(model.config)
    flat = Layout.from_inputs(config, nested := nested_inputs(config, inputs)).flatten(nested)
    loaded = torchscript.load(tmp_path / "model.pt")
    answer = loaded(*[flat[name] for name in loaded.inputs])
    assert {str(tensor.dtype) for tensor in answer} == {f"torch.{dtype}"}
    verdicts = torchscript.verdict(
        trace, model, sizes={"batch": [1], **({"sequence": [5]} if "sequence" in trace.sizes else {})}
    )
    assert {each.outcome for each in verdicts} == {GENERALISES}


@pytest.mark.parametrize("dtype", HALVES)
def test_a_wrong_trace_of_them_is_seen(dtype):
    """The control: a trace whose last normalisation has another gain fails."""
    from parity.torchscript.trace import Declaration, _with_proof

    model, inputs = tiny_model("bert", dtype=dtype), example("bert", "default", dtype)
    trace = torchscript.export(model, inputs, feature="default")
    # The trace shares the weights of the traced model.
    model = copy.deepcopy(model)
    model.encoder.layer[1].output.LayerNorm.weight.data[0] += 1
    with pytest.raises(ValueMismatch, match="at the traced shape: last_hidden_state"):
        _with_proof(trace, model, Declaration.for_model(model, inputs).onnx_config, print)


@pytest.fixture(scope="module")
def half_checkpoint(tmp_path_factory):
    """Type → the directory of a tiny BERT stored in it."""
    import torch

    @functools.cache
    def save(dtype, safe=True):
        directory = tmp_path_factory.mktemp(dtype)
        save_checkpoint(directory, "bert")
        tiny_model("bert", dtype=dtype).save_pretrained(directory)
        if not safe:
            (directory / "model.safetensors").unlink()
            torch.save(tiny_model("bert", dtype=dtype).state_dict(), directory / "pytorch_model.bin")
        return directory

    return save


def test_commands_say_that_they_load_float32(half_checkpoint, tmp_path):
    """They export and judge float32 as usual, and report the stored type of the checkpoint."""
    words = ", stored as bfloat16, exported as float32"
    directory = half_checkpoint("bfloat16")
    status, log, err = run("-m", directory, tmp_path)
    assert (status, err) == (0, "")
    assert log.splitlines()[0].endswith(f"attention eager{words}")
    status, log, err = run("-m", directory, tmp_path / "model.pt", command=torchscript_main)
    assert (status, err) == (0, "")
    assert log.splitlines()[0].endswith(words)
    assert run(directory, tmp_path / "model.onnx", "--quiet", command=check.main) == (0, "", "")
    status, log, err = run(directory, tmp_path / "model.onnx", command=check.main)
    assert (status, err) == (0, "")
    assert log.splitlines()[0].endswith("feature default, opset 11, stored as bfloat16, compared as float32")
    # The control: nothing is reported for a float32 checkpoint.
    status, log, _ = run(half_checkpoint("float32"), tmp_path / "model.onnx", command=check.main)
    assert log.splitlines()[0].endswith("feature default, opset 11")


@pytest.mark.parametrize("dtype", ["float32", *HALVES])
def test_the_stored_type_is_that_of_the_weights(half_checkpoint, dtype):
    """From the files, or from config.json. Nothing is reported for a float32 checkpoint."""
    from parity.checkpoint import Checkpoint

    each = Checkpoint(str(half_checkpoint(dtype)))
    assert each.stored_dtype == dtype
    assert each.cast_note() == ("" if dtype == "float32" else f", stored as {dtype}, exported as float32")
    assert Checkpoint(str(half_checkpoint(dtype, safe=False))).stored_dtype == dtype


def test_the_stored_type_of_shards(tmp_path):
    """If the weights are in several files, the index leads to one of them."""
    from transformers import BertConfig

    model = tiny_model("bert", dtype="float16")
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]) > 10
    assert loading.stored_dtype(str(tmp_path), BertConfig(dtype="float32")) == "float16"
