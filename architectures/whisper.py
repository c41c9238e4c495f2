"""Whisper: an encoder for sounds of one length, and a text decoder."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

from parity.configs import OnnxConfig, OnnxSeq2SeqConfigWithPast
from parity.declaration import Architecture, Variation

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, ProcessorMixin
    from transformers.utils import TensorType


class WhisperOnnxConfig(OnnxSeq2SeqConfigWithPast):
    """Features of a sound, padded to the fixed length of the model, the decoder's token ids, and caches."""

    @property
    def inputs(self) -> Mapping[str, Mapping[int, str]]:
        inputs: OrderedDict[str, Mapping[int, str]] = OrderedDict(
            input_features={0: "batch"}, decoder_input_ids={0: "batch", 1: "decoder_sequence"}
        )
        if self.use_past:
            self.fill_with_past_key_values_(inputs, direction="inputs")
        return inputs

    @property
    def dead_inputs(self) -> Mapping[str, str]:
        dead = super().dead_inputs
        return {"input_features": dead["input_ids"]} if dead else {}

    @property
    def atol_for_validation(self) -> float:
        return 1e-3

    def fill_with_past_key_values_(  # type: ignore[override]  # the old package's signature takes fewer
        self, inputs_or_outputs: MutableMapping[str, Mapping[int, str]], direction: str
    ) -> None:
        super().fill_with_past_key_values_(inputs_or_outputs, direction)
        for name, axes in inputs_or_outputs.items():
            if ".encoder." in name:
                # Axis 2 has the fixed length of the encoder's output.
                inputs_or_outputs[name] = {axis: axis_name for axis, axis_name in axes.items() if axis != 2}

    def complete_inputs(self, inputs: Mapping[str, Any], parameters: Iterable[str]) -> dict[str, Any]:
        # Without a mask transformers 5 looks for packed texts, with an operator that no opset has.
        tokens = inputs["decoder_input_ids"]
        return dict(inputs) if self.use_past else {**inputs, "decoder_attention_mask": tokens.new_ones(tokens.shape)}

    def longest_sequence(self, model: PreTrainedModel) -> int | None:
        return model.config.max_target_positions

    def generate_dummy_inputs(  # type: ignore[override]  # the old package's signature has no choices
        self,
        preprocessor: ProcessorMixin,
        batch_size: int = -1,
        seq_length: int = -1,
        is_pair: bool = False,
        framework: TensorType | None = None,
        **sound: Any,
    ) -> Mapping[str, Any]:
        sizes: dict[str, Any] = {"batch_size": batch_size, "framework": framework}
        features = OnnxConfig.generate_dummy_inputs(self, preprocessor.feature_extractor, **sizes, **sound)
        text = super().generate_dummy_inputs(preprocessor.tokenizer, seq_length=seq_length, is_pair=is_pair, **sizes)
        inputs = {"input_features": features["input_features"], "decoder_input_ids": text["decoder_input_ids"]}
        if self.use_past:
            inputs["past_key_values"] = [
                (*layer[:2], *map(self._cross_attention_cache, layer[2:])) for layer in text["past_key_values"]
            ]
        return inputs

    def _cross_attention_cache(self, cache: torch.Tensor) -> torch.Tensor:
        """An empty cross-attention cache of the encoder's length."""
        batch, heads, _, size = cache.shape
        return cache.new_zeros(batch, heads, self._config.max_source_positions, size)


VARIATIONS = (
    Variation("activation_function", ("relu", "silu")),
    Variation("encoder_layers", (2,)),
    Variation("decoder_layers", (1, 3)),
    Variation("encoder_attention_heads", (1, 8)),
    Variation("decoder_attention_heads", (1, 4)),
    Variation("max_target_positions", (64, 16, 9, 6)),
    Variation("vocab_size", (200,)),
)

ARCHITECTURE = Architecture(
    model_type="whisper",
    kind="speech",
    onnx_config=WhisperOnnxConfig,
    features=("default", "default-with-past", "speech2seq-lm", "speech2seq-lm-with-past"),
    tiny={
        "vocab_size": 96,
        "num_mel_bins": 8,
        "max_source_positions": 10,
        "max_target_positions": 48,
        "d_model": 32,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 48,
        "decoder_ffn_dim": 40,
        "pad_token_id": 1,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "decoder_start_token_id": 2,
    },
    preprocessor="sound20+bart",
    sdpa="transformers",
    smoke=("speech2seq-lm-with-past",),
    variations=VARIATIONS,
)
