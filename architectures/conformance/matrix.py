"""The conformance matrix: the only place that multiplies architecture × feature × format × opset."""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import shlex
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from parity.architectures.conformance.choice import Choice, add_options, arguments_of, choice_of, require_cells
from parity.architectures.conformance.fifty import FIFTY
from parity.architectures.conformance.inf1 import EMULATION, NEURON_FEATURES, NEURON_IMAGE_SIZES, NEURON_SIZES
from parity.console import complain, prepare_streams, print_text, run_guarded
from parity.declaration import Architecture
from parity.dtypes import DEFAULT_DTYPE, DTYPES
from parity.exporters import DEFAULT_EXPORTER, EXPORTERS
from parity.opsets import MAXIMUM_OPSET, MINIMUM_OPSET, SDPA_MINIMUM_OPSET
from parity.registry import architectures, refusals
from parity.words import FORMATS as FORMATS

# Opsets at which scaled_dot_product_attention is tested too, besides eager attention.
SDPA_OPSETS = (SDPA_MINIMUM_OPSET, MAXIMUM_OPSET)
# Smoke runs the lowest, one in the middle and the highest.
_SMOKE_OPSETS = (MINIMUM_OPSET, 17, MAXIMUM_OPSET)
# Runs the matrix from any installation.
_COMMAND = ("pytest", "-n", "auto", "--pyargs", "parity.architectures")
_DEFAULTS = {"exporter": DEFAULT_EXPORTER, "dtype": DEFAULT_DTYPE}


@dataclass(frozen=True)
class Cell:
    """The subject of a claim: a feature of an architecture in one format, run by one runtime.

    Args:
        architecture, feature: of the model.
        format: one of `FORMATS`.
        runtime: what runs the file.
        opset: of the ONNX file; None for other formats.
        attention: the exported implementation; below opset 14 only eager exists.
        smoke: whether the cell is in the smoke run.
        variant: distinguishes cells of one architecture, feature and format, such as by fixed sizes.
        exporter, dtype: exporter of the ONNX file and type of the weights; the id omits the defaults.
    """

    architecture: str
    feature: str
    format: str
    runtime: str
    opset: int | None = None
    attention: str = "eager"
    smoke: bool = False
    variant: str = ""
    exporter: str = DEFAULT_EXPORTER
    dtype: str = DEFAULT_DTYPE

    @property
    def group(self) -> str:
        """Cells of one architecture and feature share the model and its answers, so one worker runs them."""
        return f"{self.architecture}-{self.feature}"

    @property
    def id(self) -> str:
        parts = [f"{self.group}-{self.format}{'' if self.opset is None else self.opset}"]
        defaults = ("", "eager", DEFAULT_EXPORTER, DEFAULT_DTYPE)
        parts += [part for part in (self.attention, self.exporter, self.dtype, self.variant) if part not in defaults]
        return "-".join(parts)

    @property
    def sizes(self) -> dict[str, int]:
        """The sizes of the named axes that the variant fixes; empty if it fixes none."""
        name = self.variant.removesuffix(f"-{EMULATION}")
        return dict({**NEURON_SIZES, **NEURON_IMAGE_SIZES}.get(name, {}))

    def emulation(self) -> Cell:
        """The cell with torch in place of Neuron's tracer; its id and runtime distinguish it from cells of Inf1."""
        return replace(self, runtime=EMULATION, variant=f"{self.variant}-{EMULATION}")

    def as_json(self) -> dict[str, Any]:
        omissions = {"smoke", *(name for name, default in _DEFAULTS.items() if getattr(self, name) == default)}
        return {"id": self.id, **{name: value for name, value in asdict(self).items() if name not in omissions}}


def minimum_opset(
    architecture: Architecture,
    feature: str,
    *,
    attention: str = "eager",
    exporter: str = DEFAULT_EXPORTER,
    dtype: str = DEFAULT_DTYPE,
) -> int:
    """The lowest opset that a feature is claimed for.

    Args:
        architecture: the declaration.
        feature: of the architecture.
        attention: its implementation.
        exporter, dtype: of the file.
    """
    floor = architecture.floor_of(feature, attention=attention, exporter=exporter, dtype=dtype)
    own = EXPORTERS[exporter].opsets.start
    return max(own, floor.opset) if floor else own


@functools.cache
def cells() -> tuple[Cell, ...]:
    """Every cell, by architecture and feature; those of ONNX by opset, then those of the other formats."""
    return tuple(_cells())


