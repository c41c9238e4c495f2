"""The exporters to ONNX, by name. One entry is all that a new exporter takes."""

from __future__ import annotations

from dataclasses import dataclass

from parity.opsets import OPSETS

DEFAULT_EXPORTER = "trace"


@dataclass(frozen=True)
class Entry:
    """The class of an exporter, by its name in `parity.onnx.exporter`, which loads it; and the opsets it can write."""

    class_name: str
    opsets: range


EXPORTERS: dict[str, Entry] = {
    "trace": Entry("TraceExporter", OPSETS),
}
