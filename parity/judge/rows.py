"""One verdict row: what was checked, whether it holds, and the sentence that says how it does not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True)
class Row:
    """One check of one subject.

    Args:
        check: the check's name: `opset`, `names`, `dtype`, `shape`, `values`, `ratio`, …
        subject: what was checked: an output, an input, the file.
        passed: whether it holds.
        message: `<subject>: <got>, should be <expected>`; empty when it holds.
        where: the sizes at which it was checked, as text; empty for the file itself.
        figures: measured figures by name.
    """

    check: str
    subject: str
    passed: bool
    message: str = ""
    where: str = ""
    figures: dict = field(default_factory=dict)

    def as_json(self) -> dict:
        return asdict(self)


def failures(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if not row.passed]
