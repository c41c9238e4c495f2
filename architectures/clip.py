"""CLIP: an encoder of texts and one of images of one size; every text is compared with every image."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from parity.configs import OnnxConfig
from parity.declaration import Architecture, Variation

if TYPE_CHECKING:
    from transformers import ProcessorMixin
    from transformers.utils import TensorType


class CLIPOnnxConfig(OnnxConfig):
    """Token ids, pixels and attention mask; there may be more texts than images, or fewer."""

    @property
    def inputs(self) -> Mapping[str, Mapping[int, str]]:
        text = {0: "batch", 1: "sequence"}
        return OrderedDict(input_ids=text, pixel_values={0: "image_batch"}, attention_mask=text)

    @property
    def outputs(self) -> Mapping[str, Mapping[int, str]]:
        return OrderedDict(
            logits_per_image={0: "image_batch", 1: "batch"},
            logits_per_text={0: "batch", 1: "image_batch"},
            text_embeds={0: "batch"},
            image_embeds={0: "image_batch"},
        )

    @property
    def pooled_tokens(self) -> Mapping[str, int]:
        # Texts are padded with their end: on the left the model takes the first padding for it, which sees nothing.
        return dict.fromkeys(("logits_per_image", "logits_per_text", "text_embeds"), 0)

    @property
    def default_onnx_opset(self) -> int:
        return 14

    @property
    def atol_for_validation(self) -> float:
        return 1e-4

    def generate_dummy_inputs(  # type: ignore[override]  # the old package's signature has framework fourth
        self,
        preprocessor: ProcessorMixin,
        batch_size: int = -1,
        seq_length: int = -1,
        framework: TensorType | None = None,
        **options: Any,
    ) -> Mapping[str, Any]:
        """Texts by the processor's tokenizer and as many images by its image processor."""
        generate = super().generate_dummy_inputs
        options = {"batch_size": batch_size, "framework": framework, **options}
        texts = generate(preprocessor.tokenizer, seq_length=seq_length, **options)
        return {**texts, **generate(preprocessor.image_processor, **options)}


# For all that compare texts and images, and name their items so.
TOWERS = (
    Variation("text_config.hidden_act", ("gelu", "relu")),
    Variation("vision_config.hidden_act", ("silu", "relu")),
    Variation("text_config.num_hidden_layers", (1, 3)),
    Variation("vision_config.num_hidden_layers", (1, 2)),
    Variation("text_config.max_position_embeddings", (64, 16, 9)),
)
VARIATIONS = (
    *TOWERS,
    Variation("vision_config.patch_size", (16,)),
    Variation("projection_dim", (8, 32)),
    # In published checkpoints of the first generation it is 2, whatever the tokenizer's own is.
    Variation("text_config.eos_token_id", (95,), silent="a text ends with the highest id, whatever its name is"),
)

ARCHITECTURE = Architecture(
    model_type="clip",
    kind="multimodal",
    onnx_config=CLIPOnnxConfig,
    features=("default",),
    # The end of a text is looked for as in the published checkpoints: the token with the highest id.
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
    sdpa="transformers",
    smoke=("default",),
    variations=VARIATIONS,
)
