"""Directories of sentence-transformers: their modules after the transformer, as part of the model that is exported.

Each module computes the same as in `sentence_transformers.sentence_transformer.modules`, without that package.
"""

from __future__ import annotations

import copy
import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from parity import schema
from parity.errors import CheckpointError
from parity.schema import SchemaError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from parity.configs import OnnxConfig

# A property of a directory, not of an architecture: no cell of the matrix, and not in FeaturesManager.
FEATURE = "sentence-embedding"
ALIASES = ("sentence-similarity",)
MODULES = "modules.json"
_EMBEDDING = "sentence_embedding"
OUTPUTS = {"token_embeddings": {0: "batch", 1: "sequence"}, _EMBEDDING: {0: "batch"}}

# Key of a pooling's configuration → the mode; several modes are concatenated in this order.
_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
# Prevents a division by 0 for a text without tokens.
_LEAST = 1e-9

_MODULES = schema.items(schema.table({"idx": schema.whole(0), "type": schema.text(), "path": schema.text()}))
_MODE = schema.text()
_POOLING = schema.table({}, {"pooling_mode": schema.maybe(schema.either(schema.items(_MODE), _MODE))})
_DENSE = schema.table(
    {"in_features": schema.whole(1, 1_000_000), "out_features": schema.whole(1, 1_000_000)},
    {"bias": schema.flag, "activation_function": schema.text()},
)

FindFile = Callable[[str], Path | None]


def module_names(path: Path) -> list[tuple[str, str]]:
    """(kind, directory) of the modules that a modules.json lists, such as `("Pooling", "1_Pooling")`.

    Raises:
        CheckpointError: it is not a list of modules.
    """
    try:
        entries = sorted(schema.read_json(path, _MODULES), key=lambda entry: entry["idx"])
    except SchemaError as error:
        raise CheckpointError(f"{error}; copy or download it again") from None
    return [(entry["type"].rpartition(".")[2], entry["path"]) for entry in entries]


def embedding_config(default: OnnxConfig) -> OnnxConfig:
    """The configuration of the whole directory, from that of its transformer's `default`."""
    own = copy.copy(default)
    base = type(default)
    own.__class__ = type(
        f"SentenceEmbedding{base.__name__}",
        (base,),
        {"outputs": property(lambda self: {name: dict(axes) for name, axes in OUTPUTS.items()})},
    )
    own.task = FEATURE
    return own


def with_modules(transformer: PreTrainedModel, modules: Sequence[tuple[str, str]], find: FindFile) -> torch.nn.Module:
    """A model with the transformer's arguments, whose outputs are its token embeddings and the text's embedding.

    Args:
        transformer: the model; it becomes part of the result.
        modules: from `module_names`, the transformer first.
        find: path in the directory → the file, or None if it is missing.

    Raises:
        CheckpointError: a module, or a setting of a module, is unknown.
    """
    makers = {"Pooling": _pooling, "Normalize": _normalize, "Dense": _dense, "Dropout": _nothing}
    kinds = [kind for kind, _ in modules]
    unknown = [kind for kind in kinds[1:] if kind not in makers]
    if kinds[:1] != ["Transformer"] or unknown or "Pooling" not in kinds:
        raise CheckpointError(
            f"{MODULES}: lists {', '.join(kinds)}; should be a Transformer, then modules of {', '.join(makers)} with a"
            " Pooling among them; export the transformer alone with --feature default"
        )
    own = type(transformer)

    def forward(self: torch.nn.Module, *args: Any, **options: Any) -> dict[str, torch.Tensor]:
        return _embed(self, args, options)

    forward = functools.wraps(own.forward)(forward)
    model = type(f"SentenceEmbedding{own.__name__}", (_SentenceEmbedding,), {"forward": forward})(transformer)
    model.rest.extend(makers[kind](name, find) for kind, name in modules[1:])
    return model.to(transformer.dtype).eval()


