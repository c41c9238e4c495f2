"""GPT Neo: a decoder whose layers look back over all tokens and over a window in turn."""

from __future__ import annotations

from parity.architectures.gpt2 import GPT2OnnxConfig
from parity.declaration import RELATIONS, Architecture, Relations


class GPTNeoOnnxConfig(GPT2OnnxConfig):
    """Token ids, caches and attention mask, as GPT-2."""

    @property
    def num_layers(self) -> int:
        return self._config.num_layers

    @property
    def num_attention_heads(self) -> int:
        return self._config.num_heads


ARCHITECTURE = Architecture(
    model_type="gpt_neo",
    kind="decoder",
    onnx_config=GPTNeoOnnxConfig,
    features=("default", "default-with-past", "causal-lm", "causal-lm-with-past", "sequence-classification"),
    tiny={
        "vocab_size": 96,
        "hidden_size": 32,
        "num_layers": 2,
        "attention_types": [[["global", "local"], 1]],
        "num_heads": 4,
        "window_size": 5,
        "intermediate_size": 48,
        "max_position_embeddings": 48,
        "pad_token_id": 0,
    },
    preprocessor="gpt2",
    # As GPT-2's: there the head looks for the first padding token.
    relations=(Relations(RELATIONS["encoder"], features=("sequence-classification",), versions="transformers<5"),),
)
