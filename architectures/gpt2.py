"""OpenAI GPT-2: a decoder with absolute positions."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from parity.configs import OnnxConfigWithPast
from parity.declaration import RELATIONS, Architecture, Relations, decoder_axes


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
        # A text is classified at its last token before the padding. A model without an id for it takes the last of all,
        # of one text only: with an id that no token has it does the same for a batch.
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
    # There the head looks for the first padding token, which on the left is the first of all.
    relations=(Relations(RELATIONS["encoder"], features=("sequence-classification",), versions="transformers<5"),),
    sdpa="transformers",
    smoke=("causal-lm-with-past",),
)
