"""Fixtures shared by several test files."""

import functools

import pytest

from parity.fixtures import subjects
from parity.fixtures.checkpoints import save_checkpoint, tiny_model
from parity.fixtures.controls import commands


@pytest.fixture(scope="module")
def bert():
    """The tiny BERT with its configuration, preprocessor and source of inputs."""
    return subjects.subject("bert", "default")


@pytest.fixture(scope="module")
def bert_model():
    """A tiny BertModel."""
    return tiny_model("bert")


@pytest.fixture(scope="module")
def rounded(tmp_path_factory):
    """A tiny checkpoint, and a function: precision → parity's file rounded by onnxruntime's tools."""
    import onnx

    from parity.fixtures.controls.rounding import TOOLS
    from parity.onnx.__main__ import main as export_main

    directory, output, files = (tmp_path_factory.mktemp(name) for name in ("distilbert", "exported", "rounded"))
    save_checkpoint(directory, "distilbert", "masked-lm")
    options = ("-m", directory, "--feature=masked-lm", "--opset=17", "--quiet", output)
    assert commands.run(*options, command=export_main)[0] == 0

    @functools.cache
    def make(kind):
        if kind == "source":
            return output / "model.onnx"
        model = onnx.load(output / "model.onnx")
        del model.metadata_props[:]
        TOOLS[kind](model, files / f"{kind}.onnx")
        return files / f"{kind}.onnx"

    return directory, make
