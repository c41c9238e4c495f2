"""A checkpoint as the commands open it: its configuration, its preprocessor, and a fresh model on every call."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from parity import loading
from parity.dtypes import DEFAULT_DTYPE
from parity.errors import CheckpointError, UsageError
from parity.preprocessors import open_preprocessor, remarks, require_texts
from parity.samples import SampleSource
from parity.traceable import call, evaluation_mode

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

    from parity.configs import OnnxConfig
    from parity.configs.base import Preprocessor
    from parity.console import Console
    from parity.features import Constructor


class Checkpoint:
    """What a directory or a Hub id holds; what it is used for, a feature, is an argument.

    Args:
        source: directory of a checkpoint, or model id on the Hub.
        framework: whose weights to read, `pt` or `tf`; None means those that are there.
        cache_dir: where checkpoints from the Hub are kept.
        preprocessor: its kind; see `loading.load_preprocessor`.
        tokenizer: directory or Hub id whose tokenizer is taken in place of the checkpoint's own.

    Raises:
        UsageError, CheckpointError: there is no such checkpoint, or its configuration cannot be loaded.
    """

    def __init__(
        self,
        source: str,
        *,
        framework: str | None = None,
        cache_dir: str | None = None,
        preprocessor: str = "auto",
        tokenizer: str | None = None,
    ) -> None:
        from parity.features import FeaturesManager

        self.source, self.cache_dir = source, cache_dir
        self._files = loading.snapshot(source, cache_dir)
        self.tokenizer_source = tokenizer or source
        self.config = loading.load_config(source, cache_dir)
        self.framework = FeaturesManager.determine_framework(source, framework)
        self._kind, self._tokenizer = preprocessor, tokenizer
        # What the files take that it is exported to.
        self.input_names: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.source

    @property
    def model_type(self) -> str:
        """As transformers names it."""
        return self.config.model_type

    def onnx_config(self, feature: str) -> OnnxConfig:
        """The configuration of a feature.

        Raises:
            UsageError: it is not supported, or not by the installed transformers, or not with this configuration.
        """
        build = constructor_of(self.model_type, feature)
        require_exportable(self.config)
        return build(self.config)

    @functools.cached_property
    def preprocessor(self) -> Preprocessor:
        """The checkpoint's own tokenizer, image processor, feature extractor, both, or what draws token ids.

        Raises:
            UsageError, CheckpointError: see `open_preprocessor`.
        """
        return open_preprocessor(
            self.source, self.config, self._kind, tokenizer=self._tokenizer, cache_dir=self.cache_dir
        )

    def inputs(self, onnx_config: OnnxConfig, dtype: str = DEFAULT_DTYPE) -> SampleSource:
        """What makes inputs for a configuration and a model of that type."""
        preprocessor = self.preprocessor
        require_texts(preprocessor, self.source, self.model_type, onnx_config.task)
        with loading.quiet_transformers():
            source = SampleSource(onnx_config, preprocessor, self.config, dtype)
        names = source.layout.names
        self.input_names += tuple(name for name in names if name not in self.input_names)
        return source

    def report_inputs(self, inputs: SampleSource, console: Console) -> None:
        """Log what the preprocessor makes in vain, and warn of what it cannot make."""
        log, warnings = remarks(self.preprocessor, self.config, inputs.onnx_config.inputs, inputs.left_out)
        for line in log:
            console.say(line)
        for line in warnings:
            console.warn(line)

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of its configuration and weights; see `loading.fingerprint`."""
        return loading.fingerprint(self.source, self.cache_dir)

    @contextlib.contextmanager
    def unchanged(self) -> Iterator[None]:
        """Inside, the checkpoint's files must stay as they were when it was opened, whatever else fails.

        Raises:
            CheckpointError: names those that have changed; what an export or a comparison says is worth nothing then.
        """
        try:
            yield
        except Exception as error:
            self._require_unchanged(error)
            raise
        self._require_unchanged(None)

    def _require_unchanged(self, error: Exception | None) -> None:
        now = loading.snapshot(self.source, self.cache_dir)
        changed = sorted(name for name in {*now, *self._files} if now.get(name) != self._files.get(name))
        if changed:
            raise CheckpointError(
                f"{self.source}: {', '.join(changed)} changed while the checkpoint was read; run the command again when"
                " nothing writes to it"
            ) from error

    def load(
        self, feature: str, inputs: SampleSource, *, attention: str = "eager", dtype: str = DEFAULT_DTYPE
    ) -> PreTrainedModel:
        """A fresh model in eval mode, none of whose outputs depends on weights that the checkpoint lacks.

        Args:
            feature: what it is loaded for.
            inputs: makes what the outputs are asked with; its configuration says which these are.
            attention, dtype: the attention implementation of the model, and the type of its weights.

        Raises:
            UsageError, CheckpointError: see `loading.load_model`; and the feature needs weights that are not there.
        """
        from parity.features import model_class

        model, missing = loading.load_model(
            self.source,
            model_class(self.model_type, feature, self.framework),
            framework=self.framework,
            cache_dir=self.cache_dir,
            attention=attention,
            dtype=dtype,
        )
        if missing:
            self._require_weights(model, missing, feature, inputs)
        return model

    def _require_weights(
        self, model: PreTrainedModel, missing: Sequence[str], feature: str, inputs: SampleSource
    ) -> None:
        onnx_config = inputs.onnx_config

        def outputs() -> list[torch.Tensor]:
            with evaluation_mode(model, onnx_config.values_override):
                results = call(model, onnx_config, inputs.dummy)
            return [results[name] for name in onnx_config.outputs if name in results]

        absent = loading.random_weights_reach_outputs(model, missing, outputs)
        if absent:
            names = ", ".join(absent[:3]) + (f" and {len(absent) - 3} others" if len(absent) > 3 else "")
            raise CheckpointError(
                f"{self.source}: has no weights for {names}, which {feature} needs: they would be random;"
                f" it was saved as {', '.join(model.config.architectures or ['another model'])}; choose the feature it"
                " was trained for"
            )


def require_exportable(config: PretrainedConfig) -> None:
    """Refuse a configuration whose architecture declares that it is not exported.

    Raises:
        UsageError
    """
    from parity.registry import architecture

    with contextlib.suppress(KeyError):
        if refusal := architecture(config.model_type).refusal_of(config):
            raise UsageError(refusal)


def features_of(model_type: str) -> dict[str, Constructor]:
    """Feature → OnnxConfig constructor of an architecture.

    Raises:
        UsageError: it is not supported.
    """
    from parity.features import FeaturesManager

    try:
        return FeaturesManager.get_supported_features_for_model_type(model_type)
    except KeyError as error:
        raise UsageError(f"model: {error.args[0]}") from error


def constructor_of(model_type: str, feature: str) -> Constructor:
    """The OnnxConfig constructor of an architecture and feature.

    Raises:
        UsageError: one of them is not supported, and the message lists what is; or not by the installed transformers.
    """
    from parity.features import constructor
    from parity.registry import architecture

    features_of(model_type)
    build = constructor(model_type, feature)
    if gap := architecture(model_type).gap_of(feature):
        raise UsageError(f"feature: {gap}")
    return build
