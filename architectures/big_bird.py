"""BigBird: an encoder with full attention or with block-sparse attention."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace

from parity.architectures.bert import ARCHITECTURE as BERT
from parity.architectures.bert import CAUSAL, ENCODER_VARIATIONS, HEADS, TIES, TOKEN_TYPES
from parity.architectures.distilbert import DistilBertOnnxConfig
from parity.declaration import ENCODER_FEATURES, TRUTH_VALUES, Architecture, Variation
from parity.releases import loops_over_the_batch

BLOCKS_FOR_ONE_BATCH = (
    "attention_type is block_sparse, which transformers before 5.13 computes in a loop over the batch, so that a file"
    " would be right for one batch size only (https://github.com/huggingface/transformers/pull/46738): set it to"
    " original_full, or install transformers>=5.13"
)


class BigBirdOnnxConfig(DistilBertOnnxConfig):
    """Token ids and attention mask.

    `block_sparse` fixes its blocks for one length, so the file of such a model is for texts padded to
    `max_position_embeddings`. Load the model with `attention_type="original_full"` for a file for any length.
    """

    @property
    def inputs(self) -> Mapping[str, Mapping[int, str]]:
        return self._dynamic_axes(super().inputs)

    @property
    def outputs(self) -> Mapping[str, Mapping[int, str]]:
        return self._dynamic_axes(super().outputs)

    @property
    def default_sequence_length(self) -> int:
        return self._config.max_position_embeddings if self._has_fixed_length else super().default_sequence_length

    @property
    def refusal(self) -> str:
        return BLOCKS_FOR_ONE_BATCH if self._has_fixed_length and loops_over_the_batch() else ""

    @property
    def _has_fixed_length(self) -> bool:
        config = self._config
        # Up to this length the model uses full attention anyway.
        whole = (5 + 2 * config.num_random_blocks) * config.block_size
        return config.attention_type == "block_sparse" and config.max_position_embeddings > whole

    def _dynamic_axes(self, axes: Mapping[str, Mapping[int, str]]) -> Mapping[str, Mapping[int, str]]:
        fixed = ("sequence",) if self._has_fixed_length else ()
        return OrderedDict(
            (name, {axis: axis_name for axis, axis_name in axis_names.items() if axis_name not in fixed})
            for name, axis_names in axes.items()
        )


# Before transformers 5.13 it is refused: see `loops_over_the_batch`.
BLOCK_SPARSE = Variation(
    "attention_type", ("block_sparse",), silent="short texts are looked at whole", versions="transformers>=5.13"
)

VARIATIONS = (
    *ENCODER_VARIATIONS,
    HEADS,
    TIES,
    CAUSAL,
    replace(TOKEN_TYPES, features=tuple(feature for feature in ENCODER_FEATURES if feature != "question-answering")),
    # The head for questions makes token types 0 and 1 itself.
    replace(TOKEN_TYPES, values=(3,), features=("question-answering",)),
    Variation("use_bias", (False,)),
    Variation("rescale_embeddings", (True,)),
    # The file has one length if there are more positions than the blocks cover.
    BLOCK_SPARSE,
)

ARCHITECTURE = Architecture(
    model_type="big_bird",
    kind="encoder",
    onnx_config=BigBirdOnnxConfig,
    features=ENCODER_FEATURES,
    tiny={**BERT.tiny, "attention_type": "original_full", "block_size": 4, "num_random_blocks": 1},
    preprocessor="distilbert",
    versions=TRUTH_VALUES,
    variations=VARIATIONS,
)