def _cells() -> Iterator[Cell]:
    for architecture in architectures():
        for feature in architecture.features:
            attentions = ("eager", "sdpa") if architecture.has_sdpa(feature) else ("eager",)
            for exporter, dtype in itertools.product(EXPORTERS, DTYPES):
                options = {"exporter": exporter, "dtype": dtype}
                lowest = {each: minimum_opset(architecture, feature, attention=each, **options) for each in attentions}
                for opset, attention in itertools.product(EXPORTERS[exporter].opsets, attentions):
                    if opset < lowest[attention] or (attention == "sdpa" and opset not in SDPA_OPSETS):
                        continue
                    smoke_opsets = {max(each, lowest[attention]) for each in _SMOKE_OPSETS}
                    smoke = feature in architecture.smoke and opset in smoke_opsets
                    yield Cell(architecture.name, feature, "onnx", "onnxruntime", opset, attention, smoke, **options)
            smoke = feature in architecture.smoke
            for attention in attentions:
                yield Cell(architecture.name, feature, "torchscript", "torch", None, attention, smoke)
            if feature in NEURON_FEATURES.get(architecture.name, ()):
                sizes = NEURON_IMAGE_SIZES if architecture.kind == "vision" else NEURON_SIZES
                for index, variant in enumerate(sizes):
                    first = smoke and index == 0
                    yield Cell(architecture.name, feature, "neuron", "neuron", variant=variant, smoke=first)


def counts(cells: Collection[Cell]) -> dict[str, int]:
    """The numbers of architectures, features of architectures, ONNX files, and cells of all formats."""
    return {
        "architectures": len({cell.architecture for cell in cells}),
        "features": len({cell.group for cell in cells}),
        "files": sum(cell.format == "onnx" for cell in cells),
        "cells": len(cells),
    }


def main(argv: Sequence[str] | None = None, prog: str = "parity matrix") -> int:
    """List and count the cells; returns the exit status, 1 if a declaration is refused."""
    parser = argparse.ArgumentParser(prog, description="List and count the cells of the conformance matrix.")
    parser.add_argument("--json", action="store_true", help="one JSON object whose `cells` is a list")
    add_options(parser.add_argument)
    prepare_streams()
    args = parser.parse_args(argv)
    try:
        choice = choice_of(vars(args))
        matrix = [cell for cell in cells() if not choice or choice.has(cell)]
        require_cells(choice, matrix)
    except ValueError as error:
        parser.error(str(error))
    return run_guarded(prog, lambda: _print_matrix(matrix, choice, prog, as_json=args.json))


def _print_matrix(matrix: Sequence[Cell], choice: Choice, prog: str, *, as_json: bool) -> int:
    for sentence in dict.fromkeys(refusals().values()):
        complain(f"{prog}: error: {sentence}")
    status = 1 if refusals() else 0
    command = shlex.join([*_COMMAND, *arguments_of(choice)])
    every, fifty = counts(matrix), counts([cell for cell in matrix if cell.architecture in FIFTY])
    if as_json:
        facts = {"cells": [cell.as_json() for cell in matrix], "counts": {"all": every, "fifty": fifty}}
        print_text(json.dumps({**facts, "count": len(matrix), "command": command}))
        return status
    groups = Counter((cell.architecture, cell.feature) for cell in matrix)
    opsets: dict[tuple[str, str], set[int]] = defaultdict(set)
    for cell in matrix:
        opsets[cell.architecture, cell.feature].update(() if cell.opset is None else [cell.opset])
    print_text(f"{'architecture':16}{'feature':28}{'opsets':10}cells")
    for (architecture, feature), count in groups.items():
        own = opsets[architecture, feature]
        text = f"{min(own)}–{max(own)}" if len(own) > 1 else "".join(map(str, own)) or "–"
        print_text(f"{architecture:16}{feature:28}{text:10}{count}")
    print_text(f"\n{'':16}{'architectures':15}{'features':10}{'ONNX files':12}cells")
    for totals, name in ((fifty, "of the document"), (every, "all")):
        architecture_count, feature_count = totals["architectures"], totals["features"]
        print_text(f"{name:16}{architecture_count:<15}{feature_count:<10}{totals['files']:<12,}{totals['cells']:,}")
    print_text(f"\nrun by: {command}")
    return status


if __name__ == "__main__":
    raise SystemExit(main())
