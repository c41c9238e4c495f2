"""A comparison can fail: every output says something, every input has a say, and what is declared dead is."""

import pytest

from parity.fixtures import subjects
from parity.judge import vacuity
from parity.judge.findings import failures


@pytest.mark.cells(every_opset=False)
def test_outputs_say_something(cell, subject):
    """No output of the reference is near zero or the same everywhere: there any file would pass."""
    for sizes in ("traced", "other"):
        pool = subjects.pool(cell.architecture, cell.feature, sizes, dtype=cell.dtype)
        findings = vacuity.judge_outputs(pool.exact)
        assert [finding.subject for finding in findings] == list(subject.onnx_config.outputs)
        assert [finding.message for finding in failures(findings)] == []


@pytest.mark.cells(every_opset=False)
def test_inputs_have_effect(cell, subject, session):
    """Each input moves the same outputs of reference and file; exactly those declared dead move nothing, to the bit."""
    pool = subjects.pool(cell.architecture, cell.feature, "varied", dtype=cell.dtype)
    first, changes = subjects.single_changes(pool)
    assert set(changes) == set(subject.onnx_config.inputs)
    assert set(subject.onnx_config.dead_inputs) <= set(changes)
    with subjects.float64(subject) as run:
        reference = effects_on(run, first, changes)
    file = effects_on(session.run, first, changes)
    findings = vacuity.judge_effects(reference, file, pool.noise, dead=subject.onnx_config.dead_inputs)
    assert [finding.message for finding in failures(findings)] == []


def effects_on(run, first, changes):
    """What a backend answers to an input, and to each changed one."""
    return vacuity.Effects(run(first), {name: run(inputs) for name, inputs in changes.items()})
