"""Llama: a decoder with rotary positions; several heads share one key and value (grouped-query attention)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from parity.architectures.gpt2 import PADDING, GPT2OnnxConfig
from parity.declaration import RELATIONS, Architecture, Relations, Variation

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


# Where the model changes its positions: at texts longer than it was trained for.
_LONG = {"factor": 2.0, "original_max_position_embeddings": 6}
_ROPES: tuple[dict[str, Any], ...] = (
    {"rope_type": "linear", "factor": 2.0},
    {"rope_type": "llama3", **_LONG, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    {"rope_type": "yarn", **_LONG},
    {"rope_type": "longrope", **_LONG, "short_factor": [1.0, 1.25, 1.5, 1.75], "long_factor": [2.0, 2.5, 3.0, 3.5]},
    {"rope_type": "dynamic", "factor": 2.0},
)
VARIATIONS = (
    Variation("hidden_act", ("relu", "gelu")),
    Variation("num_hidden_layers", (1, 3)),
    Variation("num_key_value_heads", (1, 4)),
    Variation("head_dim", (12, 6)),
    Variation(
        ("max_position_embeddings", "rope_parameters"),
        tuple((9, {"rope_theta": 10000.0, **each}) for each in _ROPES),
        versions="transformers>=5",
    ),
    Variation(
        ("max_position_embeddings", "rope_scaling"), tuple((9, each) for each in _ROPES), versions="transformers<5"
    ),
    Variation("attention_bias", (True,)),
    Variation("mlp_bias", (True,)),
    Variation("num_labels", (1, 5), features=("sequence-classification", "token-classification")),
    Variation("tie_word_embeddings", (True,), features=("causal-lm", "causal-lm-with-past")),
    *PADDING,
)

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
    variations=VARIATIONS,
)
