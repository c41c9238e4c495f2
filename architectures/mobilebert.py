"""MobileBERT: a thin encoder with token types, whose embeddings combine three neighbouring tokens."""

from parity.architectures.bert import ENCODER_VARIATIONS, TOKEN_TYPES, BertOnnxConfig
from parity.declaration import BIDIRECTIONAL_FEATURES, Architecture, Variation


class MobileBertOnnxConfig(BertOnnxConfig):
    """Token ids, attention mask and token types."""


VARIATIONS = (
    *ENCODER_VARIATIONS,
    TOKEN_TYPES,
    Variation("num_attention_heads", (1, 2)),
    Variation("trigram_input", (False,)),
    Variation(("use_bottleneck_attention", "key_query_shared_bottleneck"), ((True, True), (True, False))),
    Variation("normalization_type", ("layer_norm",)),
    Variation("num_feedforward_networks", (1,)),
    Variation("classifier_activation", (False,), features=("default",)),
)

ARCHITECTURE = Architecture(
    model_type="mobilebert",
    kind="encoder",
    onnx_config=MobileBertOnnxConfig,
    features=BIDIRECTIONAL_FEATURES,
    tiny={
        "vocab_size": 96,
        "embedding_size": 12,
        "hidden_size": 32,
        "intra_bottleneck_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_feedforward_networks": 3,
        "intermediate_size": 24,
        "max_position_embeddings": 40,
    },
    preprocessor="bert",
    sdpa="transformers>=5",
    # The last token's embedding reads the padding next to it.
    relations={"*": "batch-permutation batch-of-one"},
    variations=VARIATIONS,
)
