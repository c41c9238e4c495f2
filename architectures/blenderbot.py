"""Blenderbot: an encoder-decoder for dialogue; its causal-lm uses only the decoder."""

from parity.architectures.bart import SHALLOW, VARIATIONS, BartOnnxConfig
from parity.declaration import GENERATE_WITHOUT_MASK, Architecture


class BlenderbotOnnxConfig(BartOnnxConfig):
    """The inputs of BART."""


ARCHITECTURE = Architecture(
    model_type="blenderbot",
    kind="encoder-decoder",
    onnx_config=BlenderbotOnnxConfig,
    features=(
        "default",
        "default-with-past",
        "causal-lm",
        "causal-lm-with-past",
        "seq2seq-lm",
        "seq2seq-lm-with-past",
    ),
    tiny={**SHALLOW, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2, "decoder_start_token_id": 2},
    preprocessor="t5",
    sdpa="transformers>=4.53",
    deviations=(GENERATE_WITHOUT_MASK,),
    variations=VARIATIONS,
)
