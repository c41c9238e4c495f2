"""ModernBERT: an encoder with rotary positions and a sliding window in most layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from parity.configs import OnnxConfig
from parity.declaration import BIDIRECTIONAL_FEATURES, EITHER_PADDING, RELATIONS, Architecture, Variation, token_axes

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class ModernBertOnnxConfig(OnnxConfig):
    """Token ids and attention mask."""

    @property
    def inputs(self) -> Mapping[str, Mapping[int, str]]:
        return token_axes(self.task, "input_ids", "attention_mask")

    @property
    def pooled_tokens(self) -> Mapping[str, int]:
        # With left padding, the window of the first place is full of padding.
        first = self.task in ("sequence-classification", "multiple-choice") and self._config.classifier_pooling == "cls"
        return {"logits": 0} if first else {}

    def longest_sequence(self, model: PreTrainedModel) -> int | None:
        return None  # rotary positions are computed, not looked up


VARIATIONS = (
    Variation("hidden_activation", ("relu", "silu")),
    Variation("num_attention_heads", (1, 8)),
    # In between, transformers refuses a model whose layers are all of one kind: huggingface/transformers#48392.
    *(
        Variation(item, values, versions=versions)
        for versions in ("transformers<5.4", "transformers>=5.17")
        for item, values in (("num_hidden_layers", (1, 3)), ("global_attn_every_n_layers", (1,)))
    ),
    Variation("num_hidden_layers", (3,), versions="transformers>=5.4,<5.17"),
    Variation("local_attention", (2, 4, 16)),
    Variation("norm_bias", (True,)),
    Variation("attention_bias", (True,)),
    Variation("mlp_bias", (True,)),
    Variation("classifier_pooling", ("mean",), features=("sequence-classification", "multiple-choice")),
    Variation("decoder_bias", (False,), features=("masked-lm",)),
    Variation("num_labels", (1, 5), features=("sequence-classification", "token-classification")),
)

ARCHITECTURE = Architecture(
    model_type="modernbert",
    kind="encoder",
    onnx_config=ModernBertOnnxConfig,
    features=BIDIRECTIONAL_FEATURES,
    tiny={
        "vocab_size": 96,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 40,
        "global_attn_every_n_layers": 2,
        "local_attention": 6,
        "pad_token_id": 0,
        "bos_token_id": 2,
        "eos_token_id": 3,
        "cls_token_id": 2,
        "sep_token_id": 3,
    },
    preprocessor="distilbert",
    sdpa="transformers",
    # The first place is classified, even if it is padding; of the choices only until 4.56.
    relations={
        "*": EITHER_PADDING,
        "sequence-classification": RELATIONS["encoder"],
        ("multiple-choice", "transformers<4.57"): RELATIONS["encoder"],
    },
    versions="transformers>=4.48",
    needs={"question-answering": "transformers>=4.51", "multiple-choice": "transformers>=4.55"},
    variations=VARIATIONS,
)
