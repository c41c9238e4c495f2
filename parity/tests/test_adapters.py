"""Adapters of peft: merged into their base, refused if they cannot be applied, and never silently ignored."""

import functools
import json
import shutil

import numpy as np
import pytest

from parity import adapters, check, loading, torchscript
from parity.errors import CheckpointError, EnvironmentGap, UsageError
from parity.fixtures import subjects
from parity.fixtures.checkpoints import save_checkpoint, tiny_model
from parity.fixtures.controls import commands
from parity.fixtures.preprocessors import preprocessor
from parity.onnx import export, validate_model_outputs
from parity.onnx.__main__ import main
from parity.onnx.features import constructor
from parity.sessions import OnnxSession

FEATURE = "sequence-classification"
run = functools.partial(commands.run, command=main)


@pytest.fixture(scope="module")
def needs_peft():
    """Skip without peft."""
    if adapters.gap():
        pytest.skip(adapters.gap())


needs_it = pytest.mark.usefixtures("needs_peft")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The directory of a tiny BERT classifier, which tests must not change."""
    directory = tmp_path_factory.mktemp("base")
    save_checkpoint(directory, "bert", FEATURE)
    return directory


def with_lora(model, **options):
    """A PeftModel of the model whose adapter changes the answers."""
    import peft
    import torch

    settings = peft.LoraConfig(**{"r": 2, "lora_alpha": 2, "target_modules": ["query"], **options})
    adapted = peft.get_peft_model(model, settings)
    generator = torch.Generator().manual_seed(1)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            weight.data.copy_(torch.randn(weight.shape, generator=generator))
    return adapted.eval()


@pytest.fixture(scope="module")
def adapted(base, needs_peft):
    """The classifier with an adapter that includes its head, as peft trains it."""
    model = with_lora(tiny_model("bert", FEATURE), task_type="SEQ_CLS")
    model.peft_config["default"].base_model_name_or_path = str(base)
    return model


@pytest.fixture
def directory(base, adapted, tmp_path):
    """A function: place of the adapter, `beside` its base or `apart` → its directory."""

    def make(place):
        path = tmp_path / place
        if place == "beside":
            shutil.copytree(base, path)
        adapted.save_pretrained(path)
        return path

    return make


def unmerged(adapted, inputs):
    """The answer of peft itself."""
    import torch

    with torch.no_grad():
        return adapted(**{name: torch.from_numpy(array) for name, array in inputs.items()}).logits.numpy()


def inputs_of():
    tokens = preprocessor("bert")(["w1 w2 w3", "w5 w4 w6"], return_tensors="np")
    return {name: np.asarray(array) for name, array in tokens.items()}


@needs_it
@pytest.mark.parametrize("place", ["beside", "apart"])
def test_an_adapter_is_merged_into_its_base(directory, adapted, tmp_path, place):
    """The file gives the answer of peft, not that of the base; the check of the file merges the adapter too."""
    path = directory(place)
    status, log, err = run("-m", path, "--feature=auto", tmp_path / "out")
    assert (status, err) == (0, "")
    assert log.splitlines()[0].startswith(
        f"Feature {FEATURE}, because the checkpoint was saved as an adapter for SEQ_CLS"
    )
    inputs = inputs_of()
    answer = OnnxSession(tmp_path / "out" / "model.onnx").run(inputs)["logits"]
    reference = unmerged(adapted, inputs)
    with adapted.disable_adapter():
        alone = unmerged(adapted, inputs)
    assert np.abs(answer - reference).max() < 1e-5 < 1e-2 < np.abs(alone - reference).max()
    assert run(path, tmp_path / "out" / "model.onnx", "--quiet", command=check.main) == (0, "", "")
    (tmp_path / "out" / "tokenizer_config.json").stat()


@needs_it
def test_the_adapter_is_a_part_of_the_fingerprint(directory, base):
    """Other weights of the adapter, or of its base, give another fingerprint."""
    prints = {place: loading.fingerprint(str(directory(place))) for place in ("beside", "apart")}
    assert len({*prints.values(), loading.fingerprint(str(base))}) == 3


@needs_it
@pytest.mark.parametrize("changed", ["adapter", "base"])
def test_changes_while_it_is_read(base, adapted, directory, tmp_path, changed):
    """A changed file of the adapter or of its base is named; the control is that nothing changes."""
    from parity.checkpoint import Checkpoint

    path, own_base = directory("apart"), tmp_path / "base"
    shutil.copytree(base, own_base)
    facts = json.loads((path / "adapter_config.json").read_text())
    (path / "adapter_config.json").write_text(json.dumps({**facts, "base_model_name_or_path": str(own_base)}))
    checkpoint = Checkpoint(str(path))
    with checkpoint.unchanged():
        checkpoint.load(FEATURE, checkpoint.inputs(checkpoint.onnx_config(FEATURE)))
    weights = path / "adapter_model.safetensors" if changed == "adapter" else own_base / "model.safetensors"
    name = weights.name if changed == "adapter" else str(weights)
    with pytest.raises(CheckpointError) as refusal, checkpoint.unchanged():
        weights.write_bytes(weights.read_bytes() + b" ")
    assert str(refusal.value).startswith(f"{path}: {name} changed while the checkpoint was read")


@needs_it
@pytest.mark.parametrize("own", [False, True])
def test_the_tokenizer_of_an_adapter(base, directory, tmp_path, own):
    """Its own, as for adapters with new tokens, or that of its base. It is copied unchanged."""
    path = directory("apart")
    config = json.loads((base / "tokenizer_config.json").read_text())
    if own:
        shutil.copy(base / "tokenizer.json", path)
        config = {**config, "own": True}
        (path / "tokenizer_config.json").write_text(json.dumps(config))
    assert run("-m", path, "--feature", FEATURE, "--quiet", tmp_path / "out") == (0, "", "")
    assert json.loads((tmp_path / "out" / "tokenizer_config.json").read_text()) == config
    (tmp_path / "out" / "config.json").stat()


@needs_it
def test_weights_that_the_adapter_brings_are_not_missing(base, adapted, tmp_path):
    """A head that only the adapter has."""
    save_checkpoint(tmp_path / "base", "bert")
    path = tmp_path / "adapter"
    adapted.save_pretrained(path)
    facts = json.loads((path / "adapter_config.json").read_text())
    facts["base_model_name_or_path"] = str(tmp_path / "base")
    (path / "adapter_config.json").write_text(json.dumps(facts))
    from transformers import AutoModelForSequenceClassification

    loaded = loading.load_model(str(path), AutoModelForSequenceClassification)
    assert loaded.missing == []
    assert loaded.model.classifier.weight.equal(adapted.get_base_model().classifier.weight)
    plain = loading.load_model(str(tmp_path / "base"), AutoModelForSequenceClassification)
    assert plain.missing == ["classifier.bias", "classifier.weight"]


@needs_it
def test_an_adapter_that_fits_in_part_is_refused(directory, tmp_path):
    """Another class than it was trained for, or with a missing weight; the base's layers decide."""
    from safetensors.torch import load_file, save_file

    path = directory("beside")
    status, _, err = run("-m", path, "--feature=default", tmp_path / "out")
    assert status == 1
    assert "its adapter does not fit BertModel: " in err
    assert "choose the feature that it was trained for (SEQ_CLS)" in err
    weights = load_file(path / "adapter_model.safetensors")
    name = next(name for name in weights if "lora_B" in name)
    weights["base_model.model.bert.encoder.layer.7.key.lora_A.weight"] = weights.pop(name)
    save_file(weights, path / "adapter_model.safetensors")
    status, _, err = run("-m", path, "--feature", FEATURE, tmp_path / "out")
    assert status == 1
    assert "bert.encoder.layer.7.key.lora_A.weight is one of 1 weights which fit nothing" in err


