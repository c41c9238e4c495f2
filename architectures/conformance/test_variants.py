"""The file is right for other values of a configuration item than those of the matrix."""

from dataclasses import replace

import pytest

from parity.errors import SessionError, UsageError
from parity.fixtures import checkpoints, properties, subjects
from parity.opsets import MAXIMUM_OPSET
from parity.registry import architecture
from parity.releases import loops_over_the_batch
from parity.sessions import OnnxSession

LONGT5 = ("default", "default-with-past", "seq2seq-lm", "seq2seq-lm-with-past")
GLOBAL = {"encoder_attention_type": "transient-global"}
# (5 + 2 × 1) blocks of 4 are fewer than the 48 positions.
SPARSE = {"attention_type": "block_sparse"}


@pytest.fixture
def variant(monkeypatch):
    """A function that makes a subject with changed items in its tiny configuration."""

    def make_subject(name, feature, changes):
        declared = architecture(name)
        declaration = replace(declared, tiny={**declared.tiny, **changes})
        monkeypatch.setattr(checkpoints, "find", lambda model_type: declaration)
        return subjects.fresh_subject(name, feature)

    return make_subject


def require_parity(subject, opset, path):
    """The file agrees at its own sizes and at all boundaries; returns its session."""
    session = OnnxSession(subjects.artifact(subject, opset, path))
    verdicts = properties.judge_boundaries(subject, session.run, lambda number, example, message: "no reproducer")
    assert all(verdict.ratios() for verdict in verdicts)
    return session


@pytest.mark.parametrize("opset", [12, MAXIMUM_OPSET])
@pytest.mark.parametrize("feature", LONGT5)
def test_longt5_with_summaries(variant, feature, opset, tmp_path):
    """With transient-global attention the file is right below one block, at whole blocks and between them."""
    require_parity(variant("longt5", feature, GLOBAL), opset, tmp_path / "model.onnx")


@pytest.mark.parametrize("changes", [{"local_radius": 3}, {"local_radius": 7}, {"local_radius": 3, **GLOBAL}], ids=str)
def test_longt5_with_blocks_that_divide_the_sample(variant, changes, tmp_path):
    """The file splits other lengths into blocks correctly even if the sample has only whole blocks."""
    subject = variant("longt5", "default", changes)
    assert subject.source.axes["encoder_sequence"] % (changes["local_radius"] + 1) == 0
    require_parity(subject, MAXIMUM_OPSET, tmp_path / "model.onnx")


@pytest.mark.parametrize("module", ["big_bird", "bigbird_pegasus"])
def test_blocks_for_one_batch_are_refused(variant, module, monkeypatch, tmp_path):
    """Where transformers loops over the batch: before the trace, in one sentence; full attention is exported there."""
    monkeypatch.setattr(f"parity.architectures.{module}.loops_over_the_batch", lambda: True)
    with pytest.raises(UsageError, match="attention_type is block_sparse, which transformers before"):
        subjects.artifact(variant(module, "default", SPARSE), MAXIMUM_OPSET, tmp_path / "model.onnx")
    subjects.artifact(variant(module, "default", {}), MAXIMUM_OPSET, tmp_path / "model.onnx")


@pytest.mark.skipif(loops_over_the_batch(), reason="transformers before 5.13 is refused: see the test above")
@pytest.mark.parametrize("feature", ["default", "seq2seq-lm", "sequence-classification", "question-answering"])
def test_block_sparse_bigbird_pegasus_has_one_length(variant, feature, tmp_path):
    """The file of a block-sparse encoder agrees at the longest text and refuses all other lengths."""
    subject = variant("bigbird_pegasus", feature, SPARSE)
    assert subject.onnx_config.inputs["input_ids"] == {0: "batch"}
    assert subject.source.dummy["input_ids"].shape[1] == subject.model.config.max_position_embeddings
    session = require_parity(subject, MAXIMUM_OPSET, tmp_path / "model.onnx")
    inputs = {name: tensor.numpy() for name, tensor in subject.source.layout.flatten(subject.source.dummy).items()}
    shorter = {name: array[:, :-1] if "decoder" not in name else array for name, array in inputs.items()}
    with pytest.raises(SessionError, match="ONNXRuntimeError"):
        session.run(shorter)


@pytest.mark.parametrize("feature", ["default-with-past", "causal-lm"])
def test_block_sparse_bigbird_pegasus_without_its_encoder_has_any_length(variant, feature, tmp_path):
    """If the file has no encoder, the encoder's attention does not matter."""
    require_parity(variant("bigbird_pegasus", feature, SPARSE), MAXIMUM_OPSET, tmp_path / "model.onnx")
