"""The file is what was asked for."""

import onnx

from parity.judge import contract
from parity.judge.rows import failures


def test_contract(cell, subject, artifact):
    """Opset, names, order, dtypes, ranks and dynamic axes of the file are those that were asked for."""
    flat = subject.source.layout.flatten(subject.source.dummy)
    declared = subject.onnx_config.inputs
    assert set(flat) == set(declared)
    rows = contract.rows(
        contract.read(artifact),
        opset=cell.opset,
        inputs=declared,
        outputs=subject.onnx_config.outputs,
        dtypes={name: str(tensor.dtype).removeprefix("torch.") for name, tensor in flat.items()},
        ranks={name: tensor.dim() for name, tensor in flat.items()},
    )
    assert [row.message for row in failures(rows)] == []


def test_checker(artifact):
    """The checker of the ONNX project accepts the file, with shape inference."""
    onnx.checker.check_model(str(artifact), full_check=True)
