"""The declarations say truly which models have a choice of attention implementations."""

import pytest

from parity.architectures.conformance.matrix import SDPA_OPSETS
from parity.judge import contract
from parity.registry import architecture


@pytest.mark.cells(every_opset=False)
def test_attention_on_record(cell, subject):
    """The model has scaled_dot_product_attention exactly if its declaration says so."""
    from transformers import utils

    # transformers 5 requires a torch that has it.
    with_torch = getattr(utils, "is_torch_sdpa_available", lambda: True)()
    offered = with_torch and bool(getattr(subject.model, "_supports_sdpa", False))
    recorded = architecture(cell.architecture).has_sdpa(cell.feature)
    assert offered == recorded, f"{cell.group}: sdpa is {'there' if offered else 'not there'}; correct the declaration"


@pytest.mark.cells(attention=("sdpa",), opsets=SDPA_OPSETS[-1:], every_feature=False)
def test_attention_of_file(cell, subject, artifact):
    """The file records its attention implementation; its model calls sdpa, and the eager model does not."""
    assert contract.read(artifact).metadata["attention"] == cell.attention
    assert calls(subject.traces[cell.attention].model, subject) > 0
    assert calls(subject.fresh_model(), subject) == 0


def calls(model, subject):
    """How often the model calls scaled_dot_product_attention on the inputs of the export."""
    import torch

    from parity.traceable import call, evaluation_mode

    hits, own = [], torch.nn.functional.scaled_dot_product_attention

    def count_call(*args, **kwargs):
        hits.append(1)
        return own(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch, evaluation_mode(model, subject.onnx_config.values_override):
        patch.setattr(torch.nn.functional, "scaled_dot_product_attention", count_call)
        call(model, subject.onnx_config, subject.source.generate().inputs)
    return len(hits)
