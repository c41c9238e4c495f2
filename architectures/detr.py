"""DETR: an encoder-decoder on the features of a convolutional backbone, for images of any size."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from parity.architectures.resnet import ResNetOnnxConfig
from parity.configs import PatchingSpec
from parity.declaration import PILLOW, Absence, Architecture, Floor, Variation

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig


class DetrOnnxConfig(ResNetOnnxConfig):
    """Pixels and a mask that is 0 at padding; batch, height and width are dynamic."""

    def __init__(
        self, config: PretrainedConfig, task: str = "default", patching_specs: Iterable[PatchingSpec] | None = None
    ) -> None:
        super().__init__(config, task, [*(patching_specs or []), resize_as_torch()])

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


def resize_as_torch() -> PatchingSpec:
    """During export, compute the nearest pixel with torch's own arithmetic.

    Resize divides where torch multiplies, and picks another pixel at 125 of the widths from 32 to 1,333:
    microsoft/onnxruntime#12098.
    """
    from torch.nn import functional

    own = functional.interpolate

    def interpolate(
        features: torch.Tensor, size: Sequence[int] | None = None, *, mode: str = "nearest", **options: Any
    ) -> torch.Tensor:
        if mode != "nearest" or size is None:
            return own(features, size, mode=mode, **options)
        for axis, length in zip((-2, -1), size, strict=True):
            features = features.index_select(features.dim() + axis, _nearest(features.shape[axis], length))
        return features

    return PatchingSpec(functional, "interpolate", interpolate, orig_op=own)


def _nearest(length: int, target: int) -> torch.Tensor:
    """Indices (target,) into an axis of `length` for nearest resizing; both numbers are tensors while tracing."""
    import torch

    have, want = torch.as_tensor(length), torch.as_tensor(target)
    places = torch.arange(want).float() * (have.float() / want.float())
    return torch.minimum(places.floor(), (have - 1).float()).long()


VARIATIONS = (
    Variation("activation_function", ("gelu", "silu")),
    Variation("encoder_layers", (2,)),
    Variation("decoder_layers", (1, 3)),
    # The mask head requires that heads and layer width give a multiple of 8.
    Variation("encoder_attention_heads", (1, 4), features=("default", "object-detection")),
    Variation("decoder_attention_heads", (2, 8), features=("default", "object-detection")),
    Variation("num_queries", (1, 9)),
    Variation("position_embedding_type", ("learned",)),
    Variation("num_labels", (1, 7), features=("object-detection", "image-segmentation")),
)

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
    versions=PILLOW,
    variations=VARIATIONS,
)
