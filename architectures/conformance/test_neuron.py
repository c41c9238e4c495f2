"""What is compiled for Neuron computes what the PyTorch model computes, on the device, in the compiled shapes."""

import pytest

NEURON = pytest.mark.cells(formats=("neuron",), kinds=("encoder", "vision"))
TRANSLATION = pytest.mark.cells(formats=("neuron",), kinds=("encoder-decoder",))
# A tiny model soon says the same token again and again; like this its answers depend on every one before.
GENERATION = {"max_length": 12, "no_repeat_ngram_size": 1}
BEAMS = 2


@NEURON
def test_neuron_graph(cell, subject, compiled, measurements):
    """Nothing is left to the CPU but what AWS's list foresees, at most a tenth of the operators; shapes are fixed."""
    import torch

    from parity.errors import UsageError
    from parity.fixtures.neuron_checks import unexpected_fallbacks
    from parity.neuron import coverage
    from parity.neuron.sdk import EMULATION
    from parity.torchscript import export

    traced = compiled
    if cell.runtime != EMULATION:
        inputs = subject.source.resize(cell.sizes).inputs
        traced = export(subject.model, inputs, onnx_config=subject.onnx_config, prove=False)
    found = coverage(traced.module)
    measurements(neuron=found.as_json())
    assert compiled.engine == cell.runtime
    assert (compiled.compiled > 0) == (cell.runtime != EMULATION)
    assert {name: compiled.sizes[name] for name in cell.sizes} == cell.sizes
    assert unexpected_fallbacks(compiled, found) == []
    assert found.share > 0.9
    assert "aten::scaled_dot_product_attention" not in found.outside
    taller = [torch.cat([tensor, tensor]) for tensor in compiled.example.values()]
    with pytest.raises(UsageError, match="shapes are fixed when compiled"):
        compiled(*taller)


@NEURON
@pytest.mark.usefixtures("on_device")
def test_neuron_answers(cell, subject, compiled, tolerances, measurements):
    """Requests of the compiled shape, and shorter ones padded to it, are answered as unpadded PyTorch answers them."""
    from parity.fixtures.neuron_checks import judge_requests, requests_of
    from parity.neuron.tolerances import require

    asked = requests_of(cell, subject, compiled)
    found = judge_requests(subject, compiled, asked, tolerances)
    measurements(
        neuron={
            "tolerances": tolerances.origin,
            "outputs": {row.subject: row.measurements for row in found if row.measurements},
        },
        validated_at=[{"sizes": dict(sample.sizes), "padding": sample.padding} for sample in asked],
    )
    require(found)


@TRANSLATION
def test_neuron_translation_graph(cell, subject, measurements):
    """Encoder and decoder are compiled without a cache, and AWS's list covers nine tenths of their operators."""
    from parity.fixtures.neuron_checks import generator
    from parity.neuron import coverage

    made = generator(cell, subject, emulate=True)
    found = {name: coverage(part.module) for name, part in (("encoder", made.encoder), ("decoder", made.decoder))}
    measurements(neuron={name: each.as_json() for name, each in found.items()})
    assert {name for name, each in found.items() if each.share <= 0.9} == set()
    assert list(made.decoder.inputs) == ["decoder_input_ids", "encoder_hidden_states", "encoder_attention_mask"]


@TRANSLATION
@pytest.mark.usefixtures("on_device")
def test_neuron_translation(cell, subject):
    """Greedy and beam search through the padded encoder and decoder give the tokens of `generate` on the CPU."""
    import torch

    from parity.fixtures.neuron_checks import generator, texts, unexpected_fallbacks
    from parity.neuron import coverage
    from parity.neuron.sdk import EMULATION

    made = generator(cell, subject, beams=BEAMS, emulate=cell.runtime == EMULATION)
    if cell.runtime != EMULATION:
        traced = generator(cell, subject, beams=BEAMS, emulate=True)
        assert unexpected_fallbacks(made.encoder, coverage(traced.encoder.module)) == []
        assert unexpected_fallbacks(made.decoder, coverage(traced.decoder.module)) == []
    model = subject.fresh_model()
    for inputs in texts(cell, subject):
        for beams in (1, BEAMS):
            with torch.no_grad():
                expected = model.generate(**inputs, num_beams=beams, do_sample=False, **GENERATION)
            actual = made(**inputs, num_beams=beams, **GENERATION)
            assert actual.tolist() == expected.tolist()
            assert len(set(expected[0].tolist())) > 6
