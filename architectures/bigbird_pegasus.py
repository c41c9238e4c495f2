"""BigBird-Pegasus: an encoder-decoder whose encoder has full attention or random block-sparse attention."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from parity.architectures.bart import ARCHITECTURE as BART
from parity.architectures.bart import SHALLOW, BartOnnxConfig
from parity.architectures.bart import VARIATIONS as BART_VARIATIONS
from parity.architectures.big_bird import BLOCK_SPARSE, BLOCKS_FOR_ONE_BATCH
from parity.declaration import GENERATE_WITHOUT_MASK, Architecture, Variation
from parity.releases import loops_over_the_batch

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from transformers.utils import TensorType


class BigBirdPegasusOnnxConfig(BartOnnxConfig):
    """The inputs of BART.

    `block_sparse` chooses its blocks anew for every length, so a file with such an encoder is for texts padded to
    `max_position_embeddings`. Load the model with `attention_type="original_full"` for a file for any length.
    """

    @property
    def inputs(self) -> Mapping[str, Mapping[int, str]]:
        return self._dynamic_axes(super().inputs)

    @property
    def outputs(self) -> Mapping[str, Mapping[int, str]]:
        return self._dynamic_axes(super().outputs)

    def generate_dummy_inputs(  # type: ignore[override]  # the old package's signature takes fewer
        self,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int = -1,
        seq_length: int = -1,
        is_pair: bool = False,
        framework: TensorType | None = None,
    ) -> Mapping[str, Any]:
        length = self._config.max_position_embeddings if self._has_fixed_length else seq_length
        return super().generate_dummy_inputs(tokenizer, batch_size, length, is_pair, framework)

    @property
    def refusal(self) -> str:
        return BLOCKS_FOR_ONE_BATCH if self._has_fixed_length and loops_over_the_batch() else ""

    @property
    def _has_fixed_length(self) -> bool:
        config = self._config
        runs_encoder = self.task != "causal-lm" and (not self.use_past or self.part == "prefill")
        # Up to this length the model uses full attention anyway.
        whole = (5 + 2 * config.num_random_blocks) * config.block_size
        return runs_encoder and config.attention_type == "block_sparse" and config.max_position_embeddings > whole

    def _dynamic_axes(self, axes: Mapping[str, Mapping[int, str]]) -> Mapping[str, Mapping[int, str]]:
        fixed = ("encoder_sequence", "sequence") if self._has_fixed_length else ()
        return OrderedDict(
            (name, {axis: axis_name for axis, axis_name in axis_names.items() if axis_name not in fixed})
            for name, axis_names in axes.items()
        )


VARIATIONS = (
    *BART_VARIATIONS,
    Variation("use_bias", (True,)),
    # The file has one length if there are more positions than the blocks cover.
    BLOCK_SPARSE,
)

ARCHITECTURE = Architecture(
    model_type="bigbird_pegasus",
    kind="encoder-decoder",
    onnx_config=BigBirdPegasusOnnxConfig,
    features=BART.features,
    tiny={**SHALLOW, "attention_type": "original_full", "block_size": 4, "num_random_blocks": 1},
    preprocessor="t5",
    deviations=(GENERATE_WITHOUT_MASK,),
    variations=VARIATIONS,
)
