"""The channels of a model's images, by its configuration, and of the images that its processor makes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def channels_of(config: PretrainedConfig) -> int | None:
    """The number of channels of the model's images; None if the configuration does not say."""
    channels = getattr(getattr(config, "vision_config", config), "num_channels", None)
    return channels if isinstance(channels, int) else None


def colours_of(processor: Any) -> int | None:
    """The number of channels that the processor normalises, 1 for grey images; None if it does not say."""
    mean = getattr(processor, "image_mean", None) if getattr(processor, "do_normalize", False) else None
    return len(mean) if isinstance(mean, (list, tuple)) else None


def with_channels(pixels: Any, channels: int | None) -> Any:
    """Pixels (batch, channels, height, width) with as many channels as the model takes, cut or repeated.

    The dummy images are noise, so that any channel is as good as another.
    """
    if channels is None or not hasattr(pixels, "shape") or pixels.shape[-3] == channels:
        return pixels
    have = pixels.shape[-3]
    return pixels[..., [index % have for index in range(channels)], :, :]
