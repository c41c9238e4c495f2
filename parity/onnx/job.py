"""One export from a checkpoint: load, export, load again, compare; the work behind the commands."""

from __future__ import annotations

import copy
import gc
import shutil
import weakref
from pathlib import Path

from parity import models, validation
from parity.environment import describe
from parity.errors import CheckpointError, UsageError
from parity.files import append_metadata
from parity.judge.rows import Row
from parity.onnx import features
from parity.onnx.convert import export, longest_sequence
from parity.onnx.limits import MINIMUM_OPSET, check_opset
from parity.onnx.log import validation_lines
from parity.reference import answers
from parity.samples import Source
from parity.sessions import OnnxSession
from parity.traceable import attention_of, call, prepared

# Inputs of other exporters' files that ours compute from the rest, with their dynamic axes.
DERIVED_INPUTS = {"position_ids": {0: "batch", 1: "sequence"}}


class Job:
    """A checkpoint and what it is to be exported as.

    Raises:
        UsageError: a feature that the model does not have, an opset that it cannot be exported at.
        CheckpointError: the checkpoint cannot be loaded, or lacks weights that the feature's outputs depend on.
    """

    def __init__(self, source, feature, opset, framework, cache_dir, preprocessor, console):
        self._source, self._framework, self._cache_dir, self._console = source, framework, cache_dir, console
        self.feature = feature
        self.config = models.load_config(source, cache_dir)
        self._framework = features.FeaturesManager.determine_framework(source, framework)
        self.onnx_config = constructor_of(self.config.model_type, feature)(self.config)
        self._model_class = features.FeaturesManager.get_model_class_for_feature(feature, self._framework)
        self.opset = opset if opset is not None else self.onnx_config.default_onnx_opset
        self._check_opset()
        self.preprocessor = models.require_preprocessor(source, preprocessor, cache_dir)
        self._inputs = Source(self.onnx_config, self.preprocessor, self.config)
        self.fingerprint = ""
        self.attention = "eager"

    def _check_opset(self):
        from parity.architectures.registry import architecture

        floor = architecture(self.config.model_type).floor
        minimum = floor.opset if floor else MINIMUM_OPSET
        check_opset(self.opset, minimum, self.config.model_type, floor.reason if floor else "")

    def prefill(self) -> Job:
        """The job of the second file, which makes the cross-attention caches.

        Raises:
            UsageError: the feature has none.
        """
        if not self.onnx_config.dead_inputs:
            raise UsageError(
                f"--prefill: {self.config.model_type} {self.feature} has no cross-attention caches to fill;"
                " it goes with the -with-past features of encoder-decoders"
            )
        second = copy.copy(self)
        second.onnx_config = self.onnx_config.prefill()
        second._inputs = Source(second.onnx_config, self.preprocessor, self.config)
        return second

    def export(self, path: Path) -> None:
        """Write the file to `path`."""
        self._console.progress(f"loading {self._source}")
        model = self._load()
        self.attention = attention_of(model)
        self._console.progress(f"exporting to opset {self.opset}")
        export(self.preprocessor, model, self.onnx_config, self.opset, path)
        alive = weakref.ref(model)
        del model
        _collect_if(alive)
        self._console.progress("hashing the checkpoint")
        self.fingerprint = models.fingerprint(self._source, self._cache_dir)
        append_metadata(path, {"checkpoint": self.fingerprint})

    def _load(self):
        return load_trained(
            self._source,
            self.feature,
            self._model_class,
            self.onnx_config,
            self._inputs,
            framework=self._framework,
            cache_dir=self._cache_dir,
        )

    def validate(self, path: Path, *, atol: float | None) -> validation.Validation:
        """Compare the file with a model that is loaded anew, which the exporter has never seen."""
        return prove(
            path,
            self._load,
            self.onnx_config,
            self._inputs,
            atol=atol,
            progress=self._console.progress,
        )

    @property
    def _subject(self):
        return f"feature {self.feature}" + (f" ({self.onnx_config.part})" if self.onnx_config.part else "")

    def lines(self, found: validation.Validation, atol: float | None) -> list[str]:
        """The log of the validation."""
        return [
            f"Exported {self._source}: {self._subject}, opset {self.opset}, attention {self.attention}",
            "Validating ONNX model...",
            *validation_lines(found, atol=atol, expected_atol=self.onnx_config.atol_for_validation),
        ]

    def summary(self, found: validation.Validation, atol: float | None) -> dict:
        """The job and its validation as one JSON object."""
        return {
            "status": "passed" if found.passed else "failed",
            "checkpoint": self._source,
            "fingerprint": self.fingerprint,
            "architecture": self.config.model_type,
            "feature": self.feature,
            "opset": self.opset,
            "attention": self.attention,
            "atol": atol,
            **found.as_json(),
            "environment": describe(),
        }

    def save_companions(self, stage: Path, directory: Path) -> None:
        """Write the configuration and the preprocessor's files into `directory`, so that it can be used alone.

        The checkpoint's own directory has them already, and is not touched.
        """
        if directory.resolve() == Path(self._source).expanduser().resolve():
            return
        companions = stage / "companions"
        companions.mkdir()
        self.config.save_pretrained(companions)
        self.preprocessor.save_pretrained(companions)
        generation = models.has_file(self._source, "generation_config.json", self._cache_dir)
        if generation:
            shutil.copyfile(generation, companions / generation.name)
        for path in companions.iterdir():
            if path.is_file():
                path.replace(directory / path.name)


