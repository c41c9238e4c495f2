"""ViT: an image encoder for images of one size."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from packaging import version

from parity.configs import OnnxConfig
from parity.declaration import Architecture, Variation


class ViTOnnxConfig(OnnxConfig):
    """Pixels; only the batch is dynamic: the model refuses other image sizes."""

    torch_onnx_minimum_version = version.parse("1.11")

    @property
    def inputs(self) -> Mapping[str, Mapping[int, str]]:
        return OrderedDict(pixel_values={0: "batch"})

    @property
    def outputs(self) -> Mapping[str, Mapping[int, str]]:
        return OrderedDict((name, {0: "batch"}) for name in super().outputs)

    @property
    def atol_for_validation(self) -> float:
        return 1e-4


# Shared by all image encoders that name their items like ViT.
VARIATIONS = (
    Variation("image_size", (40, [24, 48])),
    Variation("num_channels", (1, 4)),
    Variation("hidden_act", ("relu", "silu")),
    Variation("num_hidden_layers", (1, 3)),
    Variation("num_attention_heads", (1, 8)),
    Variation("num_labels", (1, 5), features=("image-classification",)),
)

ARCHITECTURE = Architecture(
    model_type="vit",
    kind="vision",
    onnx_config=ViTOnnxConfig,
    features=("default", "image-classification"),
    tiny={
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "image_size": 32,
        "patch_size": 8,
    },
    preprocessor="image32",
    sdpa="transformers",
    smoke=("image-classification",),
    variations=(*VARIATIONS, Variation("qkv_bias", (False,)), Variation("patch_size", (4,))),
)
