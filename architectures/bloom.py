"""BLOOM: a decoder without positions; its attention is biased by distance (ALiBi)."""

from __future__ import annotations

from packaging import version

from parity.architectures.gpt2 import PADDING, GPT2OnnxConfig
from parity.declaration import RELATIONS, Architecture, Relations, Variation


class BloomOnnxConfig(GPT2OnnxConfig):
    """Token ids, caches and attention mask; the caches have the same layout as those of other decoders."""

    torch_onnx_minimum_version = version.parse("1.12")

    @property
    def atol_for_validation(self) -> float:
        return 1e-3


VARIATIONS = (
    Variation("n_layer", (1, 3)),
    # If the number of heads is no power of two, the slopes are combined from two series.
    Variation(("hidden_size", "n_head"), ((24, 3), (36, 6))),
    Variation("apply_residual_connection_post_layernorm", (True,)),
    Variation(
        ("slow_but_exact", "pretraining_tp"), ((True, 2),), silent="it changes the order of what is computed alone"
    ),
    Variation("num_labels", (1, 5), features=("sequence-classification", "token-classification")),
    Variation("tie_word_embeddings", (False,), features=("causal-lm", "causal-lm-with-past")),
    *PADDING,
)

ARCHITECTURE = Architecture(
    model_type="bloom",
    kind="decoder",
    onnx_config=BloomOnnxConfig,
    features=(
        "default",
        "default-with-past",
        "causal-lm",
        "causal-lm-with-past",
        "sequence-classification",
        "token-classification",
    ),
    tiny={"vocab_size": 96, "hidden_size": 32, "n_layer": 2, "n_head": 4, "pad_token_id": 0},
    preprocessor="gpt2",
    # As in GPT-2: in those versions the head looks for the first padding token.
    relations=(Relations(RELATIONS["encoder"], features=("sequence-classification",), versions="transformers<4.49"),),
    variations=VARIATIONS,
)
