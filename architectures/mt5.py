"""mT5: T5 for many languages, with gated feed-forward blocks and a separate output layer."""

from __future__ import annotations

from parity.architectures.t5 import ARCHITECTURE as T5
from parity.architectures.t5 import SHALLOW, VARIATIONS, T5OnnxConfig
from parity.declaration import GENERATE_WITHOUT_MASK, Architecture, omit


class MT5OnnxConfig(T5OnnxConfig):
    """The inputs of T5."""

    @property
    def atol_for_validation(self) -> float:
        return 5e-4


ARCHITECTURE = Architecture(
    model_type="mt5",
    kind="encoder-decoder",
    onnx_config=MT5OnnxConfig,
    features=T5.features,
    tiny=SHALLOW,
    preprocessor="t5",
    floors=T5.floors,
    relations=T5.relations,
    sdpa="transformers>=5.15",
    deviations=(GENERATE_WITHOUT_MASK,),
    # transformers 5 ties its tables whatever the configuration says.
    variations=omit(VARIATIONS, "tie_word_embeddings"),
)
