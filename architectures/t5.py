"""T5: an encoder-decoder with relative positions."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from parity.configs import OnnxSeq2SeqConfigWithPast
from parity.declaration import (
    EITHER_PADDING,
    GENERATE_WITHOUT_MASK,
    Architecture,
    Floor,
    Variation,
    encoder_decoder_axes,
)


class T5OnnxConfig(OnnxSeq2SeqConfigWithPast):
    """Token ids and masks of both sides, and caches."""

    @property
    def inputs(self) -> Mapping[str, Mapping[int, str]]:
        inputs: OrderedDict[str, Mapping[int, str]] = OrderedDict(encoder_decoder_axes(self.use_past))
        if self.use_past:
            self.fill_with_past_key_values_(inputs, direction="inputs")
        return inputs

    @property
    def default_onnx_opset(self) -> int:
        return 13


# Shared with mT5 and LongT5, which have the same layers.
VARIATIONS = (
    Variation("feed_forward_proj", ("gated-gelu", "gated-silu", "relu")),
    Variation("d_kv", (7, 16)),
    Variation("num_heads", (3, 1)),
    Variation("num_layers", (1, 3)),
    Variation("num_decoder_layers", (1,)),
    Variation("relative_attention_num_buckets", (4, 32)),
    Variation("relative_attention_max_distance", (64, 128)),
    Variation("tie_word_embeddings", (False,), features=("seq2seq-lm", "seq2seq-lm-with-past")),
)

ARCHITECTURE = Architecture(
    model_type="t5",
    kind="encoder-decoder",
    onnx_config=T5OnnxConfig,
    features=("default", "default-with-past", "seq2seq-lm", "seq2seq-lm-with-past"),
    tiny={
        "vocab_size": 96,
        "d_model": 32,
        "d_kv": 8,
        "d_ff": 48,
        "num_layers": 2,
        "num_decoder_layers": 3,
        "num_heads": 4,
        "relative_attention_num_buckets": 8,
        "relative_attention_max_distance": 20,
    },
    preprocessor="t5",
    sdpa="transformers>=5.15",
    floors=(
        Floor(
            opset=12,
            reason="Min takes int64 only from opset 12, and relative position buckets are int64",
            issue="https://onnx.ai/onnx/operators/onnx__Min.html",
            error="operator (Min)",
        ),
    ),
    relations={"*": EITHER_PADDING},
    smoke=("seq2seq-lm", "seq2seq-lm-with-past"),
    deviations=(GENERATE_WITHOUT_MASK,),
    variations=(*VARIATIONS, Variation("vocab_size", (200, 60))),
)

# For models with layers of their own.
SHALLOW = {**ARCHITECTURE.tiny, "num_layers": 1, "num_decoder_layers": 2}
