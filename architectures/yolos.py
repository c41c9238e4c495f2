"""YOLOS: a plain image encoder with detection tokens, for images of any size from one patch up."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from parity.architectures.resnet import ResNetOnnxConfig
from parity.architectures.vit import VARIATIONS as VIT_VARIATIONS
from parity.declaration import Absence, Architecture, Variation, image_sizes, omit


class YolosOnnxConfig(ResNetOnnxConfig):
    """Pixels; batch, height and width are dynamic: the positions are interpolated."""

    @property
    def outputs(self) -> Mapping[str, Mapping[int, str]]:
        if self.task == "default":
            return OrderedDict(last_hidden_state={0: "batch", 1: "patches"})
        return OrderedDict(logits={0: "batch"}, pred_boxes={0: "batch"})

    @property
    def axis_sizes(self) -> Mapping[str, range]:
        own = self._config.image_size
        return image_sizes(self._config.patch_size, own if isinstance(own, int) else max(own))

    @property
    def default_onnx_opset(self) -> int:
        return 12

    @property
    def atol_for_validation(self) -> float:
        return 1e-4


VARIATIONS = (
    *omit(VIT_VARIATIONS, "image_size", "num_hidden_layers"),
    # A single layer has no positions between layers.
    Variation("num_hidden_layers", (3,)),
    Variation("qkv_bias", (False,)),
    Variation("num_detection_tokens", (1, 9)),
    Variation("use_mid_position_embeddings", (True, False)),
)

ARCHITECTURE = Architecture(
    model_type="yolos",
    kind="vision",
    onnx_config=YolosOnnxConfig,
    features=("default", "object-detection"),
    tiny={
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "image_size": [24, 32],
        "patch_size": 8,
        "num_detection_tokens": 5,
        "use_mid_position_embeddings": True,
        "num_labels": 6,
    },
    preprocessor="image32",
    sdpa="transformers",
    absences=(
        Absence(
            weights=("*.position_embeddings", "*.mid_position_embeddings"),
            reason="the exporter cuts the tables where they are interpolated",
        ),
    ),
    variations=VARIATIONS,
)
