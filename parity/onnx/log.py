"""A validation → the lines that `transformers.onnx` printed, and some that it did not."""

from __future__ import annotations

from collections.abc import Sequence

from parity.judge.ratio import REPORT
from parity.validation import Validation

_STEP = " " * 8
# The number of weights that are named; JSON has all.
_FIRST = 8


def validation_lines(validation: Validation, *, atol: float | None, expected_atol: float | None = None) -> list[str]:
    """The log of one validation, without its first line.

    Args:
        validation: the validation.
        atol: the requested hard limit; None if the error ratio decided alone.
        expected_atol: the configuration's `atol_for_validation`, to compare with if there is no hard limit.
    """
    names = "{" + ", ".join(repr(name) for name in validation.shapes) + "}"
    names_of = [each for each in validation.failures if each.check == "names"]
    wrong_names = [each for each in names_of if each.subject != "inputs" and not each.message.startswith("input ")]
    mark = "[x] ONNX model output names do not match" if wrong_names else "[✓] ONNX model output names match"
    lines = [f"{_STEP}-{mark} reference model ({names})"]
    lines += [f"{_STEP}- {finding.line}" for finding in validation.remarks]
    for name, shape in validation.shapes.items():
        lines.append(f'{_STEP}- Validating ONNX Model output "{name}":')
        lines += [f"{_STEP * 2}-{line}" for line in _output_lines(validation, name, shape, atol, expected_atol)]
    if validation.masked:
        lines.append(
            f"{_STEP}- judged {validation.values - validation.masked:,} of {validation.values:,} values;"
            f" {validation.masked:,} at masked positions, which have to be finite"
        )
    lines += [f"{_STEP}-{line}" for line in _weight_lines(validation)]
    if extent := str(validation.extent):
        lines.append(f"{_STEP}- tried: {extent}")
    shapes = list(dict.fromkeys(map(str, validation.samples)))
    bad = {finding.where for finding in validation.failures}
    worst = {sample: validation.worst(sizes=sample) for sample in shapes}
    told = [sample for sample in shapes if worst[sample] is not None or sample in bad]
    lines.append(f"{_STEP}- Validated at {len(told)} shapes:")
    for sample in told:
        largest = worst[sample]
        outcome = "nothing was compared" if largest is None else f"largest difference {largest:.2g}"
        lines.append(f"{_STEP * 2}-[{'x' if sample in bad else '✓'}] {sample}: {outcome}")
    return lines


def _output_lines(
    validation: Validation, name: str, shape: tuple[int, ...], atol: float | None, expected_atol: float | None
) -> list[str]:
    failed = [finding for finding in validation.failures if finding.subject in (name, "session")]
    if failed:
        return [f"[x] {finding.line}" for finding in failed]
    lines = [f"[✓] {shape} matches {shape}"]
    limit = atol if atol is not None else expected_atol
    worst, ratio = validation.worst(name), validation.ratios().get(name)
    if worst is None:
        return ["[x] not compared, as another check failed" if validation.failures else "not compared: see below"]
    if limit is None or worst <= limit:
        lines.append(f"[✓] all values close (atol: {limit})")
        if ratio is not None:
            lines.append(
                f"[✓] error ratio {ratio:.2f} ≤ {validation.limit:g}{_note(ratio)}; largest difference {worst:.2g}"
            )
    elif ratio is None:
        lines.append(f"[x] largest difference {worst:.2g}, above atol {limit}; not judged, as another check failed")
    else:
        lines.append(
            f"[✓] all values within the error ratio ({ratio:.2f} ≤ {validation.limit:g}){_note(ratio)};"
            f" largest difference {worst:.2g}, above atol {limit}"
        )
    return lines


def _weight_lines(validation: Validation) -> list[str]:
    weights = validation.weights
    if not weights:
        return []
    changed = [finding.line for finding in validation.failures if finding.check == "weights"]
    mark = "[x]" if changed else "[✓]" if weights["found"] else ""
    lines = [f"{mark} weights: {weights['found']} of {weights['needed']} found"]
    lines += [*(f"[x] {line}" for line in changed[:_FIRST]), *(f" {rest}" for rest in _rest(changed))]
    if weights["absent"]:
        lines.append(f" not found, so that values alone speak for them: {_names(weights['absent'])}")
    if weights["unexplained"]:
        lines.append(f" in the file, and no weight: {_names(weights['unexplained'])}")
    return lines


def _names(names: Sequence[str]) -> str:
    return ", ".join([*names[:_FIRST], *_rest(names)])


def _rest(items: Sequence[str]) -> list[str]:
    return [f"and {len(items) - _FIRST} more"] if len(items) > _FIRST else []


def _note(ratio: float) -> str:
    return f" (above {REPORT:g}: worth a look)" if ratio > REPORT else ""
