"""OWL-ViT: an encoder of texts and one of images of one size, made for finding what the texts name."""

from parity.architectures.clip import CLIPOnnxConfig
from parity.architectures.declaration import Architecture


class OwlViTOnnxConfig(CLIPOnnxConfig):
    """Token ids, pixels and attention mask; there may be more texts than images, or fewer."""


ARCHITECTURE = Architecture(
    model_type="owlvit",
    kind="multimodal",
    onnx_config=OwlViTOnnxConfig,
    features=("default",),
    tiny={
        "text_config": {
            "vocab_size": 96,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 48,
            "max_position_embeddings": 40,
            "bos_token_id": 0,
            "eos_token_id": 2,
        },
        "vision_config": {
            "hidden_size": 24,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "intermediate_size": 40,
            "image_size": 32,
            "patch_size": 8,
        },
        "projection_dim": 20,
    },
    preprocessor="clip",
    sdpa="transformers>=5",
)
