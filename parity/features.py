"""Which features each architecture has, and which Auto class loads each. Drop-in for `transformers.onnx.features`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from parity import loading, unused
from parity.configs import OnnxConfig
from parity.environment import version_of
from parity.errors import EnvironmentGap, UsageError
from parity.releases import tensorflow_gap
from parity.tasks import TASKS, task_of

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

    from parity.loading import ModelLoader

    # Makes an OnnxConfig.
    Constructor: TypeAlias = Callable[[PretrainedConfig], OnnxConfig]

logger = logging.getLogger("parity")


class _AutoModels(Mapping[str, "ModelLoader"]):
    """Task → Auto class, imported when it is looked up: naming the tasks costs no torch."""

    def __getitem__(self, task: str) -> ModelLoader:
        import transformers

        for name in TASKS[task].auto_classes:
            auto = getattr(transformers, name, None)
            if auto is not None:
                return auto
        raise KeyError(
            f"{task}: transformers {version_of('transformers')} has none of {', '.join(TASKS[task].auto_classes)}"
        )

    def __iter__(self) -> Iterator[str]:
        return iter(TASKS)

    def __len__(self) -> int:
        return len(TASKS)


class _ModelTypes(dict[str, "dict[str, Constructor]"]):
    """Model type → features; `big-bird` and `big_bird` are the same key."""

    @staticmethod
    def _key(model_type: str) -> str:
        return model_type.lower().replace("_", "-")

    def __getitem__(self, model_type: str) -> dict[str, Constructor]:
        return super().__getitem__(self._key(model_type))

    def __setitem__(self, model_type: str, features: dict[str, Constructor]) -> None:
        super().__setitem__(self._key(model_type), features)

    def __contains__(self, model_type: object) -> bool:
        return isinstance(model_type, str) and super().__contains__(self._key(model_type))


def supported_features_mapping(
    *supported_features: str, onnx_config_cls: str | type[OnnxConfig] | None = None
) -> dict[str, Constructor]:
    """Feature → constructor of its OnnxConfig.

    Args:
        onnx_config_cls: the OnnxConfig class, or its dotted name (`parity.architectures.bert.BertOnnxConfig`; names of
            the old package, `models.bert.BertOnnxConfig`, work too).

    Raises:
        UsageError: no class is given, or an old name of a class that does not exist (a ValueError).
    """
    if onnx_config_cls is None:
        raise UsageError("onnx_config_cls: is missing, should be an OnnxConfig class or its dotted name")
    if isinstance(onnx_config_cls, str):
        import importlib

        module, _, name = onnx_config_cls.rpartition(".")
        if module.startswith("models."):
            onnx_config_cls = _class_in_old_module(module.split(".")[1], name)
        else:
            onnx_config_cls = getattr(importlib.import_module(module), name)
    return {
        feature: partial(
            getattr(onnx_config_cls, "with_past" if feature.endswith("-with-past") else "from_model_config"),
            task=FeaturesManager.feature_to_task(feature),
        )
        for feature in supported_features
    }


def _class_in_old_module(model: str, name: str) -> type[OnnxConfig]:
    """The class of `models.<model>` in the old package, where one module could be about several models."""
    from parity.registry import architectures

    for architecture in architectures():
        module = architecture.onnx_config.__module__.rpartition(".")[2]
        if architecture.onnx_config.__name__ == name and (module == model or module.startswith(f"{model}_")):
            return architecture.onnx_config
    raise UsageError(f"onnx_config_cls: models.{model}.{name} is not the class of a declared architecture")


class FeaturesManager:
    """Features by architecture, read from the declarations under `parity.architectures`."""

    _TASKS_TO_AUTOMODELS = _AutoModels()
    # TensorFlow weights are read into PyTorch models.
    _TASKS_TO_TF_AUTOMODELS: dict[str, ModelLoader] = {}  # noqa: RUF012 - a class attribute in the old package
    _SUPPORTED_MODEL_TYPE = _ModelTypes()
    AVAILABLE_FEATURES: list[str] = []  # noqa: RUF012 - a class attribute in the old package

    @staticmethod
    def get_supported_features_for_model_type(model_type: str, model_name: str | None = None) -> dict[str, Constructor]:
        """Feature → OnnxConfig constructor for a model type, spelled with `-` or `_`.

        Args:
            model_type: as transformers names it, such as `distilbert`.
            model_name: only appears in the message.

        Raises:
            KeyError: no such model type; the message lists those that exist.
        """
        types = FeaturesManager._SUPPORTED_MODEL_TYPE
        if model_type not in types:
            from parity.registry import refused

            subject = f"{model_type} ({model_name})" if model_name else model_type
            raise KeyError(
                f"{subject} is not supported yet; supported: {', '.join(types)}. One file under architectures/ adds it"
                f"{refused()}"
            )
        return types[model_type]

    @staticmethod
    def feature_to_task(feature: str) -> str:
        """The task of a feature: the feature without `-with-past`.

        Args:
            feature: such as `causal-lm-with-past`.

        Raises:
            AttributeError: it is not a str.
        """
        return task_of(feature)

    @staticmethod
    def _validate_framework_choice(framework: str) -> None:
        if framework not in ("pt", "tf"):
            raise UsageError(f"framework: got {framework}, should be pt or tf")
        gap = tensorflow_gap() if framework == "tf" else None
        if gap:
            raise EnvironmentGap(f"framework tf: {gap}")

    @staticmethod
    def get_model_class_for_feature(feature: str, framework: str = "pt") -> ModelLoader:
        """The Auto class that loads a feature. TensorFlow weights are read into PyTorch models.

        Args:
            feature: such as `masked-lm`.
            framework: framework of the weights, `pt` or `tf`.

        Raises:
            KeyError: no such feature.
            UsageError: `framework` is neither pt nor tf (a ValueError).
            EnvironmentGap: the installed packages lack the feature or the framework (a RuntimeError).
        """
        FeaturesManager._validate_framework_choice(framework)
        task = FeaturesManager.feature_to_task(feature)
        if task not in FeaturesManager._TASKS_TO_AUTOMODELS:
            raise KeyError(f"feature: got {feature}, should be one of {', '.join(FeaturesManager.AVAILABLE_FEATURES)}")
        return FeaturesManager._TASKS_TO_AUTOMODELS[task]

    @staticmethod
    def determine_framework(model: str, framework: str | None = None) -> str:
        """`framework` itself if it is given, else the framework of a local checkpoint's weights, else `pt`.

        Args:
            model: directory of a checkpoint, or Hub id.
            framework: `pt`, `tf` or None.

        Raises:
            FileNotFoundError: a local directory without weights.
        """
        if framework is not None:
            return framework
        if not Path(model).is_dir():
            return "pt"
        if not any(
            (Path(model) / n).is_file()
            for n in loading.SAFE_WEIGHTS + loading.PICKLED_WEIGHTS + loading.TENSORFLOW_WEIGHTS
        ):
            raise FileNotFoundError(
                f"{model}: has no weights, should have model.safetensors or pytorch_model.bin (PyTorch) or tf_model.h5"
                " (TensorFlow)"
            )
        return loading.framework_of(Path(model))

    @staticmethod
    def get_model_from_feature(
        feature: str, model: str, framework: str | None = None, cache_dir: str | None = None
    ) -> PreTrainedModel:
        """The checkpoint as the model of a feature, in float32, with eager attention, in eval mode.

        Args:
            feature: the feature that the model is loaded for, such as `masked-lm`.
            model: directory of a checkpoint, or Hub id.
            framework: framework of the weights, `pt` or `tf`; None takes the one that exists.
            cache_dir: directory for checkpoints that are downloaded from the Hub.

        Raises:
            UsageError: no such checkpoint.
            CheckpointError: it cannot be loaded whole; see `parity.loading.load_model`.
            KeyError: no such feature.
        """
        framework = FeaturesManager.determine_framework(loading.base_of(model, cache_dir), framework)
        config = loading.load_config(model, cache_dir)
        loads = model_class(config.model_type, feature, framework)
        loaded = loading.load_model(model, loads, framework=framework, cache_dir=cache_dir)
        if modules := unused.modules_of(loaded.unused):
            logger.warning(
                "%s does not use these weights of %s: %s", type(loaded.model).__name__, model, ", ".join(modules)
            )
        return loaded.model

    @staticmethod
    def check_supported_model_or_raise(model: PreTrainedModel, feature: str = "default") -> tuple[str, Constructor]:
        """The model's type and the constructor of its OnnxConfig for a feature.

        Args:
            model: a model of transformers.
            feature: such as `masked-lm`.

        Raises:
            KeyError: the model's type is not supported.
            ValueError: the feature is not; the message lists those that are.
        """
        return model.config.model_type, constructor(model.config.model_type, feature, getattr(model, "name", ""))

    @staticmethod
    def get_config(model_type: str, feature: str) -> Constructor:
        """The OnnxConfig constructor of a model type and feature.

        Args:
            model_type: as transformers names it.
            feature: such as `masked-lm`.

        Raises:
            KeyError: no such model type, or the model type does not have that feature.
        """
        return FeaturesManager._SUPPORTED_MODEL_TYPE[model_type][feature]


def model_class(model_type: str, feature: str, framework: str = "pt") -> ModelLoader:
    """The class that loads a feature of a model type: the Auto class, or the head that its declaration names.

    Args:
        model_type: as transformers names it.
        feature: such as `masked-lm`.
        framework: framework of the weights, `pt` or `tf`.

    Raises:
        KeyError, ValueError, EnvironmentGap: see `FeaturesManager.get_model_class_for_feature`.
    """
    from parity import registry

    auto = FeaturesManager.get_model_class_for_feature(feature, framework)
    declarations = [each for each in registry.architectures() if each.model_type == model_type]
    head = declarations[0].heads.get(FeaturesManager.feature_to_task(feature)) if declarations else None
    return loading.class_by_name(head) if head else auto


def heads(config: PretrainedConfig, feature: str) -> tuple[ModelLoader, ...]:
    """The model classes that load a feature of a configuration; their names are those in `config.architectures`.

    Raises:
        KeyError, ValueError, EnvironmentGap: see `model_class`.
    """
    loads = model_class(config.model_type, feature)
    mapping = getattr(loads, "_model_mapping", None)
    if mapping is None:
        return (loads,)
    classes = mapping.get(type(config), ())
    return tuple(classes) if isinstance(classes, (list, tuple)) else (classes,)


def features_saved(config: PretrainedConfig) -> list[str]:
    """The features that load the class that the checkpoint of a configuration was saved as, in the declared order.

    Raises:
        KeyError: the model type is not supported.
    """
    features = FeaturesManager.get_supported_features_for_model_type(config.model_type)
    # TensorFlow's classes have the names of PyTorch's, with the prefix TF.
    saved = {name.removeprefix("TF") for name in config.architectures or []}
    if not saved:
        return []
    return [feature for feature in features if saved & {head.__name__ for head in heads(config, feature)}]


def constructor(model_type: str, feature: str, model_name: str = "") -> Constructor:
    """The OnnxConfig constructor of a model type and feature.

    Args:
        model_type: as transformers names it.
        feature: such as `masked-lm`.
        model_name: only appears in the message.

    Raises:
        KeyError: the model type is not supported.
        UsageError: the feature is not; the message lists those that are.
    """
    features = FeaturesManager.get_supported_features_for_model_type(model_type, model_name)
    if feature not in features:
        raise UsageError(f"{model_type} doesn't support feature {feature}; supported: {', '.join(features)}")
    return features[feature]


def _read_declarations() -> None:
    from parity import registry

    for architecture in registry.architectures():
        FeaturesManager._SUPPORTED_MODEL_TYPE[architecture.model_type] = supported_features_mapping(
            *architecture.features, onnx_config_cls=architecture.onnx_config
        )
    names = {feature for features in FeaturesManager._SUPPORTED_MODEL_TYPE.values() for feature in features}
    FeaturesManager.AVAILABLE_FEATURES[:] = sorted(names)


_read_declarations()
