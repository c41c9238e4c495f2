"""The features of each architecture. Drop-in for `transformers.onnx.features`: the names that scripts import."""

from parity.features import FeaturesManager, constructor, heads, model_class, supported_features_mapping

__all__ = ["FeaturesManager", "constructor", "heads", "model_class", "supported_features_mapping"]
