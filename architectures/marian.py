"""Marian: an encoder-decoder for translation, with sinusoidal positions; its causal-lm uses only the decoder."""

from __future__ import annotations

from parity.architectures.bart import SHALLOW, BartOnnxConfig
from parity.architectures.bart import VARIATIONS as BART_VARIATIONS
from parity.declaration import GENERATE_WITHOUT_MASK, Architecture, Variation


class MarianOnnxConfig(BartOnnxConfig):
    """The inputs of BART."""

    @property
    def atol_for_validation(self) -> float:
        return 1e-4


VARIATIONS = (
    *BART_VARIATIONS,
    Variation(
        ("share_encoder_decoder_embeddings", "decoder_vocab_size", "tie_word_embeddings"),
        ((False, 96, True), (False, 60, False), (True, 96, False)),
        features=("default", "seq2seq-lm", "seq2seq-lm-with-past"),
    ),
)

ARCHITECTURE = Architecture(
    model_type="marian",
    kind="encoder-decoder",
    onnx_config=MarianOnnxConfig,
    features=(
        "default",
        "default-with-past",
        "seq2seq-lm",
        "seq2seq-lm-with-past",
        "causal-lm",
        "causal-lm-with-past",
    ),
    tiny={**SHALLOW, "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0, "forced_eos_token_id": 1},
    preprocessor="t5",
    sdpa="transformers>=4.53",
    deviations=(GENERATE_WITHOUT_MASK,),
    variations=VARIATIONS,
)
