"""The Python API on models as everybody loads them: the Auto classes choose the attention implementation."""

import numpy as np
import pytest

from parity.architectures.matrix import minimum_opset
from parity.architectures.registry import architecture
from parity.fixtures.checkpoints import tiny_model
from parity.judge.contract import read
from parity.onnx import export, validate_model_outputs
from parity.onnx.limits import SDPA_MINIMUM_OPSET
from parity.traceable import attention_of


@pytest.mark.cells(every_opset=False)
def test_python_api(cell, subject, tmp_path):
    """`export` at the default opset and `validate_model_outputs` pass a model that its Auto class has made."""
    model = tiny_model(cell.architecture, cell.feature, attention=None)
    declared, config = architecture(cell.architecture), subject.onnx_config
    assert attention_of(model) == ("sdpa" if declared.has_sdpa else "eager")
    opset = max(config.default_onnx_opset, minimum_opset(declared, cell.feature))
    if attention_of(model) == "sdpa" and not hasattr(model, "set_attn_implementation"):
        opset = max(opset, SDPA_MINIMUM_OPSET)
    path = tmp_path / "model.onnx"
    _, outputs = export(subject.preprocessor, model, config, opset, path)
    assert read(path).metadata["attention"] == ("eager" if opset < SDPA_MINIMUM_OPSET else attention_of(model))
    validate_model_outputs(config, subject.preprocessor, model, path, outputs, tolerance(subject))


@pytest.mark.cells(every_opset=False)
def test_python_api_eager(cell, subject, artifact):
    """`validate_model_outputs` passes the file of a model with eager attention."""
    config, model = subject.onnx_config, subject.fresh_model()
    validate_model_outputs(config, subject.preprocessor, model, artifact, list(config.outputs), tolerance(subject))


def tolerance(subject):
    """The one that the configuration recommends; where outputs are larger than 1, of their size."""
    largest = max(float(np.abs(array[np.isfinite(array)]).max(initial=0)) for array in subject.before.values())
    return subject.onnx_config.atol_for_validation * max(1.0, largest)
