"""ELECTRA: an encoder with token types, trained to find replaced tokens."""

from parity.architectures.bert import BertOnnxConfig
from parity.declaration import ENCODER_FEATURES, Architecture


class ElectraOnnxConfig(BertOnnxConfig):
    """Token ids, attention mask and token types."""


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
)
