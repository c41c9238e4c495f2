"""MobileViT: convolutions around attention between patches, for images of any size."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from parity.architectures.resnet import IMAGES, ResNetOnnxConfig
from parity.declaration import Absence, Architecture, Variation

# Strides of the layers with attention, in pixels; dilated convolutions omit the last.
_STRIDES = (8, 16, 32)


class MobileViTOnnxConfig(ResNetOnnxConfig):
    """Pixels; batch, height and width are dynamic.

    The model resizes features that its patches do not divide. Tracing an image for which every layer resizes puts the
    resizing into the graph; it does not change images that fit.
    """

    @property
    def outputs(self) -> Mapping[str, Mapping[int, str]]:
        pooled = {"pooler_output": {0: "batch"}} if self.task == "default" else {}
        return OrderedDict(super().outputs, **pooled)

    @property
    def atol_for_validation(self) -> float:
        return 1e-4

    def generate_dummy_inputs(self, *args: Any, **kwargs: Any) -> Mapping[str, Any]:
        inputs = dict(super().generate_dummy_inputs(*args, **kwargs))
        pixels = inputs["pixel_values"]
        size = _size_to_stretch(min(pixels.shape[-2:]), self._config.patch_size)
        rows, columns = ([place % have for place in range(size)] for have in pixels.shape[-2:])
        inputs["pixel_values"] = pixels[..., rows, :][..., columns]
        return inputs


def _size_to_stretch(own: int, patch: int) -> int:
    """The largest size up to the model's own at which every layer resizes; the next larger if that is too small."""
    smaller, larger = range(own, own // 2, -1), itertools.count(own + 1)
    sizes = itertools.chain(smaller, larger)
    return next(size for size in sizes if all(-(-size // stride) % patch for stride in _STRIDES))


VARIATIONS = (
    *IMAGES,
    Variation("image_size", (64, 128)),
    Variation("hidden_act", ("relu", "gelu")),
    Variation("num_attention_heads", (1, 2)),
    Variation("output_stride", (16, 8)),
    Variation("qkv_bias", (False,)),
    Variation("expand_ratio", (1.0,)),
)

ARCHITECTURE = Architecture(
    model_type="mobilevit",
    kind="vision",
    onnx_config=MobileViTOnnxConfig,
    features=("default", "image-classification"),
    tiny={
        "hidden_sizes": [12, 16, 24],
        "neck_hidden_sizes": [4, 8, 8, 12, 16, 12, 20],
        "num_attention_heads": 4,
        "expand_ratio": 2.0,
        "image_size": 72,
    },
    preprocessor="image72",
    absences=(
        Absence(
            weights=(
                "*.normalization.*",
                "*conv_stem.convolution.weight",
                "*.expand_1x1.convolution.weight",
                "*.conv_3x3.convolution.weight",
                "*.reduce_1x1.convolution.weight",
                "*.conv_kxk.convolution.weight",
                "*.conv_projection.convolution.weight",
                "*.fusion.convolution.weight",
                "*conv_1x1_exp.convolution.weight",
            ),
            reason="the exporter folds each batch norm into the convolution before it",
        ),
    ),
    variations=VARIATIONS,
)
