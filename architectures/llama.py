"""Llama: a decoder with rotary positions; several heads share one key and value (grouped-query attention)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parity.architectures.gpt2 import GPT2OnnxConfig
from parity.declaration import RELATIONS, Architecture, Relations

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class LlamaOnnxConfig(GPT2OnnxConfig):
    """Token ids, caches and attention mask, as GPT-2; a cache has as many heads as there are keys and values."""

    @property
    def num_layers(self) -> int:
        return self._config.num_hidden_layers

    @property
    def num_attention_heads(self) -> int:
        return self._config.num_key_value_heads

    def longest_sequence(self, model: PreTrainedModel) -> int | None:
        return None  # rotary positions are computed, not looked up


ARCHITECTURE = Architecture(
    model_type="llama",
    kind="decoder",
    onnx_config=LlamaOnnxConfig,
    features=(
        "default",
        "default-with-past",
        "causal-lm",
        "causal-lm-with-past",
        "sequence-classification",
        "token-classification",
        "question-answering",
    ),
    tiny={
        "vocab_size": 96,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 48,
        "max_position_embeddings": 48,
        "pad_token_id": 0,
    },
    preprocessor="gpt2",
    # As GPT-2's: there the head looks for the first padding token.
    relations=(Relations(RELATIONS["encoder"], features=("sequence-classification",), versions="transformers<5"),),
    sdpa="transformers",
)
