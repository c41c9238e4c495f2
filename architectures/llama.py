"""Llama: a decoder with rotary positions and grouped-query attention (several heads share one key and value)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from parity.architectures.gpt2 import PADDING, GPT2OnnxConfig
from parity.configs import PatchingSpec
from parity.declaration import RELATIONS, Architecture, Refusal, Relations, Variation

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel


class LlamaOnnxConfig(GPT2OnnxConfig):
    """Token ids, caches and attention mask, like GPT-2; a cache has one head for each key and value."""

    def __init__(
        self,
        config: PretrainedConfig,
        task: str = "default",
        patching_specs: list[PatchingSpec] | None = None,
        use_past: bool = False,
    ) -> None:
        ropes = [_longrope_in_graph()] if _original_length(config) else []
        super().__init__(config, task, [*(patching_specs or []), *ropes], use_past)

    @property
    def num_layers(self) -> int:
        return self._config.num_hidden_layers

    @property
    def num_attention_heads(self) -> int:
        return self._config.num_key_value_heads

    def longest_sequence(self, model: PreTrainedModel) -> int | None:
        return None  # rotary positions are computed, not looked up


def _original_length(config: PretrainedConfig) -> int | None:
    """The length of text up to which longrope uses its short factors; None with another rope_type."""
    # transformers 4 uses them for any length.
    rope = getattr(config, "rope_parameters", None) or {}
    return rope["original_max_position_embeddings"] if rope.get("rope_type") == "longrope" else None


def _longrope_in_graph() -> PatchingSpec:
    """During export, choose the factors by the length of the text in the graph, not in Python."""
    import torch
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    rotate = LlamaRotaryEmbedding.forward.__wrapped__

    def forward(
        module: torch.nn.Module, features: torch.Tensor, position_ids: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        longest = _original_length(module.config)
        if longest is None:
            return rotate(module, features, position_ids)
        long, _ = ROPE_INIT_FUNCTIONS["longrope"](module.config, features.device, seq_len=longest + 1)
        short = module.original_inv_freq.to(features.device)
        frequencies = torch.where(position_ids.max() + 1 > longest, long.to(short.dtype), short)
        stand_in = SimpleNamespace(inv_freq=frequencies, attention_scaling=module.attention_scaling)
        return rotate(stand_in, features, position_ids)

    return PatchingSpec(LlamaRotaryEmbedding, "forward", forward)


# The model changes its positions in texts longer than its training length.
_LONG = {"factor": 2.0, "original_max_position_embeddings": 6}
_ROPES: tuple[dict[str, Any], ...] = (
    {"rope_type": "linear", "factor": 2.0},
    {"rope_type": "llama3", **_LONG, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    {"rope_type": "yarn", **_LONG},
    {"rope_type": "longrope", **_LONG, "short_factor": [1.0, 1.25, 1.5, 1.75], "long_factor": [2.0, 2.5, 3.0, 3.5]},
    {"rope_type": "dynamic", "factor": 2.0},
)
# The item's names in transformers 5 and before.
_DYNAMIC = tuple(
    Refusal(
        item=f"{item}.rope_type",
        value="dynamic",
        reason="what the model answers to a text depends on the longest one that it has read before, which no file can"
        " know; set it to linear, yarn or longrope and train the model for that, or export it without",
        issue="https://github.com/huggingface/transformers/issues/25306",
    )
    for item in ("rope_parameters", "rope_scaling")
)
# Of those releases that were tried, the first that has it.
_PROPORTIONAL = "5.16"


def _items(*ropes: dict[str, Any]) -> tuple[tuple[int, dict[str, Any], int], ...]:
    """Positions, rope and size of a head: the factors of longrope are as many as half of a head is wide."""
    plain = {"rope_theta": 10000.0, "rope_type": "default"}
    return (*((48, plain, size) for size in (12, 6)), *((9, {"rope_theta": 10000.0, **each}, 8) for each in ropes))


VARIATIONS = (
    Variation("hidden_act", ("relu", "gelu")),
    Variation("num_hidden_layers", (1, 3)),
    Variation("num_key_value_heads", (1, 4)),
    Variation(
        ("max_position_embeddings", "rope_parameters", "head_dim"),
        _items(*_ROPES),
        versions=f"transformers>=5,<{_PROPORTIONAL}",
    ),
    Variation(
        ("max_position_embeddings", "rope_parameters", "head_dim"),
        _items(*_ROPES, {"rope_type": "proportional", "partial_rotary_factor": 0.5}),
        versions=f"transformers>={_PROPORTIONAL}",
    ),
    Variation(
        ("max_position_embeddings", "rope_scaling", "head_dim"),
        ((48, None, 12), (48, None, 6), *((9, each, 8) for each in _ROPES)),
        versions="transformers<5",
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
    # As in GPT-2: in those versions the head looks for the first padding token.
    relations=(Relations(RELATIONS["encoder"], features=("sequence-classification",), versions="transformers<4.49"),),
    sdpa="transformers",
    refusals=_DYNAMIC,
    variations=VARIATIONS,
)
