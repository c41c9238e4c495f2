"""OWL-ViT: an encoder of texts and one of images of one size, made for finding what the texts name."""

from parity.architectures.clip import ARCHITECTURE as CLIP
from parity.architectures.clip import CLIPOnnxConfig
from parity.declaration import Architecture


class OwlViTOnnxConfig(CLIPOnnxConfig):
    """Token ids, pixels and attention mask; there may be more texts than images, or fewer."""


ARCHITECTURE = Architecture(
    model_type="owlvit",
    kind="multimodal",
    onnx_config=OwlViTOnnxConfig,
    features=("default",),
    tiny=CLIP.tiny,
    preprocessor="clip",
    sdpa="transformers>=5.4",
)
