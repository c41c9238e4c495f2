"""LayoutLM: BERT whose tokens have positions on a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from parity.architectures.bert import ARCHITECTURE as BERT
from parity.architectures.bert import ENCODER_VARIATIONS, HEADS, TOKEN_TYPES
from parity.configs import OnnxConfig
from parity.declaration import Architecture, Variation, token_axes


class LayoutLMOnnxConfig(OnnxConfig):
    """Token ids, the box of each token (left, top, right, bottom), attention mask and token types."""

    @property
    def inputs(self) -> Mapping[str, Mapping[int, str]]:
        return token_axes(self.task, "input_ids", "bbox", "attention_mask", "token_type_ids")

    def generate_dummy_inputs(self, *args: Any, **kwargs: Any) -> Mapping[str, Any]:
        inputs = super().generate_dummy_inputs(*args, **kwargs)
        tokens = inputs["input_ids"]
        quarter = self._config.max_2d_position_embeddings // 4
        box = tokens.new_tensor([quarter, quarter, 3 * quarter, 2 * quarter])
        return {**inputs, "bbox": box.expand(*tokens.shape, 4)}


VARIATIONS = (
    *ENCODER_VARIATIONS,
    HEADS,
    TOKEN_TYPES,
    Variation("tie_word_embeddings", (False,), features=("masked-lm",)),
    Variation("max_2d_position_embeddings", (1024,)),
)

ARCHITECTURE = Architecture(
    model_type="layoutlm",
    kind="encoder",
    onnx_config=LayoutLMOnnxConfig,
    features=("default", "masked-lm", "sequence-classification", "token-classification"),
    tiny={**BERT.tiny, "max_2d_position_embeddings": 56},
    preprocessor="bert",
    sdpa="transformers>=5.20",
    variations=VARIATIONS,
)
