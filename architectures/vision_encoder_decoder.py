"""VisionEncoderDecoder: the image encoder of one architecture with the decoder of another."""

from __future__ import annotations

import importlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from parity.configs import OnnxConfig, PatchingSpec
from parity.declaration import FINDERS, Architecture, Variation, decoder_axes

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase, ProcessorMixin


class VisionEncoderDecoderOnnxConfig(OnnxConfig):
    """Pixels, and the decoder's token ids and mask; the pixels have the axes of the encoder's configuration."""

    def __init__(
        self, config: PretrainedConfig, task: str = "default", patching_specs: Iterable[PatchingSpec] | None = None
    ) -> None:
        self._encoder = self.get_encoder_config(config.encoder)
        super().__init__(config, task, [*(patching_specs or []), *self._encoder._patching_specs])

    def get_encoder_config(self, encoder_config: PretrainedConfig) -> OnnxConfig:
        """The configuration of a file with only the encoder, `model.encoder`."""
        return _declaration(encoder_config.model_type).onnx_config(encoder_config)

    def get_decoder_config(
        self, encoder_config: PretrainedConfig, decoder_config: PretrainedConfig, feature: str = "default"
    ) -> VisionEncoderDecoderDecoderOnnxConfig:
        """The configuration of a file with only the decoder, `model.decoder`, whose input is the encoder's output.

        If the two differ in width, the layer between them, `model.enc_to_dec_proj`, is in neither file.

        Args:
            encoder_config, decoder_config: of the two models.
            feature: of the decoder.
        """
        return VisionEncoderDecoderDecoderOnnxConfig(decoder_config, feature)

    @property
    def inputs(self) -> Mapping[str, Mapping[int, str]]:
        tokens = {f"decoder_{name}": {0: "batch", 1: "decoder_sequence"} for name in decoder_axes(False)}
        return OrderedDict(pixel_values=self._encoder.inputs["pixel_values"], **tokens)

    @property
    def outputs(self) -> Mapping[str, Mapping[int, str]]:
        return OrderedDict(logits={0: "batch", 1: "decoder_sequence"})

    @property
    def axis_sizes(self) -> Mapping[str, range]:
        return self._encoder.axis_sizes

    def complete_inputs(self, inputs: Mapping[str, Any], parameters: Iterable[str]) -> dict[str, Any]:
        # Without a mask some decoders (gpt2) look for packed texts, with an operator that no opset has.
        tokens = inputs["decoder_input_ids"]
        return {"decoder_attention_mask": tokens.new_ones(tokens.shape), **inputs, "use_cache": False}

    def generate_dummy_inputs(self, preprocessor: ProcessorMixin, *args: Any, **options: Any) -> Mapping[str, Any]:
        pixels = self._encoder.generate_dummy_inputs(preprocessor.image_processor, *args, **options)
        text = super().generate_dummy_inputs(preprocessor.tokenizer, *args, **options)
        tokens = {f"decoder_{name}": text[name] for name in decoder_axes(False) if name in text}
        return {"pixel_values": pixels["pixel_values"], **tokens}


class VisionEncoderDecoderDecoderOnnxConfig(OnnxConfig):
    """The decoder's token ids and mask, and the encoder's output."""

    @property
    def values_override(self) -> Mapping[str, Any]:
        return {"use_cache": False}

    @property
    def inputs(self) -> Mapping[str, Mapping[int, str]]:
        return OrderedDict(decoder_axes(False), encoder_hidden_states={0: "batch", 1: "encoder_sequence"})

    def generate_dummy_inputs(
        self, preprocessor: ProcessorMixin | PreTrainedTokenizerBase, *args: Any, **options: Any
    ) -> Mapping[str, Any]:
        inputs = dict(super().generate_dummy_inputs(getattr(preprocessor, "tokenizer", preprocessor), *args, **options))
        batch, length = inputs["input_ids"].shape
        width = getattr(self._config, "cross_attention_hidden_size", None) or self._config.hidden_size
        blank = inputs["input_ids"].new_zeros((batch, length + 1, width)).float()
        return {**{name: inputs[name] for name in decoder_axes(False)}, "encoder_hidden_states": blank}


def _declaration(model_type: str) -> Architecture:
    """The declaration of the encoder; without the registry, that of the module in this package."""
    for find in FINDERS:
        return find(model_type)
    return importlib.import_module(f".{model_type.replace('-', '_')}", __package__).ARCHITECTURE


VARIATIONS = (
    Variation("encoder.hidden_act", ("relu", "silu")),
    Variation("encoder.num_channels", (1,)),
    Variation("encoder.patch_size", (4, 16)),
    # As wide as the decoder, there is no projection between them.
    Variation(("encoder.hidden_size", "encoder.num_attention_heads"), ((32, 4), (48, 3))),
    Variation("decoder.hidden_act", ("relu", "silu")),
    Variation("decoder.max_position_embeddings", (64, 16, 9, 6)),
    Variation("decoder.num_hidden_layers", (1, 3)),
)

ARCHITECTURE = Architecture(
    model_type="vision-encoder-decoder",
    kind="multimodal",
    onnx_config=VisionEncoderDecoderOnnxConfig,
    features=("vision2seq-lm",),
    tiny={
        "encoder": {
            "model_type": "vit",
            "hidden_size": 24,
            "num_hidden_layers": 1,
            "num_attention_heads": 3,
            "intermediate_size": 40,
            "image_size": 32,
            "patch_size": 8,
        },
        "decoder": {
            "model_type": "bert",
            "is_decoder": True,
            "add_cross_attention": True,
            "vocab_size": 96,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 48,
            "max_position_embeddings": 40,
        },
    },
    preprocessor="image32+bert",
    sdpa="transformers",
    variations=VARIATIONS,
)
