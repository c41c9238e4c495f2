"""ALBERT: an encoder with token types, whose layers share their weights."""

from parity.architectures.bert import ENCODER_VARIATIONS, TOKEN_TYPES, BertOnnxConfig
from parity.declaration import BIDIRECTIONAL_FEATURES, Architecture, Variation, omit


class AlbertOnnxConfig(BertOnnxConfig):
    """Token ids, attention mask and token types."""


VARIATIONS = (
    # No fewer layers than groups, which share their weights.
    *omit(ENCODER_VARIATIONS, "num_hidden_layers"),
    Variation(("num_hidden_layers", "num_hidden_groups"), ((1, 1), (3, 1), (4, 2))),
    TOKEN_TYPES,
    Variation("num_attention_heads", (1, 4)),
    Variation("embedding_size", (32, 8)),
    # Earlier releases raise if a group has more inner layers than turns.
    Variation("inner_group_num", (2,), versions="transformers>=5"),
    Variation("tie_word_embeddings", (False,), features=("masked-lm",)),
)

ARCHITECTURE = Architecture(
    model_type="albert",
    kind="encoder",
    onnx_config=AlbertOnnxConfig,
    features=BIDIRECTIONAL_FEATURES,
    tiny={
        "vocab_size": 96,
        "embedding_size": 24,
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_hidden_groups": 2,
        "inner_group_num": 1,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "max_position_embeddings": 40,
    },
    preprocessor="bert",
    sdpa="transformers",
    variations=VARIATIONS,
)
