"""GPT Neo: a decoder whose layers alternate between attention to all tokens and to a window."""

from __future__ import annotations

from parity.architectures.gpt2 import PADDING, GPT2OnnxConfig
from parity.declaration import RELATIONS, Architecture, Relations, Variation


class GPTNeoOnnxConfig(GPT2OnnxConfig):
    """Token ids, caches and attention mask, like GPT-2."""

    @property
    def num_layers(self) -> int:
        return self._config.num_layers

    @property
    def num_attention_heads(self) -> int:
        return self._config.num_heads


VARIATIONS = (
    Variation("activation_function", ("relu", "silu")),
    Variation("max_position_embeddings", (64, 16, 9, 6)),
    Variation("intermediate_size", (None,)),
    Variation("window_size", (1, 2, 16)),
    Variation(("num_layers", "attention_types"), ((1, [[["local"], 1]]), (3, [[["global"], 1], [["local"], 2]]))),
    Variation("num_heads", (1, 8)),
    Variation("num_labels", (1, 5), features=("sequence-classification",)),
    Variation("tie_word_embeddings", (False,), features=("causal-lm", "causal-lm-with-past")),
    *PADDING,
)

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
    # As in GPT-2: in those versions the head looks for the first padding token.
    relations=(Relations(RELATIONS["encoder"], features=("sequence-classification",), versions="transformers<4.49"),),
    variations=VARIATIONS,
)
