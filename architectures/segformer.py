"""SegFormer: an image encoder without positions, for images of any size."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from parity.architectures.resnet import IMAGES, ResNetOnnxConfig
from parity.declaration import Absence, Architecture, Variation, image_sizes


class SegformerOnnxConfig(ResNetOnnxConfig):
    """Pixels; batch, height and width are dynamic, from the smallest image whose keys every stage can reduce."""

    @property
    def axis_sizes(self) -> Mapping[str, range]:
        smallest, stride = 1, 1
        for own, reduction in zip(self._config.strides, self._config.sr_ratios, strict=True):
            stride *= own
            smallest = max(smallest, (reduction - 1) * stride + 1)
        return image_sizes(smallest, getattr(self._config, "image_size", 224))

    @property
    def outputs(self) -> Mapping[str, Mapping[int, str]]:
        if self.task == "semantic-segmentation":
            return OrderedDict(logits={0: "batch", 2: "feature_height", 3: "feature_width"})
        return super().outputs

    @property
    def default_onnx_opset(self) -> int:
        return 12

    @property
    def atol_for_validation(self) -> float:
        return 1e-4


VARIATIONS = (
    *IMAGES,
    Variation("hidden_act", ("relu", "silu")),
    Variation("sr_ratios", ([1, 1, 1, 1], [4, 4, 2, 1])),
    Variation("strides", ([4, 2, 2, 2],)),
    Variation("depths", ([1, 1, 1, 1], [2, 1, 1, 1])),
)

ARCHITECTURE = Architecture(
    model_type="segformer",
    kind="vision",
    onnx_config=SegformerOnnxConfig,
    features=("default", "image-classification", "semantic-segmentation"),
    tiny={
        "depths": [1, 2, 1, 1],
        "sr_ratios": [4, 2, 2, 1],
        "hidden_sizes": [8, 12, 16, 24],
        "num_attention_heads": [1, 2, 4, 3],
        "mlp_ratios": [2, 2, 2, 2],
        "patch_sizes": [5, 3, 3, 3],
        "strides": [2, 2, 2, 2],
        "decoder_hidden_size": 12,
        "num_labels": 5,
        "image_size": 32,
    },
    preprocessor="image32",
    sdpa="transformers>=5.9",
    absences=(
        Absence(
            weights=("*.linear_fuse.weight", "*.batch_norm.*"),
            reason="the exporter folds the batch norm of the head into the convolution before it",
            features=("semantic-segmentation",),
        ),
    ),
    variations=VARIATIONS,
)
