"""Names that differ between releases of transformers: one fact a function, with the release that brought it.

Files and the API of parity have one set of names throughout: arguments and outputs of a model have the names of
`transformers.onnx`, and past key values are tuples of tensors, one tuple for each layer. This is the only module of
the library that checks which transformers is installed.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

from parity.environment import at_least, version_of
from parity.turns import shared

if TYPE_CHECKING:
    import torch
    from transformers import DynamicCache, EncoderDecoderCache, PreTrainedModel
    from transformers.cache_utils import Cache

# The name of the caches in our API and, followed by a number and a part, in files; that of outputs is `present`.
PAST = "past_key_values"
# Since 5.24 arguments and outputs have this name instead.
_CACHE = "cache"


def loops_over_the_batch() -> bool:
    """Whether BigBird's random blocks fix the batch in a trace: until 5.12, see huggingface/transformers#46738."""
    return not at_least("transformers", "5.13")


@functools.lru_cache(maxsize=64)
def parameters_of(model_class: type) -> tuple[str, ...]:
    """The parameters of the model's `forward`, in its order; its caches are called `past_key_values`."""
    names = [name for name in _names_in_forward(model_class) if name != "self"]
    return tuple(PAST if name == _CACHE and _takes_cache(model_class) else name for name in names)


def _names_in_forward(model_class: type[torch.nn.Module]) -> tuple[str, ...]:
    return tuple(inspect.signature(model_class.forward).parameters)


