"""BigBird with block-sparse attention: a file for one length with the blocks of the model."""

import numpy as np
import pytest

from parity.architectures.big_bird import ARCHITECTURE, BigBirdOnnxConfig
from parity.fixtures.checkpoints import scramble
from parity.fixtures.preprocessors import preprocessor
from parity.onnx import export
from parity.releases import loops_over_the_batch
from parity.sessions import OnnxSession

# 5 + 2 × 1 blocks of 4 are 28 tokens: longer texts use blocks.
LONGEST = ARCHITECTURE.tiny["max_position_embeddings"]


def config_of(**changes):
    from transformers import BigBirdConfig

    return BigBirdConfig(**{**ARCHITECTURE.tiny, "attention_type": "block_sparse", **changes})


def model_of(config):
    """A fresh model, because a short text permanently switches it to full attention."""
    import torch
    from transformers import BigBirdModel

    torch.manual_seed(0)
    model = BigBirdModel(config)
    scramble(model)
    return model.eval()


def test_axes():
    """The sequence is an axis exactly if the model uses full attention."""
    sparse = BigBirdOnnxConfig(config_of())
    assert set(sparse.inputs["input_ids"].values()) | set(sparse.outputs["last_hidden_state"].values()) == {"batch"}
    assert sparse.default_sequence_length == LONGEST
    for changes in ({"attention_type": "original_full"}, {"max_position_embeddings": 28}):
        assert BigBirdOnnxConfig(config_of(**changes)).inputs["input_ids"] == {0: "batch", 1: "sequence"}


@pytest.mark.skipif(loops_over_the_batch(), reason="transformers before 5.13 is refused: see test_variants.py")
def test_block_sparse(tmp_path):
    """The file of a block-sparse model agrees with it at every batch size, and refuses other lengths."""
    import torch

    config, path = config_of(), tmp_path / "model.onnx"
    model = model_of(config)
    export(preprocessor("distilbert"), model, BigBirdOnnxConfig(config), 12, path)
    assert model.attention_type == "block_sparse"
    session, whole = OnnxSession(path), model_of(config_of(attention_type="original_full"))
    for batch in (1, 2, 3):
        tokens = torch.randint(5, 96, (batch, LONGEST), generator=torch.Generator().manual_seed(batch))
        mask = torch.ones_like(tokens)
        mask[-1, LONGEST - batch :] = 0
        with torch.no_grad():
            sparse, full = (m(tokens, mask).last_hidden_state.numpy() for m in (model_of(config), whole))
        inputs = {"input_ids": tokens.numpy(), "attention_mask": mask.numpy()}
        actual = session.run(inputs)["last_hidden_state"]
        assert np.abs(actual - sparse).max() < 1e-4
        assert np.abs(actual - full).max() > 0.1
        with pytest.raises(Exception, match="ONNXRuntimeError"):
            session.run({name: array[:, 1:] for name, array in inputs.items()})
