"""BLOOM: a decoder without positions; its attention is biased by distance (ALiBi)."""

from __future__ import annotations

from packaging import version

from parity.architectures.gpt2 import GPT2OnnxConfig
from parity.declaration import RELATIONS, Architecture, Relations


class BloomOnnxConfig(GPT2OnnxConfig):
    """Token ids, caches and attention mask; the caches have the layout that all decoders have."""

    torch_onnx_minimum_version = version.parse("1.12")

    @property
    def atol_for_validation(self) -> float:
        return 1e-3


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
    # As GPT-2's: there the head looks for the first padding token.
    relations=(Relations(RELATIONS["encoder"], features=("sequence-classification",), versions="transformers<5"),),
)
