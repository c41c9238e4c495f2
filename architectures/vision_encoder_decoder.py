"""VisionEncoderDecoder: the image encoder of one architecture, read by the decoder of another."""

import importlib
from collections import OrderedDict

from parity.configs import OnnxConfig
from parity.declaration import FINDERS, Architecture, decoder_axes


class VisionEncoderDecoderOnnxConfig(OnnxConfig):
    """Pixels, and the decoder's token ids and mask; the axes of the pixels are those that the encoder's file has."""

    def __init__(self, config, task="default", patching_specs=None):
        self._encoder = self.get_encoder_config(config.encoder)
        super().__init__(config, task, [*(patching_specs or []), *self._encoder._patching_specs])

    def get_encoder_config(self, encoder_config):
        """The configuration of a file of the encoder alone, `model.encoder`."""
        return _declared(encoder_config.model_type).onnx_config(encoder_config)

    def get_decoder_config(self, encoder_config, decoder_config, feature="default"):
        """The configuration of a file of the decoder alone, `model.decoder`, which reads the encoder's answer.

        Where the two differ in width, the layer between them, `model.enc_to_dec_proj`, is in neither file.
        """
        return VisionEncoderDecoderDecoderOnnxConfig(decoder_config, feature)

    @property
    def inputs(self):
        tokens = {f"decoder_{name}": {0: "batch", 1: "decoder_sequence"} for name in decoder_axes(False)}
        return OrderedDict(pixel_values=self._encoder.inputs["pixel_values"], **tokens)

    @property
    def outputs(self):
        return OrderedDict(logits={0: "batch", 1: "decoder_sequence"})

    @property
    def axis_sizes(self):
        return self._encoder.axis_sizes

    def complete_inputs(self, inputs, parameters):
        # Some decoders (gpt2) look for texts packed into one row where there is no mask, by what no opset has.
        tokens = inputs["decoder_input_ids"]
        return {"decoder_attention_mask": tokens.new_ones(tokens.shape), **inputs, "use_cache": False}

    def generate_dummy_inputs(self, preprocessor, batch_size=-1, seq_length=-1, framework=None, **options):
        sizes = {"batch_size": batch_size, "framework": framework}
        pixels = self._encoder.generate_dummy_inputs(preprocessor.image_processor, **sizes, **options)
        text = super().generate_dummy_inputs(preprocessor.tokenizer, seq_length=seq_length, **sizes)
        tokens = {f"decoder_{name}": text[name] for name in decoder_axes(False) if name in text}
        return {"pixel_values": pixels["pixel_values"], **tokens}


class VisionEncoderDecoderDecoderOnnxConfig(OnnxConfig):
    """The decoder's token ids and mask, and what the encoder answered."""

    @property
    def values_override(self):
        return {"use_cache": False}

    @property
    def inputs(self):
        return OrderedDict(decoder_axes(False), encoder_hidden_states={0: "batch", 1: "encoder_sequence"})

    def generate_dummy_inputs(self, preprocessor, *args, **options):
        inputs = dict(super().generate_dummy_inputs(getattr(preprocessor, "tokenizer", preprocessor), *args, **options))
        batch, length = inputs["input_ids"].shape
        width = getattr(self._config, "cross_attention_hidden_size", None) or self._config.hidden_size
        blank = inputs["input_ids"].new_zeros((batch, length + 1, width)).float()
        return {**{name: inputs[name] for name in decoder_axes(False)}, "encoder_hidden_states": blank}


def _declared(model_type):
    """The declaration of the encoder; without the registry that of the module beside this one."""
    for find in FINDERS:
        return find(model_type)
    return importlib.import_module(f".{model_type.replace('-', '_')}", __package__).ARCHITECTURE


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
)
