"""The float64 reference casts weights once for all samples, and leaves the model unchanged."""

import numpy as np
import pytest

from parity.fixtures import subjects

# Other float64 kernels differ by a thousandth of this; a single float32 cast by a thousand times as much.
ROUNDING = 1e-11
NINE = 9


def tensors_of(model):
    return [tensor for tensor in (*model.parameters(), *model.buffers()) if tensor.is_floating_point()]


def elements_cast(model, subject, samples):
    """Elements of weights cast to float64 while answering these samples, and the number of the model's elements."""
    from torch.utils._python_dispatch import TorchDispatchMode

    from parity import reference

    cast = []

    def places():
        return {tensor.data_ptr() for tensor in tensors_of(model)}

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            # Before the call: a weight that is cast in place frees its memory.
            is_weight = func.name() == "aten::_to_copy" and args[0].data_ptr() in places()
            result = func(*args, **(kwargs or {}))
            if is_weight and "float64" in str(result.dtype):
                cast.append(result.numel())
            return result

    count = sum(tensor.numel() for tensor in tensors_of(model))
    with Count():
        reference.answers(model, subject.onnx_config, samples, consume=True)
    return sum(cast), count


@pytest.mark.parametrize("architecture", ["bert", "gpt2", "t5", "resnet"])
def test_weights_are_cast_once_for_all_samples(architecture):
    """Each weight becomes float64 once, for any number of samples."""
    subject = subjects.subject(architecture, "default")
    samples = [subject.source.generate(seed=seed) for seed in range(NINE)]
    for some in (samples[:1], samples):
        elements, count = elements_cast(subject.fresh_model(), subject, some)
        assert elements == count


def test_a_cast_for_each_sample_is_counted(monkeypatch):
    """The control: a reference that casts the model anew for each sample has as many casts more."""
    import torch

    from parity import reference

    subject, own = subjects.subject("bert", "default"), reference._run

    def run_each_with_a_cast(model, onnx_config, samples, spool, dtype=None):
        answers = []
        for sample in samples:
            if dtype == torch.float64:
                model.float().double()
            answers += own(model, onnx_config, [sample], spool, dtype)
        return answers

    monkeypatch.setattr(reference, "_run", run_each_with_a_cast)
    samples = [subject.source.generate(seed=seed) for seed in range(NINE)]
    elements, count = elements_cast(subject.fresh_model(), subject, samples)
    assert elements == (1 + NINE) * count


def distance(exact, actual):
    """The largest difference, in units of the largest value."""
    assert np.array_equal(np.isfinite(exact), np.isfinite(actual))
    finite = np.isfinite(exact)
    return float(np.abs(exact[finite] - actual[finite]).max() / np.abs(exact[finite]).max())


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("architecture", ["bert", "resnet", "deberta"])
def test_the_model_comes_back_as_it_was(architecture, big, monkeypatch):
    """Afterwards every weight and buffer has its former type and bits, also if the run raised."""
    import torch

    from parity import reference

    monkeypatch.setattr(reference, "BIG_CHECKPOINT", 0 if big else 1 << 40)
    model = subjects.subject(architecture, "default").fresh_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    inside = set()

    def interrupt():
        with reference.float64_weights(model):
            inside.update(tensor.dtype for tensor in tensors_of(model))
            raise KeyError

    with pytest.raises(KeyError):
        interrupt()
    assert inside == {torch.float64}
    after = model.state_dict()
    assert {name: tensor.dtype for name, tensor in after.items()} == {name: b.dtype for name, b in before.items()}
    assert all(torch.equal(tensor, before[name]) for name, tensor in after.items())


def test_every_weight_moves_by_one_unit_in_the_last_place():
    """Every weight changes, about half of them up and half down, and so do the answers."""
    import torch

    from parity import reference

    subject = subjects.subject("bert", "default")
    model = subject.fresh_model()
    # A weight may be a transposed view.
    transposed = model.encoder.layer[0].intermediate.dense.weight
    transposed.data = transposed.data.t().contiguous().t()
    assert not transposed.is_contiguous()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    reference.move_weights(model)
    for name, parameter in model.named_parameters():
        up, down = (parameter == torch.nextafter(before[name], torch.tensor(end)) for end in (torch.inf, -torch.inf))
        assert bool((up ^ down).all())
        assert parameter.numel() < 64 or 0.2 < float(up.float().mean()) < 0.8
    (answers,) = reference.answers(subject.fresh_model(), subject.onnx_config, [subject.source.generate(seed=1)])
    moved = np.abs(answers.jittered["last_hidden_state"] - answers.eager["last_hidden_state"])
    assert 0 < moved.max() < 1e-4


def test_a_model_in_train_mode_answers_as_in_eval_mode():
    """Dropout affects none of the reference's three sides, nor a float64 backend; the mode is restored."""
    from parity import reference
    from parity.validation import backend_inputs

    subject = subjects.subject("bert", "default")
    samples = [subject.source.generate(seed=1)]
    training = subject.fresh_model().train()
    assert max(module.p for module in training.modules() if hasattr(module, "p")) > 0
    sides = [reference.answers(each, subject.onnx_config, samples)[0] for each in (training, subject.fresh_model())]
    for side in ("eager", "exact", "jittered"):
        one, other = (getattr(each, side)["last_hidden_state"] for each in sides)
        assert np.abs(one - other).max() < 1e-5
    assert training.training
    inputs = backend_inputs(subject.onnx_config, samples[0])
    with reference.float64(training, subject.onnx_config, subject.source.layout) as run:
        assert np.abs(run(inputs)["last_hidden_state"] - sides[1].exact["last_hidden_state"]).max() < 1e-5
