"""A file of another exporter as one of ours: its names, its types of ids, its sizes, and how strictly it is judged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from parity.axes import HasAxes, is_sum, parts
from parity.dtypes import is_floating
from parity.judge.contract import Contract
from parity.judge.findings import Finding
from parity.judge.names import Matching
from parity.judge.pool import Arrays

if TYPE_CHECKING:
    from parity.judge.relations import Run

# Findings that make a file larger, or stricter, than necessary, and no answer wrong.
_REMARKS = frozenset({"duplicates", "unused", "overridable"})
# Inputs without which a file answers like the model without them, so that its answers can be right.
_OPTIONAL = frozenset({"token_type_ids"})
# Outputs that a file can lack and still serve its feature.
_SPARE = frozenset({"pooler_output", "encoder_last_hidden_state"})
# The key of a parity file's metadata that says which version wrote it.
OWN = "parity"


@dataclass(frozen=True)
class View:
    """A file of another exporter, under the model's names.

    Args:
        contract: of the file.
        inputs, outputs: the file's names and the model's.
        declared: the outputs of the feature, which its users may request.
    """

    contract: Contract
    inputs: Matching
    outputs: Matching
    declared: frozenset[str] = frozenset()
    _types: Mapping[str, str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_types", {value.name: value.dtype for value in self.contract.inputs})

    @property
    def renamed(self) -> Contract:
        """The contract with the model's names, ids as int64 and halves as float32; unmatched inputs keep their names.

        Unknown outputs are left out, because `failures` reports them and nothing judges them.
        """
        known = {**self.inputs.names, **self.outputs.names}
        inputs = [
            replace(value, name=known.get(value.name, value.name), dtype=_wide(value.dtype))
            for value in self.contract.inputs
        ]
        outputs = [
            replace(value, name=known[value.name], dtype=_wide(value.dtype))
            for value in self.contract.outputs
            if value.name in known
        ]
        return replace(self.contract, inputs=tuple(inputs), outputs=tuple(outputs))

    @property
    def left_out(self) -> tuple[str, ...]:
        """The model's inputs that the file lacks, although it can still be right."""
        return tuple(name for name in self.inputs.missing if name in _OPTIONAL)

    def adapt(self, run: Run) -> Run:
        """A run of the file under the model's names, with each input in the type that the file declares."""
        outputs = self.outputs.names

        def adapted(inputs: Arrays) -> dict[str, np.ndarray]:
            feed = {
                own: _cast(inputs[name], self._types[own]) for own, name in self.inputs.names.items() if name in inputs
            }
            feed.update({name: inputs[name] for name in self.inputs.unknown if name in inputs})
            answers = run(feed)
            return {outputs[name]: array for name, array in answers.items() if name in outputs}

        return adapted

    def fixed_sizes(self, onnx_config: HasAxes) -> dict[str, int]:
        """Axis name of the configuration → size, for the axes that the file takes at one size only."""
        own = {value.name: value for value in self.renamed.inputs}
        sizes: dict[str, int] = {}
        sums: list[tuple[str, int]] = []
        for name, axes in onnx_config.inputs.items():
            for axis, axis_name in axes.items():
                size = own[name].axes[axis] if name in own and axis < len(own[name].axes) else None
                if isinstance(size, int):
                    if is_sum(axis_name):
                        sums.append((axis_name, size))
                    else:
                        sizes.setdefault(axis_name, size)
        for axis_name, size in sums:
            rest = [part for part in parts(axis_name) if part not in sizes]
            if len(rest) == 1:
                sizes[rest[0]] = size - sum(sizes[part] for part in parts(axis_name) if part in sizes)
        return sizes

    def remarks(self) -> Iterator[Finding]:
        """Remarks on names, types and inputs that a caller has to know and that are no faults."""
        for side, matching in (("input", self.inputs), ("output", self.outputs)):
            for own in matching.by_place:
                message = f"{side} {own}: has none of the model's names, matched with {matching.names[own]} by position"
                yield Finding("names", own, True, message)
        for value in self.contract.inputs:
            if value.name in self.inputs.names and value.dtype in ("int32", "float16", "bfloat16"):
                yield Finding("dtype", value.name, True, f"input {value.name}: is given as {value.dtype}, as declared")
        for name in self.outputs.missing:
            if name in self.declared & _SPARE:
                yield Finding("names", name, True, f"output {name}: the file does not have it")
        for name in self.left_out:
            message = f"input {name}: the file does not have it, and answers as if it were 0"
            yield Finding("names", name, True, message)

    def failures(self) -> Iterator[Finding]:
        """A finding for each input and output that is missing, and for each that is unknown."""
        for name in self.inputs.missing:
            if name not in _OPTIONAL:
                message = f"input {name}: is missing, should be an input of the file; export it with one"
                yield Finding("names", name, False, message)
        for name in self.inputs.unknown:
            message = f"input {name}: is not an input of the model; name the model's input for it with --names"
            yield Finding("names", name, False, message)
        for name in self.outputs.missing:
            if name in self.declared - _SPARE:
                message = f"output {name}: is missing, should be an output of the file; export it with one"
                yield Finding("names", name, False, message)
        for name in self.outputs.unknown:
            message = f"output {name}: is not an output of the model; name the model's output for it with --names"
            yield Finding("names", name, False, message)


def soften(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Findings on a file of another exporter: a fault that makes no answer wrong becomes a remark."""
    for finding in findings:
        if finding.passed or not (finding.check in _REMARKS or _is_freedom(finding)):
            yield finding
        else:
            yield replace(finding, passed=True)


def _is_freedom(finding: Finding) -> bool:
    """Whether the only fault is an axis that is dynamic and need not be, or a symbol's name."""
    if finding.check != "axes":
        return False
    return finding.message.startswith("symbol ") or "is fixed to" not in finding.message


def drop_fixed(findings: Iterable[Finding]) -> list[Finding]:
    """The findings without those on fixed axes: the file is judged at those sizes, which is reported separately."""
    return [each for each in findings if each.check != "axes" or "is fixed to" not in each.message]


def _wide(dtype: str) -> str:
    if dtype == "int32":
        return "int64"
    return "float32" if dtype in ("float16", "bfloat16") else dtype


def _cast(array: np.ndarray, dtype: str) -> np.ndarray:
    """The array in the type that a file declares for it."""
    if array.dtype.name == dtype:
        return array
    if dtype == "bfloat16":
        import ml_dtypes

        return array.astype(ml_dtypes.bfloat16)
    both_whole = not is_floating(array.dtype) and "int" in dtype
    if both_whole or dtype == "bool" or (is_floating(array.dtype) and "float" in dtype):
        return array.astype(dtype)
    return array
