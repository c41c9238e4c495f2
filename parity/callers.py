"""A model that a caller hands over: what of it can be exported."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parity.dtypes import DEFAULT_DTYPE, DTYPES, dtype_name, torch_dtype
from parity.errors import UsageError
from parity.releases import dtype_option

if TYPE_CHECKING:
    import torch


def require_dtype(model: torch.nn.Module) -> None:
    """Refuse a model whose weights are of a type that is not exported, before anything is traced.

    transformers 5 loads a checkpoint in the type that it is stored in.

    Raises:
        UsageError
    """
    names = {dtype_name(each.dtype): None for each in model.parameters() if each.is_floating_point()}
    wrong = [name for name in names if name not in DTYPES]
    if wrong:
        option = next(iter(dtype_option(torch_dtype(DEFAULT_DTYPE))))
        raise UsageError(
            f"model: its weights are {' and '.join(wrong)}, should be {' or '.join(DTYPES)}; load it with"
            f" from_pretrained(…, {option}=torch.{DEFAULT_DTYPE})"
        )
