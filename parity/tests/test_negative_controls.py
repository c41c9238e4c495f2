"""Every check is shown to fail on a specimen that is wrong in just that way, and to pass on the healthy control."""

import pytest

from parity.errors import ParityError
from parity.fixtures import subjects
from parity.fixtures.specimens import HEALTHY, OPSET, SPECIMENS
from parity.judge import contract
from parity.judge.rows import failures
from parity.sessions import OnnxSession

BY_NAME = {specimen.name: specimen for specimen in SPECIMENS}


@pytest.fixture(scope="module")
def bert():
    return subjects.subject("bert", "default")


def judged(bert, path):
    """All failures, in the order in which the matrix and the commands judge: contract, then values."""
    tensors = bert.source.layout.flatten(bert.source.dummy)
    rows = contract.rows_of(contract.read(path), bert.onnx_config, tensors, opset=OPSET)
    if failures(rows):
        return failures(rows), ""
    found = subjects.verdict(bert, OnnxSession(path), subjects.pool("bert", "default", "other"))
    return found.failures, found.message()


def test_the_healthy_control_passes(bert, tmp_path):
    """A correct export fails no check."""
    HEALTHY.write(bert, tmp_path / "model.onnx")
    assert judged(bert, tmp_path / "model.onnx") == ([], "")


@pytest.mark.parametrize("specimen", SPECIMENS, ids=str)
def test_each_specimen_is_caught_by_its_check(bert, specimen, tmp_path):
    """The first failure is that of the check made for this fault, and its message names something."""
    specimen.write(bert, tmp_path / "model.onnx")
    rows, _ = judged(bert, tmp_path / "model.onnx")
    assert [row.check for row in rows][:1] == [specimen.caught_by]
    assert all(row.message for row in rows)


def test_every_check_has_a_specimen():
    """No check of the contract, of one call's values or of the pool is without a specimen."""
    checks = {"names", "opset", "mode", "dtype", "axes", "shape", "nonfinite", "ratio"}
    assert {specimen.caught_by for specimen in SPECIMENS} == checks


def test_a_baked_sequence_is_told_by_its_axis(bert, tmp_path):
    """With a hard limit the message says that the file is right only at the exported sequence length."""
    BY_NAME["baked-sequence"].write(bert, tmp_path / "model.onnx")
    from parity.reference import answers
    from parity.validation import choose_samples, compare

    samples = choose_samples(bert.source, longest=bert.longest)
    references = answers(bert.fresh_model(), bert.onnx_config, samples, consume=True)
    session = OnnxSession(tmp_path / "model.onnx")
    found = compare(session.run, bert.onnx_config, samples, references, atol=1e-4, traced=bert.source.axes)
    with pytest.raises(ParityError, match="axis sequence: the file is right where sequence is 8"):
        found.raise_on_failure()


def test_a_pool_of_traced_sizes_alone_misses_a_baked_sequence(bert, tmp_path):
    """Why other sizes are tried: at the exported length the baked file has nothing wrong with it."""
    BY_NAME["baked-sequence"].write(bert, tmp_path / "model.onnx")
    found = subjects.verdict(bert, OnnxSession(tmp_path / "model.onnx"), subjects.pool("bert", "default", "traced"))
    assert found.passed


def test_a_loosened_ratio_lets_a_fault_through(bert, tmp_path):
    """With a limit of a million the wrong value passes: it is the limit that catches it."""
    BY_NAME["wrong-value"].write(bert, tmp_path / "model.onnx")
    session, pool = OnnxSession(tmp_path / "model.onnx"), subjects.pool("bert", "default", "other")
    strict = subjects.verdict(bert, session, pool)
    loose = subjects.verdict(bert, session, pool, limit=1e9)
    assert (strict.passed, loose.passed) == (False, True)
