"""XLM: an encoder whose token types are ids of its vocabulary."""

from parity.architectures.bert import BertOnnxConfig
from parity.declaration import ENCODER_FEATURES, Architecture, Variation


class XLMOnnxConfig(BertOnnxConfig):
    """Token ids, attention mask and token types."""


# Shared with FlauBERT, which has the same layers.
VARIATIONS = (
    Variation("gelu_activation", (False,)),
    Variation("n_layers", (1, 3)),
    Variation("n_heads", (1, 8)),
    Variation("max_position_embeddings", (64, 16, 9, 6)),
    Variation("sinusoidal_embeddings", (True,), silent="the checkpoint holds the table"),
    Variation("causal", (True,)),
    Variation("n_langs", (2,)),
    Variation("summary_type", ("last", "mean"), features=("sequence-classification", "multiple-choice")),
    Variation("num_labels", (1, 5), features=("sequence-classification", "token-classification")),
)

ARCHITECTURE = Architecture(
    model_type="xlm",
    kind="encoder",
    onnx_config=XLMOnnxConfig,
    features=ENCODER_FEATURES,
    tiny={
        "vocab_size": 96,
        "emb_dim": 32,
        "n_layers": 2,
        "n_heads": 4,
        "max_position_embeddings": 40,
        "pad_index": 0,
        "pad_token_id": 0,
    },
    preprocessor="bert",
    variations=VARIATIONS,
)
