"""The reference is the model's own answer: our code between the two changes nothing.

The same code makes masks, position ids and the order of caches for the file and the reference, so no comparison shows a
fault in it. Here the model is called as its users call it.
"""

import copy

import pytest

from parity.configs import OnnxConfig
from parity.fixtures import subjects
from parity.registry import architectures

ALLOWED = 1e-5


# Two features without a past of each architecture that completes the inputs of its files.
COMPLETED = [
    pytest.param(architecture.name, feature, id=f"{architecture.name}-{feature}")
    for architecture in architectures()
    if architecture.onnx_config.complete_inputs is not OnnxConfig.complete_inputs
    for feature in [each for each in architecture.features if "with-past" not in each][:2]
    if not architecture.gap_of(feature)
]


def inputs_of(subject):
    """One unpadded batch of drawn values in the model's form."""
    return subject.source.generate(seed=1).inputs


def answers(model, config, inputs):
    """The declared outputs, computed through our code."""
    from parity.traceable import call, evaluation_mode

    with evaluation_mode(model, config.values_override):
        results = call(model, config, inputs)
    return {name: results[name] for name in config.outputs if name in results}


def own_answers(model, config, inputs):
    """The same, computed by the model alone: its own masks and positions."""
    from parity.traceable import evaluation_mode

    with evaluation_mode(model, config.values_override):
        results = model(**inputs, return_dict=True)
    return {name: results[name] for name in config.outputs if name in results}


def difference(one, other):
    """The largest difference in the common outputs, at least one."""
    common = sorted(set(one) & set(other))
    assert common
    return max(float((one[name] - other[name]).abs().max()) for name in common)


@pytest.mark.parametrize(("architecture", "feature"), COMPLETED)
def test_what_is_completed_is_what_the_model_assumes(architecture, feature):
    """Added masks and position ids equal the model's own defaults."""
    subject = subjects.subject(architecture, feature)
    inputs = inputs_of(subject)
    ours = answers(subject.fresh_model(), subject.onnx_config, inputs)
    assert difference(ours, own_answers(subject.fresh_model(), subject.onnx_config, inputs)) < ALLOWED


def test_architectures_that_complete_their_inputs():
    """The previous test covers these, among them Whisper, whose decoder mask we add."""
    names = {parameter.values[0] for parameter in COMPLETED}
    assert names >= {"whisper", "vision-encoder-decoder", "gpt2", "gpt-neo", "bloom", "llama"}


@pytest.mark.parametrize("architecture", ["whisper", "vision-encoder-decoder"])
def test_decoder_mask_that_hides_a_token_is_caught(architecture):
    """Exporter and reference share it, so the file looks right; the model alone sees all tokens."""
    feature = next(each.values[1] for each in COMPLETED if each.values[0] == architecture)
    subject = subjects.subject(architecture, feature)
    own = subject.onnx_config
    wrong = copy.copy(own)

    def complete_inputs(inputs, parameters):
        complete = own.complete_inputs(inputs, parameters)
        mask = complete["decoder_attention_mask"].clone()
        mask[:, 0] = 0
        return {**complete, "decoder_attention_mask": mask}

    wrong.complete_inputs = complete_inputs
    inputs = inputs_of(subject)
    ours = answers(subject.fresh_model(), wrong, inputs)
    assert difference(ours, own_answers(subject.fresh_model(), own, inputs)) > 100 * ALLOWED


def layers_of(cache):
    """(keys, values) of each layer of a cache, in every release of transformers."""
    if hasattr(cache, "layers"):
        return [(layer.keys, layer.values) for layer in cache.layers]
    return [*zip(cache.key_cache, cache.value_cache, strict=True)] if hasattr(cache, "key_cache") else [*cache]


def test_keys_are_keys_and_values_are_values():
    """Names of the file, in and out, compared with the caches of the model alone."""
    import torch
    from transformers import DynamicCache

    subject = subjects.subject("gpt2", "causal-lm-with-past")
    model, source = subject.fresh_model(), subject.source
    ids = torch.arange(5, 11)[None]
    with torch.no_grad():
        first = model(input_ids=ids[:, :4], use_cache=True)
        layers = layers_of(first.past_key_values)
        caches = [(key.clone(), value.clone()) for key, value in layers]
        cache = DynamicCache()
        for index, (key, value) in enumerate(caches):
            cache.update(key, value, index)
        second = model(input_ids=ids[:, 4:], past_key_values=cache, use_cache=True)
    flat = {"input_ids": ids[:, 4:], "attention_mask": torch.ones(1, 6, dtype=torch.long)}
    for index, (key, value) in enumerate(caches):
        flat[f"past_key_values.{index}.key"], flat[f"past_key_values.{index}.value"] = key, value
    ours = answers(model, subject.onnx_config, source.layout.nest(flat))
    assert float((ours["logits"] - second.logits).abs().max()) < ALLOWED
    for index, (key, value) in enumerate(layers_of(second.past_key_values)):
        assert float((ours[f"present.{index}.key"] - key).abs().max()) < ALLOWED
        assert float((ours[f"present.{index}.value"] - value).abs().max()) < ALLOWED
        assert float((ours[f"present.{index}.key"] - value).abs().max()) > 100 * ALLOWED


def test_a_foreign_file_gets_the_positions_of_its_tokens():
    """Counted from the first unpadded token, including its past; zero only there and at padding."""
    from parity.validation import backend_inputs

    subject = subjects.subject("gpt2", "causal-lm-with-past")
    sizes = {"batch": 3, "sequence": 4, "past_sequence": 5}
    sample = subject.source.resize(sizes, padding="left")
    inputs = backend_inputs(subject.onnx_config, sample, ["position_ids"])
    mask = inputs["attention_mask"]
    assert mask.sum(1).tolist() == [9, 8, 7]
    assert inputs["position_ids"].tolist() == [[5, 6, 7, 8], [4, 5, 6, 7], [3, 4, 5, 6]]