def arguments_of(model_class: type, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments by our names → by those of the model's `forward`, past key values in the form that it takes."""
    arguments = dict(inputs)
    past = arguments.pop(PAST, None)
    if past is not None:
        arguments[_CACHE if _takes_cache(model_class) else PAST] = _past_of(model_class, past)
    elif _asks_none_for_its_length(model_class):
        arguments[PAST] = _dynamic_cache([])
    elif _caches_as_many_layers_as_its_encoder(model_class):
        arguments[PAST] = _cache_with_cross_attention([], [])
    return arguments


def constructor_of(model_class: Any) -> Callable[..., PreTrainedModel]:
    """The function of a class that makes a model with random weights from a configuration and options.

    Auto classes and model classes have different names for it. From 4.54 to 4.56 that of `AutoModelForVision2Seq` takes
    no options, and that of its base does: huggingface/transformers#40477.
    """
    if model_class.__name__ == "AutoModelForVision2Seq" and at_least("transformers", "4.54"):
        model_class = model_class.__bases__[0]
    found: Callable[..., PreTrainedModel] = getattr(model_class, "from_config", None) or model_class._from_config
    return found


def _asks_none_for_its_length(model_class: type) -> bool:
    """In 4.54 to 4.57 ImageGPT fails without a cache, and an empty one does no harm: huggingface/transformers#40811."""
    concerned = at_least("transformers", "4.54") and not at_least("transformers", "5")
    return concerned and model_class.__name__.startswith("ImageGPT")


def _caches_as_many_layers_as_its_encoder(model_class: type) -> bool:
    """In 4.56 an encoder-decoder that is to make a cache fails if its decoder has more layers than its encoder.

    An empty cache grows with the layers, and does no harm: huggingface/transformers#40772.
    """
    concerned = at_least("transformers", "4.56") and not at_least("transformers", "4.57")
    return concerned and {"decoder_input_ids", PAST} <= {*_names_in_forward(model_class)}


def _past_of(
    model_class: type, past: Cache | Iterable[Sequence[torch.Tensor]]
) -> Cache | tuple[tuple[torch.Tensor, ...], ...]:
    if not _takes_objects(model_class):
        return tuple(tuple(layer) for layer in (from_cache(past) if is_cache(past) else past))
    return past if is_cache(past) else to_cache(past)


@functools.lru_cache(maxsize=64)
def _takes_cache(model_class: type) -> bool:
    """Since 5.24; a user's own model may still have the old name in its `forward`."""
    if not at_least("transformers", "5.24"):
        return False
    names = _names_in_forward(model_class)
    return _CACHE in names and PAST not in names


def with_our_names(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs by the names of the installed transformers → by our names."""
    by_our_names = dict(inputs)
    if _CACHE in inputs and PAST not in inputs and at_least("transformers", "5.24"):
        by_our_names[PAST] = by_our_names.pop(_CACHE)
    return by_our_names


def outputs_of(returned: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The outputs of a model by our names; caches, whatever their name and class, are `present`, in tuples."""
    for name, value in returned.items():
        holds_cache = name == PAST or (name == _CACHE and is_cache(value))
        yield "present" if holds_cache else name, from_cache(value) if is_cache(value) else value


def _takes_objects(model_class: type) -> bool:
    """Before 4.48 no model needs Cache objects and some take tuples only; since 4.50 all take objects.

    In between, models with `_supports_cache_class` take only objects, and the others tuples.
    """
    if at_least("transformers", "4.50"):
        return True
    return at_least("transformers", "4.48") and bool(getattr(model_class, "_supports_cache_class", False))


def to_cache(past: Iterable[Sequence[torch.Tensor]]) -> DynamicCache | EncoderDecoderCache:
    """Per-layer tuples (key, value) or (key, value, cross key, cross value) → a Cache object of them.

    Keys and values have shape (batch, heads, length, head size). The result is fresh at every call: a model extends
    its cache in place.
    """
    layers = [tuple(layer) for layer in past]
    if len(layers[0]) == 2:
        return _dynamic_cache(layers)
    return _cache_with_cross_attention([x[:2] for x in layers], [x[2:] for x in layers])


def _cache_with_cross_attention(
    own: Sequence[Sequence[torch.Tensor]], cross: Sequence[Sequence[torch.Tensor]]
) -> EncoderDecoderCache:
    from transformers import EncoderDecoderCache

    return EncoderDecoderCache(_dynamic_cache(own), _dynamic_cache(cross))


def _dynamic_cache(layers: Sequence[Sequence[torch.Tensor]]) -> DynamicCache:
    """A DynamicCache of these keys and values.

    Before 4.56 the constructor takes none (in 4.54 and 4.55 it puts an empty layer before them).
    """
    from transformers import DynamicCache

    if layers and at_least("transformers", "4.56"):
        return DynamicCache(layers)
    cache = DynamicCache()
    for index, layer in enumerate(layers):
        cache.update(*layer, index)
    return cache


def is_cache(value: object) -> bool:
    """Whether a value is one of transformers' Cache objects."""
    return hasattr(value, "self_attention_cache") or hasattr(value, "layers") or hasattr(value, "to_legacy_cache")


def from_cache(cache: Cache) -> list[tuple[torch.Tensor, ...]]:
    """A Cache object → per-layer tuples: the inverse of `to_cache`."""
    if hasattr(cache, "self_attention_cache"):
        own, cross = from_cache(cache.self_attention_cache), from_cache(cache.cross_attention_cache)
        return [a + b for a, b in zip(own, cross, strict=True)]
    if hasattr(cache, "layers"):
        return [(layer.keys, layer.values) for layer in cache.layers]
    return [tuple(layer) for layer in cache.to_legacy_cache()]


@shared
def traceable_masks() -> Iterator[None]:
    """Inside, attention masks are made of operators that a tracer can follow; some releases need help for it."""
    with contextlib.ExitStack() as stack:
        if at_least("transformers", "4.53"):
            masking = importlib.import_module("transformers.masking_utils")
            stack.enter_context(_masks_by_broadcasting(masking))
            if at_least("transformers", "5.4") and not at_least("transformers", "5.9"):
                stack.enter_context(_lengths_as_positions(masking))
        yield


@contextlib.contextmanager
def _masks_by_broadcasting(masking: ModuleType) -> Iterator[None]:
    """Since 4.53 masks are mapped (`torch.vmap`), which ends in `unordered_map::at`: pytorch/pytorch#172880.

    The function that maps has another name since 5.0; most models map no more, Longformer does.
    """
    # Without mapping, the mode that makes look-ups mappable is not needed either.
    patches = {
        "_vmap_for_bhqkv": _broadcast,
        "_vmap_expansion_sdpa": _broadcast,
        "TransformGetItemToIndex": contextlib.nullcontext,
    }
    # Older torch has no such mode.
    own = {name: getattr(masking, name) for name in patches if hasattr(masking, name)}
    try:
        for name in own:
            setattr(masking, name, patches[name])
        yield
    finally:
        for name, value in own.items():
            setattr(masking, name, value)


@contextlib.contextmanager
def _lengths_as_positions(masking: ModuleType) -> Iterator[None]:
    """In 5.4 to 5.8 a traced length of a text is taken for its positions: huggingface/transformers#45735."""
    import torch

    functions = masking.ALL_MASK_ATTENTION_FUNCTIONS
    own = {name: functions[name] for name in ("eager", "sdpa")}

    def with_positions(function: Callable[..., Any]) -> Callable[..., Any]:
        def mask(*args: Any, q_length: int | torch.Tensor, q_offset: int = 0, **options: Any) -> Any:
            if isinstance(q_length, torch.Tensor) and q_length.dim() == 0:
                q_length = torch.arange(q_length) + q_offset
            return function(*args, q_length=q_length, q_offset=q_offset, **options)

        return mask

    try:
        functions.update({name: with_positions(function) for name, function in own.items()})
        yield
    finally:
        for name in own:
            del functions[name]  # uncovers the class's own


def _broadcast(mask_function: Callable[..., torch.Tensor], bh_indices: bool = True) -> Callable[..., torch.Tensor]:
    """The result of `_vmap_for_bhqkv` on a mask function, as one call on indices of all four axes (or the last two)."""

    def mask(batch: torch.Tensor, head: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        if not bh_indices:
            return mask_function(batch, head, query[:, None], key[None, :])
        indices = batch[:, None, None, None], head[None, :, None, None], query[None, None, :, None], key
        return mask_function(*indices).expand(batch.shape[0], head.shape[0], query.shape[0], key.shape[0])

    return mask


def dtype_option(dtype: torch.dtype) -> dict[str, Any]:
    """The keyword argument of `from_pretrained` for the dtype of the weights; since 4.56 `dtype`."""
    return {"dtype" if at_least("transformers", "4.56") else "torch_dtype": dtype}


def auto_class(name: str) -> Any:
    """The class of that name; `AutoImageProcessor` from its own module.

    From 5.4 to 5.17 the name in the package itself needs Torchvision, although the class reads images with Pillow.
    """
    package = "transformers"
    if name == "AutoImageProcessor":
        package += ".models.auto.image_processing_auto"
    return getattr(importlib.import_module(package), name)


def tensorflow_gap() -> str | None:
    """Why TensorFlow weights cannot be read here and what to install; None if they can. 5.0 and later read none."""
    if at_least("transformers", "5"):
        return (
            f"transformers {version_of('transformers')} reads no TensorFlow weights; install transformers<5 with"
            " tensorflow-cpu and tf-keras, or convert them once there with load and save_pretrained"
        )
    if version_of("tensorflow") is None and version_of("tensorflow-cpu") is None:
        return "TensorFlow is not installed; pip install tensorflow-cpu tf-keras"
    return None
