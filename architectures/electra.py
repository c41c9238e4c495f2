"""ELECTRA: an encoder with token types, trained to find replaced tokens."""

from parity.architectures.bert import VARIATIONS as BERT_VARIATIONS
from parity.architectures.bert import BertOnnxConfig
from parity.declaration import ENCODER_FEATURES, Architecture, Variation


class ElectraOnnxConfig(BertOnnxConfig):
    """Token ids, attention mask and token types."""


VARIATIONS = (*BERT_VARIATIONS, Variation("embedding_size", (32, 8)))

ARCHITECTURE = Architecture(
    model_type="electra",
    kind="encoder",
    onnx_config=ElectraOnnxConfig,
    features=ENCODER_FEATURES,
    tiny={
        "vocab_size": 96,
        "embedding_size": 24,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 40,
    },
    preprocessor="bert",
    sdpa="transformers>=5",
    variations=VARIATIONS,
)
