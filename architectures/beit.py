"""BEiT: an image encoder with relative positions, for images of any size from one patch up."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from parity.architectures.resnet import ResNetOnnxConfig
from parity.architectures.vit import VARIATIONS as VIT_VARIATIONS
from parity.declaration import Absence, Architecture, Variation, image_sizes, omit


class BeitOnnxConfig(ResNetOnnxConfig):
    """Pixels; batch, height and width are dynamic: the positions are interpolated."""

    @property
    def outputs(self) -> Mapping[str, Mapping[int, str]]:
        if self.task == "default":
            return OrderedDict(last_hidden_state={0: "batch", 1: "patches"})
        return super().outputs

    @property
    def axis_sizes(self) -> Mapping[str, range]:
        return image_sizes(self._config.patch_size, self._config.image_size)

    @property
    def atol_for_validation(self) -> float:
        return 1e-4


RELATIVE_TABLES = Absence(
    weights=("*relative_position_bias_table",),
    reason="the exporter looks the biases up, because no input has a part in where",
)
# Shared with data2vec-vision, which has the same layers.
VARIATIONS = (
    *omit(VIT_VARIATIONS, "image_size", "num_hidden_layers"),
    Variation("use_mean_pooling", (False,)),
    Variation(
        ("use_relative_position_bias", "use_shared_relative_position_bias"),
        ((False, False), (True, False), (False, True), (True, True)),
    ),
    Variation("layer_scale_init_value", (0.0,)),
    # A model with a table of positions refuses rectangles itself.
    Variation(("image_size", "use_absolute_position_embeddings"), (([24, 48], False), (32, False), (40, True))),
)

ARCHITECTURE = Architecture(
    model_type="beit",
    kind="vision",
    onnx_config=BeitOnnxConfig,
    features=("default", "image-classification"),
    tiny={
        "vocab_size": 96,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "image_size": 32,
        "patch_size": 8,
        "use_relative_position_bias": True,
        "use_absolute_position_embeddings": True,
        "layer_scale_init_value": 0.1,
        "out_indices": [1, 2],
    },
    preprocessor="image32",
    sdpa="transformers>=4.48",
    absences=(
        RELATIVE_TABLES,
        Absence(weights=("*position_embeddings",), reason="the exporter cuts the table where it is interpolated"),
    ),
    variations=VARIATIONS,
)
