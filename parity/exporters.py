"""The exporters to ONNX, by name. A new exporter needs one entry."""

from __future__ import annotations

from dataclasses import dataclass

from parity.opsets import OPSETS

DEFAULT_EXPORTER = "trace"


@dataclass(frozen=True)
class Entry:
    """The name of an exporter's class in `parity.onnx.exporter`, which loads it, and the opsets that it can write."""

    class_name: str
    opsets: range


EXPORTERS: dict[str, Entry] = {
    "trace": Entry("TraceExporter", OPSETS),
}
