"""Swin: an image encoder with attention inside shifted windows, for images of any size."""

from __future__ import annotations

import importlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from parity.architectures.beit import RELATIVE_TABLES
from parity.architectures.resnet import ResNetOnnxConfig
from parity.configs import PatchingSpec
from parity.declaration import Absence, Architecture, Variation, image_sizes

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig


class SwinOnnxConfig(ResNetOnnxConfig):
    """Pixels; batch, height and width are dynamic, from one window at the last stage on.

    A model with absolute positions has a table for one size: in its file only the batch is dynamic.
    """

    def __init__(
        self, config: PretrainedConfig, task: str = "default", patching_specs: Iterable[PatchingSpec] | None = None
    ) -> None:
        super().__init__(config, task, [*(patching_specs or []), *windows_in_graph()])

    @property
    def inputs(self) -> Mapping[str, Mapping[int, str]]:
        return OrderedDict(pixel_values={0: "batch"}) if self._config.use_absolute_embeddings else super().inputs

    @property
    def outputs(self) -> Mapping[str, Mapping[int, str]]:
        if self.task == "default":
            patches = {} if self._config.use_absolute_embeddings else {1: "patches"}
            return OrderedDict(last_hidden_state={0: "batch", **patches})
        return super().outputs

    @property
    def axis_sizes(self) -> Mapping[str, range]:
        stride = self._config.patch_size * 2 ** (len(self._config.depths) - 1)
        return image_sizes((self._config.window_size - 1) * stride + 1, self._config.image_size)

    @property
    def atol_for_validation(self) -> float:
        return 1e-4


def windows_in_graph() -> list[PatchingSpec]:
    """During export, make the decisions that depend on the image size in the graph, not in Python.

    An image is padded to whole patches, pairs and windows; windows shift only if the image has more than one.
    """
    import torch
    from torch.nn.functional import pad

    swin = importlib.import_module("transformers.models.swin.modeling_swin")
    shift_size = torch.tensor(0)

    def set_shift(layer: torch.nn.Module, resolution: Sequence[int | torch.Tensor]) -> None:
        nonlocal shift_size
        height, width = (torch.as_tensor(size) for size in resolution)
        shift_size = layer.shift_size * (torch.minimum(height, width) > layer.window_size).long()

    def roll(features: torch.Tensor, shifts: Sequence[int], dims: Sequence[int]) -> torch.Tensor:
        for shift, dim in zip(shifts, dims, strict=True):
            cut = shift_size if shift < 0 else features.shape[dim] - shift_size
            before, after = ((slice(None),) * dim + (part,) for part in (slice(cut), slice(cut, None)))
            features = torch.cat([features[after], features[before]], dim)
        return features

    def mask(
        layer: torch.nn.Module, height: int, width: int, dtype: torch.dtype, device: torch.device
    ) -> torch.Tensor | None:
        if layer.shift_size == 0:
            return None
        rows, columns = (_regions(torch.arange(size), size, layer.window_size, shift_size) for size in (height, width))
        regions = (3 * rows[:, None] + columns).to(dtype=dtype, device=device)
        windows = swin.window_partition(regions[None, :, :, None], layer.window_size).flatten(1)
        return (windows[:, None] != windows[:, :, None]).to(dtype) * -100.0

    def pad_patches(embeddings: torch.nn.Module, pixels: torch.Tensor, height: int, width: int) -> torch.Tensor:
        rows, columns = embeddings.patch_size
        return pad(pixels, (0, -width % columns, 0, -height % rows))

    def pad_pairs(merging: torch.nn.Module, features: torch.Tensor, height: int, width: int) -> torch.Tensor:
        return pad(features, (0, 0, 0, width % 2, 0, height % 2))

    def pad_windows(
        layer: torch.nn.Module, features: torch.Tensor, height: int, width: int
    ) -> tuple[torch.Tensor, tuple[int, ...]]:
        sizes = (0, 0, 0, -width % layer.window_size, 0, -height % layer.window_size)
        # Report padding even when it is zero: the layer then crops it, which is a no-op.
        return pad(features, sizes), (0, 0, 0, 1, 0, 1)

    return [
        PatchingSpec(swin.SwinLayer, "set_shift_and_window_size", set_shift),
        PatchingSpec(swin.SwinLayer, "get_attn_mask", mask),
        PatchingSpec(swin.SwinLayer, "maybe_pad", pad_windows),
        PatchingSpec(swin.SwinPatchEmbeddings, "maybe_pad", pad_patches),
        PatchingSpec(swin.SwinPatchMerging, "maybe_pad", pad_pairs),
        PatchingSpec(torch, "roll", roll),
    ]


def _regions(places: torch.Tensor, size: int, window: int, shift_size: torch.Tensor) -> torch.Tensor:
    """The region of each place along one axis; the last window is split where the image's end meets its start."""
    return (places >= size - window).long() + (places >= size - shift_size).long()


VARIATIONS = (
    Variation("image_size", (36, [24, 48]), silent="an image may have any size"),
    Variation("num_channels", (1, 4)),
    Variation("hidden_act", ("relu", "silu")),
    # Together, because PyTorch itself needs a window at the last stage, where a third one leaves three places.
    Variation(
        ("depths", "num_heads", "window_size"),
        (([2, 2], [2, 3], 2), ([2, 2], [2, 3], 6), ([1, 1], [2, 3], 6), ([2], [2], 3), ([1, 2, 1], [2, 3, 4], 2)),
    ),
    Variation("use_absolute_embeddings", (True,), versions="transformers>=5"),
    Variation("qkv_bias", (False,)),
    Variation("num_labels", (1, 5), features=("image-classification",)),
)

ARCHITECTURE = Architecture(
    model_type="swin",
    kind="vision",
    onnx_config=SwinOnnxConfig,
    features=("default", "image-classification"),
    # At its own size the image is one window at the last stage, as in the published models.
    tiny={
        "image_size": 24,
        "patch_size": 2,
        "embed_dim": 6,
        "depths": [2, 2],
        "num_heads": [2, 3],
        "window_size": 3,
        "mlp_ratio": 2.0,
    },
    preprocessor="image24",
    sdpa="transformers>=5.9",
    absences=(
        RELATIVE_TABLES,
        Absence(
            weights=("*relative_position_index",),
            versions="transformers<5.9",
            reason="the exporter looks the biases up by it; from 5.9 on checkpoints do not hold it",
        ),
    ),
    variations=VARIATIONS,
)
