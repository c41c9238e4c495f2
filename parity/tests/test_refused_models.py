"""Checkpoints and models that cannot be exported: one sentence each, with the cause."""

import contextlib
import functools
import json
import shutil

import pytest

from parity import loading
from parity.architectures.bert import BertOnnxConfig
from parity.errors import ExportError, UsageError
from parity.fixtures.checkpoints import save_checkpoint, tiny_model
from parity.fixtures.controls import commands
from parity.fixtures.preprocessors import preprocessor
from parity.onnx import export
from parity.onnx.__main__ import main
from parity.torchscript.__main__ import main as torchscript_main

FEATURE = "sequence-classification"
run = functools.partial(commands.run, command=main)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """The directory of a tiny BERT classifier, which tests must not change."""
    directory = tmp_path_factory.mktemp("classifier")
    save_checkpoint(directory, "bert", FEATURE)
    return directory


@pytest.fixture
def changed(classifier, tmp_path):
    """A function: items of config.json → a copy of the classifier with these items."""

    def change(**items):
        directory = shutil.copytree(classifier, tmp_path / "checkpoint")
        path = directory / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **items}))
        return directory

    return change


def require_sentence(tmp_path, fragments, *argv, status=1, command=main):
    """Assert that a command fails with one line that has all fragments, and writes nothing."""
    got, out, err = run(*argv, tmp_path / "out", command=command)
    assert (got, out, err.count("\n")) == (status, "", 1), err
    assert [fragment for fragment in fragments if fragment not in err] == []
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("method", ["gptq", "awq", "bitsandbytes"])
def test_quantised_checkpoints(changed, tmp_path, method):
    """Their configuration is refused, whatever package they need; TorchScript likewise."""
    directory = changed(quantization_config={"quant_method": method, "bits": 4})
    fragments = (f"its weights are quantised ({method})", "use the checkpoint from before it was quantised")
    require_sentence(tmp_path, fragments, "-m", directory, "--feature", FEATURE)
    require_sentence(tmp_path, fragments, "-m", directory, "--feature", FEATURE, command=torchscript_main)


