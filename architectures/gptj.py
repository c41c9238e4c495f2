"""GPT-J: a decoder with rotary positions."""

from parity.architectures.gpt2 import ARCHITECTURE as GPT2
from parity.architectures.gpt2 import DECODER_VARIATIONS, POSITIONS, ROTATED, GPT2OnnxConfig
from parity.declaration import RELATIONS, Architecture, Floor, Relations, Variation, omit


class GPTJOnnxConfig(GPT2OnnxConfig):
    """Token ids, caches and attention mask, like GPT-2."""


VARIATIONS = (
    *omit(DECODER_VARIATIONS, *POSITIONS.items),
    ROTATED,
    Variation("rotary_dim", (2, 8)),
    Variation("tie_word_embeddings", (True,), features=("causal-lm", "causal-lm-with-past")),
)

ARCHITECTURE = Architecture(
    model_type="gptj",
    kind="decoder",
    onnx_config=GPTJOnnxConfig,
    features=(
        "default",
        "default-with-past",
        "causal-lm",
        "causal-lm-with-past",
        "question-answering",
        "sequence-classification",
    ),
    tiny={**GPT2.tiny, "n_inner": 40, "rotary_dim": 4},
    preprocessor="gpt2",
    sdpa="transformers>=5.24",
    # As in GPT-2: in those versions the head looks for the first padding token.
    relations=(Relations(RELATIONS["encoder"], features=("sequence-classification",), versions="transformers<4.49"),),
    floors=(
        Floor(
            opset=13,
            reason="repeat_interleave over a length that is not known is lowered only from opset 13",
            issue="https://github.com/pytorch/pytorch/pull/59979",
            error="repeat_interleave",
            versions="transformers<5.24",
        ),
    ),
    variations=VARIATIONS,
)
