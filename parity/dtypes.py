"""Element types: which are floating point, their precision, which float64 replaces, and conversions of tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

DEFAULT_DTYPE = "float32"
# The types of the matrix, by their names in PyTorch. A new type needs one entry.
DTYPES: dict[str, str] = {"float32": "single precision"}
# Types that `parity.onnx.export` takes as well; they have no cells in the matrix.
_ALSO_EXPORTED = ("float16",)


def exported_dtypes() -> tuple[str, ...]:
    """The names of the types that a model may have to be exported, and a file of ours to be judged."""
    return (*DTYPES, *(name for name in _ALSO_EXPORTED if name not in DTYPES))


def torch_dtype(name: str) -> torch.dtype:
    """PyTorch's type with this name."""
    import torch

    return getattr(torch, name)


def dtype_name(dtype: torch.dtype) -> str:
    """The name of PyTorch's type: the inverse of `torch_dtype`."""
    return str(dtype).removeprefix("torch.")


def has_halves(model: torch.nn.Module) -> bool:
    """Whether any weight of the model is of another floating type than `DEFAULT_DTYPE`."""
    own = torch_dtype(DEFAULT_DTYPE)
    return any(each.dtype != own for each in model.parameters() if each.is_floating_point())


def float64_replaces() -> frozenset[torch.dtype]:
    """PyTorch's types that become float64 when a model runs in float64: the floating types of `exported_dtypes`."""
    return frozenset(dtype for dtype in map(torch_dtype, exported_dtypes()) if dtype.is_floating_point)


def cast_floats(value: Any, dtype: torch.dtype) -> Any:
    """Nested tensors, the floating-point ones cast to this type."""
    if isinstance(value, Mapping):
        return {name: cast_floats(item, dtype) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(cast_floats(item, dtype) for item in value)
    return value.to(dtype) if value.is_floating_point() else value


def is_floating(dtype: np.dtype) -> bool:
    """Whether values of the type have a rounding error; numpy itself does not count bfloat16."""
    return "float" in dtype.name


def unit_roundoff(dtype: np.dtype) -> float:
    """The largest relative error of rounding to the type.

    Raises:
        ValueError: it is not a floating point type.
    """
    if dtype.kind == "f":
        return float(np.finfo(dtype).eps) / 2
    import ml_dtypes

    return float(ml_dtypes.finfo(dtype).eps) / 2


def bytes_of_parameters(model: torch.nn.Module) -> int:
    """The bytes of all parameters of a model; tied ones count once."""
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())


def array_of(tensor: torch.Tensor) -> np.ndarray:
    """A PyTorch tensor as an array of its own type; bfloat16, which numpy lacks, becomes that of ml_dtypes."""
    import torch

    tensor = tensor.detach()
    if tensor.dtype is not torch.bfloat16:
        return tensor.numpy()
    import ml_dtypes

    return tensor.contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16)


def tensor_of(array: np.ndarray) -> torch.Tensor:
    """An array as a tensor of its own type: the inverse of `array_of`."""
    import torch

    array = np.ascontiguousarray(array)
    if array.dtype.name != "bfloat16":
        return torch.from_numpy(array)
    return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
