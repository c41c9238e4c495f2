"""Untying replaces `torchscript=True` on every transformers, and leaves the caller's model untouched."""

import io

import pytest

from parity.environment import at_least
from parity.errors import UsageError
from parity.fixtures.checkpoints import tiny_config, tiny_model
from parity.fixtures.trace_verdicts import is_proven

# (architecture, feature) → the input embeddings that share storage with its output embedding.
TIED = {
    ("bert", "masked-lm"): ["bert.embeddings.word_embeddings"],
    ("gpt2", "causal-lm"): ["transformer.wte"],
    ("t5", "seq2seq-lm"): ["shared", "encoder.embed_tokens", "decoder.embed_tokens"],
}
IDS = [pair[0] for pair in TIED]


def untie(model):
    from parity.torchscript import untie

    return untie(model)


def find_tied(model):
    from parity.torchscript.untying import tied_embeddings

    return tied_embeddings(model)


def places(module):
    """The storages of all parameters of the module and its children, by name."""
    from parity.torchscript.untying import storage_of

    return {name: storage_of(tensor) for name, tensor in module.named_parameters(remove_duplicate=False)}


@pytest.mark.parametrize("pair", TIED, ids=IDS)
def test_output_embedding_shares_no_storage_with_an_input_embedding(pair):
    """In the copy the output embedding has its own weights with equal values; in the model it does not."""
    import torch

    model = tiny_model(*pair)
    own = untie(model)
    assert find_tied(model) == TIED[pair]
    assert find_tied(own) == []
    assert torch.equal(own.get_output_embeddings().weight, own.get_input_embeddings().weight)


@pytest.mark.parametrize("pair", TIED, ids=IDS)
def test_other_sharing_stays(pair):
    """Every other weight is the model's own tensor: encoder and decoder still share, and no memory is used."""
    model = tiny_model(*pair)
    before, after = places(model), places(untie(model))
    changed = [name for name in before if after[name] != before[name]]
    output = next(name for name, module in model.named_modules() if module is model.get_output_embeddings())
    assert changed == [f"{output}.weight"]


@pytest.mark.parametrize("pair", TIED, ids=IDS)
def test_callers_weights_are_still_tied(pair):
    """Exporting leaves the weights, ties and modes of the model unchanged."""
    from parity.fixtures import subjects
    from parity.torchscript import export

    subject = subjects.subject(*pair)
    model = subject.fresh_model().train()
    before = places(model)
    trace = export(model, subject.source.generate().inputs, prove=False)
    assert list(trace.untied) == TIED[pair]
    assert (places(model), find_tied(model)) == (before, TIED[pair])
    assert all(module.training for module in model.modules())
    assert model.config.to_dict() == subject.fresh_model().config.to_dict()
    model.train(True)


def test_both_copies_are_in_the_file(tmp_path):
    """The file holds embedding and output embedding in separate storages, and its size shows it."""
    import torch

    from parity.fixtures import subjects
    from parity.torchscript import export
    from parity.torchscript.untying import storage_of

    subject = subjects.subject("bert", "masked-lm")
    path = tmp_path / "model.pt"
    made = export(subject.fresh_model(), subject.source.generate().inputs, path)
    weights = dict(made.module.named_parameters())
    first, second = (
        weights[f"model.{name}.weight"] for name in ("bert.embeddings.word_embeddings", "cls.predictions.decoder")
    )
    assert torch.equal(first, second)
    assert storage_of(first) != storage_of(second)


def test_a_bare_trace_writes_the_tied_weight_once():
    """The control: without untying there is one copy."""
    from parity.fixtures import subjects
    from parity.torchscript.untying import storage_of
    from parity.traceable import Traceable, evaluation_mode

    subject = subjects.subject("bert", "masked-lm")
    model, source = subject.fresh_model(), subject.source
    loaded = bare(Traceable(model, subject.onnx_config, source.layout, ["logits"]), evaluation_mode(model), source)
    weights = dict(loaded.named_parameters(remove_duplicate=False))
    names = ("bert.embeddings.word_embeddings", "cls.predictions.decoder")
    places = {storage_of(weights[f"model.{name}.weight"]) for name in names if f"model.{name}.weight" in weights}
    assert len(places) == 1


def bare(traceable, context, source):
    """torch's own trace, written and read again."""
    import torch

    from parity.loading import quiet_transformers

    buffer = io.BytesIO()
    with context, quiet_transformers():
        tensors = tuple(source.layout.flatten(source.dummy).values())
        torch.jit.save(torch.jit.trace(traceable, tensors, check_trace=False), buffer)
        buffer.seek(0)
        return torch.jit.load(buffer)


def test_untied_copy_refuses_training():
    """`.train(True)` and `.train()` raise with the document's reason; `.eval()` works, also inside another module."""
    import torch

    own = untie(tiny_model("gpt2", "causal-lm"))
    for module in (own, torch.nn.Sequential(own)):
        with pytest.raises(UsageError, match="training would let the two drift apart, with unexpected results"):
            module.train()
        assert not module.eval().training


def test_copy_of_an_untied_copy_refuses_training_too():
    """A deep copy refuses by itself."""
    import copy

    own = copy.deepcopy(untie(tiny_model("gpt2", "causal-lm")))
    with pytest.raises(UsageError, match="drift"):
        own.train()
    assert own.eval() is own


@pytest.mark.parametrize("pair", [("bert", "default"), ("vit", "image-classification"), ("t5", "default")], ids=str)
def test_model_without_a_head_needs_none_of_it(pair):
    """Nothing is copied, and the copy can be trained."""
    model = tiny_model(*pair)
    own = untie(model)
    assert places(own) == places(model)
    assert own.train().training


def test_head_with_weights_of_its_own_needs_none_of_it():
    """A model with untied embeddings is not changed either."""
    from transformers import AutoModelForMaskedLM

    config = tiny_config("bert")
    config.tie_word_embeddings = False
    model = AutoModelForMaskedLM.from_config(config)
    own = untie(model)
    assert places(own) == places(model)
    assert own.train().training


@pytest.mark.skipif(at_least("transformers", "5"), reason="transformers 5 has no flag torchscript")
def test_flag_is_honoured_where_it_exists(tmp_path):
    """In transformers 4 a model built with `torchscript=True` is untied; it exports, and its copy refuses training."""
    from transformers import AutoModelForMaskedLM

    from parity.fixtures import subjects
    from parity.torchscript import export

    config = tiny_config("bert")
    config.torchscript = True
    model = AutoModelForMaskedLM.from_config(config, attn_implementation="eager").eval()
    made = export(model, subjects.subject("bert", "masked-lm").source.generate().inputs, tmp_path / "model.pt")
    assert (find_tied(model), made.untied, is_proven(made)) == ([], (), True)
    with pytest.raises(UsageError, match="drift"):
        untie(model).train()


@pytest.mark.skipif(not at_least("transformers", "5"), reason="transformers 4 honours the flag")
def test_flag_that_is_silently_ignored_costs_nothing():
    """In transformers 5 the flag has no effect, and parity unties."""
    model = tiny_model("bert", "masked-lm")
    model.config.torchscript = True
    assert find_tied(model) == TIED["bert", "masked-lm"]
    assert find_tied(untie(model)) == []
