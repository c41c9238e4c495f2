"""One export of a checkpoint: load, export, load again, compare; the work of the commands."""

from __future__ import annotations

import copy
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parity import validation
from parity.checkpoint import Checkpoint
from parity.configs import OnnxSeq2SeqConfigWithPast
from parity.console import Console
from parity.environment import describe
from parity.errors import UsageError
from parity.exporters import DEFAULT_EXPORTER, EXPORTERS
from parity.onnx.convert import export
from parity.onnx.log import validation_lines
from parity.onnx.proof import Artifact, Reference, free, judge_file
from parity.onnx_files import append_metadata
from parity.opsets import check_opset
from parity.registry import architecture
from parity.traceable import attention_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class CheckpointExport:
    """A checkpoint, and the feature and opset of its export.

    Args:
        checkpoint: the checkpoint.
        feature: the feature that it is exported for.
        opset: of the file; None for the architecture's own.
        console: prints progress and warnings.

    Raises:
        UsageError: the model lacks the feature, or cannot be exported at the opset.
        CheckpointError: the checkpoint cannot be loaded, or lacks weights that the feature's outputs depend on.
    """

    def __init__(self, checkpoint: Checkpoint, feature: str, opset: int | None, console: Console) -> None:
        self.checkpoint, self.feature, self._console = checkpoint, feature, console
        self.onnx_config = checkpoint.onnx_config(feature)
        self.opset = self._choose_opset(opset)
        self._inputs = checkpoint.inputs(self.onnx_config)
        checkpoint.report_inputs(self._inputs, console)
        self.attention = "eager"

    def _choose_opset(self, opset: int | None) -> int:
        model_type = self.checkpoint.model_type
        floor = architecture(model_type).floor_of(self.checkpoint.declared_feature(self.feature))
        opsets = EXPORTERS[DEFAULT_EXPORTER].opsets
        opsets = range(floor.opset, opsets.stop) if floor else opsets
        subject = f"{model_type} {self.feature}" if floor and floor.features else model_type
        if opset is None:
            return max(self.onnx_config.default_onnx_opset, opsets.start)
        check_opset(opset, opsets, subject, floor.reason if floor else "")
        return opset

    def prefill(self) -> CheckpointExport:
        """The export of a second file, which computes the cross-attention caches.

        Raises:
            UsageError: the feature has no such caches.
        """
        if not isinstance(self.onnx_config, OnnxSeq2SeqConfigWithPast) or not self.onnx_config.dead_inputs:
            raise UsageError(
                f"--prefill: {self.checkpoint.model_type} {self.feature} has no cross-attention caches to fill;"
                " it goes with the -with-past features of encoder-decoders"
            )
        second = copy.copy(self)
        second.onnx_config = self.onnx_config.prefill()
        second._inputs = self.checkpoint.inputs(second.onnx_config)
        return second

    def export(self, path: Path) -> None:
        """Write the file to `path`."""
        self._console.progress(f"loading {self.checkpoint}")
        model = self._load()
        self.attention = attention_of(model)
        self._console.progress(f"exporting to opset {self.opset}")
        export(self.checkpoint.preprocessor, model, self.onnx_config, self.opset, path)
        alive = weakref.ref(model)
        del model
        free(alive)
        self._console.progress("hashing the checkpoint")
        append_metadata(path, self.checkpoint.provenance(self.feature))

    def _load(self) -> PreTrainedModel:
        return self.checkpoint.load(self.feature, self._inputs)

    def validate(self, path: Path, *, atol: float | None, thorough: bool = False) -> validation.Validation:
        """Compare the file with a newly loaded model, which the exporter has never seen.

        Args:
            path: the file.
            atol: see `validation.Criteria`.
            thorough: see `proof.Reference`.
        """
        return judge_file(
            Artifact.read(path, opset=self.opset),
            Reference(self._load, self._inputs, self.checkpoint.relations_of(self.feature), thorough=thorough),
            criteria=validation.Criteria(atol),
            progress=self._console.progress,
        )

    @property
    def _subject(self) -> str:
        return f"feature {self.feature}" + (f" ({self.onnx_config.part})" if self.onnx_config.part else "")

    def lines(self, result: validation.Validation, atol: float | None) -> list[str]:
        """The lines of the log on the validation."""
        return [
            f"Exported {self.checkpoint}: {self._subject}, opset {self.opset}, attention {self.attention}"
            + self.checkpoint.cast_note(),
            "Validating ONNX model...",
            *validation_lines(result, atol=atol, expected_atol=self.onnx_config.atol_for_validation),
        ]

    def summary(self, result: validation.Validation, atol: float | None) -> dict[str, Any]:
        """The export and its validation as one JSON object."""
        return {
            "status": "passed" if result.passed else "failed",
            "checkpoint": str(self.checkpoint),
            "fingerprint": self.checkpoint.fingerprint,
            "architecture": self.checkpoint.model_type,
            "feature": self.feature,
            "opset": self.opset,
            "attention": self.attention,
            "atol": atol,
            **result.as_json(),
            "environment": describe(),
        }
