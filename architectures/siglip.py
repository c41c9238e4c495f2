"""SigLIP: a text encoder pooled at the last place, and an image encoder for one image size, pooled by a probe."""

from collections.abc import Mapping

from parity.architectures.clip import TOWERS, CLIPOnnxConfig
from parity.declaration import RELATIONS, Architecture, Floor, Variation


class SiglipOnnxConfig(CLIPOnnxConfig):
    """Token ids, pixels and attention mask, like CLIP."""

    @property
    def pooled_tokens(self) -> Mapping[str, int]:
        return {}  # pools the last place, even if it is padding


VARIATIONS = (
    *TOWERS,
    Variation("vision_config.patch_size", (16,)),
    Variation("text_config.num_attention_heads", (1, 8)),
)

ARCHITECTURE = Architecture(
    model_type="siglip",
    kind="multimodal",
    onnx_config=SiglipOnnxConfig,
    features=("default",),
    tiny={
        "text_config": {
            "vocab_size": 96,
            "hidden_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 48,
            "max_position_embeddings": 40,
            "bos_token_id": 1,
            "eos_token_id": 1,
            "pad_token_id": 0,
        },
        "vision_config": {
            "hidden_size": 24,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "intermediate_size": 40,
            "image_size": 32,
            "patch_size": 8,
        },
    },
    preprocessor="image32+t5",
    sdpa="transformers",
    # The last place is pooled, even if it is padding.
    relations={"*": RELATIONS["vision"]},
    floors=(
        Floor(
            opset=13,
            reason="the pooling of images unflattens, which is lowered only from opset 13",
            issue="https://github.com/pytorch/pytorch/pull/99056",
            error="aten::unflatten",
        ),
    ),
    variations=VARIATIONS,
)
