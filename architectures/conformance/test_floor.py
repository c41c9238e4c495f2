"""If the lowest opset is above the exporter's own, the next lower one is shown to fail."""

import re

import pytest

from parity.errors import ExportError, SessionError
from parity.fixtures import subjects
from parity.opsets import MINIMUM_OPSET
from parity.registry import architectures
from parity.sessions import OnnxSession

FLOORS = [
    pytest.param(declaration, feature, id=f"{declaration.name}-{feature}")
    for declaration in architectures()
    for feature in declaration.features
    if declaration.floor_of(feature) and not declaration.gap_of(feature)
]


@pytest.mark.parametrize(("declaration", "feature"), FLOORS)
def test_below_the_floor_fails_upstream(declaration, feature, tmp_path):
    """One opset below the declared minimum, the exporter or ONNX Runtime refuses the model for the declared reason."""
    floor = declaration.floor_of(feature)
    assert floor.opset > MINIMUM_OPSET
    assert floor.issue.startswith("https://")
    subject = subjects.subject(declaration.name, feature)
    assert floor.error, "say in `error` of the Floor what the failure says"
    with pytest.raises((ExportError, SessionError), match=re.escape(floor.error)):
        OnnxSession(subjects.artifact(subject, floor.opset - 1, tmp_path / "model.onnx"))
