"""Blenderbot Small: Blenderbot with layer norms after the blocks."""

from parity.architectures.bart import VARIATIONS, BartOnnxConfig
from parity.architectures.blenderbot import ARCHITECTURE as BLENDERBOT
from parity.declaration import GENERATE_WITHOUT_MASK, Architecture


class BlenderbotSmallOnnxConfig(BartOnnxConfig):
    """The inputs of BART."""


ARCHITECTURE = Architecture(
    model_type="blenderbot-small",
    kind="encoder-decoder",
    onnx_config=BlenderbotSmallOnnxConfig,
    features=BLENDERBOT.features,
    tiny=BLENDERBOT.tiny,
    preprocessor="t5",
    sdpa="transformers>=4.53",
    deviations=(GENERATE_WITHOUT_MASK,),
    variations=VARIATIONS,
)
