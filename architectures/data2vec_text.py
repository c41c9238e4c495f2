"""Data2VecText: an encoder like RoBERTa, trained on its own features."""

from parity.architectures.roberta import ARCHITECTURE as ROBERTA
from parity.architectures.roberta import VARIATIONS, RobertaOnnxConfig
from parity.declaration import BIDIRECTIONAL_FEATURES, Architecture


class Data2VecTextOnnxConfig(RobertaOnnxConfig):
    """Token ids and attention mask."""


ARCHITECTURE = Architecture(
    model_type="data2vec-text",
    kind="encoder",
    onnx_config=Data2VecTextOnnxConfig,
    features=BIDIRECTIONAL_FEATURES,
    tiny=ROBERTA.tiny,
    preprocessor="roberta",
    sdpa="transformers>=5",
    relations=ROBERTA.relations,
    variations=VARIATIONS,
)
