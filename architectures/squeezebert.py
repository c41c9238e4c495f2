"""SqueezeBERT: an encoder with token types, whose linear layers are grouped convolutions."""

from parity.architectures.bert import ENCODER_VARIATIONS, HEADS, TOKEN_TYPES, BertOnnxConfig
from parity.declaration import BIDIRECTIONAL_FEATURES, Architecture, Variation


class SqueezeBertOnnxConfig(BertOnnxConfig):
    """Token ids, attention mask and token types."""


VARIATIONS = (
    *ENCODER_VARIATIONS,
    HEADS,
    TOKEN_TYPES,
    Variation("q_groups", (1, 4)),
    Variation("post_attention_groups", (2,)),
    Variation("tie_word_embeddings", (False,), features=("masked-lm",)),
)

ARCHITECTURE = Architecture(
    model_type="squeezebert",
    kind="encoder",
    onnx_config=SqueezeBertOnnxConfig,
    features=BIDIRECTIONAL_FEATURES,
    tiny={
        "vocab_size": 96,
        "embedding_size": 32,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 40,
        "q_groups": 2,
        "k_groups": 4,
        "v_groups": 8,
        "intermediate_groups": 4,
        "output_groups": 2,
    },
    preprocessor="bert",
    variations=VARIATIONS,
)
