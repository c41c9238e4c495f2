"""DeBERTa-v2 and v3: an encoder with relative positions in buckets; some models have a convolution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from parity.architectures.bert import ENCODER_VARIATIONS, HEADS
from parity.configs import OnnxConfig
from parity.declaration import (
    BIDIRECTIONAL_FEATURES,
    EITHER_PADDING,
    RELATIONS,
    Architecture,
    Floor,
    Variation,
    omit,
    token_axes,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class DebertaV2OnnxConfig(OnnxConfig):
    """Token ids, attention mask and, if the model has them, token types."""

    @property
    def inputs(self) -> Mapping[str, Mapping[int, str]]:
        types = ["token_type_ids"] if self._config.type_vocab_size > 0 else []
        return token_axes(self.task, "input_ids", "attention_mask", *types)

    @property
    def default_onnx_opset(self) -> int:
        return 12

    def longest_sequence(self, model: PreTrainedModel) -> int | None:
        # Without absolute positions there is no table, whatever length the configuration states.
        return super().longest_sequence(model) if self._config.position_biased_input else None


# Shared by both generations.
DISENTANGLED = (
    *omit(ENCODER_VARIATIONS, "max_position_embeddings"),
    HEADS,
    Variation("pos_att_type", ([], ["c2p"], ["p2c"])),
    Variation("relative_attention", (False,)),
    # Without absolute positions there is no table.
    Variation(("position_biased_input", "max_position_embeddings"), ((True, 40), (True, 16), (True, 9), (True, 6))),
)
VARIATIONS = (
    *DISENTANGLED,
    Variation("type_vocab_size", (0, 2)),
    Variation("share_att_key", (False,)),
    Variation("position_buckets", (-1, 4)),
    Variation("norm_rel_ebd", ("none",)),
    Variation("conv_kernel_size", (0, 5)),
)

ARCHITECTURE = Architecture(
    model_type="deberta-v2",
    kind="encoder",
    onnx_config=DebertaV2OnnxConfig,
    features=BIDIRECTIONAL_FEATURES,
    tiny={
        "vocab_size": 96,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 40,
        "position_biased_input": False,
        "relative_attention": True,
        "position_buckets": 8,
        "pos_att_type": ["p2c", "c2p"],
        "share_att_key": True,
        "norm_rel_ebd": "layer_norm",
        "conv_kernel_size": 3,
        "type_vocab_size": 3,
    },
    preprocessor="bert",
    floors=(
        Floor(
            opset=12,
            reason="Clip takes int64 only from opset 12, and relative positions are int64",
            issue="https://onnx.ai/onnx/operators/onnx__Clip.html",
            error="operator (Clip)",
        ),
    ),
    # Positions are relative; a head that reads the first place finds padding there.
    relations={
        "*": EITHER_PADDING,
        "sequence-classification": RELATIONS["encoder"],
        "multiple-choice": RELATIONS["encoder"],
    },
    variations=VARIATIONS,
)
