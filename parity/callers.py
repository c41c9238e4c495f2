"""A model that a caller hands over: what of it can be exported."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from parity.dtypes import DEFAULT_DTYPE, DTYPES, dtype_name, torch_dtype
from parity.errors import UsageError
from parity.loading import quantisation_of
from parity.releases import dtype_option

if TYPE_CHECKING:
    import torch


def transformers_model(model: Any) -> Any:
    """The model of transformers in a PeftModel, its adapter active; any other model itself.

    Raises:
        UsageError: the adapter is none of weights, so the model without peft is another one.
    """
    # Nobody has one who has not imported it.
    peft = sys.modules.get("peft")
    if peft is None or not isinstance(model, peft.PeftModel):
        return model
    settings = model.active_peft_config
    if settings.is_prompt_learning:
        raise UsageError(
            f"model: is a PeftModel whose adapter ({settings.peft_type}) adds tokens to the input, which no file can"
            " hold; export a model that was trained without it, or with LoRA"
        )
    return model.get_base_model()


def require_unquantised(model: torch.nn.Module) -> None:
    """Refuse a model whose layers compute with quantised weights: no exporter here can follow them.

    Raises:
        UsageError
    """
    settings = getattr(getattr(model, "config", None), "quantization_config", None)
    parts = [type(module).__module__ for module in model.modules()]
    method = quantisation_of(settings) if settings else ""
    if any(part.startswith(("torch.ao.nn.", "torch.nn.quantized")) and ".quantized" in part for part in parts):
        method = "torch.ao"
    if method:
        raise UsageError(
            f"model: is quantised ({method}), should have weights of {' or '.join(DTYPES)}; export the model that it"
            " was made of, and quantise the file"
        )


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
