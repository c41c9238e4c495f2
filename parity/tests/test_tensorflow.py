"""TensorFlow checkpoints: exported if they can be read, else refused with the reason."""

import pytest

from parity.fixtures.checkpoints import save_checkpoint, tiny_config
from parity.fixtures.preprocessors import preprocessor
from parity.onnx.__main__ import main
from parity.registry import architecture
from parity.releases import tensorflow_gap


@pytest.fixture
def needs_tensorflow():
    """Skip unless this transformers with this TensorFlow reads TensorFlow weights."""
    if tensorflow_gap():
        pytest.skip(tensorflow_gap())


@pytest.mark.usefixtures("needs_tensorflow")
@pytest.mark.parametrize("options", [[], ["--framework=tf"]], ids=["found", "asked for"])
def test_a_tensorflow_checkpoint_is_exported(tmp_path, options):
    """The file of a tf_model.h5 gives TensorFlow's own answer, to 1e-5."""
    import numpy as np
    import transformers
    from onnxruntime import InferenceSession

    model = transformers.TFDistilBertModel(tiny_config("distilbert"))
    inputs = {"input_ids": np.arange(10, 24).reshape(2, 7), "attention_mask": np.ones((2, 7), np.int64)}
    reference = model(inputs).last_hidden_state.numpy()
    model.save_pretrained(tmp_path / "checkpoint")
    preprocessor(architecture("distilbert").preprocessor).save_pretrained(tmp_path / "checkpoint")
    assert main([f"--model={tmp_path / 'checkpoint'}", *options, "--quiet", str(tmp_path / "onnx")]) == 0
    (actual,) = InferenceSession(tmp_path / "onnx" / "model.onnx").run(None, inputs)
    assert reference.std() > 0.1
    assert np.abs(actual - reference).max() < 1e-5


@pytest.mark.parametrize("options", [[], ["--framework=tf"]], ids=["found", "asked for"])
def test_without_the_means_it_is_refused_with_the_reason(tmp_path, capsys, monkeypatch, options):
    """If TensorFlow weights cannot be read, the one message says what to install, and nothing is written."""
    gap = tensorflow_gap() or "TensorFlow is not installed; pip install tensorflow-cpu tf-keras"
    for module in ("parity.loading", "parity.features"):
        monkeypatch.setattr(f"{module}.tensorflow_gap", lambda: gap)
    save_checkpoint(tmp_path / "checkpoint", "distilbert")
    (tmp_path / "checkpoint" / "model.safetensors").rename(tmp_path / "checkpoint" / "tf_model.h5")
    capsys.readouterr()
    assert main([f"--model={tmp_path / 'checkpoint'}", *options, str(tmp_path / "onnx")]) == 1
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert gap in told[0]
    assert not (tmp_path / "onnx").exists()
