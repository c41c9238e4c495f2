"""OWL-ViT: a text encoder and an image encoder for one image size, for finding objects that texts name."""

from collections.abc import Mapping

from parity.architectures.clip import ARCHITECTURE as CLIP
from parity.architectures.clip import TOWERS, CLIPOnnxConfig
from parity.declaration import Architecture, Variation


class OwlViTOnnxConfig(CLIPOnnxConfig):
    """Token ids, pixels and attention mask; the numbers of texts and images may differ."""

    @property
    def pooled_tokens(self) -> Mapping[str, int]:
        return {}  # the padding token is not the end token


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
