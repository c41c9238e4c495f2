"""The vocabulary of a declaration, where modules of others have always found it."""

from parity.declaration import (
    BIDIRECTIONAL_FEATURES,
    EITHER_PADDING,
    ENCODER_FEATURES,
    FEATURE_TASKS,
    GENERATE_WITHOUT_MASK,
    KINDS,
    RELATIONS,
    TRACE_OUTCOMES,
    Architecture,
    Deviation,
    Floor,
    Relations,
    TracedAxis,
    decoder_axes,
    encoder_decoder_axes,
    image_sizes,
    token_axes,
)
from parity.scope import Scope

__all__ = [
    "BIDIRECTIONAL_FEATURES",
    "EITHER_PADDING",
    "ENCODER_FEATURES",
    "FEATURE_TASKS",
    "GENERATE_WITHOUT_MASK",
    "KINDS",
    "RELATIONS",
    "TRACE_OUTCOMES",
    "Architecture",
    "Deviation",
    "Floor",
    "Relations",
    "Scope",
    "TracedAxis",
    "decoder_axes",
    "encoder_decoder_axes",
    "image_sizes",
    "token_axes",
]
