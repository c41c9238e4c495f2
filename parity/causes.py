"""Findings on a file → the one cause that explains them, as the sentence to report first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from parity.axes import Axes, is_text
from parity.judge.findings import Finding, failures

if TYPE_CHECKING:
    from parity.samples import Sample


# If fewer weights stay as they are, their absence says nothing.
_MANY = 8


def cause_of(findings: Sequence[Finding], samples: Sequence[Sample], traced: Mapping[str, int], outputs: Axes) -> str:
    """The sentence that explains the failures; empty if there is no single cause, so that the numbers are reported.

    In this order: a file of another checkpoint, an input or output that is missing or unknown, a weight, which nothing
    else explains, an axis that is baked in, padding on the left, every token from some
    position on.

    Args:
        findings: all findings on the file.
        samples: the inputs that it ran on.
        traced: the size of every named axis at the export.
        outputs: the named axes of its outputs.
    """
    failed = failures(findings)
    bad = {each.where for each in failed if each.where}
    # Of a rounded file whose graph is not judged, drift alone is measured.
    everywhere = {str(sample) for sample in samples} <= bad or any(each.check == "drift" for each in failed)
    if everywhere and (sentence := _other_checkpoint(findings)):
        return sentence
    if names := [each for each in failed if each.check == "names" and not each.where]:
        return names[0].line
    if weights := [each for each in failed if each.check in ("weights", "precision")]:
        return weights[0].line
    numbers = [each for each in failed if each.where]
    right, wrong = ([sample for sample in samples if (str(sample) in bad) is fails] for fails in (False, True))
    if right and wrong:
        refuses = any(each.check in ("run", "shape") for each in numbers)
        telling = [sample for sample in right if refuses or not _is_one_token(sample)]
        if sentence := _baked_axis(telling, wrong, traced) or _left_padding(right, wrong):
            return sentence
    return _first_token(numbers, samples, outputs)


def _other_checkpoint(findings: Sequence[Finding]) -> str:
    """The sentence for a file that holds none of the weights, if there are many that no exporter folds."""
    for each in findings:
        if each.check == "weights" and each.subject == "file":
            needed, found = each.measurements["needed"], each.measurements["telling"]
            if each.measurements["unfoldable"] >= _MANY and not found:
                return (
                    f"checkpoint: the file holds none of its {needed} weights and is wrong at every input; it was"
                    " exported from another checkpoint, give that one"
                )
    return ""


def _is_one_token(sample: Sample) -> bool:
    """Whether its texts have one token each: such samples pass even if attention is wrong, so they explain nothing."""
    texts = [size for name, size in sample.sizes.items() if is_text(name)]
    return bool(texts) and max(texts) == 1


def _baked_axis(right: Sequence[Sample], wrong: Sequence[Sample], traced: Mapping[str, int]) -> str:
    """The sentence that names the axis, if the file is right at one size of it only.

    If several axes would explain it, prefer one that is right at the size of our own export. If right and wrong samples
    share no padding, padding alone may be the cause.
    """
    common = {sample.padding for sample in right} & {sample.padding for sample in wrong}
    if not common:
        return ""
    explanations = []
    for name, export_size in traced.items():
        sizes = {sample.sizes.get(name) for sample in right}
        size = next(iter(sizes)) if len(sizes) == 1 else None
        if size is not None and all(sample.sizes.get(name) != size for sample in wrong):
            explanations.append((size != export_size, name, size))
    if not explanations:
        return ""
    foreign, name, size = min(explanations)
    known = "" if foreign else ", the size of the export,"
    return (
        f"axis {name}: the file is right if {name} is {size}{known} and wrong at every other size tried; the"
        " size has become a constant, though the file declares the axis dynamic"
    )


def _left_padding(right: Sequence[Sample], wrong: Sequence[Sample]) -> str:
    # Of rows that are each padded in a way of their own, some are padded on the left.
    padded = ("left", "mixed")
    if any(sample.padding not in padded for sample in wrong) or any(sample.padding in padded for sample in right):
        return ""
    if all(sample.padding == "mixed" for sample in wrong):
        return ""
    return (
        "padding: the file is wrong if rows are padded on the left, and right at every other input; it counts positions"
        " from the padding, export it with position ids or pad on the right"
    )


def _first_token(numbers: Sequence[Finding], samples: Sequence[Sample], outputs: Axes) -> str:
    """The sentence that names the first wrong token, if shorter texts are right and longer ones wrong from there on."""
    firsts: dict[str, int] = {}
    axis_name = ""
    for each in numbers:
        texts = [(axis, name) for axis, name in outputs.get(each.subject, {}).items() if is_text(name)]
        if each.check != "values" or "first" not in each.measurements or not texts:
            continue
        axis, axis_name = texts[0]
        first = each.measurements["first"][axis]
        firsts[each.where] = min(first, firsts.get(each.where, first))
    token = min(firsts.values(), default=0)
    if not token or {*firsts} != {each.where for each in numbers}:
        return ""
    sizes = {str(sample): sample.sizes.get(axis_name, 0) for sample in samples}
    longer = {where for where, size in sizes.items() if size > token}
    # A padded text may have fewer tokens.
    full = {str(sample) for sample in samples if not sample.padding and sizes[str(sample)] > token}
    if not full <= {*firsts} <= longer or len(longer) == len(sizes):
        return ""
    return f"tokens: the file is wrong from token {token} on, counted from 0, and right before it"
