"""A head tied to its embedding: the file holds their weight once, like the checkpoint."""

import contextlib

import pytest

from parity.fixtures import subjects
from parity.judge.stored import stored_tensors
from parity.judge.weights import account_weights

# A head without a bias, with a bias, with a scale, and shared by two stacks.
TIED = [("gpt2", "causal-lm-with-past"), ("bert", "masked-lm"), ("t5", "seq2seq-lm"), ("bart", "seq2seq-lm")]


def export_tied(subject, path):
    """The weights found in the exported file, and the bytes of its tensors."""
    from parity import dependence
    from parity.onnx import export

    model = subject.fresh_model()
    export(subject.preprocessor, model, subject.onnx_config, 14, path)
    weights = dependence.weights_of(model, subject.onnx_config, subject.source.dummy)
    tensors = stored_tensors(path)
    return account_weights(weights, tensors), sum(tensor.size for tensor in tensors)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(7, 5), (2, 7, 5), (2, 3, 7, 5)])
def test_the_answer_is_the_head_s(bias, shape):
    """For rows and for tensors with more axes, to float64 rounding; the head is restored."""
    import torch

    from parity.traceable import heads_that_share

    torch.manual_seed(0)
    embedding, head = torch.nn.Embedding(11, 5, dtype=torch.float64), torch.nn.Linear(5, 11, bias, dtype=torch.float64)
    head.weight = embedding.weight
    states = torch.randn(shape, dtype=torch.float64)
    own = head(states)
    with heads_that_share(torch.nn.ModuleList([embedding, head])):
        assert "forward" in vars(head)
        shared = head(states)
    assert "forward" not in vars(head)
    assert shared.shape == own.shape
    torch.testing.assert_close(shared, own, rtol=1e-12, atol=1e-12)


def test_other_heads_are_left_alone():
    """An untied head, one of another class, and one whose call is already replaced."""
    import torch

    from parity.traceable import heads_that_share

    class Scaled(torch.nn.Linear):
        pass

    embedding = torch.nn.Embedding(11, 5)
    untied, scaled, wrapped = torch.nn.Linear(5, 11), Scaled(5, 11), torch.nn.Linear(5, 11)
    scaled.weight = wrapped.weight = embedding.weight
    own = wrapped.forward
    wrapped.forward = lambda states: own(states) * 2
    before = [vars(head).get("forward") for head in (untied, scaled, wrapped)]
    with heads_that_share(torch.nn.ModuleList([embedding, untied, scaled, wrapped])):
        assert [vars(head).get("forward") for head in (untied, scaled, wrapped)] == before
    assert [vars(head).get("forward") for head in (untied, scaled, wrapped)] == before


@pytest.mark.parametrize(("architecture", "feature"), TIED)
def test_a_tied_weight_is_in_the_file_once(architecture, feature, tmp_path, monkeypatch):
    """The file is smaller by the embedding than an export without the patch."""
    import parity.onnx.exporter as exporter

    subject = subjects.subject(architecture, feature)
    account, size = export_tied(subject, tmp_path / "once.onnx")
    assert account.repeated == {}
    monkeypatch.setattr(exporter, "heads_that_share", lambda model: contextlib.nullcontext())
    account, larger = export_tied(subject, tmp_path / "twice.onnx")
    ((name, tensors),) = account.repeated.items()
    assert len(tensors) == 2
    model = subject.fresh_model()
    assert larger - size >= 0.9 * 4 * model.get_input_embeddings().weight.numel(), name
