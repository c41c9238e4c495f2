"""ConvNeXT: a convolutional image encoder for images of any size from its total stride up."""

from __future__ import annotations

from collections.abc import Mapping

from parity.architectures.resnet import IMAGES, ResNetOnnxConfig
from parity.declaration import Architecture, Variation, image_sizes


class ConvNextOnnxConfig(ResNetOnnxConfig):
    """Pixels; batch, height and width are dynamic."""

    @property
    def axis_sizes(self) -> Mapping[str, range]:
        stride = self._config.patch_size * 2 ** (self._config.num_stages - 1)
        return image_sizes(stride, self._config.image_size)

    @property
    def atol_for_validation(self) -> float:
        return 1e-5


# Shared with the second generation, which has the same layers.
VARIATIONS = (
    *IMAGES,
    Variation("hidden_act", ("relu", "silu")),
    Variation("patch_size", (2,)),
    Variation(("num_stages", "hidden_sizes", "depths"), ((2, [8, 12], [1, 1]), (4, [4, 8, 8, 12], [1, 1, 1, 1]))),
)

ARCHITECTURE = Architecture(
    model_type="convnext",
    kind="vision",
    onnx_config=ConvNextOnnxConfig,
    features=("default", "image-classification"),
    tiny={"patch_size": 4, "hidden_sizes": [8, 12, 16], "depths": [1, 2, 1], "num_stages": 3, "image_size": 32},
    preprocessor="image32",
    variations=(*VARIATIONS, Variation("layer_scale_init_value", (0.0,))),
)
