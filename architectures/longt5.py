"""LongT5: T5 whose encoder attends to neighbouring blocks and, with transient-global attention, to summaries."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from parity.architectures.t5 import ARCHITECTURE as T5
from parity.architectures.t5 import VARIATIONS as T5_VARIATIONS
from parity.architectures.t5 import T5OnnxConfig
from parity.configs import PatchingSpec
from parity.declaration import EITHER_PADDING, GENERATE_WITHOUT_MASK, Architecture, Floor, Variation

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig


class LongT5OnnxConfig(T5OnnxConfig):
    """The inputs of T5."""

    def __init__(
        self,
        config: PretrainedConfig,
        task: str = "default",
        patching_specs: Iterable[PatchingSpec] | None = None,
        use_past: bool = False,
    ) -> None:
        from transformers.models.longt5 import modeling_longt5

        own = PatchingSpec(modeling_longt5, "_split_into_blocks", _split_into_blocks)
        super().__init__(config, task, [*(patching_specs or []), own], use_past)

    @property
    def default_sequence_length(self) -> int:
        # Without a whole block to summarise, the trace has no summaries.
        return max(super().default_sequence_length, 2 * self._config.global_block_size)


def _split_into_blocks(x: torch.Tensor, block_len: int, dim: int) -> torch.Tensor:
    """Split an axis into blocks and fill the last block with zeros.

    The model fills only if the sample needs it. Also, a text too short for any summary cannot be reshaped: ONNX Runtime
    reads the size 0 as that of another axis.

    Args:
        x: the tensor.
        block_len: size of a block.
        dim: the axis, which becomes two: blocks and places in a block.
    """
    import torch
    from transformers.models.longt5.modeling_longt5 import _pad_to_multiple

    dim %= x.ndim
    x = _pad_to_multiple(x, block_len, dim)
    places = torch.arange(x.shape[dim]).view(-1, block_len)
    return x[(slice(None),) * dim + (places,)]


VARIATIONS = (
    *T5_VARIATIONS,
    Variation("local_radius", (2, 7)),
    Variation(
        ("encoder_attention_type", "global_block_size"),
        (("transient-global", 4), ("transient-global", 2), ("transient-global", 16)),
    ),
)

ARCHITECTURE = Architecture(
    model_type="longt5",
    kind="encoder-decoder",
    onnx_config=LongT5OnnxConfig,
    features=T5.features,
    tiny={**T5.tiny, "local_radius": 4, "global_block_size": 4},
    preprocessor="t5",
    floors=(
        Floor(
            opset=12,
            reason="Einsum comes with opset 12",
            issue="https://onnx.ai/onnx/operators/onnx__Einsum.html",
            error="aten::einsum",
            features=("default", "seq2seq-lm"),
        ),
        # With a past, the file has no encoder.
        *T5.floors,
    ),
    relations={"*": EITHER_PADDING},
    deviations=(GENERATE_WITHOUT_MASK,),
    variations=VARIATIONS,
)
