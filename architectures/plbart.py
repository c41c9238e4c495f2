"""PLBart: BART for program text."""

from parity.architectures.bart import SHALLOW, VARIATIONS, BartOnnxConfig
from parity.declaration import GENERATE_WITHOUT_MASK, Architecture


class PLBartOnnxConfig(BartOnnxConfig):
    """The inputs of BART."""


ARCHITECTURE = Architecture(
    model_type="plbart",
    kind="encoder-decoder",
    onnx_config=PLBartOnnxConfig,
    features=(
        "default",
        "default-with-past",
        "causal-lm",
        "causal-lm-with-past",
        "seq2seq-lm",
        "seq2seq-lm-with-past",
        "sequence-classification",
    ),
    tiny=SHALLOW,
    preprocessor="bart",
    sdpa="transformers>=4.53",
    deviations=(GENERATE_WITHOUT_MASK,),
    variations=VARIATIONS,
)
