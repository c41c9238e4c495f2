"""Past key values: tuples of tensors on our side, what the installed transformers generation wants on the model's.

transformers 4.46 takes and returns tuples; transformers 5 takes and returns Cache objects only.
"""

from __future__ import annotations

from parity.environment import at_least


def to_model(past):
    """Per-layer tuples (key, value) or (key, value, cross key, cross value) → the model's argument.

    Keys and values have shape (batch, heads, length, head size). The result is fresh at every call: a model extends
    its cache in place.
    """
    layers = [tuple(layer) for layer in past]
    if not at_least("transformers", "4.50"):
        return tuple(layers)
    from transformers import DynamicCache, EncoderDecoderCache

    if len(layers[0]) == 2:
        return DynamicCache(layers)
    return EncoderDecoderCache(DynamicCache([x[:2] for x in layers]), DynamicCache([x[2:] for x in layers]))


def is_cache(value) -> bool:
    """Whether a model's output is one of transformers' Cache objects."""
    return hasattr(value, "self_attention_cache") or hasattr(value, "layers") or hasattr(value, "to_legacy_cache")


def from_model(cache) -> list[tuple]:
    """A Cache object → per-layer tuples, as `to_model` takes them."""
    if hasattr(cache, "self_attention_cache"):
        own, cross = from_model(cache.self_attention_cache), from_model(cache.cross_attention_cache)
        return [a + b for a, b in zip(own, cross, strict=True)]
    if hasattr(cache, "layers"):
        return [(layer.keys, layer.values) for layer in cache.layers]
    return [tuple(layer) for layer in cache.to_legacy_cache()]
