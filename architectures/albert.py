"""ALBERT: an encoder with token types, whose layers share their weights."""

from parity.architectures.bert import BertOnnxConfig
from parity.declaration import BIDIRECTIONAL_FEATURES, Architecture


class AlbertOnnxConfig(BertOnnxConfig):
    """Token ids, attention mask and token types."""


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
)
