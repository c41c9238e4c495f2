"""Models in bfloat16 and float16: refused for ONNX before tracing; TorchScript keeps the model's type."""

import copy
import functools
import json

import pytest

from parity import check, loading, torchscript
from parity.errors import UsageError, ValueMismatch
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
    return f"model: its weights are {dtype}, should be float32; load it with from_pretrained(…, {option}=torch.float32)"


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(("model_type", "feature"), [("bert", "default"), ("llama", "causal-lm-with-past")])
def test_onnx_refuses_them_before_the_trace(tmp_path, monkeypatch, model_type, feature, dtype):
    """One sentence with the option of from_pretrained; the model is not called, and nothing is written."""
    tokenizer = subjects.subject(model_type, feature).preprocessor
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


def test_one_half_layer_is_enough(tmp_path):
    """A float32 model with one half layer is refused; the same model in float32 is not."""
    model = tiny_model("bert")
    model.pooler.dense.half()
    config = constructor("bert", "default")(model.config)
    with pytest.raises(UsageError, match="its weights are float16, should be float32"):
        export(preprocessor("bert"), model, config, 17, tmp_path / "model.onnx")
    export(preprocessor("bert"), model.float(), config, 17, tmp_path / "model.onnx")


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

    @functools.cache
    def save(dtype, safe=True):
        directory = tmp_path_factory.mktemp(dtype)
        save_checkpoint(directory, "bert")
        tiny_model("bert", dtype=dtype).save_pretrained(directory)
        if not safe:
            import torch

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
