"""Small helpers under the names that `transformers.onnx.utils` gave them."""

from __future__ import annotations

from ctypes import c_float, sizeof
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import FeatureExtractionMixin, PreTrainedTokenizerBase, ProcessorMixin


class ParameterFormat(Enum):
    """How one parameter is stored in a serialized model."""

    Float = c_float

    @property
    def size(self) -> int:
        """Bytes that one parameter takes."""
        return sizeof(self.value)


def compute_effective_axis_dimension(dimension: int, fixed_dimension: int, num_token_to_add: int = 0) -> int:
    """The size to generate for an axis: `fixed_dimension` when the axis is dynamic (`dimension <= 0`), less the
    special tokens that the tokenizer adds by itself."""
    return (fixed_dimension if dimension <= 0 else dimension) - num_token_to_add


def compute_serialized_parameters_size(num_parameters: int, dtype: ParameterFormat) -> int:
    """Bytes that `num_parameters` parameters take when stored as `dtype`."""
    return num_parameters * dtype.size


def get_preprocessor(model_name: str) -> ProcessorMixin | PreTrainedTokenizerBase | FeatureExtractionMixin | None:
    """The processor of a checkpoint or, failing one, its tokenizer or its image processor / feature extractor.

    Returns None when the checkpoint has none of them.

    Raises:
        ValueError: the checkpoint has both a tokenizer and a feature extractor, but no processor that joins them.
    """
    from parity.models import load_preprocessor

    return load_preprocessor(model_name, "auto")
