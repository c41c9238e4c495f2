"""A checkpoint for the commands: its configuration, its preprocessor, and a fresh model on every call."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from parity import loading, sentences, unused
from parity.dtypes import DEFAULT_DTYPE
from parity.errors import CheckpointError, UsageError
from parity.preprocessors import open_preprocessor, remarks, require_texts
from parity.samples import SampleSource
from parity.tasks import ADAPTER_TASKS, AUTO, feature_by_name, keeping_past, task_of
from parity.traceable import call, evaluation_mode

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

    from parity.adapters import Adapter
    from parity.configs import OnnxConfig
    from parity.configs.base import Preprocessor
    from parity.console import Console
    from parity.features import Constructor


class Checkpoint:
    """A checkpoint in a directory or on the Hub; methods take the feature that it is used for as an argument.

    Args:
        source: directory of a checkpoint, or model id on the Hub.
        framework: framework of the weights, `pt` or `tf`; None means the one that the checkpoint has.
        cache_dir: directory for checkpoints from the Hub.
        preprocessor: kind of preprocessor; see `loading.load_preprocessor`.
        tokenizer: directory or Hub id of a tokenizer that replaces the checkpoint's own.
        policy: what to do about weights that the model of a feature does not use.

    Raises:
        UsageError, CheckpointError: the checkpoint is missing, or its configuration cannot be loaded.
    """

    def __init__(
        self,
        source: str,
        *,
        framework: str | None = None,
        cache_dir: str | None = None,
        preprocessor: str = "auto",
        tokenizer: str | None = None,
        policy: unused.Policy | None = None,
    ) -> None:
        from parity.features import FeaturesManager

        self.source, self.cache_dir = source, cache_dir
        # The name in messages and logs.
        self.name = source
        # The source of its configuration and weights.
        self.base = loading.base_of(source, cache_dir)
        own = loading.kinds_of_preprocessor(source, cache_dir) or self.base == source
        self.preprocessor_source = source if own else self.base
        self.tokenizer_source = tokenizer or self.preprocessor_source
        self._files = loading.snapshot(self._directories)
        self.config = loading.load_config(source, cache_dir)
        self.framework = FeaturesManager.determine_framework(self.base, framework)
        self._kind, self._tokenizer = preprocessor, tokenizer
        # The inputs of all files that it is exported to.
        self.input_names: tuple[str, ...] = ()
        self._policy = policy or unused.Policy()
        if getattr(self.config, "auto_map", None):
            self._policy.warn(
                f"config.json names code of its own (auto_map), which is not run: the model is transformers' own"
                f" {self.model_type}"
            )
        # One line is enough, however often the model is loaded.
        self._reported = False

    def __str__(self) -> str:
        return self.name

    @property
    def model_type(self) -> str:
        """The model type, as transformers names it."""
        return self.config.model_type

    @property
    def saved_as(self) -> str:
        """The class that was saved; empty if config.json does not name it."""
        adapter = self.adapter
        if adapter is not None and adapter.task_type in ADAPTER_TASKS:
            return f"an adapter for {adapter.task_type}"
        return (self.config.architectures or [""])[0]

    @functools.cached_property
    def adapter(self) -> Adapter | None:
        """The adapter of peft in the checkpoint, if any."""
        return loading.adapter_of(self.source, self.cache_dir)

    @functools.cached_property
    def saved_features(self) -> list[str]:
        """The features that load that class."""
        from parity.features import features_saved

        if self.adapter is not None and self.adapter.task_type in ADAPTER_TASKS:
            task = ADAPTER_TASKS[self.adapter.task_type]
            return [feature for feature in features_of(self.model_type) if task_of(feature) == task]
        return features_saved(self.config)

    def feature(self, name: str) -> str:
        """The feature with this name or alias; `auto` is the feature that the checkpoint was saved for.

        Raises:
            UsageError: the architecture is not supported; or `auto`, and no feature loads the class of the checkpoint.
        """
        if name in (sentences.FEATURE, *sentences.ALIASES):
            if not self.modules:
                raise UsageError(
                    f"--feature {name}: {self} has no {sentences.MODULES}; it is for directories of"
                    " sentence-transformers"
                )
            return sentences.FEATURE
        features = features_of(self.model_type)
        if name != AUTO:
            return feature_by_name(name, features)
        if not self.saved_features:
            saved = f"was saved as {self.saved_as}" if self.saved_as else "does not say as what it was saved"
            raise UsageError(
                f"--feature auto: {self} {saved}, and no feature of {self.model_type} is known for it; name one of"
                f" {', '.join(features)}"
            )
        return self.saved_features[0]

    @functools.cached_property
    def _modules_place(self) -> tuple[str, Path] | None:
        """The directory or Hub id whose modules.json lists this checkpoint (itself or its parent), and that file."""
        here = Path(self.source).expanduser()
        if path := loading.has_file(self.source, sentences.MODULES, self.cache_dir):
            return self.source, path
        above = here.resolve().parent / sentences.MODULES
        if here.is_dir() and above.is_file() and ("Transformer", here.resolve().name) in sentences.module_names(above):
            return str(above.parent), above
        return None

    @functools.cached_property
    def modules(self) -> list[tuple[str, str]]:
        """The modules of sentence-transformers in its modules.json, with their directories; empty if there is none.

        Raises:
            CheckpointError: see `sentences.module_names`.
        """
        return sentences.module_names(self._modules_place[1]) if self._modules_place else []

    @functools.cached_property
    def _directories(self) -> dict[str, Path]:
        """Prefix → directory of files that are read: the checkpoint's own, an adapter's base, further modules."""
        places = {"": self.source, **({f"{self.base}/": self.base} if self.base != self.source else {})}
        directories = {prefix: loading.directory_of_files(source, self.cache_dir) for prefix, source in places.items()}
        if self._modules_place:
            top = self._modules_place[1].parent
            directories.update({f"{name}/": top / name for _, name in self.modules[1:]})
        return {prefix: directory for prefix, directory in directories.items() if directory}

    def provenance(self, feature: str) -> dict[str, str]:
        """Metadata on the origin of a file: the fingerprint, and that of the modules that the file includes."""
        facts = {"checkpoint": self.fingerprint}
        if feature == sentences.FEATURE and self._modules_place:
            place = self._modules_place[0]
            facts["modules"] = sentences.fingerprint(
                self.modules, lambda name: loading.has_file(place, name, self.cache_dir)
            )
        return facts

    def declared_feature(self, feature: str) -> str:
        """The feature of the architecture behind a feature: `default` for that of sentence-transformers."""
        return "default" if feature == sentences.FEATURE else feature

    @property
    def automatic_choice(self) -> str:
        """The feature that `auto` chooses, and why, as a line of the log."""
        first, *others = self.saved_features
        more = f"; {', '.join(others)} {'fits' if len(others) == 1 else 'fit'} too" if others else ""
        return f"Feature {first}, because the checkpoint was saved as {self.saved_as}{more}"

    def warn_of_lost_head(self, feature: str) -> None:
        """Warn if the checkpoint was saved with a head that the feature leaves out."""
        if self._loses_head(feature):
            features = " or ".join(keeping_past(feature, self.saved_features))
            self._policy.warn(
                f"feature {feature} leaves out the head of {self.saved_as}, the class that the checkpoint was saved"
                f" with; --feature {features} keeps it"
            )

    def _loses_head(self, feature: str) -> bool:
        tasks = {task_of(each) for each in self.saved_features}
        return bool(tasks) and task_of(feature) == "default" and "default" not in tasks

    @functools.cached_property
    def stored_dtype(self) -> str:
        """The type of its weights, if known; see `loading.stored_dtype`."""
        return loading.stored_dtype(self.source, self.config, self.cache_dir)

    def cast_note(self, dtype: str = DEFAULT_DTYPE, act: str = "exported") -> str:
        """A note for the log if the weights are stored in another type than they are used in; else empty.

        Args:
            dtype: the type that they are loaded in.
            act: the verb for their use, `exported` or `compared`.
        """
        stored = self.stored_dtype
        return f", stored as {stored}, {act} as {dtype}" if stored not in ("", dtype) else ""

    def onnx_config(self, feature: str) -> OnnxConfig:
        """The configuration of a feature.

        Raises:
            UsageError: it is not supported: at all, by the installed transformers, or with this configuration.
        """
        build = constructor_of(self.model_type, self.declared_feature(feature))
        require_exportable(self.config)
        config = build(self.config)
        return sentences.embedding_config(config) if feature == sentences.FEATURE else config

    def relations_of(self, feature: str) -> list[str]:
        """The metamorphic relations on record for a feature."""
        from parity.registry import architecture

        return architecture(self.model_type).relations_of(self.declared_feature(feature))

    @functools.cached_property
    def preprocessor(self) -> Preprocessor:
        """The checkpoint's own tokenizer, image processor, feature extractor or processor, or a generator of token ids.

        Raises:
            UsageError, CheckpointError: see `open_preprocessor`.
        """
        return open_preprocessor(
            self.preprocessor_source, self.config, self._kind, tokenizer=self._tokenizer, cache_dir=self.cache_dir
        )

    def inputs(self, onnx_config: OnnxConfig, dtype: str = DEFAULT_DTYPE) -> SampleSource:
        """The source of inputs for a configuration and a model of this type."""
        preprocessor = self.preprocessor
        task = self.declared_feature(onnx_config.task)
        require_texts(preprocessor, self.preprocessor_source, self.model_type, task)
        with loading.quiet_transformers():
            source = SampleSource(onnx_config, preprocessor, self.config, dtype)
        names = source.layout.names
        self.input_names += tuple(name for name in names if name not in self.input_names)
        return source

    def report_inputs(self, inputs: SampleSource, console: Console) -> None:
        """Log inputs that the preprocessor makes and no file takes, and warn of inputs that it cannot make."""
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
        """Require inside that the checkpoint's files stay as they were when it was opened, whatever else fails.

        Raises:
            CheckpointError: names the files that changed; results of an export or a comparison are void then.
        """
        try:
            yield
        except Exception as error:
            self._require_unchanged(error)
            raise
        self._require_unchanged(None)

    def _require_unchanged(self, error: Exception | None) -> None:
        now = loading.snapshot(self._directories)
        changed = sorted(name for name in {*now, *self._files} if now.get(name) != self._files.get(name))
        if changed:
            raise CheckpointError(
                f"{self}: {', '.join(changed)} changed while the checkpoint was read; run the command again when"
                " nothing writes to it"
            ) from error

    def load(
        self, feature: str, inputs: SampleSource, *, attention: str = "eager", dtype: str = DEFAULT_DTYPE
    ) -> PreTrainedModel:
        """A fresh model in eval mode; no output depends on weights that the checkpoint lacks.

        Args:
            feature: the feature that it is loaded for.
            inputs: source of the inputs that show which weights matter; its configuration names the outputs.
            attention, dtype: the attention implementation of the model, and the type of its weights.

        Raises:
            UsageError, CheckpointError: see `loading.load_model`; or the feature needs weights that are missing.
        """
        from parity.features import model_class

        model, missing, unused_weights, lacking = loading.load_model(
            self.source,
            model_class(self.model_type, self.declared_feature(feature), self.framework),
            framework=self.framework,
            cache_dir=self.cache_dir,
            attention=attention,
            dtype=dtype,
        )
        if not self._reported:
            loading.require_numbers(str(self), model)
        if missing:
            self._require_weights(model, missing, self.declared_feature(feature), inputs)
        if lacking and not self._reported:
            self._policy.warn(
                f"the adapter has no weights for {unused.listing(unused.modules_of(lacking))}, which stay as in its"
                " base"
            )
        self._account_unused(model, unused_weights, feature)
        if feature == sentences.FEATURE and self._modules_place:
            place = self._modules_place[0]
            return sentences.with_modules(
                model, self.modules, lambda name: loading.has_file(place, name, self.cache_dir)
            )
        return model

    def _account_unused(self, model: PreTrainedModel, names: Sequence[str], feature: str) -> None:
        """Report once the weights that the model does not use.

        Raises:
            CheckpointError: they are whole layers.
        """
        if self._reported:
            return
        self._reported = True
        prefix, own = model.base_model_prefix, type(model).__name__
        bare = not self.saved_as or "default" in self.saved_features
        if not self._policy.allow:
            layers = unused.whole_layers(names, model.state_dict(), prefix, bare=bare)
            unused.require_layers(str(self), own, layers)
        if self._loses_head(feature):
            # The lost head has a warning already.
            names = [name for name in names if name.startswith(f"{prefix}.")]
        if modules := unused.modules_of(names):
            heads = [each for each in features_of(self.model_type) if task_of(each) != "default"]
            unknown = task_of(feature) == "default" and not self.saved_features and heads
            hint = f"; features with a head: {', '.join(keeping_past(feature, heads))}" if unknown else ""
            self._policy.warn(f"{own} does not use these weights of the checkpoint: {unused.listing(modules)}{hint}")

    def _require_weights(
        self, model: PreTrainedModel, missing: Sequence[str], feature: str, inputs: SampleSource
    ) -> None:
        onnx_config = self.onnx_config(feature) if inputs.onnx_config.task == sentences.FEATURE else inputs.onnx_config

        def outputs() -> list[torch.Tensor]:
            with evaluation_mode(model, onnx_config.values_override):
                results = call(model, onnx_config, inputs.dummy)
            return [results[name] for name in onnx_config.outputs if name in results]

        absent = loading.random_weights_reach_outputs(model, missing, outputs)
        if absent:
            names = ", ".join(absent[:3]) + (f" and {len(absent) - 3} others" if len(absent) > 3 else "")
            raise CheckpointError(
                f"{self}: has no weights for {names}, which {feature} needs: they would be random;"
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
        UsageError: one of them is unknown (the message lists the valid ones), or the installed transformers lacks it.
    """
    from parity.features import constructor
    from parity.registry import architecture

    features_of(model_type)
    build = constructor(model_type, feature)
    if gap := architecture(model_type).gap_of(feature):
        raise UsageError(f"feature: {gap}")
    return build
