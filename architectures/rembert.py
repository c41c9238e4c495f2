"""RemBERT: an encoder whose embeddings are narrower than its layers."""

from __future__ import annotations

from parity.architectures.bert import CAUSAL, ENCODER_VARIATIONS, HEADS, TOKEN_TYPES, BertOnnxConfig
from parity.declaration import ENCODER_FEATURES, Architecture, Variation


class RemBertOnnxConfig(BertOnnxConfig):
    """Token ids, attention mask and token types, like BERT."""

    @property
    def atol_for_validation(self) -> float:
        return 1e-4


VARIATIONS = (
    *ENCODER_VARIATIONS,
    HEADS,
    TOKEN_TYPES,
    CAUSAL,
    Variation("input_embedding_size", (32, 8)),
    Variation("output_embedding_size", (32, 8), features=("masked-lm", "causal-lm")),
)

ARCHITECTURE = Architecture(
    model_type="rembert",
    kind="encoder",
    onnx_config=RemBertOnnxConfig,
    features=ENCODER_FEATURES,
    tiny={
        "vocab_size": 96,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "input_embedding_size": 16,
        "output_embedding_size": 24,
        "intermediate_size": 48,
        "max_position_embeddings": 40,
    },
    preprocessor="bert",
    variations=VARIATIONS,
)
