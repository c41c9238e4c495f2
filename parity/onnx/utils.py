"""Small helpers with the names of `transformers.onnx.utils`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parity.configs.sizes import ParameterFormat, compute_effective_axis_dimension, compute_serialized_parameters_size

if TYPE_CHECKING:
    from transformers import FeatureExtractionMixin, PreTrainedTokenizerBase, ProcessorMixin

__all__ = [
    "ParameterFormat",
    "compute_effective_axis_dimension",
    "compute_serialized_parameters_size",
    "get_preprocessor",
]


def get_preprocessor(model_name: str) -> ProcessorMixin | PreTrainedTokenizerBase | FeatureExtractionMixin | None:
    """The processor of a checkpoint or, if it has none, its tokenizer or its image processor / feature extractor.

    Returns None if the checkpoint has none of them.

    Raises:
        ValueError: the checkpoint has both a tokenizer and a feature extractor, but no processor that joins them.
    """
    from parity.loading import load_preprocessor

    return load_preprocessor(model_name, "auto")
