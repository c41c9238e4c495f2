"""The compiled model computes what the PyTorch model computes, on the device, at the compiled shapes."""

import pytest

NEURON = pytest.mark.cells(formats=("neuron",), kinds=("encoder", "vision"))
TRANSLATION = pytest.mark.cells(formats=("neuron",), kinds=("encoder-decoder",))
# A tiny model soon repeats one token; without repeats, each answer depends on all tokens before.
GENERATION = {"max_length": 12, "no_repeat_ngram_size": 1}
BEAMS = 2


@NEURON
def test_neuron_graph(cell, subject, neuron_model, measurements):
    """Only operators outside AWS's list are left to the CPU, at most a tenth of all; shapes are fixed."""
    import torch

    from parity.errors import UsageError
    from parity.fixtures.neuron_checks import unexpected_fallbacks
    from parity.neuron import coverage
    from parity.neuron.sdk import EMULATION
    from parity.torchscript import export

    trace = neuron_model
    if cell.runtime != EMULATION:
        inputs = subject.source.resize(cell.sizes).inputs
        trace = export(subject.model, inputs, onnx_config=subject.onnx_config, prove=False)
    report = coverage(trace.module)
    measurements(neuron=report.as_json())
    assert neuron_model.engine == cell.runtime
    assert (neuron_model.compiled > 0) == (cell.runtime != EMULATION)
    assert {name: neuron_model.sizes[name] for name in cell.sizes} == cell.sizes
    assert unexpected_fallbacks(neuron_model, report) == []
    assert report.share > 0.9
    assert "aten::scaled_dot_product_attention" not in report.outside
    taller = [torch.cat([tensor, tensor]) for tensor in neuron_model.example.values()]
    with pytest.raises(UsageError, match="shapes are fixed when compiled"):
        neuron_model(*taller)


@NEURON
@pytest.mark.usefixtures("on_device")
def test_neuron_answers(cell, subject, neuron_model, tolerances, measurements):
    """Answers to requests of the compiled shape, and to shorter ones padded to it, equal those of unpadded PyTorch."""
    from parity.fixtures.neuron_checks import judge_requests, requests_of
    from parity.neuron.tolerances import require

    requests = requests_of(cell, subject, neuron_model)
    findings = judge_requests(subject, neuron_model, requests, tolerances)
    measurements(
        neuron={
            "tolerances": tolerances.origin,
            "outputs": {row.subject: row.measurements for row in findings if row.measurements},
        },
        validated_at=[{"sizes": dict(sample.sizes), "padding": sample.padding} for sample in requests],
    )
    require(findings)


@TRANSLATION
def test_neuron_translation_graph(cell, subject, measurements):
    """Encoder and decoder are compiled without a cache, and AWS's list covers nine tenths of their operators."""
    from parity.fixtures.neuron_checks import generator
    from parity.neuron import coverage

    translator = generator(cell, subject, emulate=True)
    reports = {
        name: coverage(part.module) for name, part in (("encoder", translator.encoder), ("decoder", translator.decoder))
    }
    measurements(neuron={name: each.as_json() for name, each in reports.items()})
    assert {name for name, each in reports.items() if each.share <= 0.9} == set()
    assert list(translator.decoder.inputs) == ["decoder_input_ids", "encoder_hidden_states", "encoder_attention_mask"]


@TRANSLATION
@pytest.mark.usefixtures("on_device")
def test_neuron_translation(cell, subject):
    """Greedy and beam search through the padded encoder and decoder give the tokens of `generate` on the CPU."""
    import torch

    from parity.fixtures.neuron_checks import generator, texts, unexpected_fallbacks
    from parity.neuron import coverage
    from parity.neuron.sdk import EMULATION

    translator = generator(cell, subject, beams=BEAMS, emulate=cell.runtime == EMULATION)
    if cell.runtime != EMULATION:
        emulator = generator(cell, subject, beams=BEAMS, emulate=True)
        assert unexpected_fallbacks(translator.encoder, coverage(emulator.encoder.module)) == []
        assert unexpected_fallbacks(translator.decoder, coverage(emulator.decoder.module)) == []
    model = subject.fresh_model()
    for inputs in texts(cell, subject):
        for beams in (1, BEAMS):
            with torch.no_grad():
                reference = model.generate(**inputs, num_beams=beams, do_sample=False, **GENERATION)
            actual = translator(**inputs, num_beams=beams, **GENERATION)
            assert actual.tolist() == reference.tolist()
            assert len(set(reference[0].tolist())) > 6
