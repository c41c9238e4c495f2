"""Sizes of axes and of stored parameters, with the names of `transformers.onnx.utils`."""

from __future__ import annotations

from ctypes import c_float, sizeof
from enum import Enum


class ParameterFormat(Enum):
    """How one parameter is stored in a serialized model."""

    Float = c_float

    @property
    def size(self) -> int:
        """Bytes that one parameter takes."""
        return sizeof(self.value)


def compute_effective_axis_dimension(dimension: int, fixed_dimension: int, num_token_to_add: int = 0) -> int:
    """The size to generate for an axis, less the special tokens that the tokenizer adds by itself.

    Args:
        dimension: the requested size; 0 or less for a dynamic axis.
        fixed_dimension: the size of a dynamic axis.
        num_token_to_add: the number of special tokens.
    """
    return (fixed_dimension if dimension <= 0 else dimension) - num_token_to_add


def compute_serialized_parameters_size(num_parameters: int, dtype: ParameterFormat) -> int:
    """Bytes that `num_parameters` parameters take when stored as `dtype`.

    Args:
        num_parameters: how many numbers.
        dtype: how each is stored.

    Raises:
        AttributeError: `dtype` is not a `ParameterFormat`.
    """
    return num_parameters * dtype.size