@needs_it
@pytest.mark.parametrize("random", [False, True])
def test_weights_that_an_adapter_lacks(directory, tmp_path, random):
    """Missing a layer that peft leaves unchanged gives a warning; a layer that gets random weights is refused."""
    from safetensors.torch import load_file, save_file
    from transformers import AutoModelForSequenceClassification

    path = directory("beside")
    weights = {name: w for name, w in load_file(path / "adapter_model.safetensors").items() if "layer.1" not in name}
    save_file(weights, path / "adapter_model.safetensors")
    facts = json.loads((path / "adapter_config.json").read_text())
    (path / "adapter_config.json").write_text(json.dumps({**facts, "init_lora_weights": not random}))
    if random:
        with pytest.raises(CheckpointError, match=r"lora_A\.weight is one of 2 weights which it lacks"):
            loading.load_model(str(path), AutoModelForSequenceClassification)
        return
    status, _, err = run("-m", path, "--feature", FEATURE, "--quiet", tmp_path / "out")
    assert (status, err.count("\n")) == (0, 1)
    assert (
        "warning: the adapter has no weights for base_model.model.bert.encoder.layer.1.attention.self.query.lora_A"
        in err
    )


@needs_it
def test_prompts_are_no_weights(base, tmp_path):
    """An adapter that adds tokens is refused, in a directory and in the Python API."""
    import peft

    from parity import arguments

    settings = peft.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=3)
    model = peft.get_peft_model(tiny_model("bert", FEATURE), settings)
    with pytest.raises(UsageError, match=r"adapter .* adds tokens to the input"):
        arguments.transformers_model(model)
    shutil.copytree(base, path := tmp_path / "checkpoint")
    model.save_pretrained(path)
    status, _, err = run("-m", path, "--feature", FEATURE, tmp_path / "out")
    assert status == 1
    assert "its adapter (PROMPT_TUNING) adds tokens to the input and cannot be merged" in err


