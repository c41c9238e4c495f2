"""RoFormer: an encoder with token types and rotary positions."""

from parity.architectures.bert import VARIATIONS as BERT_VARIATIONS
from parity.architectures.bert import BertOnnxConfig
from parity.declaration import EITHER_PADDING, ENCODER_FEATURES, RELATIONS, Architecture, Variation


class RoFormerOnnxConfig(BertOnnxConfig):
    """Token ids, attention mask and token types."""


VARIATIONS = (*BERT_VARIATIONS, Variation("embedding_size", (32, 8)), Variation("rotary_value", (True,)))

ARCHITECTURE = Architecture(
    model_type="roformer",
    kind="encoder",
    onnx_config=RoFormerOnnxConfig,
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
    # Positions are relative; one head reads the first place, the other the last, and may find padding there.
    relations={
        "*": EITHER_PADDING,
        "sequence-classification": RELATIONS["encoder"],
        "multiple-choice": "batch-permutation batch-of-one padding-left",
    },
    variations=VARIATIONS,
)
