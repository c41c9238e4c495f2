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


def deliver(checkpoint, output, *, traced=False):
    """The file of the default feature, and its companions, without the proof; with a trace beside it on request."""
    from parity.checkpoint import Checkpoint
    from parity.companions import Companions
    from parity.publication import Publication
    from parity.torchscript import export as export_trace

    opened = Checkpoint(str(checkpoint))
    config = opened.onnx_config("default")
    source = opened.inputs(config)
    model = opened.load("default", source)
    output.mkdir()
    export(opened.preprocessor, model, config, max(13, config.default_onnx_opset), output / "model.onnx")
    if traced:
        inputs = {name: each for name, each in source.generate().inputs.items() if each is not None}
        options = {"feature": "default", "onnx_config": config, "prove": False}
        export_trace(model, inputs, output / "model.pt", **options)
    stage = output.with_name("stage")
    stage.mkdir()
    publication = Publication(stage, output)
    Companions.write(opened, stage, [output / "model.onnx"]).add_to(publication)
    publication.commit()
    return model


def tokenize(directory, names, *texts):
    """What the directory's own tokenizer makes of texts, as it is; other inputs among `names` are added."""
    import torch
    from transformers import AutoTokenizer

    inputs = dict(AutoTokenizer.from_pretrained(directory)(*texts, return_tensors="pt"))
    inputs.update({f"decoder_{name}": tensor for name, tensor in inputs.items() if f"decoder_{name}" in names})
    shape = inputs["input_ids"].shape
    inputs.update(
        {name: torch.zeros(*shape, *more, dtype=torch.int64) for name, more in ZEROS.items() if name in names}
    )
    return inputs


def ask(directory, model, *texts):
    """The answer of the file in that directory to its own tokenizer's output as it is, and the model's own."""
    from onnxruntime import InferenceSession

    session = InferenceSession(directory / "model.onnx")
    inputs = tokenize(directory, {value.name for value in session.get_inputs()}, *texts)
    (answer, *_) = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
    return answer, answer_of(model, inputs)


def answer_of(model, inputs):
    """The model's own answer."""
    import torch

    with torch.no_grad():
        return model(**inputs)[0].numpy()


def require_traces_answer(directory, reference, *texts):
    """The trace in that directory answers as the model does, through Parity and through torch alone."""
    import torch

    from parity.torchscript import load

    trace = load(directory / "model.pt")
    inputs = tokenize(directory, trace.inputs, *texts)
    require_same(trace(**inputs)[0].numpy(), reference)
    with torch.no_grad():
        (answer, *_) = torch.jit.load(directory / "model.pt")(**inputs)
    require_same(answer.numpy(), reference)


def require_same(answer, reference):
    assert answer.shape == reference.shape
    assert np.ptp(reference) > 0.1
    np.testing.assert_allclose(answer, reference, rtol=0, atol=1e-4)


def require_answers(place):
    """Both files that are made of the checkpoint there take what the tokenizer beside them makes."""
    model = deliver(place / "checkpoint", place / "output", traced=True)
    answer, reference = ask(place / "output", model, "w7 w8 w9")
    require_same(answer, reference)
    require_traces_answer(place / "output", reference, "w7 w8 w9")


@pytest.mark.parametrize("name", TEXTS)
def test_the_tokenizers_output_is_the_files_input(tmp_path, name):
    """`session.run(None, dict(tokenizer(text, return_tensors="np")))` and `traced(**tokenizer(text,
    return_tensors="pt"))` answer as the model does to the same."""
    available(name)
    publish(tmp_path / "checkpoint", name)
    require_answers(tmp_path)


@pytest.mark.parametrize("name", STRANGERS)
def test_the_output_of_another_familys_tokenizer_is_the_files_input(tmp_path, name):
    """A BertTokenizer, as in uer/t5-base-chinese and fnlp/bart-base-chinese, or one of XLM-R for a BERT."""
    available(name)
    publish(tmp_path / "checkpoint", name, *STRANGERS[name])
    require_answers(tmp_path)


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
    model = deliver(tmp_path / "checkpoint", tmp_path / "onnx", traced=True)
    assert "token_type_ids" in {value.name for value in read(tmp_path / "onnx" / "model.onnx").inputs}
    answer, reference = ask(tmp_path / "onnx", model, "w7 w8 w9", "w10 w11")
    require_same(answer, reference)
    require_traces_answer(tmp_path / "onnx", reference, "w7 w8 w9", "w10 w11")
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


def test_the_command_makes_a_trace_that_takes_the_tokenizers_output(tmp_path):
    """`python -m parity.torchscript` of a Llama with a BertTokenizer; a name that is missing is refused."""
    from parity.torchscript import load

    model = publish(tmp_path / "checkpoint", "llama", *STRANGERS["llama"])
    status, _, err = commands.run("-m", tmp_path / "checkpoint", "--quiet", tmp_path / "ts", command=torchscript)
    assert (status, err) == (0, "")
    trace = load(tmp_path / "ts" / "model.pt")
    inputs = tokenize(tmp_path / "ts", trace.inputs, "w7 w8 w9")
    require_traces_answer(tmp_path / "ts", answer_of(model, inputs), "w7 w8 w9")
    with pytest.raises(ValueError, match="inputs: got input_ids, should be input_ids, "):
        trace(input_ids=inputs["input_ids"])


def test_a_trace_without_names_takes_none(tmp_path, monkeypatch):
    """The control: as torch names the arguments by itself, the trace cannot be called so."""
    monkeypatch.setattr("parity.torchscript.trace._with_argument_names", lambda traceable: traceable)
    publish(tmp_path / "checkpoint", "distilbert")
    with pytest.raises(RuntimeError, match="missing value for argument"):
        require_answers(tmp_path)


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
