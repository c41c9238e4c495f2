"""RoBERTa: an encoder whose positions skip the padding token."""

from __future__ import annotations

from collections.abc import Mapping

from parity.configs import OnnxConfig
from parity.declaration import EITHER_PADDING, ENCODER_FEATURES, RELATIONS, Architecture, token_axes


class RobertaOnnxConfig(OnnxConfig):
    """Token ids and attention mask."""

    @property
    def inputs(self) -> Mapping[str, Mapping[int, str]]:
        return token_axes(self.task, "input_ids", "attention_mask")

    @property
    def default_sequence_length(self) -> int:
        # Positions start behind that of the padding token.
        positions, padding = self._config.max_position_embeddings, self._config.pad_token_id or 0
        return max(1, min(super().default_sequence_length, positions - padding - 1))


ARCHITECTURE = Architecture(
    model_type="roberta",
    kind="encoder",
    onnx_config=RobertaOnnxConfig,
    features=ENCODER_FEATURES,
    tiny={
        "vocab_size": 96,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 42,
        "type_vocab_size": 1,
    },
    preprocessor="roberta",
    sdpa="transformers",
    # Positions skip the padding; the heads that read the first place find padding there.
    relations={
        "*": EITHER_PADDING,
        "sequence-classification": RELATIONS["encoder"],
        "multiple-choice": RELATIONS["encoder"],
    },
)
