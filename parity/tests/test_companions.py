"""Companions of a file: with the checkpoint's own files, byte for byte, its directory is self-contained."""

import json

import numpy as np
import pytest

from parity.environment import at_least
from parity.fixtures import published
from parity.fixtures.checkpoints import tiny_config, tiny_model
from parity.fixtures.controls import commands
from parity.fixtures.preprocessors import preprocessor
from parity.judge.contract import read
from parity.onnx import export
from parity.onnx.__main__ import main as onnx
from parity.registry import architectures
from parity.torchscript.__main__ import main as torchscript

# They read images, or texts under another input name; the second has no past.
NOT_OF_TEXTS = ("imagegpt", "perceiver")
TEXTS = [
    each.name
    for each in architectures()
    if each.kind in ("encoder", "decoder", "encoder-decoder") and each.name not in NOT_OF_TEXTS
]
BERTS = ("t5", "bart", "mbart", "marian", "llama", "bloom", "modernbert")
# Architecture → (family of tokenizers, class), if not its own.
STRANGERS = {**dict.fromkeys(BERTS, ("wordpiece", "BertTokenizer")), "bert": ("xlm-roberta", "XLMRobertaTokenizer")}
# Inputs that the caller sets, because no tokenizer returns them.
ZEROS = {"bbox": (4,), "global_attention_mask": ()}


def publish(directory, name, family="", tokenizer_class=""):
    """A checkpoint with published files; BERT's if its own cannot be made, or those of another family."""
    from transformers import AutoTokenizer

    own = name in published.TOKENIZERS and not family
    model = published.publish(directory, name, family=family or ("" if own else "wordpiece"))
    if not own:
        config = json.loads((directory / "tokenizer_config.json").read_text())
        config["tokenizer_class"] = tokenizer_class or "BertTokenizer"
        (directory / "tokenizer_config.json").write_text(json.dumps(config))
        if name in ("bigbird-pegasus", "modernbert") and at_least("transformers", "5"):
            # Only this file determines the class of their tokenizers.
            saved = AutoTokenizer.from_pretrained(directory, config=tiny_config("bert"))
            saved.backend_tokenizer.save(str(directory / "tokenizer.json"))
    return model


def deliver(checkpoint, output):
    """Export the default feature with its companions, without the proof."""
    from parity.checkpoint import Checkpoint
    from parity.companions import Companions
    from parity.publication import Publication

    opened = Checkpoint(str(checkpoint))
    config = opened.onnx_config("default")
    source = opened.inputs(config)
    model = opened.load("default", source)
    output.mkdir()
    export(opened.preprocessor, model, config, max(13, config.default_onnx_opset), output / "model.onnx")
    stage = output.with_name("stage")
    stage.mkdir()
    publication = Publication(stage, output)
    Companions.write(opened, stage, [output / "model.onnx"]).add_to(publication)
    publication.commit()
    return model


def ask(directory, model, *texts):
    """The answer of the file in that directory to its own tokenizer's output, and the model's answer."""
    import torch
    from onnxruntime import InferenceSession
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory)
    session = InferenceSession(directory / "model.onnx")
    names = {value.name for value in session.get_inputs()}
    inputs = dict(tokenizer(*texts, return_tensors="np"))
    inputs.update({f"decoder_{name}": array for name, array in inputs.items() if f"decoder_{name}" in names})
    shape = inputs["input_ids"].shape
    inputs.update({name: np.zeros((*shape, *more), np.int64) for name, more in ZEROS.items() if name in names})
    (answer, *_) = session.run(None, inputs)
    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
    with torch.no_grad():
        return answer, model(**tensors)[0].numpy()


