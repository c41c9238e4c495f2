"""The file computes what the model computes at any declared sizes of the axes, and refuses all others."""

import pytest

from parity import axes
from parity.errors import SessionError
from parity.fixtures import properties, sizes

TEXT = ("encoder", "decoder", "encoder-decoder", "multimodal", "speech")


@pytest.mark.cells(every_opset=False)
def test_drawn_sizes(cell, subject, session, reproductions, measurements):
    """At sizes that hypothesis draws, with eight inputs each, the pooled error ratio is at most 4."""
    verdicts = properties.judge_drawn_sizes(subject, session.run, reproductions)
    measurements(**properties.measurements_of(verdicts))
    assert all(found.ratios() for found in verdicts)


@pytest.mark.cells(every_opset=False)
def test_boundaries(cell, subject, session, reproductions, measurements):
    """At every boundary of every axis, with eight inputs each, the pooled error ratio is at most 4."""
    verdicts = properties.judge_boundaries(subject, session.run, reproductions)
    measurements(**properties.measurements_of(verdicts))
    assert all(found.ratios() for found in verdicts)


@pytest.mark.cells(every_opset=False, kinds=TEXT)
def test_beyond_the_maximum(cell, subject, session):
    """Model and file refuse one token more than the position table holds; without a table, any length works.

    If a cross-attention cache replaces the encoder in the file, only the model refuses.
    """
    if not any(axes.role_of(name) is axes.Role.TOKENS for name in subject.onnx_config.inputs):
        pytest.skip("no input is a text: nothing is claimed of too many tokens")
    tried = sizes.oversized_examples(subject.source, subject.longest)
    assert tried
    for example in tried:
        sample = subject.source.resize(example.sizes)
        if subject.longest is None:
            (found,) = sizes.judge_examples(subject, session.run, [example])
            found.raise_on_failure()
            assert found.ratios()
        elif example.name == "encoder_sequence" and "input_ids" in subject.onnx_config.dead_inputs:
            refused_by_model(subject, sample.inputs)
            assert run_in_file(subject, session, sample)
        else:
            refused_by_model(subject, sample.inputs)
            refused_by_file(subject, session, sample)


@pytest.mark.cells(every_opset=False, kinds=("vision", "multimodal", "speech"))
def test_static_axes(cell, subject, session):
    """An unnamed axis of an image or a sound has one size: model and file refuse twice that size."""
    import torch

    from parity.samples import Sample

    inputs = subject.source.layout.flatten(subject.source.dummy)
    name = next(name for name in ("pixel_values", "input_features", "input_values", "inputs") if name in inputs)
    pixels, axes = inputs[name], subject.onnx_config.inputs[name]
    static = [axis for axis in range(pixels.dim()) if axis not in axes]
    if not static:
        pytest.skip(f"{name} has a name for every axis: no size of it is claimed to be refused")
    for axis in static:
        doubled = {**inputs, name: torch.cat([pixels, pixels], axis)}
        sample = Sample({}, "", subject.source.layout.nest(doubled))
        refused_by_model(subject, sample.inputs)
        refused_by_file(subject, session, sample)


def refused_by_model(subject, inputs):
    from parity.traceable import call, evaluation_mode

    model = subject.fresh_model()
    with (
        evaluation_mode(model, subject.onnx_config.values_override),
        pytest.raises((IndexError, RuntimeError, ValueError)),
    ):
        call(model, subject.onnx_config, inputs)


def refused_by_file(subject, session, sample):
    with pytest.raises(SessionError, match="ONNXRuntimeError"):
        run_in_file(subject, session, sample)


def run_in_file(subject, session, sample):
    from parity.validation import backend_inputs

    return session.run(backend_inputs(subject.onnx_config, sample))
