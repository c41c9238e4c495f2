"""FlauBERT: XLM for French, without token types; masked-lm and causal-lm share one head."""

from parity.architectures.distilbert import DistilBertOnnxConfig
from parity.architectures.xlm import ARCHITECTURE as XLM
from parity.architectures.xlm import VARIATIONS as XLM_VARIATIONS
from parity.declaration import ENCODER_FEATURES, Architecture, Variation


class FlaubertOnnxConfig(DistilBertOnnxConfig):
    """Token ids and attention mask."""


VARIATIONS = (*XLM_VARIATIONS, Variation("pre_norm", (True,), versions="transformers<5"))

ARCHITECTURE = Architecture(
    model_type="flaubert",
    kind="encoder",
    onnx_config=FlaubertOnnxConfig,
    features=ENCODER_FEATURES,
    tiny=XLM.tiny,
    preprocessor="distilbert",
    heads={"causal-lm": "FlaubertWithLMHeadModel"},
    variations=VARIATIONS,
)
