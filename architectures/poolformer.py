"""PoolFormer: an image encoder that mixes patches by pooling, for images of any size."""

from __future__ import annotations

from parity.architectures.resnet import IMAGES, ResNetOnnxConfig
from parity.declaration import Architecture, Variation


class PoolFormerOnnxConfig(ResNetOnnxConfig):
    """Pixels; batch, height and width are dynamic."""

    @property
    def atol_for_validation(self) -> float:
        return 2e-3


VARIATIONS = (
    *IMAGES,
    Variation("hidden_act", ("relu", "silu")),
    Variation("pool_size", (5,)),
    Variation("use_layer_scale", (False,)),
    Variation("depths", ([1, 1, 1, 1], [2, 1, 1, 1])),
)

ARCHITECTURE = Architecture(
    model_type="poolformer",
    kind="vision",
    onnx_config=PoolFormerOnnxConfig,
    features=("default", "image-classification"),
    tiny={
        "depths": [1, 2, 1, 2],
        "hidden_sizes": [8, 12, 16, 20],
        "mlp_ratio": 2.0,
        "patch_sizes": [5, 3, 3, 3],
        "strides": [2, 2, 2, 2],
    },
    preprocessor="image32",
    variations=VARIATIONS,
)
