"""Element types: which are floating point, how exact they are, and how a tensor becomes an array of its own type."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

# The largest relative error of rounding to the type, by its name.
UNIT_ROUNDOFF = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}


DEFAULT_DTYPE = "float32"
# The types that models are exported in, by their names in PyTorch. One entry is all that a new one takes.
DTYPES: dict[str, str] = {"float32": "single precision"}


def torch_dtype(name: str) -> torch.dtype:
    """PyTorch's type of that name."""
    import torch

    return getattr(torch, name)


def is_floating(dtype: np.dtype) -> bool:
    """Whether values of the type have a rounding error; numpy itself does not count bfloat16."""
    return dtype.name in UNIT_ROUNDOFF


def unit_roundoff(dtype: np.dtype) -> float:
    """The largest relative error of rounding to the type.

    Raises:
        KeyError: it is not a floating point type that is known here.
    """
    return UNIT_ROUNDOFF[dtype.name]


def array_of(tensor: torch.Tensor) -> np.ndarray:
    """A tensor of PyTorch as an array of its own type; bfloat16, which numpy lacks, as that of ml_dtypes."""
    import torch

    tensor = tensor.detach()
    if tensor.dtype is not torch.bfloat16:
        return tensor.numpy()
    import ml_dtypes

    return tensor.contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
