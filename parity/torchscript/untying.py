"""Replaces the flag `torchscript=True` of transformers 4: gives the output embedding weights of its own."""

from __future__ import annotations

import copy
import types
from itertools import chain

import torch

from parity.errors import UsageError

REASON = (
    "this copy has its embedding and its output embedding untied for TorchScript: training would let the two drift"
    " apart, with unexpected results; train the tied model, and trace it afterwards"
)


def twin(model: torch.nn.Module) -> torch.nn.Module:
    """A copy with its own modules, settings and configuration that shares the model's tensors and takes no memory."""
    return copy.deepcopy(model, {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())})


def untie(model: torch.nn.Module) -> torch.nn.Module:
    """A copy whose output embedding shares no storage with an input embedding; all other sharing stays.

    Only that one weight is copied; the rest are the tensors of the model, which is untouched and still tied. The copy
    refuses `.train(True)`. A model without an output embedding, or with an untied one, gives a plain copy.

    Args:
        model: a PyTorch model.

    Raises:
        UsageError: it is not a PyTorch model.
    """
    if not isinstance(model, torch.nn.Module):
        raise UsageError(f"model: got {type(model).__name__}, should be a PyTorch model")
    own = twin(model)
    cloned = bool(tied_embeddings(own))
    if cloned:
        output = own.get_output_embeddings()
        weight = output.weight
        output.weight = torch.nn.Parameter(weight.detach().clone(), requires_grad=weight.requires_grad)
    # transformers 4 has already untied a model built with its flag; transformers 5 keeps the flag and ignores it.
    if cloned or (getattr(own.config, "torchscript", False) and _output_embedding(own) is not None):
        own.train = types.MethodType(_train, own)
    return own


def tied_embeddings(model: torch.nn.Module) -> list[str]:
    """The names of the input embeddings that share storage with the model's output embedding."""
    output = _output_embedding(model)
    if output is None:
        return []
    place = storage_of(output.weight)
    own = _input_embedding(model)
    return [
        name
        for name, module in model.named_modules(remove_duplicate=False)
        if module is not output and _is_embedding(module, own) and storage_of(module.weight) == place
    ]


def storage_of(tensor: torch.Tensor) -> int:
    """The address of the tensor's storage: equal for tensors that share it."""
    storage = tensor.untyped_storage() if hasattr(tensor, "untyped_storage") else tensor.storage()
    return storage.data_ptr()


def _output_embedding(model: torch.nn.Module) -> torch.nn.Module | None:
    output = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    return output if isinstance(getattr(output, "weight", None), torch.Tensor) else None


def _input_embedding(model: torch.nn.Module) -> torch.nn.Module | None:
    try:
        return model.get_input_embeddings()
    except NotImplementedError:
        return None  # an encoder and a decoder of any kind; transformers 5 delegates to the decoder


def _is_embedding(module: torch.nn.Module, own: torch.nn.Module | None) -> bool:
    return isinstance(module, torch.nn.Embedding) or (
        module is own and isinstance(getattr(module, "weight", None), torch.Tensor)
    )


def _train(model: torch.nn.Module, mode: bool = True) -> torch.nn.Module:
    if mode:
        raise UsageError(f"train: {REASON}")
    return type(model).train(model, False)
