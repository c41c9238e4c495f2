"""Encoder and decoder of a VisionEncoderDecoder as two files, with the old package's names."""

import pytest

from parity.fixtures.checkpoints import tiny_model
from parity.fixtures.preprocessors import preprocessor
from parity.onnx import export, validate_model_outputs
from parity.onnx.features import constructor

OPSET = 14


@pytest.fixture(scope="module")
def whole():
    """The model, its preprocessor and its configuration."""
    model = tiny_model("vision-encoder-decoder", "vision2seq-lm")
    return model, preprocessor("image32+bert"), constructor(model.config.model_type, "vision2seq-lm")(model.config)


def test_the_encoder_alone(whole, tmp_path):
    """`get_encoder_config` gives a file from pixels to the encoder's output."""
    model, both, config = whole
    part = config.get_encoder_config(model.config.encoder)
    inputs, outputs = export(both.image_processor, model.encoder, part, OPSET, tmp_path / "encoder_model.onnx")
    assert (inputs, outputs) == (["pixel_values"], ["last_hidden_state"])
    validate_model_outputs(
        part, both.image_processor, model.encoder, tmp_path / "encoder_model.onnx", outputs, part.atol_for_validation
    )


def test_the_decoder_alone(whole, tmp_path):
    """`get_decoder_config` gives a file from tokens and the encoder's output to logits."""
    model, both, config = whole
    part = config.get_decoder_config(model.config.encoder, model.config.decoder, feature="vision2seq-lm")
    inputs, outputs = export(both.tokenizer, model.decoder, part, OPSET, tmp_path / "decoder_model.onnx")
    assert (inputs, outputs) == (["input_ids", "attention_mask", "encoder_hidden_states"], ["logits"])
    validate_model_outputs(
        part, both.tokenizer, model.decoder, tmp_path / "decoder_model.onnx", outputs, part.atol_for_validation
    )