def test_quantised_models_of_the_python_api(tmp_path):
    """A model quantised by torch or a package is refused before tracing; a plain model is the control."""
    import torch

    config = BertOnnxConfig(tiny_model("bert").config)
    model = tiny_model("bert")
    model.config.quantization_config = {"quant_method": "awq"}
    with pytest.raises(UsageError, match=r"model: is quantised \(awq\), should have floating point weights"):
        export(preprocessor("bert"), model, config, 17, tmp_path / "model.onnx")
    model = tiny_model("bert")
    model.pooler.dense = torch.ao.nn.quantized.dynamic.Linear(32, 32)
    with pytest.raises(UsageError, match=r"model: has modules that torch\.ao has quantised \(Linear\)"):
        export(preprocessor("bert"), model, config, 17, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []
    export(preprocessor("bert"), tiny_model("bert"), config, 17, tmp_path / "model.onnx")


def test_code_of_its_own_is_not_run(changed, tmp_path):
    """A type unknown to transformers is refused; for a known type transformers' own code runs, with a warning."""
    code = {"AutoConfig": "configuration_own.OwnConfig", "AutoModel": "modeling_own.OwnModel"}
    directory = changed(auto_map=code)
    (directory / "configuration_own.py").write_text("raise AssertionError\n")
    status, _, err = run("-m", directory, "--feature", FEATURE, tmp_path / "model.onnx")
    assert (status, err.count("\n")) == (0, 1)
    assert (
        "warning: config.json names code of its own (auto_map), which is not run: the model is transformers' own" in err
    )
    shutil.rmtree(directory)
    directory = changed(auto_map=code, model_type="own")
    require_sentence(tmp_path, ("it needs code of its own, which parity does not run",), "-m", directory)


@pytest.mark.parametrize("safe", [True, False])
def test_weights_that_are_not_numbers(classifier, tmp_path, safe):
    """The first weight with NaN is named, with the number of weights; two infinities in one weight are allowed."""
    import torch
    from transformers import AutoModelForSequenceClassification

    directory = shutil.copytree(classifier, tmp_path / "checkpoint")
    model = AutoModelForSequenceClassification.from_pretrained(directory)
    model.bert.encoder.layer[0].attention.self.query.weight.data[0, :3] = float("nan")
    model.classifier.bias.data[0] = float("nan")
    if safe:
        model.save_pretrained(directory)
    else:
        (directory / "model.safetensors").unlink()
        torch.save(model.state_dict(), directory / "pytorch_model.bin")
    fragments = (
        "its weights should be numbers, but 3 of 1024 values of bert.encoder.layer.0.attention.self.query.weight are"
        " NaN",
        "and 1 more weights; use a checkpoint from before the training diverged",
    )
    require_sentence(tmp_path, fragments, "-m", directory, "--feature", FEATURE)
    model = tiny_model("bert")
    model.pooler.dense.bias.data[:2] = torch.tensor([float("inf"), float("-inf")])
    loading.require_numbers("checkpoint", model)


def test_labels_that_do_not_match(changed, tmp_path):
    """The message has the weight, its size, the size in config.json, and where that is stated."""
    directory = changed(id2label={"0": "a", "1": "b", "2": "c"}, label2id={"a": 0, "b": 1, "c": 2})
    fragments = (
        "its weights do not fit its config.json: classifier.bias is (2,), should be (3,), classifier.weight is (2, 32),"
        " should be (3, 32)",
        "id2label says how many labels there are",
    )
    require_sentence(tmp_path, fragments, "-m", directory, "--feature", FEATURE)


def with_head(monkeypatch, change):
    """A tiny BERT whose answer goes through `change`, and its configuration."""
    model = tiny_model("bert")
    forward = type(model).forward

    @functools.wraps(forward)
    def answer(self, *args, **options):
        outputs = forward(self, *args, **options)
        outputs["last_hidden_state"] = change(outputs["last_hidden_state"])
        return outputs

    monkeypatch.setattr(type(model), "forward", answer)
    return model, BertOnnxConfig(model.config)


@pytest.mark.parametrize("json_option", [[], ["--json"]])
def test_an_operator_without_lowering(tmp_path, monkeypatch, capfd, json_option):
    """One sentence with operator and opset, and no graph on standard output, which torch writes bypassing Python."""
    import torch

    save_checkpoint(tmp_path / "checkpoint", "bert")
    with_head(monkeypatch, lambda hidden: hidden + torch.special.i0(hidden))
    capfd.readouterr()
    status = main([*json_option, "-m", str(tmp_path / "checkpoint"), str(tmp_path / "out")])
    out, err = capfd.readouterr()
    sentence = (
        "opset 11: the model uses aten::i0, which torch's exporter cannot write at this opset; try a higher one"
        " (up to 20), or a model that does without it"
    )
    assert (status, err) == (1, f"python -m parity.onnx: error: {sentence}\n")
    assert (json.loads(out)["error"] if json_option else out) == (sentence if json_option else "")
    assert torch._C._jit_onnx_log.__name__ != "<lambda>"


def test_the_graph_would_be_seen(tmp_path, monkeypatch, capfd):
    """The control: without our capture, torch prints it."""
    import torch

    from parity.onnx import exporter

    monkeypatch.setattr(exporter, "_no_graph_on_stdout", contextlib.nullcontext)
    model, config = with_head(monkeypatch, torch.special.i0)
    with pytest.raises(ExportError, match="uses aten::i0"):
        export(preprocessor("bert"), model, config, 17, tmp_path / "model.onnx")
    assert "Torch IR graph at exception" in capfd.readouterr().out
    torch._C._jit_set_onnx_log_enabled(False)


def test_what_pytorch_cannot_run_is_not_the_exporter_s_fault(tmp_path, monkeypatch):
    """A model that raises without any exporter; the control raises only while tracing."""
    import torch

    def fail(hidden):
        raise IndexError("index out of range in self")

    with monkeypatch.context() as patch:
        model, config = with_head(patch, fail)
        with pytest.raises(
            ExportError,
            match=r"^the model itself refuses the example inputs: IndexError: index out .* without an exporter$",
        ):
            export(preprocessor("bert"), model, config, 17, tmp_path / "model.onnx")
    model, config = with_head(monkeypatch, lambda hidden: fail(hidden) if torch.jit.is_tracing() else hidden)
    with pytest.raises(ExportError, match=r"^opset 17: the exporter failed: IndexError: index out of range in self$"):
        export(preprocessor("bert"), model, config, 17, tmp_path / "model.onnx")
