"""XLM: an encoder that takes the types of its tokens from its vocabulary."""

from parity.architectures.bert import BertOnnxConfig
from parity.declaration import ENCODER_FEATURES, Architecture


class XLMOnnxConfig(BertOnnxConfig):
    """Token ids, attention mask and token types."""


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
)
