"""One entry makes a task: its features are in the matrix, a command knows their files, and records have them."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from parity.architectures import matrix, registry
from parity.architectures.registry import architecture
from parity.check import guess_feature
from parity.fixtures.checkpoints import tiny_config
from parity.onnx.config import OnnxConfig
from parity.tasks import TASKS, Task


@pytest.fixture
def next_sentence(monkeypatch):
    """A task that nothing else names, and an architecture with that feature."""
    monkeypatch.setitem(TASKS, "next-sentence", Task({"scores": {0: "batch"}}, ("AutoModelForNextSentencePrediction",)))
    bert = replace(architecture("bert"), features=("default", "next-sentence"), smoke=())
    monkeypatch.setattr(registry, "architectures", lambda: (bert,))
    monkeypatch.setattr(registry, "_by_name", lambda: {"bert": bert})
    monkeypatch.setattr(matrix, "architectures", lambda: (bert,))
    return bert


def test_a_task_is_one_entry(next_sentence, monkeypatch):
    """In the matrix, in what `parity check` infers, and so in ids and records; without it the feature is refused."""
    from parity.onnx import features
    from parity.onnx.features import FeaturesManager, supported_features_mapping

    found = {cell.id for cell in matrix.cells.__wrapped__() if cell.feature == "next-sentence"}
    assert "bert-next-sentence-onnx17" in found
    config = tiny_config("bert")
    assert list(next_sentence.onnx_config(config, task="next-sentence").outputs) == ["scores"]
    supported = supported_features_mapping(*next_sentence.features, onnx_config_cls=next_sentence.onnx_config)
    monkeypatch.setitem(FeaturesManager._SUPPORTED_MODEL_TYPE, "bert", supported)
    assert features.model_class("bert", "next-sentence").__name__ == "AutoModelForNextSentencePrediction"
    config.architectures = ["BertForNextSentencePrediction"]
    file = SimpleNamespace(metadata={}, outputs=[SimpleNamespace(name="scores")])
    assert guess_feature(file, config) == "next-sentence"


def test_without_its_entry_a_task_is_none():
    """The control."""
    with pytest.raises(ValueError, match="'next-sentence', should be among default, masked-lm"):
        replace(architecture("bert"), features=("default", "next-sentence"))
    with pytest.raises(ValueError, match="next-sentence is not a supported task"):
        type("Config", (OnnxConfig,), {"inputs": {}})(tiny_config("bert"), task="next-sentence")
