"""Every check is shown to fail on a specimen that is wrong in just that way, and to pass on the healthy control."""

import pytest

from parity.errors import ParityError
from parity.fixtures import subjects
from parity.fixtures.controls.faults import DATA_BESIDE, HEALTHY, OPSET, SPECIMENS
from parity.sessions import OnnxSession

BY_NAME = {specimen.name: specimen for specimen in SPECIMENS}


def judge(bert, path):
    """The verdict of the commands: contract, determinism, NaN, ratio, decisions, relations, effects."""
    from parity.onnx.proof import Artifact, Reference, judge_file
    from parity.registry import architecture

    reference = Reference(bert.fresh_model, bert.source, architecture("bert").relations_of("default"))
    return judge_file(Artifact.read(path, opset=OPSET), reference)


@pytest.mark.parametrize("specimen", [HEALTHY, DATA_BESIDE], ids=str)
def test_the_healthy_control_passes(bert, specimen, tmp_path):
    """A correct export fails no check, wherever its weights are."""
    specimen.write(bert, tmp_path / "model.onnx")
    found = judge(bert, tmp_path / "model.onnx")
    assert found.message() == ""
    assert {row.check for row in found.findings} >= {"checker", "duplicates", "ratio", "relation", "vacuity"}


def test_the_reference_gives_one_pool(bert):
    """Samples, answers, the file's inputs and the longest sequence are one thing."""
    from parity.judge.pool import Pool
    from parity.onnx.proof import Reference

    pool = Reference(bert.fresh_model, bert.source).pool()
    assert isinstance(pool, Pool)
    assert (pool.longest, pool.traced, pool.has_exact) == (bert.longest, bert.source.axes, True)
    assert len(pool.inputs) == len(pool.samples) == len(pool)


@pytest.mark.parametrize("specimen", SPECIMENS, ids=str)
def test_each_specimen_is_caught_by_its_check(bert, specimen, tmp_path):
    """The first failure is that of the check made for this fault, and its message names something."""
    specimen.write(bert, tmp_path / "model.onnx")
    rows = judge(bert, tmp_path / "model.onnx").failures
    assert [row.check for row in rows][:1] == [specimen.caught_by]
    assert all(row.message for row in rows)


def test_every_check_has_a_specimen():
    """No check of the contract, of one call's values or of the pool is without a specimen."""
    checks = {"checker", "names", "opset", "mode", "dtype", "axes", "duplicates", "data", "shape", "nonfinite", "ratio"}
    assert {specimen.caught_by for specimen in SPECIMENS} == checks


def test_a_baked_sequence_is_told_by_its_axis(bert, tmp_path):
    """With a hard limit the message says that the file is right only at the exported sequence length."""
    BY_NAME["baked-sequence"].write(bert, tmp_path / "model.onnx")
    from parity.reference import answers
    from parity.shapes import choose_samples
    from parity.validation import Criteria, compare, pool_of

    samples = choose_samples(bert.source, longest=bert.longest)
    pool = pool_of(bert.source, samples, answers(bert.fresh_model(), bert.onnx_config, samples, consume=True))
    found = compare(OnnxSession(tmp_path / "model.onnx").run, bert.onnx_config, pool, Criteria(atol=1e-4))
    with pytest.raises(ParityError, match="axis sequence: the file is right where sequence is 8"):
        found.raise_on_failure()


def test_a_pool_of_traced_sizes_alone_misses_a_baked_sequence(bert, tmp_path):
    """Why other sizes are tried: at the exported length the baked file has nothing wrong with it."""
    BY_NAME["baked-sequence"].write(bert, tmp_path / "model.onnx")
    found = subjects.verdict(bert, OnnxSession(tmp_path / "model.onnx"), subjects.pool("bert", "default", "traced"))
    assert found.passed


@pytest.mark.parametrize(("limit", "passed"), [(4, False), (400, True)])
def test_a_limit_of_400_lets_a_fault_through(bert, limit, passed, tmp_path):
    """A bias off by a ten-thousandth has a ratio well between 4 and 400: it is the limit of 4 that catches it."""
    BY_NAME["slightly-wrong-value"].write(bert, tmp_path / "model.onnx")
    from parity.validation import Criteria

    session, pool = OnnxSession(tmp_path / "model.onnx"), subjects.pool("bert", "default", "other")
    found = subjects.verdict(bert, session, pool, Criteria(limit=limit))
    assert found.passed is passed
