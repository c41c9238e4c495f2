"""OWL-ViT: an encoder of texts and one of images of one size, made for finding what the texts name."""

from collections.abc import Mapping

from parity.architectures.clip import ARCHITECTURE as CLIP
from parity.architectures.clip import TOWERS, CLIPOnnxConfig
from parity.declaration import Architecture, Variation


class OwlViTOnnxConfig(CLIPOnnxConfig):
    """Token ids, pixels and attention mask; there may be more texts than images, or fewer."""

    @property
    def pooled_tokens(self) -> Mapping[str, int]:
        return {}  # padded with another token than the end


VARIATIONS = (*TOWERS, Variation("vision_config.patch_size", (16,)), Variation("projection_dim", (8, 32)))

ARCHITECTURE = Architecture(
    model_type="owlvit",
    kind="multimodal",
    onnx_config=OwlViTOnnxConfig,
    features=("default",),
    tiny=CLIP.tiny,
    preprocessor="owlvit",
    sdpa="transformers>=5.4",
    variations=VARIATIONS,
)
