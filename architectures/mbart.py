"""mBART: BART for many languages, with layer norms before the blocks."""

from parity.architectures.bart import ARCHITECTURE as BART
from parity.architectures.bart import SHALLOW, VARIATIONS, BartOnnxConfig
from parity.declaration import GENERATE_WITHOUT_MASK, TRUTH_VALUES, Architecture


class MBartOnnxConfig(BartOnnxConfig):
    """The inputs of BART."""


ARCHITECTURE = Architecture(
    model_type="mbart",
    kind="encoder-decoder",
    onnx_config=MBartOnnxConfig,
    features=BART.features,
    tiny=SHALLOW,
    preprocessor="bart",
    sdpa="transformers",
    deviations=(GENERATE_WITHOUT_MASK,),
    versions=TRUTH_VALUES,
    variations=VARIATIONS,
)
