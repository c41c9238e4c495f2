"""I-BERT: a RoBERTa made for integer arithmetic, here in float32 (`quant_mode` false)."""

from parity.architectures.roberta import ARCHITECTURE as ROBERTA
from parity.architectures.roberta import RobertaOnnxConfig
from parity.declaration import BIDIRECTIONAL_FEATURES, Architecture


class IBertOnnxConfig(RobertaOnnxConfig):
    """Token ids and attention mask."""


ARCHITECTURE = Architecture(
    model_type="ibert",
    kind="encoder",
    onnx_config=IBertOnnxConfig,
    features=BIDIRECTIONAL_FEATURES,
    tiny=ROBERTA.tiny,
    preprocessor="roberta",
    relations=ROBERTA.relations,
)