def require_same(answer, reference):
    assert answer.shape == reference.shape
    assert np.ptp(reference) > 0.1
    np.testing.assert_allclose(answer, reference, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", TEXTS)
def test_the_tokenizers_output_is_the_files_input(tmp_path, name):
    """`session.run(None, dict(tokenizer(text, return_tensors="np")))` answers like the model."""
    available(name)
    publish(tmp_path / "checkpoint", name)
    model = deliver(tmp_path / "checkpoint", tmp_path / "onnx")
    require_same(*ask(tmp_path / "onnx", model, "w7 w8 w9"))


@pytest.mark.parametrize("name", STRANGERS)
def test_the_output_of_another_familys_tokenizer_is_the_files_input(tmp_path, name):
    """A BertTokenizer, as in uer/t5-base-chinese and fnlp/bart-base-chinese, or one of XLM-R for a BERT."""
    available(name)
    publish(tmp_path / "checkpoint", name, *STRANGERS[name])
    model = deliver(tmp_path / "checkpoint", tmp_path / "onnx")
    require_same(*ask(tmp_path / "onnx", model, "w7 w8 w9"))


def available(name):
    """Skip a model that this environment lacks."""
    from parity.registry import architecture

    if gap := architecture(name).gap:
        pytest.skip(gap)


@pytest.mark.parametrize("name", ["distilbert", "t5", "roberta", "bloom"])
def test_the_own_files_are_copied_byte_for_byte(tmp_path, name):
    """No file is saved again: only `model_input_names` is set, if the tokenizer returns inputs that the file lacks."""
    checkpoint, output = tmp_path / "checkpoint", tmp_path / "onnx"
    publish(checkpoint, name)
    deliver(checkpoint, output)
    own = {path.name for path in checkpoint.iterdir()} - {"model.safetensors", "config.json"}
    assert own <= {path.name for path in output.iterdir()}
    changed = [file for file in own if (output / file).read_bytes() != (checkpoint / file).read_bytes()]
    before, after = (json.loads((each / "tokenizer_config.json").read_text()) for each in (checkpoint, output))
    names = after.pop("model_input_names", None)
    assert after == before
    assert changed in ([], ["tokenizer_config.json"])
    assert bool(changed) is (names is not None)
    assert names in (None, ["input_ids", "attention_mask"])


@pytest.mark.parametrize("name", ["albert", "rembert"])
def test_segments_of_pairs_are_kept(tmp_path, name):
    """transformers 5 makes them only on request: the file has the input, and the companion makes them by default."""
    publish(tmp_path / "checkpoint", name)
    model = deliver(tmp_path / "checkpoint", tmp_path / "onnx")
    assert "token_type_ids" in {value.name for value in read(tmp_path / "onnx" / "model.onnx").inputs}
    answer, reference = ask(tmp_path / "onnx", model, "w7 w8 w9", "w10 w11")
    require_same(answer, reference)
    apart = ask(tmp_path / "onnx", model, "w7 w8 w9 w10 w11")
    assert answer.shape != apart[0].shape


def test_lost_segments_are_told(tmp_path):
    """A tokenizer that gives both texts the same type: one warning, and a file without token types."""
    publish(tmp_path / "checkpoint", "bert", *STRANGERS["bert"])
    status, _, err = commands.run("-m", tmp_path / "checkpoint", "--quiet", tmp_path / "onnx", command=onnx)
    assert status == 0
    (line,) = err.splitlines()
    assert line.startswith("warning: the tokenizer (XLMRobertaTokenizer")
    assert "the file has no token_type_ids, and takes a pair for one text" in line
    assert "token_type_ids" not in {value.name for value in read(tmp_path / "onnx" / "model.onnx").inputs}


@pytest.mark.parametrize("name", ["distilbert", "albert", "llama"])
def test_the_tokenizers_output_is_a_traces_input(tmp_path, name):
    """`traced(**tokenizer(text, return_tensors="pt"))` answers like the model, with a BertTokenizer too."""
    import torch
    from transformers import AutoTokenizer

    from parity.torchscript import load

    model = publish(tmp_path / "checkpoint", name, *(STRANGERS[name] if name == "llama" else ()))
    status, _, err = commands.run("-m", tmp_path / "checkpoint", "--quiet", tmp_path / "ts", command=torchscript)
    assert (status, err) == (0, "")
    inputs = AutoTokenizer.from_pretrained(tmp_path / "ts")("w7 w8 w9", return_tensors="pt")
    traced = load(tmp_path / "ts" / "model.pt")
    with torch.no_grad():
        reference = model(**inputs)[0]
    require_same(traced(**inputs)[0].numpy(), reference.numpy())
    with pytest.raises(ValueError, match="inputs: got input_ids, should be input_ids, "):
        traced(input_ids=inputs["input_ids"])


def test_a_model_without_its_own_tokenizer_files_gets_none(tmp_path):
    """Image processors and tokenizers are copied only for the model that uses them."""
    checkpoint = tmp_path / "checkpoint"
    tiny_model("vit").save_pretrained(checkpoint)
    for part in ("image32", "bert"):
        preprocessor(part).save_pretrained(checkpoint)
    deliver(checkpoint, tmp_path / "onnx")
    assert {path.name for path in (tmp_path / "onnx").iterdir()} == {
        "config.json",
        "model.onnx",
        "preprocessor_config.json",
    }
