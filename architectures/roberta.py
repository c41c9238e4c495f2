"""RoBERTa: an encoder whose positions skip the padding token."""

from __future__ import annotations

from collections.abc import Mapping

from parity.architectures.bert import CAUSAL, ENCODER_VARIATIONS, HEADS, TIES
from parity.configs import OnnxConfig
from parity.declaration import EITHER_PADDING, ENCODER_FEATURES, RELATIONS, Architecture, Variation, token_axes


class PositionsBehindPadding(OnnxConfig):
    """For models whose positions start after that of the padding token: the longest text is shorter by as many."""

    @property
    def _longest_text(self) -> int | None:
        positions, padding = super()._longest_text, self._config.pad_token_id or 0
        return max(1, positions - padding - 1) if positions else None


class RobertaOnnxConfig(PositionsBehindPadding):
    """Token ids and attention mask."""

    @property
    def inputs(self) -> Mapping[str, Mapping[int, str]]:
        return token_axes(self.task, "input_ids", "attention_mask")


VARIATIONS = (*ENCODER_VARIATIONS, HEADS, TIES, Variation("type_vocab_size", (2,)))

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
    # Positions skip the padding; a head that reads the first place finds padding there.
    relations={
        "*": EITHER_PADDING,
        "sequence-classification": RELATIONS["encoder"],
        "multiple-choice": RELATIONS["encoder"],
    },
    variations=(*VARIATIONS, CAUSAL),
)
