"""ConvBERT: an encoder with token types; half of its heads are convolutions with kernels computed from the text."""

from parity.architectures.bert import ENCODER_VARIATIONS, TOKEN_TYPES, BertOnnxConfig
from parity.declaration import BIDIRECTIONAL_FEATURES, Architecture, Variation


class ConvBertOnnxConfig(BertOnnxConfig):
    """Token ids, attention mask and token types."""


VARIATIONS = (
    *ENCODER_VARIATIONS,
    TOKEN_TYPES,
    Variation("embedding_size", (32, 8)),
    Variation("conv_kernel_size", (3, 9)),
    Variation("num_groups", (1, 4)),
    Variation("head_ratio", (1, 4)),
)

ARCHITECTURE = Architecture(
    model_type="convbert",
    kind="encoder",
    onnx_config=ConvBertOnnxConfig,
    features=BIDIRECTIONAL_FEATURES,
    tiny={
        "vocab_size": 96,
        "embedding_size": 24,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 8,
        "head_ratio": 2,
        "conv_kernel_size": 5,
        "num_groups": 2,
        "intermediate_size": 48,
        "max_position_embeddings": 40,
        "pad_token_id": 0,
    },
    preprocessor="bert",
    # The convolutions read padding next to the text.
    relations={"*": "batch-permutation batch-of-one"},
    variations=VARIATIONS,
)
