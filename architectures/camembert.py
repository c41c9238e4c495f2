"""CamemBERT: RoBERTa for French."""

from parity.architectures.bert import CAUSAL
from parity.architectures.roberta import ARCHITECTURE as ROBERTA
from parity.architectures.roberta import VARIATIONS, RobertaOnnxConfig
from parity.declaration import ENCODER_FEATURES, Architecture


class CamembertOnnxConfig(RobertaOnnxConfig):
    """Token ids and attention mask."""


ARCHITECTURE = Architecture(
    model_type="camembert",
    kind="encoder",
    onnx_config=CamembertOnnxConfig,
    features=ENCODER_FEATURES,
    tiny=ROBERTA.tiny,
    preprocessor="roberta",
    sdpa="transformers",
    relations=ROBERTA.relations,
    # In the versions between, every call fails: huggingface/transformers#47147.
    needs={"multiple-choice": "transformers<5 or transformers>=5.14"},
    variations=(*VARIATIONS, CAUSAL),
)
