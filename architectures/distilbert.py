"""DistilBERT: an encoder without token types."""

from __future__ import annotations

from collections.abc import Mapping

from parity.configs import OnnxConfig
from parity.declaration import Architecture, Variation, token_axes


class DistilBertOnnxConfig(OnnxConfig):
    """Token ids and attention mask."""

    @property
    def inputs(self) -> Mapping[str, Mapping[int, str]]:
        return token_axes(self.task, "input_ids", "attention_mask")


VARIATIONS = (
    Variation("activation", ("relu",)),
    Variation("n_layers", (1, 3)),
    Variation("n_heads", (1, 8)),
    Variation("max_position_embeddings", (64, 16, 9, 6)),
    Variation("sinusoidal_pos_embds", (True,), silent="the checkpoint holds the table"),
    Variation("num_labels", (1, 5), features=("sequence-classification", "token-classification")),
    Variation("tie_word_embeddings", (False,), features=("masked-lm",)),
)

ARCHITECTURE = Architecture(
    model_type="distilbert",
    kind="encoder",
    onnx_config=DistilBertOnnxConfig,
    features=(
        "default",
        "masked-lm",
        "sequence-classification",
        "multiple-choice",
        "token-classification",
        "question-answering",
    ),
    tiny={"vocab_size": 96, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": 40},
    preprocessor="distilbert",
    sdpa="transformers",
    variations=VARIATIONS,
)
