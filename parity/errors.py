"""One exception class per stage of an export, each with the exit status that the commands give it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Protocol

    class FailedCheck(Protocol):
        """The attributes of a failure that a handler may read; `parity.judge.findings.Finding` has them."""

        @property
        def check(self) -> str: ...

        @property
        def subject(self) -> str: ...

        @property
        def line(self) -> str: ...


class ParityError(Exception):
    """Base of all exceptions that parity raises on purpose; its text is one message for a person."""

    exit_status = 1
    stage = "parity"


class UsageError(ParityError, ValueError):
    """The request cannot be right: an unknown feature, an opset out of range, a missing path."""

    exit_status = 2
    stage = "usage"


class CheckpointError(ParityError, OSError):
    """A checkpoint exists but cannot be loaded whole: no weights, truncated, needing code to run."""

    stage = "load"


class EnvironmentGap(ParityError, RuntimeError):
    """The request needs a package, or a version of a package, that is not installed."""

    stage = "environment"


class ExportError(ParityError, RuntimeError):
    """The exporter raised, or did not write the file that was requested."""

    stage = "export"


class OutputError(ParityError, OSError):
    """The destination cannot be written."""

    stage = "write"


class SessionError(ParityError, RuntimeError):
    """The runtime refuses to load the artifact, or raises while running it."""

    stage = "session"


class Mismatch(ParityError, ValueError):
    """The artifact disagrees with its contract or with the reference; `findings` holds the failed checks."""

    stage = "comparison"

    def __init__(self, message: str, findings: Iterable[FailedCheck] = ()) -> None:
        super().__init__(message)
        self.findings: tuple[FailedCheck, ...] = tuple(findings)


class ContractMismatch(Mismatch):
    """Opset, names, order, ranks or dynamic axes read back from the file are not those requested."""

    stage = "contract"


class NameMismatch(ContractMismatch):
    """An output or input is missing, misnamed or out of order."""

    stage = "names"


class DtypeMismatch(Mismatch):
    """An output has another dtype than the reference."""

    stage = "dtype"


class ShapeMismatch(Mismatch):
    """An output has another shape than the reference."""

    stage = "shape"


class ValueMismatch(Mismatch):
    """An output has other values than the reference."""

    stage = "values"
