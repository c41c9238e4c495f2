"""OpenAI GPT-2: a decoder with absolute positions."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from parity.configs import OnnxConfigWithPast
from parity.declaration import RELATIONS, Architecture, Relations, Variation, decoder_axes


class GPT2OnnxConfig(OnnxConfigWithPast):
    """Token ids, caches and attention mask; the graph derives position ids from the mask, as `generate` does."""

    @property
    def inputs(self) -> Mapping[str, Mapping[int, str]]:
        inputs: OrderedDict[str, Mapping[int, str]] = OrderedDict(decoder_axes(self.use_past))
        if self.use_past:
            mask = inputs.pop("attention_mask")
            self.fill_with_past_key_values_(inputs, direction="inputs")
            inputs["attention_mask"] = mask
        return inputs

    @property
    def values_override(self) -> Mapping[str, Any]:
        # A text is classified at its last token before the padding. A model without a padding id takes the very last
        # token, and only of a single text; an id that no token has makes it do the same for a batch.
        padding = {} if getattr(self._config, "pad_token_id", None) is not None else {"pad_token_id": -1}
        return {**(super().values_override or {}), **padding}

    @property
    def num_layers(self) -> int:
        return self._config.n_layer

    @property
    def num_attention_heads(self) -> int:
        return self._config.n_head

    @property
    def default_onnx_opset(self) -> int:
        return 13


# Shared by decoders that name their items like GPT-2: published models have no padding token, one outside the
# vocabulary, or one that texts contain.
PADDING = (
    Variation(
        "pad_token_id",
        (None, -1, 7),
        features=("default", "default-with-past", "causal-lm", "causal-lm-with-past", "token-classification"),
        silent="padding is masked",
    ),
    Variation(("pad_token_id", "eos_token_id"), ((7, 7), (-1, 7)), features=("sequence-classification",)),
)
POSITIONS = Variation("n_positions", (64, 16, 9, 6))
ROTATED = replace(POSITIONS, silent="only how long a text may be depends on it: its table is computed")
DECODER_VARIATIONS = (
    Variation("activation_function", ("relu", "silu")),
    Variation("n_layer", (1, 3)),
    POSITIONS,
    Variation("n_inner", (None,)),
    Variation("num_labels", (1, 5), features=("sequence-classification", "token-classification")),
    *PADDING,
)
# Before 2.1, torch.baddbmm with beta=0 leaves NaN of uninitialised memory in small products of batches, so the model
# itself returns NaN now and then: https://github.com/pytorch/pytorch/issues/96037
REORDERED = Variation(
    "reorder_and_upcast_attn", (True,), versions="torch>=2.1", silent="only the order of products depends on it"
)
VARIATIONS = (
    *DECODER_VARIATIONS,
    Variation("n_head", (1, 8)),
    Variation("vocab_size", (200, 60)),
    Variation("scale_attn_weights", (False,)),
    Variation("scale_attn_by_inverse_layer_idx", (True,)),
    REORDERED,
    Variation("tie_word_embeddings", (False,), features=("causal-lm", "causal-lm-with-past")),
)

ARCHITECTURE = Architecture(
    model_type="gpt2",
    kind="decoder",
    onnx_config=GPT2OnnxConfig,
    features=(
        "default",
        "default-with-past",
        "causal-lm",
        "causal-lm-with-past",
        "sequence-classification",
        "token-classification",
    ),
    tiny={
        "vocab_size": 96,
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 4,
        "n_positions": 48,
        "n_inner": 48,
        "pad_token_id": 0,
    },
    preprocessor="gpt2",
    # In those versions the head looks for the first padding token, which is the first token with left padding.
    relations=(Relations(RELATIONS["encoder"], features=("sequence-classification",), versions="transformers<4.49"),),
    sdpa="transformers",
    smoke=("causal-lm-with-past",),
    variations=VARIATIONS,
)