def features_of(model_type: str) -> dict:
    """Feature → OnnxConfig constructor of an architecture.

    Raises:
        UsageError: it is not supported.
    """
    try:
        return features.FeaturesManager.get_supported_features_for_model_type(model_type)
    except KeyError as error:
        raise UsageError(f"model: {error.args[0]}") from error


def constructor_of(model_type: str, feature: str):
    """The OnnxConfig constructor of an architecture and feature.

    Raises:
        UsageError: one of them is not supported; the message lists what is.
    """
    features_of(model_type)
    return features.constructor(model_type, feature)


def load_trained(source, feature, model_class, onnx_config, inputs: Source, *, framework=None, cache_dir=None):
    """The checkpoint's model, none of whose outputs depends on weights that the checkpoint lacks.

    Raises:
        UsageError, CheckpointError: see `models.load_model`; and the feature needs weights that are not there.
    """
    model, missing = models.load_model(source, model_class, framework=framework, cache_dir=cache_dir)
    if not missing:
        return model

    def outputs():
        with prepared(model, onnx_config.values_override):
            results = call(model, onnx_config, inputs.dummy)
        return [results[name] for name in onnx_config.outputs if name in results]

    reached = models.random_weights_reach_outputs(model, missing, outputs)
    if reached:
        raise CheckpointError(
            f"{source}: has no weights for {', '.join(reached)}, which {feature} needs: they would be random; it was"
            f" saved as {', '.join(model.config.architectures or ['another model'])}; choose the feature it was trained"
            " for"
        )
    return model


def prove(
    path: Path,
    load,
    onnx_config,
    inputs: Source,
    *,
    atol: float | None = None,
    progress=None,
    contract_rows: list[Row] | None = None,
) -> validation.Validation:
    """Compare the file at `path` with the model that `load()` returns, at every shape, against float64.

    The model is freed before ONNX Runtime loads the file: the two are never in memory together.

    Args:
        load: a function without arguments; its model belongs to this function and is changed.
        contract_rows: verdicts on the file itself, put in front.

    Position ids, which other exporters make an input, are given to a file that wants them.
    """
    model = load()
    samples = validation.choose_samples(inputs, longest=longest_sequence(model))
    references = answers(model, onnx_config, samples, consume=True, progress=progress)
    alive = weakref.ref(model)
    del model
    _collect_if(alive)
    session = OnnxSession(path)
    return validation.compare(
        session.run,
        onnx_config,
        samples,
        references,
        atol=atol,
        traced=inputs.axes,
        first=tuple(contract_rows or ()),
        derived=[name for name in session.input_names if name in DERIVED_INPUTS],
        progress=progress,
    )


def _collect_if(alive):
    """Free a model that only reference cycles keep; a full collection takes a third of a second, so not for nothing."""
    if alive() is not None:
        gc.collect()
