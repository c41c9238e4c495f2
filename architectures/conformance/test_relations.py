"""Equivalent inputs get the same answer."""

import pytest

from parity import reruns
from parity.fixtures import subjects
from parity.judge import relations
from parity.judge.findings import failures
from parity.registry import architecture
from parity.sessions import OnnxSession


def pool_of(cell, relation):
    """Relations of padding get inputs without any; the others get inputs padded on either side."""
    sizes = "varied" if relation.startswith("padding") else "other"
    return subjects.pool(cell.architecture, cell.feature, sizes, dtype=cell.dtype)


def judge(pool, relation, first, second, **limits):
    """Findings on one relation, in units of the reference's noise."""
    return relations.judge_relation(relation, pool.with_actual(first), second, **limits)


def ask(subject, pool, relation, run, first):
    """A backend's answers to the pool transformed by the relation; `first` are its answers to the pool itself."""
    return reruns.relation_answers(subjects.padded_signature(subject), relation, run, pool.inputs, first)


def float64_relations(cell, subject):
    """The relations that hold for the float64 model."""
    names = [name for name in relations.RELATIONS if relations.applies(name, subjects.padded_signature(subject))]
    holding = []
    with subjects.float64(subject) as run:
        for relation in names:
            pool = pool_of(cell, relation)
            second = ask(subject, pool, relation, run, pool.exact)
            if not failures(judge(pool, relation, pool.exact, second, limit=relations.EXACT_LIMIT)):
                holding.append(relation)
    return holding


@pytest.mark.cells(every_opset=False)
def test_float64_has_the_recorded_relations(cell, subject):
    """The relations of the float64 model are those declared: none is missing, none is new."""
    recorded = architecture(cell.architecture).relations_of(cell.feature)
    found = float64_relations(cell, subject)
    lost, new = sorted(set(recorded) - set(found)), sorted(set(found) - set(recorded))
    assert (lost, new) == ([], []), f"{cell.group}: lost {lost}, new {new}; should read {' '.join(found)!r}"


@pytest.mark.cells(every_opset=False)
def test_relations(cell, subject, session, measurements):
    """The file keeps every declared relation, within four times the noise."""
    recorded = architecture(cell.architecture).relations_of(cell.feature)
    assert recorded
    for relation in recorded:
        pool = pool_of(cell, relation)
        first = [session.run(inputs) for inputs in pool.inputs]
        findings = judge(pool, relation, first, ask(subject, pool, relation, session.run, first))
        assert [finding.message for finding in failures(findings)] == []
        measurements(**{relation: max(finding.measurements["ratio"] for finding in findings)})


@pytest.mark.cells(every_opset=False)
def test_optimisations(cell, subject, session, artifact):
    """ONNX Runtime with all optimisations answers as without any, within four times the noise."""
    pool = pool_of(cell, "optimisations")
    inputs, plain = pool.inputs, OnnxSession(artifact, optimise=False)
    sides = [[runtime.run(each) for each in inputs] for runtime in (session, plain)]
    assert [finding.message for finding in failures(judge(pool, "optimisations", *sides))] == []


@pytest.mark.cells(every_opset=False)
def test_determinism(cell, subject, session):
    """Two runs of one session give equal bits, at every size."""
    pool = pool_of(cell, "determinism")
    findings = [
        finding
        for sizes, inputs in zip(pool.sizes, pool.inputs, strict=True)
        for finding in relations.judge_determinism(session.run(inputs), session.run(inputs), sizes)
    ]
    assert findings
    assert [finding.message for finding in failures(findings)] == []


@pytest.mark.cells(every_opset=False)
def test_reference_unchanged(cell, subject, artifact):
    """The exported model equals a fresh one: weights, modes, configuration, and answers from before the export."""
    assert artifact.exists()
    assert subjects.changes(subject) == []
