"""A declaration names a head exactly if the Auto class does not know the model type."""

import pytest

from parity.fixtures.checkpoints import save_checkpoint, tiny_config
from parity.onnx.features import FeaturesManager, model_class
from parity.registry import architectures

HEADS = [
    pytest.param(declaration, task, id=f"{declaration.name}-{task}")
    for declaration in architectures()
    for task in declaration.heads
    if not declaration.gap_of(task)
]


@pytest.mark.parametrize(("declaration", "task"), HEADS)
def test_auto_class_refuses(declaration, task):
    """The Auto class refuses the model type, so the declared head is needed."""
    with pytest.raises(ValueError, match="Unrecognized configuration class"):
        FeaturesManager.get_model_class_for_feature(task).from_config(tiny_config(declaration.model_type))


@pytest.mark.parametrize(("declaration", "task"), HEADS)
def test_head_is_loaded(declaration, task, tmp_path):
    """A checkpoint is loaded as the declared head."""
    save_checkpoint(tmp_path, declaration.model_type, task)
    loaded = FeaturesManager.get_model_from_feature(task, str(tmp_path))
    assert type(loaded).__name__ == declaration.heads[task]


def test_auto_class_for_the_others():
    """Without a declared head, and for undeclared model types, the Auto class loads the model."""
    for model_type in ("bert", "not-declared"):
        assert model_class(model_type, "causal-lm").__name__ == "AutoModelForCausalLM"
