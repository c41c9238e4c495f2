"""GroupViT: an encoder of texts and one that groups the places of an image of one size."""

from parity.architectures.clip import CLIPOnnxConfig
from parity.architectures.declaration import Architecture


class GroupViTOnnxConfig(CLIPOnnxConfig):
    """Token ids, pixels and attention mask; there may be more texts than images, or fewer."""


ARCHITECTURE = Architecture(
    model_type="groupvit",
    kind="multimodal",
    onnx_config=GroupViTOnnxConfig,
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
            "num_hidden_layers": 4,
            "depths": [2, 1, 1],
            "num_group_tokens": [6, 4, 0],
            "num_output_groups": [6, 4, 4],
            "num_attention_heads": 2,
            "intermediate_size": 40,
            "image_size": 32,
            "patch_size": 8,
        },
        "projection_dim": 20,
        "projection_intermediate_dim": 28,
    },
    preprocessor="clip",
)
