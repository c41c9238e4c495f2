"""Answers of a device that casts to bfloat16 → findings: relative error, cosine, and decisions."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from parity import schema
from parity.errors import UsageError
from parity.judge.decisions import judge_decisions
from parity.judge.findings import Finding, error_of, failures
from parity.judge.pool import Arrays, Pool
from parity.judge.ratio import LIMIT
from parity.schema import SchemaError

if TYPE_CHECKING:
    import torch

    from parity.configs import OnnxConfig
    from parity.torchscript.model import TracedModel

UNCALIBRATED = "uncalibrated: no device has run these cells yet"
# Another run may be worse than the measured one by this factor.
_SLACK = 2.0
_POOL = 8
_CALIBRATION = schema.table(
    {
        "sdk": schema.text(),
        "architectures": schema.entries(
            schema.text(), schema.table({"relative": schema.number(0, 1e6), "cosine": schema.number(-1, 1)})
        ),
    }
)


@dataclass(frozen=True)
class Tolerances:
    """The largest allowed differences from PyTorch's float32 answers.

    Args:
        relative: the largest norm of the difference, in units of the norm of the answer, over all inputs together.
        cosine: the smallest cosine between the answers to one input.
        origin: the source of the two numbers.
    """

    relative: float = 5e-2
    cosine: float = 0.995
    origin: str = UNCALIBRATED

    @classmethod
    def emulated(cls) -> Tolerances:
        """The tolerances of a float32 trace, which casts nothing."""
        return cls(1e-4, 0.999999, "float32")

    @classmethod
    def calibrated(cls, path: Path, architecture: str) -> Tolerances:
        """Twice the error measured on a device for the architecture; the defaults without a measurement.

        Args:
            path: a file of `calibration`, which may not exist.
            architecture: its name.

        Raises:
            UsageError: it is no such file.
        """
        if not os.path.lexists(path):
            return cls()
        try:
            file = schema.read_json(path, _CALIBRATION)
        except SchemaError as error:
            raise UsageError(f"{error}; calibrate again on a device, or remove it") from None
        worst = file["architectures"].get(architecture)
        if worst is None:
            return cls()
        return cls(_SLACK * worst["relative"], 1 - _SLACK * (1 - worst["cosine"]), f"calibrated on {file['sdk']}")

    def summary(self, findings: Sequence[Finding] = (), *, rows: Sequence[Finding] = ()) -> str:
        """The worst measurements of the findings, and the limits; `rows` is the old name of `findings`."""
        measurements = [finding.measurements for finding in (*findings, *rows) if finding.measurements]
        relative = max((each["relative"] for each in measurements), default=0.0)
        cosine = min((each["cosine"] for each in measurements), default=1.0)
        return (
            f"relative error {relative:.2g} ≤ {self.relative:g}, cosine {cosine:.6f} ≥ {self.cosine:g} ({self.origin})"
        )


def judge_answers(reference: Sequence[Arrays], actual: Sequence[Arrays], tolerances: Tolerances) -> list[Finding]:
    """One finding for each output, and one for each output that makes decisions (largest candidate beyond the noise).

    Args:
        reference, actual: answers by name, to the same inputs; `actual` may have more outputs than the reference.
        tolerances: the limits.
    """
    findings = []
    for name in reference[0]:
        missing = [index for index, answer in enumerate(actual) if name not in answer]
        if missing:
            message = f"{name}: is missing, should be among {', '.join(actual[0])}"
            findings.append(Finding("names", name, False, message))
            continue
        shapes = [(w[name].shape, g[name].shape) for w, g in zip(reference, actual, strict=True)]
        wrong = next((pair for pair in shapes if pair[0] != pair[1]), None)
        if wrong:
            findings.append(Finding("shape", name, False, f"{name}: has shape {wrong[1]}, should be {wrong[0]}"))
            continue
        findings.append(_judge(name, [w[name] for w in reference], [g[name] for g in actual], tolerances))
    noise = {finding.subject: tolerances.relative / LIMIT for finding in findings if finding.passed}
    pool = replace(Pool.from_answers(reference, reference, reference, actual), unit=noise)
    return [*findings, *(judge_decisions(pool, eager=False) if noise else [])]


def _judge(name: str, reference: Sequence[np.ndarray], actual: Sequence[np.ndarray], tolerances: Tolerances) -> Finding:
    reference, actual = ([array.astype(np.float64).ravel() for array in side] for side in (reference, actual))
    norm = np.sqrt(sum(float(np.square(array).sum()) for array in reference))
    off = np.sqrt(sum(float(np.square(one - other).sum()) for one, other in zip(reference, actual, strict=True)))
    relative = off / norm if norm else (0.0 if off == 0 else np.inf)
    cosine = min(_cosine(one, other) for one, other in zip(reference, actual, strict=True))
    # NaN is outside any tolerance.
    passed = bool(relative <= tolerances.relative and cosine >= tolerances.cosine)
    message = (
        ""
        if passed
        else (
            f"{name}: relative error {relative:.2g} and cosine {cosine:.6f}, should be at most {tolerances.relative:g}"
            f" and at least {tolerances.cosine:g} ({tolerances.origin})"
        )
    )
    return Finding("values", name, passed, message, measurements={"relative": float(relative), "cosine": float(cosine)})


def _cosine(first: np.ndarray, second: np.ndarray) -> float:
    norms = np.linalg.norm(first) * np.linalg.norm(second)
    if norms == 0:
        return 1.0 if np.array_equal(first, second) else 0.0
    return float(first @ second / norms)


def validate(
    made: TracedModel,
    model: torch.nn.Module,
    *,
    onnx_config: OnnxConfig | None = None,
    tolerances: Tolerances | None = None,
) -> list[Finding]:
    """Compare the compiled model with the model itself, on eight inputs of the compiled shape.

    Args:
        made: what `trace` or `load` returns.
        model: the model that was compiled.
        onnx_config: the OnnxConfig given to `trace`, if any.
        tolerances: the limits; None allows the expected error of bfloat16.

    Raises:
        NameMismatch, ShapeMismatch, ValueMismatch: the compiled model answers differently.
    """
    from parity.reference import answers
    from parity.torchscript.untying import twin
    from parity.torchscript.verdicts import TrialSetup
    from parity.validation import backend_inputs

    subject = TrialSetup.for_trace(made, model, onnx_config=onnx_config)
    source, config = subject.source, subject.onnx_config
    samples = [source.generate(), *(source.generate(seed=seed) for seed in range(1, _POOL))]
    references = [answer.eager for answer in answers(twin(model), config, samples, exact=False)]
    actual = [made.run(backend_inputs(config, sample)) for sample in samples]
    findings = judge_answers(references, actual, tolerances or Tolerances())
    require(findings)
    return findings


def require(findings: Sequence[Finding]) -> None:
    """Raise an error if a finding has failed.

    Raises:
        ValueMismatch, ShapeMismatch, NameMismatch: all failures in one message.
    """
    if failed := failures(findings):
        raise error_of(failed, "; ".join(finding.message for finding in failed))


def calibration(measurements: Mapping[str, Sequence[Mapping[str, float]]], sdk: str) -> dict[str, Any]:
    """The measurements of a run on a device, as the content of the file that `Tolerances.calibrated` reads.

    Args:
        measurements: architecture → relative error and cosine of each output of each cell.
        sdk: its name and version.
    """
    return {
        "sdk": sdk,
        "architectures": {
            name: {
                "relative": max(each["relative"] for each in outputs),
                "cosine": min(each["cosine"] for each in outputs),
                "outputs": len(outputs),
            }
            for name, outputs in sorted(measurements.items())
        },
    }
