"""ConvNeXT V2: ConvNeXT with a normalisation over whole images, for images of any size from its total stride up."""

from parity.architectures.convnext import VARIATIONS, ConvNextOnnxConfig
from parity.declaration import Architecture


class ConvNextV2OnnxConfig(ConvNextOnnxConfig):
    """Pixels; batch, height and width are dynamic."""


ARCHITECTURE = Architecture(
    model_type="convnextv2",
    kind="vision",
    onnx_config=ConvNextV2OnnxConfig,
    features=("default", "image-classification"),
    tiny={"patch_size": 4, "hidden_sizes": [8, 12, 16], "depths": [1, 2, 1], "num_stages": 3, "image_size": 32},
    preprocessor="image32",
    variations=VARIATIONS,
)
