"""Every check fails on a specimen with exactly that fault, and passes on the healthy control."""

import ast
from pathlib import Path

import pytest

from parity.errors import ParityError
from parity.fixtures import subjects
from parity.fixtures.controls.faults import DATA_BESIDE, DEAD_SPECIMENS, HEALTHY, OPSET, RELATION_SPECIMENS, SPECIMENS
from parity.judge.findings import CHECKS
from parity.sessions import OnnxSession

BY_NAME = {specimen.name: specimen for specimen in SPECIMENS}
# Check without a specimen in `parity.fixtures.controls` → the file and the test in which it fails.
ELSEWHERE = {
    "load": ("test_artifact_controls.py", "test_a_file_that_needs_more_than_it_names_does_not_load_alone"),
    "determinism": ("test_oracle_controls.py", "test_a_noisy_session_is_caught"),
    "decision": ("test_oracle_controls.py", "test_a_file_with_another_argmax_alone_is_caught"),
    "values": ("test_values.py", "test_values_are_told_with_count_worst_difference_and_index"),
    "precision": ("test_rounded_files.py", "test_a_weight_that_is_no_rounding_is_rejected"),
    "drift": ("test_rounded_files.py", "test_drift_is_bounded"),
    "tokens": ("test_decode_controls.py", "test_a_wrong_token_is_told_with_its_gap"),
}


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
    """Samples, answers, the file's inputs and the longest sequence are in one object."""
    from parity.judge.pool import Pool
    from parity.onnx.proof import Reference

    pool = Reference(bert.fresh_model, bert.source).pool()
    assert isinstance(pool, Pool)
    assert (pool.longest, pool.traced, pool.has_exact) == (bert.longest, bert.source.axes, True)
    assert len(pool.inputs) == len(pool.samples) == len(pool)


@pytest.mark.parametrize("specimen", SPECIMENS, ids=str)
def test_each_specimen_is_caught_by_its_check(bert, specimen, tmp_path):
    """The first failure is that of the check made for this fault, and has a message."""
    specimen.write(bert, tmp_path / "model.onnx")
    rows = judge(bert, tmp_path / "model.onnx").failures
    assert [row.check for row in rows][:1] == [specimen.caught_by]
    assert all(row.message for row in rows)


@pytest.mark.parametrize("specimen", [each for each in SPECIMENS if "wrong-value" in str(each)], ids=str)
def test_a_changed_weight_is_seen_in_the_values_too(bert, specimen, tmp_path):
    """The error ratio does not need the check of weights: changing one bias by a tenth or a ten-thousandth fails it."""
    specimen.write(bert, tmp_path / "model.onnx")
    assert {"weights", "ratio"} <= {row.check for row in judge(bert, tmp_path / "model.onnx").failures}


def test_every_check_has_a_specimen():
    """Each check of a finding fails on a specimen, or in the test named in `ELSEWHERE`, but not in both."""
    from parity.fixtures.controls import cache_faults

    checks = [specimen.caught_by for specimen in SPECIMENS]
    # They are caught by a relation or an input, but always by the same check.
    checks += ["relation" for _ in RELATION_SPECIMENS] + ["vacuity" for _ in DEAD_SPECIMENS]
    # `a or b` is a control of neither: the version of transformers decides which fails.
    checks += [check for fault in cache_faults.FAULTS for check in (fault.greedy, fault.split, fault.episode)]
    specimens = {check for check in checks if " or " not in check}
    assert sorted([*specimens, *ELSEWHERE]) == sorted(CHECKS)


@pytest.mark.parametrize("check", ELSEWHERE)
def test_a_control_elsewhere_is_there(check):
    """The test exists, and names the check."""
    file, name = ELSEWHERE[check]
    functions = ast.parse(Path(__file__).with_name(file).read_text(encoding="utf-8")).body
    (function,) = [node for node in functions if isinstance(node, ast.FunctionDef) and node.name == name]
    assert check in [node.value for node in ast.walk(function) if isinstance(node, ast.Constant)]


def test_a_baked_sequence_is_told_by_its_axis(bert, tmp_path):
    """With a hard limit the message says that the file is right only at the exported sequence length."""
    BY_NAME["baked-sequence"].write(bert, tmp_path / "model.onnx")
    from parity.reference import answers
    from parity.shapes import choose_samples
    from parity.validation import Criteria, compare, pool_of

    samples = choose_samples(bert.source, longest=bert.longest)
    pool = pool_of(bert.source, samples, answers(bert.fresh_model(), bert.onnx_config, samples, consume=True))
    found = compare(OnnxSession(tmp_path / "model.onnx").run, bert.onnx_config, pool, Criteria(atol=1e-4))
    with pytest.raises(ParityError, match="axis sequence: the file is right if sequence is 8"):
        found.raise_on_failure()


def test_a_pool_of_traced_sizes_alone_misses_a_baked_sequence(bert, tmp_path):
    """Why other sizes are tried: at the exported length the file with a fixed size has no fault."""
    BY_NAME["baked-sequence"].write(bert, tmp_path / "model.onnx")
    found = subjects.verdict(bert, OnnxSession(tmp_path / "model.onnx"), subjects.pool("bert", "default", "traced"))
    assert found.passed


@pytest.mark.parametrize(("limit", "passed"), [(4, False), (400, True)])
def test_a_limit_of_400_lets_a_fault_through(bert, limit, passed, tmp_path):
    """A bias off by a ten-thousandth has a ratio well between 4 and 400: only the limit of 4 catches it."""
    BY_NAME["slightly-wrong-value"].write(bert, tmp_path / "model.onnx")
    from parity.validation import Criteria

    session, pool = OnnxSession(tmp_path / "model.onnx"), subjects.pool("bert", "default", "other")
    found = subjects.verdict(bert, session, pool, Criteria(limit=limit))
    assert found.passed is passed
