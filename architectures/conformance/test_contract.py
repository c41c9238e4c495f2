"""The file is as requested."""

import pytest

from parity.fixtures import subjects
from parity.judge import contract
from parity.judge.artifact import judge_checker
from parity.judge.findings import failures
from parity.judge.stored import stored_tensors
from parity.judge.weights import account_weights, judge_absences, judge_repeats, judge_weights
from parity.registry import architecture


def test_contract(cell, subject, artifact):
    """Opset, names, order, dtypes, ranks and dynamic axes are as requested; no weight is written twice."""
    tensors = subject.source.layout.flatten(subject.source.dummy)
    assert set(tensors) == set(subject.onnx_config.inputs)
    claim = contract.Claim.from_config(subject.onnx_config, tensors)
    findings = contract.judge_contract(contract.read(artifact), claim, opset=cell.opset)
    assert [finding.message for finding in failures(findings)] == []


def test_checker(artifact):
    """The checker of the ONNX project accepts the file, with shape inference."""
    assert judge_checker(artifact).message == ""


def test_weights(cell, subject, artifact):
    """The file holds each weight that an output depends on, unchanged and once, except those declared absent."""
    needed = subjects.weights(cell.architecture, cell.feature, cell.attention, dtype=cell.dtype)
    account = account_weights(needed, stored_tensors(artifact))
    absences = architecture(cell.architecture).absent_weights(cell)
    findings = [*judge_weights(account), *judge_absences(account, absences), *judge_repeats(account)]
    assert account.needed
    assert [finding.message for finding in failures(findings)] == []


# Opsets below 14 share one trace, the rest another; test_python_api covers those below.
@pytest.mark.cells(opsets=(17,), attention=("eager",), every_feature=False)
def test_exported_alone(cell, subject, artifact, tmp_path):
    """The file equals that of a separate export, although the cells of a model share their traces."""
    from parity.onnx import export

    load_isolated = tmp_path / artifact.name
    export(subject.preprocessor, subject.fresh_model(), subject.onnx_config, cell.opset, load_isolated)
    assert load_isolated.read_bytes() == artifact.read_bytes()


@pytest.mark.cells(every_opset=False, every_feature=False)
def test_loads_alone(artifact, session):
    """The file loads from a directory with only the files that it names."""
    from parity.onnx.proof import load_isolated

    copied = load_isolated(artifact, contract.read(artifact).data)
    assert (copied.input_names, copied.output_names) == (session.input_names, session.output_names)
