"""CLIP: a text encoder and an image encoder for one image size; every text is compared with every image."""

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
    """Token ids, pixels and attention mask; the numbers of texts and images may differ."""

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
        # Texts are padded with the end token: with left padding the model takes the first padding as the end.
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
        """Texts from the processor's tokenizer and as many images from its image processor.

        Args:
            preprocessor: has a tokenizer and an image processor.
            batch_size: number of texts and of images; -1 for the default.
            seq_length: tokens of each text; -1 for the default.
            framework: `pt` for torch tensors.
            options: see `OnnxConfig.generate_dummy_inputs`.
        """
        generate = super().generate_dummy_inputs
        options = {"batch_size": batch_size, "framework": framework, **options}
        texts = generate(preprocessor.tokenizer, seq_length=seq_length, **options)
        return {**texts, **generate(preprocessor.image_processor, **options)}


# Shared by all models that compare texts and images and use the same names of items.
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
    # Published checkpoints of the first generation have 2, whatever the tokenizer's own id is.
    Variation("text_config.eos_token_id", (95,), silent="a text ends with the highest id, whatever its name is"),
)

ARCHITECTURE = Architecture(
    model_type="clip",
    kind="multimodal",
    onnx_config=CLIPOnnxConfig,
    features=("default",),
    # Find the end of a text as the published checkpoints do: the token with the highest id.
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
