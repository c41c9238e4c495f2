"""BERT: an encoder with token types."""

from __future__ import annotations

from collections.abc import Mapping

from parity.configs import OnnxConfig
from parity.declaration import ENCODER_FEATURES, Architecture, token_axes


class BertOnnxConfig(OnnxConfig):
    """Token ids, attention mask and token types."""

    @property
    def inputs(self) -> Mapping[str, Mapping[int, str]]:
        return token_axes(self.task, "input_ids", "attention_mask", "token_type_ids")


ARCHITECTURE = Architecture(
    model_type="bert",
    kind="encoder",
    onnx_config=BertOnnxConfig,
    features=ENCODER_FEATURES,
    tiny={
        "vocab_size": 96,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 40,
    },
    preprocessor="bert",
    sdpa="transformers",
    smoke=("default", "masked-lm"),
)
