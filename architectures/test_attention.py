"""Which models have a choice of attention implementations is on record, and is true."""

import pytest

from parity.architectures.matrix import SDPA_OPSETS
from parity.architectures.registry import architecture
from parity.judge import contract


@pytest.mark.cells(every_opset=False)
def test_attention_on_record(cell, subject):
    """The model has scaled_dot_product_attention exactly where its declaration says so."""
    offered = bool(getattr(subject.model, "_supports_sdpa", False))
    recorded = architecture(cell.architecture).has_sdpa
    assert offered == recorded, f"{cell.group}: sdpa is {'there' if offered else 'not there'}; correct the declaration"


@pytest.mark.cells(attention=("sdpa",), opsets=SDPA_OPSETS[-1:])
def test_attention_of_file(cell, artifact):
    """The file says which attention it was exported with."""
    assert contract.read(artifact).metadata["attention"] == cell.attention
