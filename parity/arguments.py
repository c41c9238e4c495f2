"""Checks of the Python API's arguments before any work: an error names the argument, its value and a valid one."""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import torch

from parity.dtypes import DEFAULT_DTYPE, dtype_name, exported_dtypes, torch_dtype
from parity.errors import UsageError
from parity.loading import quantisation_of
from parity.releases import dtype_option


def transformers_model(model: Any) -> Any:
    """The transformers model in a PeftModel, with its adapter active; any other model itself.

    Raises:
        UsageError: the adapter adds tokens instead of weights, so that the model without peft is another one.
    """
    # Without an import of peft, the model is no PeftModel.
    peft = sys.modules.get("peft")
    if peft is None or not isinstance(model, peft.PeftModel):
        return model
    settings = model.active_peft_config
    if settings.is_prompt_learning:
        raise UsageError(
            f"model: is a PeftModel whose adapter ({settings.peft_type}) adds tokens to the input, which a file cannot"
            " contain; export a model that was trained without it, or with LoRA"
        )
    return model.get_base_model()


def require_model(model: Any) -> None:
    """Refuse a model that cannot be traced as it is; the error says what to pass instead.

    Raises:
        UsageError
    """
    if hasattr(model, "_orig_mod"):
        raise UsageError("model: is compiled by torch.compile, should be the module inside; give model._orig_mod")
    if isinstance(model, (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)):
        raise UsageError(f"model: is a {type(model).__name__}, should be the module inside; give model.module")
    if not isinstance(model, torch.nn.Module) or not hasattr(model, "config"):
        raise UsageError(f"model: got {type(model).__name__}, should be a PyTorch model of transformers")
    if settings := getattr(model.config, "quantization_config", None):
        raise UsageError(
            f"model: is quantised ({quantisation_of(settings)}), should have floating point weights; export the model"
            " from before it was quantised, then quantise the file"
        )
    quantised = next((each for each in model.modules() if ".quantized" in type(each).__module__), None)
    if quantised is not None:
        raise UsageError(
            f"model: has modules that torch.ao has quantised ({type(quantised).__name__}), should have floating point"
            " weights; export the model from before it was quantised, then quantise the file"
        )
    weights = [*model.parameters(), *model.buffers()]
    if any(weight.device.type == "meta" for weight in weights):
        raise UsageError("model: has weights on the device meta, which hold no values; load it with from_pretrained")
    if any(weight.dtype is torch.float64 for weight in model.parameters()):
        raise UsageError("model: has float64 weights, for which runtimes lack operators; give model.float()")


def require_dtype(model: torch.nn.Module) -> None:
    """Refuse a model whose weights have a type that is not exported, before anything is traced.

    transformers 5 loads a checkpoint in the type that it is stored in.

    Raises:
        UsageError
    """
    names = {dtype_name(each.dtype): None for each in model.parameters() if each.is_floating_point()}
    wrong = [name for name in names if name not in exported_dtypes()]
    if wrong:
        option = next(iter(dtype_option(torch_dtype(DEFAULT_DTYPE))))
        raise UsageError(
            f"model: its weights are {' and '.join(wrong)}, should be {' or '.join(exported_dtypes())}; load it with"
            f" from_pretrained(…, {option}=torch.{DEFAULT_DTYPE})"
        )


def require_config(config: Any, name: str = "config") -> None:
    """Refuse anything but an OnnxConfig, such as the configuration of the model.

    Raises:
        UsageError
    """
    # Ask the class: a property of the object may raise an AttributeError of its own.
    if not hasattr(type(config), "inputs") or not hasattr(type(config), "generate_dummy_inputs"):
        raise UsageError(f"{name}: got {type(config).__name__}, should be an OnnxConfig, which names inputs and axes")


def require_path(path: Any, name: str = "output") -> None:
    """Refuse anything but a path.

    Raises:
        UsageError
    """
    if not isinstance(path, (str, os.PathLike)):
        raise UsageError(f"{name}: got {type(path).__name__}, should be the path of a file")


def require_opset(opset: Any) -> None:
    """Refuse anything but a whole number.

    Raises:
        UsageError
    """
    if isinstance(opset, bool) or not isinstance(opset, int):
        raise UsageError(f"opset: got {opset!r:.40}, should be a whole number")


def require_tolerance(atol: Any) -> None:
    """Refuse anything but a finite number ≥ 0.

    Raises:
        UsageError
    """
    if isinstance(atol, bool) or not isinstance(atol, (int, float)) or not (math.isfinite(atol) and atol >= 0):
        raise UsageError(f"atol: got {atol!r:.40}, should be a number ≥ 0 such as 1e-5")


def require_names(names: Any) -> None:
    """Refuse anything but a list of the names of outputs.

    Raises:
        UsageError
    """
    if isinstance(names, str) or not isinstance(names, Collection) or not all(isinstance(name, str) for name in names):
        raise UsageError(f"onnx_named_outputs: got {names!r:.40}, should be a list of names, as export returns")


def require_example(example: Any) -> None:
    """Refuse an example without tensors that have values.

    Raises:
        UsageError
    """
    if not isinstance(example, (Mapping, Sequence, torch.Tensor)) or isinstance(example, (str, bytes)):
        raise UsageError(
            f"example_inputs: got {type(example).__name__}, should be a mapping of names to tensors, or a list of them"
        )
    values = [example] if isinstance(example, torch.Tensor) else example
    pairs = values.items() if isinstance(values, Mapping) else enumerate(values)
    for name, value in pairs:
        if value is None:
            raise UsageError(f"example_inputs: {name} is None, should be a torch tensor; leave it out")
        if isinstance(value, torch.Tensor) and value.device.type == "meta":
            raise UsageError(f"example_inputs: {name} is on the device meta, should have values")


def device_of(device: Any) -> torch.device:
    """The device with this name.

    Raises:
        UsageError: the name is neither cpu nor cuda, or torch finds no such device here.
    """
    try:
        own = torch.device(device) if isinstance(device, (str, torch.device)) else None
    except RuntimeError:
        own = None
    if own is None or own.type not in ("cpu", "cuda"):
        raise UsageError(f"device: got {device!r:.40}, should be cpu or cuda")
    if own.type == "cuda" and not torch.cuda.is_available():
        raise UsageError("device: got cuda, and torch finds no CUDA device here; give cpu")
    return own


@contextlib.contextmanager
def own_numerics() -> Iterator[None]:
    """Disable the caller's autocast and default dtype inside, so that they do not affect what a model computes."""
    before = torch.get_default_dtype()
    with contextlib.ExitStack() as stack:
        for kind in ("cpu", *(("cuda",) if torch.cuda.is_available() else ())):
            stack.enter_context(torch.autocast(kind, enabled=False))
        try:
            torch.set_default_dtype(torch.float32)
            yield
        finally:
            torch.set_default_dtype(before)
