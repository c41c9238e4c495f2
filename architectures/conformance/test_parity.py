"""The file computes what the PyTorch model computes."""

import pytest

from parity.fixtures import subjects


def judge(cell, subject, session, measurements, sizes):
    pool = subjects.pool(cell.architecture, cell.feature, sizes, cell.attention, dtype=cell.dtype)
    verdict = subjects.verdict(subject, session, pool)
    measurements(**verdict.as_json())
    verdict.raise_on_failure()
    assert verdict.ratios()


def test_traced_sizes(cell, subject, session, measurements):
    """At the sizes of the export, on nine inputs, the pooled error ratio of every output is at most 4."""
    judge(cell, subject, session, measurements, "traced")


def test_other_sizes(cell, subject, session, measurements):
    """At other sizes of every dynamic axis, padded on either side, the pooled error ratio is at most 4."""
    judge(cell, subject, session, measurements, "other")


@pytest.mark.cells(every_opset=False)
def test_verdict_of_the_commands(cell, subject, artifact, measurements):
    """`parity.onnx` and `parity.check` pass the file on all of their checks, from contract to relations and effects."""
    from parity.onnx.proof import Artifact, Reference, judge_file
    from parity.registry import architecture

    def answer_from_pools(model, onnx_config, samples, **_):
        # The pools have the answers to the same samples, computed by the same function.
        traced, other = (
            subjects.pool(cell.architecture, cell.feature, sizes, dtype=cell.dtype) for sizes in ("traced", "other")
        )
        assert subjects.are_equal((*traced.samples[:1], *other.samples), samples, subject)
        return [*traced.answers[:1], *other.answers]

    relations = architecture(cell.architecture).relations_of(cell.feature)
    reference = Reference(subject.fresh_model, subject.source, relations, answers=answer_from_pools)
    verdict = judge_file(Artifact.read(artifact, opset=cell.opset), reference)
    measurements(**verdict.as_json())
    verdict.raise_on_failure()
    assert {row.check for row in verdict.findings} >= {
        "checker",
        "duplicates",
        "determinism",
        "ratio",
        "relation",
        "vacuity",
        "weights",
    }
