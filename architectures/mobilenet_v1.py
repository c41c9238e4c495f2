"""MobileNetV1: a convolutional image encoder with TensorFlow's padding, for images of any size."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from parity.architectures.resnet import FOLDED_NORMS, IMAGES, ResNetOnnxConfig
from parity.configs import PatchingSpec
from parity.declaration import Architecture, Variation

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig


class MobileNetV1OnnxConfig(ResNetOnnxConfig):
    """Pixels; batch, height and width are dynamic."""

    def __init__(
        self, config: PretrainedConfig, task: str = "default", patching_specs: Iterable[PatchingSpec] | None = None
    ) -> None:
        super().__init__(config, task, [*(patching_specs or []), padding_in_graph(config)])

    @property
    def outputs(self) -> Mapping[str, Mapping[int, str]]:
        pooled = {"pooler_output": {0: "batch"}} if self.task == "default" else {}
        return {**super().outputs, **pooled}

    @property
    def atol_for_validation(self) -> float:
        return 1e-4


def padding_in_graph(config: PretrainedConfig) -> PatchingSpec:
    """During export, replace the model's padding, which turns the size of the traced image into a constant."""
    name = f"transformers.models.{config.model_type}.modeling_{config.model_type}"
    return PatchingSpec(importlib.import_module(name), "apply_tf_padding", same_padding)


def same_padding(features: torch.Tensor, convolution: torch.nn.Conv2d) -> torch.Tensor:
    """TensorFlow's SAME padding with sizes computed in the graph; no kernel may be smaller than its stride."""
    from torch.nn.functional import pad

    sizes = []
    for axis in (-1, -2):
        stride, dilation = convolution.stride[axis], convolution.dilation[axis]
        # With a stride of 1 it is a constant, independent of the size.
        beyond = (features.shape[axis] - 1) % stride if stride > 1 else 0
        missing = convolution.kernel_size[axis] - 1 - beyond
        sizes += [missing // 2 * dilation, (missing - missing // 2) * dilation]
    return pad(features, sizes)


VARIATIONS = (
    *IMAGES,
    Variation("hidden_act", ("relu", "silu")),
    Variation("tf_padding", (False,)),
    Variation("depth_multiplier", (0.03,)),
    Variation("min_depth", (4,)),
)

ARCHITECTURE = Architecture(
    model_type="mobilenet_v1",
    kind="vision",
    onnx_config=MobileNetV1OnnxConfig,
    features=("default", "image-classification"),
    tiny={"depth_multiplier": 0.02, "min_depth": 8, "image_size": 32},
    preprocessor="image32",
    absences=(FOLDED_NORMS,),
    variations=VARIATIONS,
)
