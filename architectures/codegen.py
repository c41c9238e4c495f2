"""CodeGen: a decoder with rotary positions and heads in four groups."""

from parity.architectures.gpt2 import DECODER_VARIATIONS, POSITIONS, ROTATED, GPT2OnnxConfig
from parity.declaration import Architecture, Variation, omit


class CodeGenOnnxConfig(GPT2OnnxConfig):
    """Token ids and attention mask, like GPT-2."""


VARIATIONS = (*omit(DECODER_VARIATIONS, *POSITIONS.items, "pad_token_id"), ROTATED, Variation("rotary_dim", (2, 8)))

ARCHITECTURE = Architecture(
    model_type="codegen",
    kind="decoder",
    onnx_config=CodeGenOnnxConfig,
    features=("default", "causal-lm"),
    tiny={"vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 48, "n_inner": 48, "rotary_dim": 4},
    preprocessor="gpt2",
    sdpa="transformers>=5.24",
    variations=VARIATIONS,
)
