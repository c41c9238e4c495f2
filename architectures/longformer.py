"""Longformer: an encoder with window attention, and global attention for some tokens."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from parity.architectures.bert import ENCODER_VARIATIONS, HEADS
from parity.architectures.roberta import PositionsBehindPadding
from parity.configs import PatchingSpec
from parity.declaration import (
    BIDIRECTIONAL_FEATURES,
    EITHER_PADDING,
    RELATIONS,
    Architecture,
    Floor,
    Variation,
    omit,
    token_axes,
)

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig


def _overlapping_windows(
    tensor: torch.Tensor, size: Sequence[int], stride: Sequence[int], storage_offset: int | None = None
) -> torch.Tensor:
    """`as_strided` of a row-major (rows, …, width) tensor into overlapping windows (rows, count, window, width).

    The exporter writes strides as constants of the traced length; indices follow the actual length.
    """
    import torch

    _, _, window, width = size
    sequence = tensor.reshape(tensor.shape[0], -1, width)
    starts = torch.arange(0, sequence.shape[1] - window + 1, stride[1] // stride[2])
    return sequence[:, starts.unsqueeze(1) + torch.arange(window)]


def _traced_length(tensor: torch.Tensor) -> int | torch.Tensor:
    """`len` as a traced value: the number of global tokens is known only when the file runs."""
    return tensor.shape[0]


def _flattening(view: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """`view`, but flatten when there is a row per global token: Reshape fails if there are none."""

    def flatten_or_view(tensor: torch.Tensor, *shape: Any) -> torch.Tensor:
        return tensor.flatten(1) if tensor.dim() == 3 and shape[1:] == (-1,) else view(tensor, *shape)

    return flatten_or_view


def _global_places(is_global: torch.Tensor) -> tuple[torch.Tensor | tuple[torch.Tensor, ...], ...]:
    """The places of the global tokens of each row, with at least one slot.

    ONNX Runtime crashes on an axis without entries; an empty slot is masked.
    """
    import torch

    counts = is_global.long().sum(dim=1)
    room = counts.max().clamp(min=1)
    occupied = torch.arange(room) < counts.unsqueeze(-1)
    return room, *(mask.nonzero(as_tuple=True) for mask in (is_global, occupied, ~occupied))


class LongformerOnnxConfig(PositionsBehindPadding):
    """Token ids, attention mask and global attention mask."""

    def __init__(
        self, config: PretrainedConfig, task: str = "default", patching_specs: Iterable[PatchingSpec] | None = None
    ) -> None:
        super().__init__(config, task, [*(patching_specs or []), *_patches()])

    @property
    def inputs(self) -> Mapping[str, Mapping[int, str]]:
        return token_axes(self.task, "input_ids", "attention_mask", "global_attention_mask")

    @property
    def outputs(self) -> Mapping[str, Mapping[int, str]]:
        pooled = {"pooler_output": {0: "batch"}} if self.task == "default" else {}
        return OrderedDict(**super().outputs, **pooled)

    @property
    def atol_for_validation(self) -> float:
        return 1e-4

    @property
    def default_onnx_opset(self) -> int:
        return 14

    @property
    def default_sequence_length(self) -> int:
        # Padding to whole windows is traced only if there is some.
        length = super().default_sequence_length
        return length + self._is_whole(length)

    @property
    def _tokens_of_export(self) -> int:
        length = super()._tokens_of_export
        return length - self._is_whole(length)

    def _is_whole(self, length: int) -> bool:
        windows = self._config.attention_window
        return length % (windows if isinstance(windows, int) else max(windows)) == 0

    def generate_dummy_inputs(self, *args: Any, **kwargs: Any) -> Mapping[str, Any]:
        inputs = dict(super().generate_dummy_inputs(*args, **kwargs))
        inputs["global_attention_mask"] = inputs["input_ids"] * 0
        inputs["global_attention_mask"][..., 1::2] = 1
        return inputs


def _patches() -> list[PatchingSpec]:
    import torch
    from transformers.models.longformer import modeling_longformer

    attention = modeling_longformer.LongformerSelfAttention
    return [
        PatchingSpec(torch.Tensor, "as_strided", _overlapping_windows),
        PatchingSpec(torch.Tensor, "view", _flattening(torch.Tensor.view)),
        PatchingSpec(attention, "_get_global_attn_indices", _global_places, op_wrapper=staticmethod),
        PatchingSpec(modeling_longformer, "len", _traced_length, orig_op=len),
    ]


VARIATIONS = (
    *omit(ENCODER_VARIATIONS, "num_hidden_layers"),
    HEADS,
    Variation("type_vocab_size", (2,)),
    Variation(("num_hidden_layers", "attention_window"), ((1, [4]), (2, [8, 4]), (3, [4, 8, 8]), (2, 4))),
)

ARCHITECTURE = Architecture(
    model_type="longformer",
    kind="encoder",
    onnx_config=LongformerOnnxConfig,
    features=BIDIRECTIONAL_FEATURES,
    tiny={
        "vocab_size": 96,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 50,
        "attention_window": [6, 12],
        "type_vocab_size": 1,
    },
    preprocessor="roberta",
    # Positions skip the padding; a head that reads the first place finds padding there.
    relations={
        "*": EITHER_PADDING,
        "default": RELATIONS["encoder"],
        "sequence-classification": RELATIONS["encoder"],
        "multiple-choice": RELATIONS["encoder"],
    },
    floors=(
        Floor(
            opset=12,
            reason="chunks are multiplied by einsum, an operator since opset 12",
            issue="https://onnx.ai/onnx/operators/onnx__Einsum.html",
            error="aten::einsum",
        ),
        Floor(
            opset=13,
            reason="the places of global tokens are an unbind of nonzero, lowered only from opset 13",
            issue="https://github.com/pytorch/pytorch/pull/47421",
            error="unbind",
            features=("default", "masked-lm", "sequence-classification", "multiple-choice", "token-classification"),
        ),
    ),
    variations=VARIATIONS,
)
