"""The outcome of one check of one subject, and the sentence that reports a fault."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any

from parity.errors import DtypeMismatch, Mismatch, NameMismatch, ParityError, SessionError, ShapeMismatch, ValueMismatch

# Every check of a finding → the error of its failure.
CHECKS: Mapping[str, type[ParityError]] = MappingProxyType(
    {
        "load": SessionError,
        "run": SessionError,
        "names": NameMismatch,
        "dtype": DtypeMismatch,
        "shape": ShapeMismatch,
        "opset": ValueMismatch,
        "mode": ValueMismatch,
        "axes": ValueMismatch,
        "checker": ValueMismatch,
        "data": ValueMismatch,
        "duplicates": ValueMismatch,
        "unused": ValueMismatch,
        "overridable": ValueMismatch,
        "operators": ValueMismatch,
        "weights": ValueMismatch,
        "precision": ValueMismatch,
        "drift": ValueMismatch,
        "determinism": ValueMismatch,
        "nonfinite": ValueMismatch,
        "values": ValueMismatch,
        "ratio": ValueMismatch,
        "decision": ValueMismatch,
        "relation": ValueMismatch,
        "vacuity": ValueMismatch,
        "cache": ValueMismatch,
        "tokens": ValueMismatch,
    }
)


@dataclass(frozen=True)
class Finding:
    """The outcome of one check of one subject.

    Args:
        check: one of `CHECKS`.
        subject: the object of the check: an output, an input, the file.
        passed: whether the check holds.
        message: `<subject>: <got>, should be <expected>`; empty if the check holds and there is nothing to remark.
        where: the sizes of the check, as text; empty for the file itself.
        measurements: the measured values, by name.
    """

    check: str
    subject: str
    passed: bool
    message: str = ""
    where: str = ""
    measurements: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.check not in CHECKS:
            raise ValueError(f"check: got {self.check!r}, should be one of {', '.join(CHECKS)}")

    @property
    def line(self) -> str:
        """The message with the sizes of the check."""
        return f"at {self.where}: {self.message}" if self.where else self.message

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def remarks(findings: Iterable[Finding]) -> list[Finding]:
    """The findings that hold and have a message nevertheless."""
    return [finding for finding in findings if finding.passed and finding.message]


def failures(findings: Iterable[Finding]) -> list[Finding]:
    """The findings that do not hold."""
    return [finding for finding in findings if not finding.passed]


def error_of(failed: Sequence[Finding], message: str) -> ParityError:
    """The error for these failures: its class is that of the first, and it has all of them."""
    error = CHECKS[failed[0].check]
    return error(message, failed) if issubclass(error, Mismatch) else error(message)
