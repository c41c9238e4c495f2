"""The float64 reference: module by module it is the whole model's, and it leaves the model as it was."""

import contextlib

import numpy as np
import pytest

from parity.fixtures import subjects
from parity.registry import architectures

MODELS = [
    pytest.param(found.name, feature, id=f"{found.name}-{feature}")
    for found in architectures()
    for feature in found.features
    if not found.gap_of(feature)
]

# Modules of these read the dtype or the weights of another module: module by module they raise, and are cast whole.
CAST_WHOLE = {"deberta", "deberta-v2", "detr", "siglip", "mobilebert-masked-lm", "perceiver-masked-lm"}
# Layout models add tables of their own to each other before a module that is at work sees the sum: one rounding of
# float32, whatever the processor.
SUMS_OUTSIDE = {"layoutlmv3"}
# Other float64 kernels differ by a thousandth of this; a single cast to float32 differs by a thousand times as much.
ROUNDING = 1e-11
FLOAT32 = 2.0**-24


def expected_to_raise(architecture, feature):
    if {architecture, f"{architecture}-{feature}"} & CAST_WHOLE:
        return pytest.raises(RuntimeError, match=r"dtype|should be the same")
    return contextlib.nullcontext()


def samples_of(subject):
    return [subject.source.generate(seed=1), subject.source.generate(seed=2, padding="right")]


def float64_answers(subject, by_module):
    from parity import reference

    model, samples = subject.fresh_model(), samples_of(subject)
    if by_module:
        with reference.float64_by_module(model):
            return reference._run(model, subject.onnx_config, samples, reference.torch.float64)
    return reference._run(model.double(), subject.onnx_config, samples, reference.torch.float64)


@pytest.mark.parametrize(("architecture", "feature"), MODELS)
def test_module_by_module_is_the_whole_model_in_float64(architecture, feature):
    """Every output is float64, and that of the model cast whole but for float64's own rounding, or as on record."""
    subject = subjects.subject(architecture, feature)
    whole = float64_answers(subject, by_module=False)
    answers = None
    with expected_to_raise(architecture, feature):
        answers = float64_answers(subject, by_module=True)
    if answers is None:
        return
    allowed = 4 * FLOAT32 if architecture in SUMS_OUTSIDE else ROUNDING
    for exact, actual in zip(whole, answers, strict=True):
        assert {name: array.dtype.name for name, array in actual.items()} == dict.fromkeys(exact, "float64")
        assert {name: distance(array, actual[name]) <= allowed for name, array in exact.items()} == dict.fromkeys(
            exact, True
        )


def distance(exact, actual):
    """The largest difference, in units of the largest value."""
    assert np.array_equal(np.isfinite(exact), np.isfinite(actual))
    finite = np.isfinite(exact)
    return float(np.abs(exact[finite] - actual[finite]).max() / np.abs(exact[finite]).max())


def test_a_module_left_in_float32_would_be_seen(monkeypatch):
    """With the weights of one layer rounded to float32 answers in between, the comparison above fails by far."""
    import torch

    from parity import reference

    subject = subjects.subject("bert", "default")
    (whole, _), own = float64_answers(subject, by_module=False), reference._run

    def run_rounded(model, *arguments):
        norm = model.encoder.layer[0].output.LayerNorm
        # By numpy: torch's own cast is widened.
        norm.register_forward_hook(lambda *call: torch.from_numpy(call[-1].numpy().astype("f4").astype("f8")))
        return own(model, *arguments)

    monkeypatch.setattr(reference, "_run", run_rounded)
    (answers, _) = float64_answers(subject, by_module=True)
    assert distance(whole["last_hidden_state"], answers["last_hidden_state"]) > 100 * ROUNDING
    assert torch.get_default_dtype() == torch.float32


def weights(model):
    return {name: (tensor.dtype, tensor.data_ptr()) for name, tensor in model.state_dict(keep_vars=True).items()}


@pytest.mark.parametrize("architecture", ["bert", "resnet", "deberta"])
def test_the_model_comes_back_as_it_was(architecture):
    """Afterwards every weight and buffer is the tensor that it was, also when the run raised in the middle."""
    from parity import reference

    subject = subjects.subject(architecture, "default")
    model = subject.fresh_model()
    before = weights(model)
    with expected_to_raise(architecture, "default"), reference.float64_by_module(model):
        reference._run(model, subject.onnx_config, [subject.source.generate()], reference.torch.float64)
    assert weights(model) == before
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_one_module_at_a_time_has_float64_weights():
    """While a linear layer works, its weights are the only ones in float64."""
    import torch

    from parity.reference import float64_by_module

    subject = subjects.subject("bert", "masked-lm")
    model, most = subject.fresh_model(), []

    def count(module, *_):
        most.append(sum(parameter.dtype == torch.float64 for parameter in model.parameters()))

    with float64_by_module(model):
        for module in model.modules():
            if isinstance(module, torch.nn.Linear):
                module.register_forward_pre_hook(count)
        model(**subject.source.dummy)
    assert len(most) >= 12
    # The prediction head owns a bias beside its linear layer.
    assert max(most) <= 3


@pytest.mark.parametrize("architecture", ["bert", "deberta"])
def test_large_models_take_that_way_and_give_the_same_answers(architecture, monkeypatch):
    """From the size on at which weights are cast by module, the answers are those of a model below it."""
    from parity import reference

    subject = subjects.subject(architecture, "default")
    samples = [subject.source.generate(seed=seed) for seed in (1, 2)]
    small = reference.answers(subject.fresh_model(), subject.onnx_config, samples, consume=True)
    monkeypatch.setattr(reference, "BY_MODULE_FROM", 0)
    large = reference.answers(subject.fresh_model(), subject.onnx_config, samples, consume=True)
    for below, above in zip(small, large, strict=True):
        for side in ("eager", "exact", "jittered"):
            whole, by_module = getattr(below, side), getattr(above, side)
            allowed = ROUNDING if side == "exact" else 4 * FLOAT32
            assert max(distance(whole[name], by_module[name]) for name in whole) <= allowed


def test_every_weight_moves_by_one_unit_in_the_last_place():
    """Each of them, about half up and half down; the answers move with them."""
    import torch

    from parity import reference

    subject = subjects.subject("bert", "default")
    model = subject.fresh_model()
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
    """Dropout has no part in any of the reference's three sides, nor in a float64 backend; the mode comes back."""
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