def fingerprint(modules: Sequence[tuple[str, str]], find: FindFile) -> str:
    """SHA-256 over the kinds of the modules and the files of those after the transformer, as `sha256:…`."""
    digest = hashlib.sha256()
    for index, (kind, place) in enumerate(modules):
        digest.update(f"{kind}\0".encode())
        for name in ("config.json", "model.safetensors", "pytorch_model.bin") if index else ():
            if path := find(f"{place}/{name}"):
                digest.update(f"{name}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return f"sha256:{digest.hexdigest()}"


class _SentenceEmbedding(torch.nn.Module):
    """A transformer and the modules after it, with the attributes that exporters read from a model of transformers."""

    def __init__(self, transformer: PreTrainedModel) -> None:
        super().__init__()
        self.transformer, self.config = transformer, transformer.config
        self.rest = torch.nn.ModuleList()

    @property
    def dtype(self) -> torch.dtype:
        return self.transformer.dtype

    @property
    def device(self) -> torch.device:
        return self.transformer.device

    def set_attn_implementation(self, name: str) -> None:
        self.transformer.set_attn_implementation(name)


def _embed(model: torch.nn.Module, args: Sequence[Any], options: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    tokens = model.transformer(*args, **{**options, "return_dict": True}).last_hidden_state
    mask = options.get("attention_mask")
    mask = torch.ones_like(tokens[..., 0], dtype=torch.int64) if mask is None else mask
    embedding = tokens
    for module in model.rest:
        embedding = module(tokens, mask) if isinstance(module, _Pooling) else module(embedding)
    return {"token_embeddings": tokens, _EMBEDDING: embedding}


class _Pooling(torch.nn.Module):
    """One vector of all tokens of a text; several modes are concatenated."""

    def __init__(self, modes: Sequence[str]) -> None:
        super().__init__()
        self.modes = tuple(modes)

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return torch.cat([self._pool(mode, tokens, mask) for mode in self.modes], -1)

    def _pool(self, mode: str, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        counted = mask.unsqueeze(-1).to(tokens.dtype)
        # In 32 bits: microsoft/onnxruntime#10068.
        first = mask.to(torch.int32).argmax(1)
        if mode == "cls":
            return _token_at(tokens, first)
        if mode == "max":
            return tokens.masked_fill(counted == 0, float("-inf")).amax(1)
        if mode == "lasttoken":
            return _token_at(tokens * counted, (mask * torch.arange(mask.shape[1])).to(torch.int32).argmax(1))
        if mode == "weightedmean":
            places = torch.arange(1, mask.shape[1] + 1) - first.unsqueeze(-1)
            counted = counted * places.unsqueeze(-1).to(tokens.dtype)
        total, weight = (tokens * counted).sum(1), counted.sum(1).clamp(min=_LEAST)
        return total / (weight.sqrt() if mode == "mean_sqrt_len_tokens" else weight)


def _token_at(tokens: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    index = places.to(torch.int64).view(-1, 1, 1).expand(-1, 1, tokens.shape[-1])
    return tokens.gather(1, index).squeeze(1)


class _UnitLength(torch.nn.Module):
    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(embedding, p=2.0, dim=-1)


def _settings(name: str, find: FindFile, known: Sequence[str], form: schema.Schema) -> dict[str, Any]:
    """The configuration of a module.

    Args:
        known: the keys that it may have.
        form: the schema of their values.

    Raises:
        CheckpointError: it is missing, or has an unknown setting.
    """
    path = find(f"{name}/config.json")
    if path is None:
        raise CheckpointError(f"{name}: has no config.json, which {MODULES} needs; copy or download it again")
    try:
        settings: dict[str, Any] = schema.read_json(path, form)
    except SchemaError as error:
        raise CheckpointError(f"{error}; copy or download it again") from None
    # A setting that is off, or has its default, changes nothing.
    unknown = [key for key, value in settings.items() if key not in known and value not in (False, None, _EMBEDDING)]
    if unknown:
        raise CheckpointError(
            f"{name}: its config.json has {', '.join(unknown)}, which parity does not know; export the transformer"
            " alone with --feature default"
        )
    return settings


def _pooling(name: str, find: FindFile) -> torch.nn.Module:
    sizes = ("word_embedding_dimension", "embedding_dimension")
    settings = _settings(name, find, (*sizes, "pooling_mode", "include_prompt", *_MODES), _POOLING)
    own = settings.get("pooling_mode") or [mode for key, mode in _MODES.items() if settings.get(key)] or "mean"
    modes = [own] if isinstance(own, str) else list(own)
    if unknown := [mode for mode in modes if mode not in _MODES.values()]:
        raise CheckpointError(
            f"{name}: its config.json asks for {', '.join(unknown)}, should be of {', '.join(_MODES.values())}"
        )
    return _Pooling(modes)


def _normalize(name: str, find: FindFile) -> torch.nn.Module:
    return _UnitLength()


def _nothing(name: str, find: FindFile) -> torch.nn.Module:
    return torch.nn.Identity()


def _dense(name: str, find: FindFile) -> torch.nn.Module:
    settings = _settings(name, find, ("in_features", "out_features", "bias", "activation_function"), _DENSE)
    linear = torch.nn.Linear(settings["in_features"], settings["out_features"], bias=settings.get("bias", True))
    safe, pickled = find(f"{name}/model.safetensors"), find(f"{name}/pytorch_model.bin")
    if safe:
        from safetensors.torch import load_file

        weights = load_file(str(safe))
    elif pickled:
        weights = torch.load(str(pickled), map_location="cpu", weights_only=True)
    else:
        raise CheckpointError(f"{name}: has no model.safetensors and no pytorch_model.bin; copy or download it again")
    linear.load_state_dict({key.removeprefix("linear."): value for key, value in weights.items()})
    place, _, activation = settings.get("activation_function", "torch.nn.modules.activation.Tanh").rpartition(".")
    maker = getattr(torch.nn, activation, None)
    if not place.startswith("torch.nn.") or not isinstance(maker, type):
        raise CheckpointError(f"{name}: its activation_function is {place}.{activation}, should be a class of torch.nn")
    return torch.nn.Sequential(linear, maker())
