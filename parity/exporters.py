"""The exporters to ONNX, by name. One entry is all that a new exporter takes."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from parity.opsets import MAXIMUM_OPSET, MINIMUM_OPSET

DEFAULT_EXPORTER = "trace"


@dataclass(frozen=True)
class Entry:
    """Where an exporter is, and the opsets that it can write.

    Args:
        target: the dotted name of its class, imported when it is used: naming exporters costs no torch.
    """

    target: str
    opsets: range


EXPORTERS: dict[str, Entry] = {
    "trace": Entry("parity.onnx.exporter.TraceExporter", range(MINIMUM_OPSET, MAXIMUM_OPSET + 1)),
}


def load(name: str = DEFAULT_EXPORTER) -> type[Any]:
    """The class of an exporter.

    Raises:
        KeyError: there is none of that name.
    """
    module, _, attribute = EXPORTERS[name].target.rpartition(".")
    return getattr(importlib.import_module(module), attribute)
