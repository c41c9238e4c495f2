"""FlauBERT: an XLM for French, without token types; one head serves masked-lm and causal-lm."""

from parity.architectures.distilbert import DistilBertOnnxConfig
from parity.architectures.xlm import ARCHITECTURE as XLM
from parity.declaration import ENCODER_FEATURES, Architecture


class FlaubertOnnxConfig(DistilBertOnnxConfig):
    """Token ids and attention mask."""


ARCHITECTURE = Architecture(
    model_type="flaubert",
    kind="encoder",
    onnx_config=FlaubertOnnxConfig,
    features=ENCODER_FEATURES,
    tiny=XLM.tiny,
    preprocessor="distilbert",
    heads={"causal-lm": "FlaubertWithLMHeadModel"},
)
