"""DeBERTa: an encoder with relative positions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from parity.architectures.deberta_v2 import ARCHITECTURE as DEBERTA_V2
from parity.architectures.deberta_v2 import DISENTANGLED, DebertaV2OnnxConfig
from parity.configs import PatchingSpec
from parity.declaration import EITHER_PADDING, RELATIONS, Architecture, Variation

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig


class DebertaOnnxConfig(DebertaV2OnnxConfig):
    """Token ids, attention mask and, if the model has them, token types."""

    def __init__(
        self, config: PretrainedConfig, task: str = "default", patching_specs: Iterable[PatchingSpec] | None = None
    ) -> None:
        from transformers.models.deberta import modeling_deberta as module

        # Python's `min` limits the length of positions: the file would keep the value of the export.
        if hasattr(module, "compute_attention_span"):
            own = PatchingSpec(module, "compute_attention_span", _attention_span)
        else:
            own = PatchingSpec(module, "min", _minimum, orig_op=min)
        super().__init__(config, task, [*(patching_specs or []), own])


def _attention_span(query: torch.Tensor, key: torch.Tensor, longest: int) -> torch.Tensor:
    return _minimum(query.size(-2), longest)


def _minimum(length: int | torch.Tensor, longest: int) -> torch.Tensor:
    """The smaller of `length` and `longest`, as a tensor in the graph."""
    import torch

    return torch.clamp(torch.as_tensor(length), max=longest)


VARIATIONS = (
    *DISENTANGLED,
    Variation("type_vocab_size", (2, 3)),
    Variation("max_relative_positions", (4, -1)),
)

ARCHITECTURE = Architecture(
    model_type="deberta",
    kind="encoder",
    onnx_config=DebertaOnnxConfig,
    features=("default", "masked-lm", "sequence-classification", "token-classification", "question-answering"),
    tiny={
        "vocab_size": 96,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 40,
        "position_biased_input": False,
        "relative_attention": True,
        "max_relative_positions": 12,
        "pos_att_type": ["c2p", "p2c"],
        "type_vocab_size": 0,
    },
    preprocessor="bert",
    floors=DEBERTA_V2.floors,
    relations={"*": EITHER_PADDING, "sequence-classification": RELATIONS["encoder"]},
    variations=VARIATIONS,
)
