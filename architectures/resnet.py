"""ResNet: a convolutional image encoder for images of any size."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from packaging import version

from parity.configs import OnnxConfig
from parity.declaration import Absence, Architecture, Variation


class ResNetOnnxConfig(OnnxConfig):
    """Pixels; batch, height and width are dynamic."""

    torch_onnx_minimum_version = version.parse("1.11")

    @property
    def inputs(self) -> Mapping[str, Mapping[int, str]]:
        return OrderedDict(pixel_values={0: "batch", 2: "height", 3: "width"})

    @property
    def outputs(self) -> Mapping[str, Mapping[int, str]]:
        if self.task == "default":
            return OrderedDict(last_hidden_state={0: "batch", 2: "feature_height", 3: "feature_width"})
        return super().outputs

    @property
    def atol_for_validation(self) -> float:
        return 1e-3


FOLDED_NORMS = Absence(
    weights=("*.convolution.weight", "*.normalization.*"),
    reason="the exporter folds each batch norm into the convolution before it",
)
# Shared by all convolutional image encoders.
IMAGES = (
    Variation("num_channels", (1, 4)),
    Variation("num_labels", (1, 5), features=("image-classification",)),
)
VARIATIONS = (
    *IMAGES,
    Variation("hidden_act", ("gelu", "silu")),
    Variation("layer_type", ("bottleneck",)),
    Variation("downsample_in_first_stage", (True,)),
    Variation(("hidden_sizes", "depths"), (([8], [1]), ([8, 8, 12, 16], [1, 1, 2, 1]))),
    Variation("embedding_size", (12, 16)),
)

ARCHITECTURE = Architecture(
    model_type="resnet",
    kind="vision",
    onnx_config=ResNetOnnxConfig,
    features=("default", "image-classification"),
    tiny={"embedding_size": 8, "hidden_sizes": [8, 16, 24], "depths": [1, 2, 1], "layer_type": "basic"},
    preprocessor="image32",
    absences=(FOLDED_NORMS,),
    variations=VARIATIONS,
)
