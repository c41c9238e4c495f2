"""An input that the tokenizer does not return is no input of the file, which uses the model's default."""

import copy
from dataclasses import replace

import numpy as np
import pytest

from parity.fixtures import subjects
from parity.sessions import OnnxSession

OPTIONAL = ("attention_mask", "token_type_ids")


@pytest.mark.cells(
    every_opset=False, every_feature=False, kinds=("encoder", "decoder", "encoder-decoder", "multimodal")
)
def test_without_optional_inputs(cell, subject, measurements, tmp_path):
    """A file without attention mask, token types, or both, agrees with the model.

    The reference is the model called without them, so that no default of parity affects its answer.
    """
    names = [
        name for name in OPTIONAL if any(input_name in input_names(name) for input_name in subject.onnx_config.inputs)
    ]
    assert names or not hasattr(subject.preprocessor, "num_special_tokens_to_add")
    for left_out in [[name] for name in names] + [names] * (len(names) > 1):
        less = subject
        for name in left_out:
            less = subjects.subject_without(less, name)
        label = " and ".join(left_out)
        session = OnnxSession(subjects.artifact(less, cell.opset, tmp_path / f"{label}.onnx"))
        assert [
            input_name for input_name in session.input_names for name in left_out if input_name in input_names(name)
        ] == []
        pool = subjects.pool_without(less)
        verdict = subjects.verdict(less, session, pool)
        verdict.raise_on_failure()
        assert verdict.ratios()
        measurements(**{f"without {label}": verdict.ratios()})
        require_own_answers(less, pool)


def test_a_wrong_assumption_is_seen():
    """The control: a configuration whose mask hides the first token differs from the model's default."""
    less = subjects.subject_without(subjects.subject("gpt2", "causal-lm"), "attention_mask")

    class Wrong(type(less.onnx_config)):
        def complete_inputs(self, inputs, parameters):
            arguments = super().complete_inputs(inputs, parameters)
            arguments["attention_mask"][:, 0] = 0
            return arguments

    config = copy.copy(less.onnx_config)
    config.__class__ = Wrong
    wrong = replace(less, onnx_config=config)
    require_own_answers(less, subjects.pool_without(less))
    with pytest.raises(AssertionError, match="when nothing is supplied"):
        require_own_answers(wrong, subjects.pool_without(wrong))


def require_own_answers(less, pool):
    """The reference's answer to each unpadded input equals that of the model itself, called with only that input."""
    from parity.releases import arguments_of
    from parity.traceable import evaluation_mode, flatten_outputs

    pairs = [(sample, answer) for sample, answer in zip(pool.samples, pool.answers, strict=True) if not sample.padding]
    assert pairs
    model = less.fresh_model()
    with evaluation_mode(model, less.onnx_config.values_override):
        for sample, answer in pairs:
            arguments = arguments_of(type(model), sample.inputs)
            own = flatten_outputs(less.onnx_config, model(**arguments, return_dict=True))
            for name, reference in answer.eager.items():
                same = np.allclose(own[name].numpy(), reference, rtol=1e-5, atol=1e-5)
                assert same, f"{name}, {sample}: not what the model answers when nothing is supplied"


def input_names(name):
    """The names of inputs of that kind: of the text, and of the decoder."""
    return (name, f"decoder_{name}")
