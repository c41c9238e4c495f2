"""Which features each architecture has. Drop-in for `transformers.onnx.features`: the names that scripts import."""

from parity.features import FeaturesManager, constructor, head_names, model_class, supported_features_mapping

__all__ = ["FeaturesManager", "constructor", "head_names", "model_class", "supported_features_mapping"]
