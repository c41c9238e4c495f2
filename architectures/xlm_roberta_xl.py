"""XLM-RoBERTa-XL: XLM-RoBERTa with layer norms before the layers."""

from parity.architectures.bert import CAUSAL
from parity.architectures.roberta import ARCHITECTURE as ROBERTA
from parity.architectures.roberta import VARIATIONS, RobertaOnnxConfig
from parity.declaration import ENCODER_FEATURES, Architecture


class XLMRobertaXLOnnxConfig(RobertaOnnxConfig):
    """Token ids and attention mask."""


ARCHITECTURE = Architecture(
    model_type="xlm-roberta-xl",
    kind="encoder",
    onnx_config=XLMRobertaXLOnnxConfig,
    features=ENCODER_FEATURES,
    tiny=ROBERTA.tiny,
    preprocessor="roberta",
    sdpa="transformers",
    relations=ROBERTA.relations,
    variations=(*VARIATIONS, CAUSAL),
)
