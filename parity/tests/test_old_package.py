"""Beside `transformers.onnx` itself, where it still is: the same names, in the same order, and the same values."""

import functools
import warnings

import pytest

from parity.architectures.registry import architectures
from parity.environment import at_least
from parity.fixtures import subjects
from parity.fixtures.checkpoints import tiny_config
from parity.onnx.features import constructor
from parity.sessions import OnnxSession

pytestmark = pytest.mark.skipif(
    at_least("transformers", "5"), reason="transformers 5 removed transformers.onnx; tox -e seed has it"
)

CELLS = [
    pytest.param(found.name, feature, id=f"{found.name}-{feature}")
    for found in architectures()
    if not found.gap
    for feature in found.features
]
# What the old package had no configuration for.
BEYOND = {"convnextv2", "llama", "plbart", "siglip", "xlm-roberta-xl"}
# What differs on purpose, with the reason.
DIFFERENT = {
    ("perceiver", "image-classification"): "the old one declared an attention mask, which no image processor makes",
    ("vision-encoder-decoder", "vision2seq-lm"): "the old one had no inputs of its own, only two files'",
    ("vision-encoder-decoder", "vision2seq-lm-with-past"): "the old one had no inputs of its own, only two files'",
}
# One of each kind, and every layout of caches.
COMPARED = [
    ("bert", "masked-lm"),
    ("gpt2", "causal-lm-with-past"),
    ("bart", "default"),
    ("t5", "seq2seq-lm"),
    ("vit", "image-classification"),
]


def old_configs(architecture):
    """Feature → constructor, of the old package."""
    from transformers.onnx.features import FeaturesManager

    supported = {name.replace("_", "-"): of for name, of in FeaturesManager._SUPPORTED_MODEL_TYPE.items()}
    return supported.get(architecture, {})


def names(config):
    return list(config.inputs or ()), list(config.outputs)


@pytest.mark.parametrize(("architecture", "feature"), CELLS)
def test_the_names_are_those_of_the_old_package(architecture, feature):
    """Inputs and outputs of each feature are named and ordered as there, with as many decoder layers as encoder ones.

    Where these differ, the old package counted the encoder's or the fewer of both.
    """
    config = tiny_config(architecture)
    for both, decoder in (("num_layers", "num_decoder_layers"), ("encoder_layers", "decoder_layers")):
        if hasattr(config, decoder):
            setattr(config, decoder, getattr(config, both))
    if architecture in BEYOND:
        assert old_configs(architecture) == {}
        return
    got, expected = names(constructor(architecture, feature)(config)), names(old_configs(architecture)[feature](config))
    assert (got != expected) == ((architecture, feature) in DIFFERENT), f"{got}; the old package: {expected}"


@pytest.mark.parametrize("architecture", sorted({cell.values[0] for cell in CELLS}))
def test_no_feature_of_the_old_package_is_missing(architecture):
    """Whatever could be exported there can be exported here."""
    declared = {cell.values[1] for cell in CELLS if cell.values[0] == architecture}
    assert set(old_configs(architecture)) - declared == set()


@pytest.mark.parametrize(("architecture", "feature"), COMPARED)
def test_the_values_are_those_of_the_old_package(architecture, feature, tmp_path, monkeypatch):
    """The old package's file passes the judge beside ours, on inputs without padding.

    torch takes its newer exporter by default now, which ignores the opset: the old package is given the one it knew.
    """
    import torch
    from transformers.onnx import export

    from parity.validation import compare

    monkeypatch.setattr(torch.onnx, "export", functools.partial(torch.onnx.export, dynamo=False))
    of = subjects.subject(architecture, feature)
    old = old_configs(architecture)[feature](of.model.config)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export(of.preprocessor, of.fresh_model(), old, 14, tmp_path / "old.onnx")
    pool = subjects.pool(architecture, feature, "traced")
    for path in (tmp_path / "old.onnx", subjects.artifact(of, 14, tmp_path / "ours.onnx")):
        run = functools.partial(OnnxSession(path).run, outputs=list(of.onnx_config.outputs))
        found = compare(run, of.onnx_config, pool.samples, pool.answers, traced=of.source.axes)
        found.raise_on_failure()
        assert found.ratios()
