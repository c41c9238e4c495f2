"""BART: an encoder-decoder; its causal-lm uses only the decoder."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from parity.configs import OnnxSeq2SeqConfigWithPast
from parity.declaration import GENERATE_WITHOUT_MASK, Architecture, Variation, decoder_axes, encoder_decoder_axes


class BartOnnxConfig(OnnxSeq2SeqConfigWithPast):
    """Token ids and masks of both sides, and caches; for causal-lm only those of the decoder."""

    @property
    def inputs(self) -> Mapping[str, Mapping[int, str]]:
        axes = decoder_axes if self.task == "causal-lm" else encoder_decoder_axes
        inputs: OrderedDict[str, Mapping[int, str]] = OrderedDict(axes(self.use_past))
        if self.task == "sequence-classification":
            # The head reads the decoder at the position of the encoder's last token: both must be equally long.
            inputs = OrderedDict((name, {0: "batch", 1: "sequence"}) for name in inputs)
        if self.use_past:
            self.fill_with_past_key_values_(inputs, direction="inputs")
        return inputs


# Shared by all encoder-decoders that name their items like BART.
VARIATIONS = (
    Variation("activation_function", ("relu", "silu")),
    Variation("encoder_layers", (3,)),
    Variation("decoder_layers", (1,)),
    Variation("encoder_attention_heads", (1, 8)),
    Variation("decoder_attention_heads", (1, 4)),
    Variation("encoder_ffn_dim", (33,)),
    Variation("max_position_embeddings", (64, 16, 9, 6)),
    Variation("scale_embedding", (True, False)),
    Variation("num_labels", (1, 5), features=("sequence-classification",)),
)

ARCHITECTURE = Architecture(
    model_type="bart",
    kind="encoder-decoder",
    onnx_config=BartOnnxConfig,
    features=(
        "default",
        "default-with-past",
        "causal-lm",
        "causal-lm-with-past",
        "seq2seq-lm",
        "seq2seq-lm-with-past",
        "sequence-classification",
        "question-answering",
    ),
    tiny={
        "vocab_size": 96,
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 3,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 48,
        "decoder_ffn_dim": 40,
        "max_position_embeddings": 48,
    },
    preprocessor="bart",
    sdpa="transformers",
    deviations=(GENERATE_WITHOUT_MASK,),
    variations=VARIATIONS,
)

# For models with layers of their own: one layer distinguishes encoder and decoder, two distinguish layers.
SHALLOW = {**ARCHITECTURE.tiny, "encoder_layers": 1, "decoder_layers": 2}
