"""The Python API on models loaded as usual: the Auto classes choose the attention implementation."""

import numpy as np
import pytest

from parity.fixtures import subjects
from parity.judge import ratio
from parity.judge.contract import read
from parity.onnx import export, validate_model_outputs
from parity.opsets import SDPA_MINIMUM_OPSET
from parity.registry import architecture


@pytest.mark.cells(opsets=(SDPA_MINIMUM_OPSET - 1,), has_sdpa=True)
def test_python_api(cell, subject, artifact, tmp_path):
    """`export` and `validate_model_outputs` pass a model whose Auto class chooses sdpa; below opset 14 it acts as
    eager.

    The file equals that of an eager model, although the cells of a model share their traces.
    """
    from parity.traceable import attention_of

    model = subject.fresh_model(attention=None)
    assert attention_of(model) == "sdpa"
    # transformers 4 fixes the attention when a model is built.
    stays = not hasattr(model, "set_attn_implementation")
    opset, path = SDPA_MINIMUM_OPSET if stays else cell.opset, tmp_path / artifact.name
    _, outputs = export(subject.preprocessor, model, subject.onnx_config, opset, path)
    assert read(path).metadata["attention"] == ("sdpa" if stays else "eager")
    assert stays or path.read_bytes() == artifact.read_bytes()
    validate_model_outputs(subject.onnx_config, subject.preprocessor, model, path, outputs, tolerance(cell, subject))


@pytest.mark.cells(opsets=(SDPA_MINIMUM_OPSET - 1,))
def test_python_api_eager(cell, subject, artifact):
    """`validate_model_outputs` passes the file of an eager model, at every position; a model without sdpa is eager."""
    from parity.traceable import attention_of

    if not architecture(cell.architecture).has_sdpa(cell.feature):
        assert attention_of(subject.fresh_model(attention=None)) == "eager"
    validate(cell, subject, artifact)


@pytest.mark.cells(opsets=(SDPA_MINIMUM_OPSET,), attention=("sdpa",))
def test_python_api_sdpa(cell, subject, artifact):
    """`validate_model_outputs` passes the file of a model with sdpa, at every position."""
    validate(cell, subject, artifact)


def validate(cell, subject, artifact):
    config, model = subject.onnx_config, subject.fresh_model(cell.attention)
    validate_model_outputs(
        config, subject.preprocessor, model, artifact, list(config.outputs), tolerance(cell, subject)
    )


def tolerance(cell, subject):
    """The recommended tolerance, or that of float32 noise, relative to the largest value of an output."""
    pool = subjects.pool(cell.architecture, cell.feature, "other", dtype=cell.dtype)
    own = subject.onnx_config.atol_for_validation
    return max(max(own, ratio.LIMIT * noise) * max(1.0, largest(pool, name)) for name, noise in pool.noise.items())


def largest(pool, name):
    arrays = [answer[name] for answer in pool.exact]
    return max(float(np.abs(array[np.isfinite(array)]).max(initial=0)) for array in arrays)
