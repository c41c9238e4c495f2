"""GroupViT: a text encoder and an image encoder that groups the patches of an image of one size."""

from parity.architectures.clip import ARCHITECTURE as CLIP
from parity.architectures.clip import TOWERS, CLIPOnnxConfig
from parity.declaration import Architecture, Variation, omit


class GroupViTOnnxConfig(CLIPOnnxConfig):
    """Token ids, pixels and attention mask; the numbers of texts and images may differ."""


VARIATIONS = (
    *omit(TOWERS, "vision_config.num_hidden_layers"),
    Variation("vision_config.assign_mlp_ratio", ([0.25, 2],)),
    Variation("projection_dim", (8, 32)),
)

ARCHITECTURE = Architecture(
    model_type="groupvit",
    kind="multimodal",
    onnx_config=GroupViTOnnxConfig,
    features=("default",),
    tiny={
        **CLIP.tiny,
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
        "projection_intermediate_dim": 28,
    },
    preprocessor="clip",
    variations=VARIATIONS,
)
