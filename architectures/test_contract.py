"""The file is what was asked for."""

import onnx

from parity.judge import contract
from parity.judge.rows import failures


def test_contract(cell, subject, artifact):
    """Opset, names, order, dtypes, ranks and dynamic axes of the file are those that were asked for."""
    tensors = subject.source.layout.flatten(subject.source.dummy)
    assert set(tensors) == set(subject.onnx_config.inputs)
    rows = contract.rows_of(contract.read(artifact), subject.onnx_config, tensors, opset=cell.opset)
    assert [row.message for row in failures(rows)] == []


def test_checker(artifact):
    """The checker of the ONNX project accepts the file, with shape inference."""
    onnx.checker.check_model(str(artifact), full_check=True)
