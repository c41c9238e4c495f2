"""I-BERT: RoBERTa for integer arithmetic, here in float32 (`quant_mode` false)."""

from parity.architectures.roberta import ARCHITECTURE as ROBERTA
from parity.architectures.roberta import VARIATIONS as ROBERTA_VARIATIONS
from parity.architectures.roberta import RobertaOnnxConfig
from parity.declaration import BIDIRECTIONAL_FEATURES, Architecture, Refusal, Variation, omit


class IBertOnnxConfig(RobertaOnnxConfig):
    """Token ids and attention mask."""


VARIATIONS = (
    # No other activation has an integer version.
    *omit(ROBERTA_VARIATIONS, "hidden_act"),
    Variation("quant_mode", (True,)),
)

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
    variations=VARIATIONS,
)
