"""Data2VecVision: BEiT with another training."""

from parity.architectures.beit import ARCHITECTURE as BEIT
from parity.architectures.beit import RELATIVE_TABLES, VARIATIONS, BeitOnnxConfig
from parity.declaration import Architecture


class Data2VecVisionOnnxConfig(BeitOnnxConfig):
    """Pixels; batch, height and width are dynamic: the positions are interpolated."""


ARCHITECTURE = Architecture(
    model_type="data2vec-vision",
    kind="vision",
    onnx_config=Data2VecVisionOnnxConfig,
    features=BEIT.features,
    tiny={
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "image_size": 32,
        "patch_size": 8,
        "use_shared_relative_position_bias": True,
        "layer_scale_init_value": 0.1,
    },
    preprocessor="image32",
    sdpa="transformers>=4.48",
    absences=(RELATIVE_TABLES,),
    variations=VARIATIONS,
)
