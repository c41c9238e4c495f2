"""DeiT: an image encoder with a distillation token, for images of one size."""

from parity.architectures.vit import VARIATIONS, ViTOnnxConfig
from parity.declaration import Architecture, Variation


class DeiTOnnxConfig(ViTOnnxConfig):
    """Pixels; only the batch is dynamic: the model refuses other image sizes."""


ARCHITECTURE = Architecture(
    model_type="deit",
    kind="vision",
    onnx_config=DeiTOnnxConfig,
    features=("default", "image-classification"),
    tiny={
        "architectures": ["DeiTForImageClassificationWithTeacher"],
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "image_size": 32,
        "patch_size": 8,
    },
    preprocessor="image32",
    sdpa="transformers",
    variations=(*VARIATIONS, Variation("qkv_bias", (False,))),
)
