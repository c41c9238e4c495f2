"""M2M100: an encoder-decoder for translation, with sinusoidal positions that skip the padding."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from parity.architectures.bart import SHALLOW, VARIATIONS, BartOnnxConfig
from parity.configs import PatchingSpec
from parity.declaration import EITHER_PADDING, GENERATE_WITHOUT_MASK, TRUTH_VALUES, Architecture, Variation, omit

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel


class M2M100OnnxConfig(BartOnnxConfig):
    """The inputs of BART; positions are computed in the graph, so that text length has no maximum."""

    def __init__(
        self,
        config: PretrainedConfig,
        task: str = "default",
        patching_specs: Iterable[PatchingSpec] | None = None,
        use_past: bool = False,
    ) -> None:
        from transformers.models.m2m_100.modeling_m2m_100 import M2M100SinusoidalPositionalEmbedding

        # The model extends its table for longer texts; a file would keep the table of the export.
        own = PatchingSpec(M2M100SinusoidalPositionalEmbedding, "forward", _positions)
        super().__init__(config, task, [*(patching_specs or []), own], use_past)

    def longest_sequence(self, model: PreTrainedModel) -> int | None:
        return None


def _positions(
    self: torch.nn.Module,
    input_ids: torch.Tensor,
    inputs_embeds: torch.Tensor | None = None,
    past_key_values_length: int = 0,
) -> torch.Tensor:
    """Sines and cosines for the tokens (batch, sequence), counted without the padding, which gets zeros."""
    import math

    import torch

    mask = input_ids.ne(self.padding_idx)
    places = mask.long().cumsum(1) + past_key_values_length + self.padding_idx
    half = self.embedding_dim // 2
    rates = torch.exp(torch.arange(half).float() * -(math.log(10000) / (half - 1)))
    angles = places.unsqueeze(-1).float() * rates
    waves = torch.cat([angles.sin(), angles.cos()], -1) * mask.unsqueeze(-1)
    return torch.nn.functional.pad(waves, (0, self.embedding_dim % 2)).to(self.weights.dtype)


_POSITIONS = Variation("max_position_embeddings", (64, 16, 9, 6), silent="the table of positions grows with the text")

ARCHITECTURE = Architecture(
    model_type="m2m_100",
    kind="encoder-decoder",
    onnx_config=M2M100OnnxConfig,
    features=("default", "default-with-past", "seq2seq-lm", "seq2seq-lm-with-past"),
    tiny=SHALLOW,
    preprocessor="bart",
    sdpa="transformers",
    # With a past, padding is inside the past, where no id marks it.
    relations={"default": EITHER_PADDING, "seq2seq-lm": EITHER_PADDING},
    deviations=(GENERATE_WITHOUT_MASK,),
    versions=TRUTH_VALUES,
    variations=(*omit(VARIATIONS, "max_position_embeddings"), _POSITIONS),
)
