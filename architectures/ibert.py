"""I-BERT: a RoBERTa made for integer arithmetic, here in float32 (`quant_mode` false)."""

from parity.architectures.roberta import ARCHITECTURE as ROBERTA
from parity.architectures.roberta import RobertaOnnxConfig
from parity.declaration import BIDIRECTIONAL_FEATURES, Architecture, Refusal


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
    refusals=(
        Refusal(
            item="quant_mode",
            value=True,
            reason="integers are imitated in float32, where a last bit decides which way a value is rounded; set it to"
            " false in config.json, which exports the float32 model",
            issue="https://github.com/kssteven418/I-BERT/issues/1",
        ),
    ),
)