@needs_it
def test_a_peft_model_is_exported_with_its_adapter(adapted, tmp_path):
    """The Python API exports it with its adapter, to ONNX and TorchScript, and leaves it unchanged."""
    config = constructor("bert", FEATURE)(adapted.config)
    before = {name: tensor.clone() for name, tensor in adapted.state_dict().items()}
    inputs, path = inputs_of(), tmp_path / "model.onnx"
    _, names = export(preprocessor("bert"), adapted, config, 17, path)
    validate_model_outputs(config, preprocessor("bert"), adapted, path, names, 1e-4)
    reference = unmerged(adapted, inputs)
    assert np.abs(OnnxSession(path).run(inputs)["logits"] - reference).max() < 1e-5
    example = subjects.subject("bert", FEATURE).source.dummy
    trace = torchscript.export(adapted, example, feature=FEATURE)
    assert np.abs(trace.run(inputs)["logits"] - reference).max() < 1e-5
    after = adapted.state_dict()
    assert all(after[name].equal(tensor) for name, tensor in before.items())
    assert after.keys() == before.keys()


ADAPTER = {"peft_type": "LORA", "task_type": "SEQ_CLS", "r": 2}


@pytest.mark.parametrize("place", ["beside", "apart"])
def test_without_peft_an_adapter_is_refused(base, tmp_path, monkeypatch, place):
    """Exit status 1 with a sentence that says what to install, and nothing written; the Python API likewise."""
    monkeypatch.setattr(adapters, "version_of", lambda package: None)
    path = tmp_path / "checkpoint"
    shutil.copytree(base, path) if place == "beside" else path.mkdir()
    (path / "adapter_config.json").write_text(json.dumps({**ADAPTER, "base_model_name_or_path": str(base)}))
    status, out, err = run("-m", path, "--feature", FEATURE, tmp_path / "out")
    assert (status, out) == (1, "")
    assert "without which it would be another model; peft, which applies adapters, is not installed" in err
    assert "pip install peft" in err
    assert not (tmp_path / "out").exists()
    with pytest.raises(EnvironmentGap, match="pip install peft"):
        loading.load_config(str(path))


@pytest.mark.parametrize("name", ["/not/there", ""])
def test_a_base_that_is_not_there(tmp_path, monkeypatch, name):
    """The message names the adapter, its base, and both remedies."""
    monkeypatch.setattr(adapters, "gap", str)
    (tmp_path / "adapter_config.json").write_text(json.dumps({**ADAPTER, "base_model_name_or_path": name}))
    with pytest.raises(
        CheckpointError, match=r"put the base's config\.json and weights beside the adapter, or correct"
    ) as refusal:
        loading.load_config(str(tmp_path))
    assert f"holds an adapter of {name or 'a model that it does not name'}, " in str(refusal.value)


def test_a_damaged_adapter(tmp_path, monkeypatch):
    """An adapter_config.json that is not a JSON object."""
    monkeypatch.setattr(adapters, "gap", str)
    for text, words in {
        "{": "is no valid JSON",
        "[]": "is a list of 0 items",
        "[" * 10**5: "is nested",
    }.items():
        (tmp_path / "adapter_config.json").write_text(text)
        with pytest.raises(CheckpointError, match=f"adapter_config.json: {words}.*; copy or download it again"):
            loading.load_config(str(tmp_path))
