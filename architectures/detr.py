"""DETR: an encoder-decoder on the features of a convolutional backbone, for images of any size."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from parity.architectures.resnet import ResNetOnnxConfig
from parity.declaration import Absence, Architecture, Floor


class DetrOnnxConfig(ResNetOnnxConfig):
    """Pixels and the mask of those that are no padding; batch, height and width are dynamic."""

    @property
    def inputs(self) -> Mapping[str, Mapping[int, str]]:
        return OrderedDict(super().inputs, pixel_mask={0: "batch", 1: "height", 2: "width"})

    @property
    def outputs(self) -> Mapping[str, Mapping[int, str]]:
        if self.task == "default":
            return OrderedDict(last_hidden_state={0: "batch"})
        outputs: OrderedDict[str, Mapping[int, str]] = OrderedDict(logits={0: "batch"}, pred_boxes={0: "batch"})
        if self.task == "image-segmentation":
            outputs["pred_masks"] = {0: "batch", 2: "feature_height", 3: "feature_width"}
        return outputs

    @property
    def default_onnx_opset(self) -> int:
        return 12

    @property
    def atol_for_validation(self) -> float:
        return 1e-5


ARCHITECTURE = Architecture(
    model_type="detr",
    kind="vision",
    onnx_config=DetrOnnxConfig,
    features=("default", "object-detection", "image-segmentation"),
    tiny={
        "use_timm_backbone": False,
        "use_pretrained_backbone": False,
        "backbone": None,
        "backbone_config": {
            "model_type": "resnet",
            "embedding_size": 8,
            "hidden_sizes": [8, 12, 16, 24],
            "depths": [1, 1, 1, 1],
            "layer_type": "basic",
            "out_features": ["stage1", "stage2", "stage3", "stage4"],
        },
        "d_model": 32,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "encoder_attention_heads": 8,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 48,
        "decoder_ffn_dim": 40,
        "num_queries": 5,
        "num_labels": 6,
    },
    preprocessor="detr",
    sdpa="transformers>=5.1",
    floors=(
        Floor(
            opset=12,
            reason="Einsum is new in opset 12, and the attention map of the mask head is one in transformers 4",
            issue="https://onnx.ai/onnx/operators/onnx__Einsum.html",
            error="aten::einsum",
            features=("image-segmentation",),
            versions="transformers<5",
        ),
    ),
    absences=(
        Absence(
            weights=("*.normalization.*",),
            reason="the norms of the backbone are frozen, and become one factor and one summand each",
        ),
    ),
)
