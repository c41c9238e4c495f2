"""Long sounds: few different ones in all samples, and each goes through the encoder once."""

import functools

import pytest

from parity.fixtures import subjects
from parity.fixtures.checkpoints import tiny_model


@pytest.fixture(autouse=True)
def every_sound_is_long(monkeypatch):
    """The tiny model's sounds, which have 160 values, count as long."""
    from parity import encodings, samples, shapes

    for module in (encodings, samples, shapes):
        monkeypatch.setattr(module, "LONG_SOUND", 100)


@pytest.fixture
def source():
    return subjects.fresh_subject("whisper", "speech2seq-lm").source


@pytest.fixture
def pool_samples(source):
    from parity import shapes

    return shapes.choose_samples(source, longest=40)


def sounds_of(sample):
    return sample.inputs["input_features"]


def count_rows(model):
    """A list to which the encoder's first layer adds the number of rows of each call."""
    rows = []
    model.get_encoder().conv1.register_forward_pre_hook(lambda module, arguments: rows.append(len(arguments[0])))
    return rows


def different(sounds):
    """The rows of some batches of sounds, equal ones once."""
    return {row.numpy().tobytes() for batch in sounds for row in batch}


def test_samples_have_few_sounds(pool_samples):
    """At most the dummy's own rows, a drawn one, and one of large values; one sample has two rows, one four."""
    assert len(different(map(sounds_of, pool_samples))) <= 4
    batches = [len(sounds_of(sample)) for sample in pool_samples]
    assert batches[0] == 2
    assert max(batches) == 4
    assert len(pool_samples) >= 9
    assert len(different([sounds_of(sample) for sample in pool_samples if len(sounds_of(sample)) == 4])) > 1


def test_a_similar_sample_has_another_sound(source, pool_samples):
    """Else the judge could not see that a file ignores its sound."""
    import torch

    from parity import shapes

    other = shapes.similar_sample(source, pool_samples[1], None, 1001)
    assert sounds_of(other).shape == sounds_of(pool_samples[1]).shape
    assert not torch.equal(sounds_of(other), sounds_of(pool_samples[1]))


@pytest.mark.parametrize("hidden", [False, True])
def test_each_row_is_encoded_once(source, pool_samples, hidden):
    """The answers are those of whole batches, also for the states of every layer."""
    import torch

    from parity.encodings import encode_sounds_once

    model = tiny_model("whisper", "speech2seq-lm").eval()
    run = functools.partial(model, output_hidden_states=hidden, output_attentions=hidden)
    batches = [dict(sample.inputs) for sample in pool_samples]
    with torch.no_grad():
        whole = [run(**inputs) for inputs in batches]
        rows = count_rows(model)
        with encode_sounds_once(model):
            once = [run(**inputs) for inputs in batches]
    assert rows == [1] * len(different(map(sounds_of, pool_samples)))
    for one, other in zip(once, whole, strict=True):
        assert one.keys() == other.keys()
        for name in ("logits", "encoder_last_hidden_state", *["encoder_hidden_states", "encoder_attentions"] * hidden):
            torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=1e-5)


def test_an_encoder_is_left_as_it_was(source):
    """After the answers, also after a failure, the encoder's own forward is there again."""
    from parity.encodings import encode_sounds_once
    from parity.reference import answers

    model = tiny_model("whisper", "speech2seq-lm")
    answers(model, source.onnx_config, [source.generate(seed=1)])
    assert "forward" not in vars(model.get_encoder())
    with pytest.raises(KeyError), encode_sounds_once(model):
        raise KeyError
    assert "forward" not in vars(model.get_encoder())


def test_a_row_with_a_mask_is_run_as_it_came(pool_samples):
    """With a tensor beside the sound, an answer may depend on more than the row."""
    import torch

    from parity.encodings import encode_sounds_once

    model = tiny_model("whisper", "speech2seq-lm").eval()
    rows, sounds = count_rows(model), sounds_of(pool_samples[0])
    with torch.no_grad(), encode_sounds_once(model):
        model.get_encoder()(sounds, attention_mask=torch.ones(sounds.shape[0], sounds.shape[2], dtype=torch.long))
        model.get_encoder()(sounds, attention_mask=torch.ones(sounds.shape[0], sounds.shape[2], dtype=torch.long))
    assert rows == [2, 2]


@pytest.mark.parametrize("model_type", ["bert", "t5"])
def test_other_models_run_as_ever(model_type):
    """A text is no sound, and a model without an encoder of its own has none to change."""
    import torch

    from parity.encodings import encode_sounds_once

    feature = {"bert": "default", "t5": "seq2seq-lm"}[model_type]
    subject = subjects.fresh_subject(model_type, feature)
    model = tiny_model(model_type, feature).eval()
    sample = subject.source.generate(seed=1)
    with torch.no_grad():
        before = model(**sample.inputs)[0]
        with encode_sounds_once(model):
            assert torch.equal(model(**sample.inputs)[0], before)
