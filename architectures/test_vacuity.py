"""A comparison can fail: every output says something, every input has a say, and what is declared dead is."""

import pytest

from parity.fixtures import subjects
from parity.judge import vacuity
from parity.judge.rows import failures


@pytest.mark.cells(every_opset=False)
def test_outputs_say_something(cell, subject):
    """No output of the reference is near zero or the same everywhere: there any file would pass."""
    for sizes in ("traced", "other"):
        pool = subjects.pool(cell.architecture, cell.feature, sizes)
        rows = vacuity.outputs(pool.exact)
        assert [row.subject for row in rows] == list(subject.onnx_config.outputs)
        assert [row.message for row in failures(rows)] == []


@pytest.mark.cells(every_opset=False)
def test_inputs_have_effect(cell, subject, session):
    """Each input moves the same outputs of reference and file; exactly those declared dead move nothing, to the bit."""
    pool = subjects.pool(cell.architecture, cell.feature, "varied")
    first, changed = subjects.each_changed(subject, pool)
    assert set(changed) == set(subject.onnx_config.inputs)
    assert set(subject.onnx_config.dead_inputs) <= set(changed)
    with subjects.float64(subject) as run:
        exact = answers_of(run, first, changed)
    actual = answers_of(session.run, first, changed)
    rows = vacuity.effects(*exact, *actual, noise=pool.noise, dead=subject.onnx_config.dead_inputs)
    assert [row.message for row in failures(rows)] == []


def answers_of(run, first, changed):
    """What a backend answers to an input, and to each changed one."""
    return run(first), {name: run(inputs) for name, inputs in changed.items()}
