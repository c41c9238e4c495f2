"""BERT: an encoder with token types."""

from __future__ import annotations

from collections.abc import Mapping

from parity.configs import OnnxConfig
from parity.declaration import ENCODER_FEATURES, Architecture, Variation, token_axes


class BertOnnxConfig(OnnxConfig):
    """Token ids, attention mask and token types."""

    @property
    def inputs(self) -> Mapping[str, Mapping[int, str]]:
        return token_axes(self.task, "input_ids", "attention_mask", "token_type_ids")


# Shared by all text encoders whose configuration names its items like BERT's.
ENCODER_VARIATIONS = (
    Variation("hidden_act", ("relu", "silu", "gelu_new")),
    Variation("num_hidden_layers", (1, 3)),
    Variation("max_position_embeddings", (64, 16, 9, 6)),
    Variation("num_labels", (1, 5), features=("sequence-classification", "token-classification")),
)
# For models whose head width is the hidden size divided by the number of heads.
HEADS = Variation("num_attention_heads", (1, 8))
TOKEN_TYPES = Variation("type_vocab_size", (1, 3))
TIES = Variation("tie_word_embeddings", (False,), features=("masked-lm", "causal-lm"))
CAUSAL = Variation("is_decoder", (True,), features=("causal-lm",))
VARIATIONS = (*ENCODER_VARIATIONS, HEADS, TOKEN_TYPES, TIES, CAUSAL)
# Removed in transformers 5.
_POSITIONS = Variation("position_embedding_type", ("relative_key", "relative_key_query"), versions="transformers<5")

ARCHITECTURE = Architecture(
    model_type="bert",
    kind="encoder",
    onnx_config=BertOnnxConfig,
    features=ENCODER_FEATURES,
    tiny={
        "vocab_size": 96,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 40,
    },
    preprocessor="bert",
    sdpa="transformers",
    smoke=("default", "masked-lm"),
    variations=(*VARIATIONS, _POSITIONS, Variation("vocab_size", (200, 60))),
)
