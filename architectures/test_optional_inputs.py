"""What the tokenizer does not give is no input of the file: the model's own assumption stands for it."""

import pytest

from parity.fixtures import subjects
from parity.sessions import OnnxSession

OPTIONAL = ("attention_mask", "token_type_ids")


@pytest.mark.cells(
    every_opset=False, every_feature=False, kinds=("encoder", "decoder", "encoder-decoder", "multimodal")
)
def test_without_optional_inputs(cell, subject, figures, tmp_path):
    """Without attention mask, or token types, it is no input of the file, which agrees."""
    names = [name for name in OPTIONAL if any(given in named(name) for given in subject.onnx_config.inputs)]
    assert names or not hasattr(subject.preprocessor, "num_special_tokens_to_add")
    for name in names:
        less = subjects.without(subject, name)
        session = OnnxSession(subjects.artifact(less, cell.opset, tmp_path / f"{name}.onnx"))
        assert [given for given in session.input_names if given in named(name)] == []
        found = subjects.verdict(less, session, subjects.pool_without(less))
        found.raise_on_failure()
        assert found.ratios()
        figures(**{f"without {name}": found.ratios()})


def named(name):
    """An input of that kind: the text's own, or the decoder's."""
    return (name, f"decoder_{name}")
