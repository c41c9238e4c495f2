"""Perceiver: latents with cross-attention to a text or an image."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from parity.configs import OnnxConfig
from parity.declaration import Architecture, Variation


class PerceiverOnnxConfig(OnnxConfig):
    """`inputs`: token ids with an attention mask, or pixels of an image of the model's own size."""

    @property
    def inputs(self) -> Mapping[str, Mapping[int, str]]:
        if self.task == "image-classification":
            return OrderedDict(inputs={0: "batch"})
        return OrderedDict((name, {0: "batch", 1: "sequence"}) for name in ("inputs", "attention_mask"))

    @property
    def outputs(self) -> Mapping[str, Mapping[int, str]]:
        # The answer has as many places as a text of full length, even for a short text.
        return OrderedDict(logits={0: "batch"})

    @property
    def atol_for_validation(self) -> float:
        return 1e-4

    def generate_dummy_inputs(self, *args: Any, **kwargs: Any) -> Mapping[str, Any]:
        tensors = dict(super().generate_dummy_inputs(*args, **kwargs))
        return {"inputs": tensors.pop("input_ids" if "input_ids" in tensors else "pixel_values"), **tensors}


VARIATIONS = (
    Variation("hidden_act", ("relu", "silu")),
    Variation("num_latents", (3, 12)),
    Variation("num_blocks", (1,)),
    Variation("num_self_attends_per_block", (1,)),
    Variation("num_self_attention_heads", (1, 8)),
    Variation("use_query_residual", (False,)),
    Variation(("qk_channels", "v_channels"), ((None, None),), features=("masked-lm", "sequence-classification")),
    Variation("self_attention_widening_factor", (2,)),
    Variation("max_position_embeddings", (64, 16, 9), features=("masked-lm", "sequence-classification")),
    Variation("image_size", (6, 12), features=("image-classification",)),
    Variation("num_labels", (1, 5), features=("sequence-classification", "image-classification")),
)

ARCHITECTURE = Architecture(
    model_type="perceiver",
    kind="encoder",
    kinds={"image-classification": "vision"},
    onnx_config=PerceiverOnnxConfig,
    features=("image-classification", "masked-lm", "sequence-classification"),
    tiny={
        "vocab_size": 96,
        "num_latents": 6,
        "d_latents": 32,
        "d_model": 24,
        "num_blocks": 2,
        "num_self_attends_per_block": 3,
        "num_self_attention_heads": 4,
        "num_cross_attention_heads": 2,
        "qk_channels": 16,
        "v_channels": 32,
        "max_position_embeddings": 40,
        "image_size": 8,
        # Three classes handle images; the Auto class takes the class that saved the checkpoint.
        "architectures": ["PerceiverForImageClassificationLearned"],
    },
    preprocessor="distilbert",
    preprocessors={"image-classification": "image8"},
    variations=VARIATIONS,
)
