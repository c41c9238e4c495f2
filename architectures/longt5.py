"""LongT5: T5 whose encoder looks at neighbouring blocks only, and at summaries of the others if asked to."""

from parity.architectures.declaration import Architecture, Floor
from parity.architectures.t5 import ARCHITECTURE as T5
from parity.architectures.t5 import T5OnnxConfig


class LongT5OnnxConfig(T5OnnxConfig):
    """The inputs of T5."""

    @property
    def default_sequence_length(self):
        # The branches of the encoder that pad to whole blocks, and that make summaries, must be in the trace.
        length = max(super().default_sequence_length, 2 * self._config.global_block_size)
        return length + (length % (self._config.local_radius + 1) == 0)


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
        ),
    ),
    relations=T5.relations,
)
