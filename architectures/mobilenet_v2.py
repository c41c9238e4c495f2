"""MobileNetV2: inverted residuals with TensorFlow's padding, for images of any size."""

from parity.architectures.mobilenet_v1 import MobileNetV1OnnxConfig
from parity.architectures.resnet import FOLDED_NORMS, IMAGES
from parity.declaration import Architecture, Variation


class MobileNetV2OnnxConfig(MobileNetV1OnnxConfig):
    """Pixels; batch, height and width are dynamic."""


VARIATIONS = (
    *IMAGES,
    Variation("hidden_act", ("relu", "silu")),
    Variation("tf_padding", (False,)),
    Variation("expand_ratio", (1.0, 3.0)),
    Variation("output_stride", (8, 32)),
    Variation("first_layer_is_expansion", (False,)),
    Variation("finegrained_output", (True,)),
)

ARCHITECTURE = Architecture(
    model_type="mobilenet_v2",
    kind="vision",
    onnx_config=MobileNetV2OnnxConfig,
    features=("default", "image-classification"),
    # Dilated convolutions from stride 16 on, whose padding is a multiple of the dilation.
    tiny={
        "depth_multiplier": 0.05,
        "depth_divisible_by": 2,
        "min_depth": 4,
        "expand_ratio": 2.0,
        "finegrained_output": False,
        "output_stride": 16,
        "image_size": 32,
    },
    preprocessor="image32",
    absences=(FOLDED_NORMS,),
    variations=VARIATIONS,
)
