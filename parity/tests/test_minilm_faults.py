"""Faults in the trained MiniLM's file that no short text shows: rejected by weights, and by values alone."""

from dataclasses import replace

import numpy as np
import pytest

from parity.fixtures import minilm

# Name → (table, its rows that are zero).
FAULTS = {
    "most of the vocabulary": ("word_embeddings.weight", slice(4096, None)),
    "most of the positions": ("position_embeddings.weight", slice(32, None)),
    "the last position": ("position_embeddings.weight", slice(511, None)),
    "the first id": ("word_embeddings.weight", slice(0, 1)),
    "the last id": ("word_embeddings.weight", slice(30521, None)),
}


@pytest.fixture(scope="module")
def checkpoint():
    """MiniLM."""
    from parity.checkpoint import Checkpoint

    return Checkpoint(str(minilm.directory()))


@pytest.fixture(scope="module")
def reference(checkpoint):
    """The reference for its files; the answers are computed once."""
    from parity.onnx.proof import Reference
    from parity.reference import answers

    inputs, pools = checkpoint.inputs(checkpoint.onnx_config("default")), []

    def answer_once(model, onnx_config, samples, **options):
        pools[:] = pools or [answers(model, onnx_config, samples, **options)]
        return pools[0]

    relations = checkpoint.relations_of("default")
    return Reference(lambda: checkpoint.load("default", inputs), inputs, relations, answer_once)


@pytest.fixture(scope="module")
def good(checkpoint, reference, tmp_path_factory):
    """Its file without a fault."""
    from parity.onnx import export

    path = tmp_path_factory.mktemp("good") / "model.onnx"
    export(checkpoint.preprocessor, reference.load(), checkpoint.onnx_config("default"), 17, path)
    return path


def zero_rows(path, good, table, rows):
    """Write the good file with these rows of a table at zero."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(good)
    (tensor,) = [each for each in model.graph.initializer if each.name.endswith(table)]
    values = numpy_helper.to_array(tensor).copy()
    assert np.abs(values[rows]).max() > 0
    values[rows] = 0
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(model, path)


def judge(path, reference):
    """The verdict of `parity check`."""
    from parity.onnx.proof import Artifact, judge_file

    return judge_file(Artifact.read(path), reference)


def test_the_healthy_file_passes(good, reference):
    """The control, and its extent: the whole table of positions, and the vocabulary from end to end."""
    verdict = judge(good, reference)
    assert verdict.message() == ""
    assert str(verdict.extent) == "tokens 1–512, ids 0–30521"
    assert max(verdict.ratios().values()) < 2


@pytest.mark.parametrize("name", FAULTS)
def test_rows_that_are_zero_are_rejected(good, reference, tmp_path, name):
    """The message names the weight; the error ratio, which does not look at weights, fails too."""
    zero_rows(tmp_path / "model.onnx", good, *FAULTS[name])
    failures = judge(tmp_path / "model.onnx", reference).failures
    assert {each.check for each in failures} >= {"weights", "ratio"}
    (weight,) = [each for each in failures if each.check == "weights"]
    assert FAULTS[name][0] in weight.message


def test_short_texts_miss_positions(good, reference, tmp_path, monkeypatch):
    """Why the longest text is tried: without it, and without the check of weights, such a file passes."""
    from parity import shapes
    from parity.onnx.proof import Artifact

    zero_rows(tmp_path / "model.onnx", good, *FAULTS["most of the positions"])
    own = shapes.choose_samples
    monkeypatch.setattr(shapes, "choose_samples", lambda source, **options: own(source, **options)[:9])
    monkeypatch.setattr(Artifact, "judge_weights", lambda *_: [])
    short = replace(reference, answers=lambda model, config, samples, **_: reference.answers(model, config, ())[:9])
    assert judge(tmp_path / "model.onnx", short).passed
