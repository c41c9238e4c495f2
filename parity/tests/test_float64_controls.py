"""The reference of a model with internal casts: the error of a plain cast, and the ratio's separation."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from parity.fixtures import subjects
from parity.judge import ratio
from parity.judge.pool import Pool
from parity.sessions import OnnxSession


@pytest.fixture(scope="module")
def t5():
    return subjects.subject("t5", "seq2seq-lm")


@pytest.fixture(scope="module")
def pool():
    return subjects.pool("t5", "seq2seq-lm", "other")


@pytest.fixture(scope="module")
def plain(t5, pool):
    """The answers of `.double()` alone: t5 casts to float32 in its norms and its softmax."""
    import torch

    from parity.dtypes import cast_floats
    from parity.traceable import call, evaluation_mode

    model = t5.fresh_model().double()
    with evaluation_mode(model, t5.onnx_config.values_override):
        found = [call(model, t5.onnx_config, cast_floats(s.inputs, torch.float64)) for s in pool.samples]
    return [{name: answers[name].numpy() for name in t5.onnx_config.outputs} for answers in found]


@pytest.fixture(scope="module")
def files(t5, tmp_path_factory):
    """Answers of the healthy file, and of a file with one gain of a norm off by a thousandth."""
    path = tmp_path_factory.mktemp("t5") / "model.onnx"
    subjects.artifact(t5, 17, path)
    inputs = subjects.pool("t5", "seq2seq-lm", "other").inputs
    healthy = [OnnxSession(path).run(sample_inputs) for sample_inputs in inputs]
    model = onnx.load(path)
    gain = next(t for t in model.graph.initializer if t.name.endswith("decoder.final_layer_norm.weight"))
    values = numpy_helper.to_array(gain).copy()
    values[3] += 1e-3
    gain.CopyFrom(numpy_helper.from_array(values, gain.name))
    onnx.save(model, path)
    return {"healthy": healthy, "faulty": [OnnxSession(path).run(sample_inputs) for sample_inputs in inputs]}


def relative(actual, reference):
    """The largest error of the answers over the pool, in units of the rms of the reference."""
    return max(
        float(np.sqrt(np.mean(np.square(a["logits"] - b["logits"]))) / np.sqrt(np.mean(np.square(b["logits"]))))
        for a, b in zip(actual, reference, strict=True)
    )


def test_a_plain_cast_is_not_float64(plain, pool):
    """`.double()` leaves the error of an internal float32, smaller than float32's own; the reference does not."""
    assert 1e-9 < relative(plain, pool.exact) < relative([a.eager for a in pool.answers], pool.exact) < 1e-5


@pytest.mark.parametrize("exact", ["reference", "plain cast"])
def test_the_ratio_separates_where_a_model_casts_inside(exact, plain, pool, files):
    """A healthy file stays below 4 and a faulty one is above 8, with either float64 run as the exact one."""
    exact_answers = plain if exact == "plain cast" else pool.exact
    sides = (exact_answers, pool.eager, [answer.jittered for answer in pool.answers])
    ratios = {
        name: max(
            each.measurements["ratio"] for each in ratio.judge_ratio(Pool.from_answers(*sides, actual), locate=False)
        )
        for name, actual in files.items()
    }
    assert ratios["healthy"] < ratio.LIMIT
    assert ratios["faulty"] > 2 * ratio.LIMIT


@pytest.mark.parametrize("last", ["padded", "all padding"])
def test_a_cast_that_only_some_masks_reach_is_widened(last, monkeypatch):
    """After calls without casts, a call of the same shape whose mask makes the model cast is still widened."""
    import torch

    from parity import reference

    def cast_where_masked(model, onnx_config, nested):
        mask, values = nested["attention_mask"], nested["values"]
        return {"values": values if mask.all() else values.to(torch.float32).double()}

    monkeypatch.setattr(reference, "call", cast_where_masked)
    ask = reference._Float64Call(torch.nn.Identity(), None)
    values = torch.full((1, 3), 1 / 3, dtype=torch.float64)
    whole = torch.ones(1, 3, dtype=torch.int64)
    masked = torch.tensor([[1, 1, 0]]) if last == "padded" else torch.zeros_like(whole)
    for mask in (whole, whole, masked):
        assert torch.equal(ask({"attention_mask": mask, "values": values})["values"], values)
    assert not torch.equal(
        cast_where_masked(None, None, {"attention_mask": masked, "values": values})["values"], values
    )


def test_a_call_like_one_without_casts_goes_without_the_mode(monkeypatch):
    """The optimisation works: a cast that appears only in the second call of a kind is not widened."""
    import torch

    from parity import reference

    monkeypatch.setattr(
        reference, "call", lambda model, onnx_config, nested: {"mode": torch.overrides._len_torch_function_stack()}
    )
    ask, inputs = reference._Float64Call(torch.nn.Identity(), None), {"input_ids": torch.ones(2, 3, dtype=torch.int64)}
    assert [ask(inputs)["mode"] for _ in range(3)] == [1, 0, 0]


def test_what_fails_on_a_short_stack_is_raised():
    """The exception of the thread is raised unchanged."""
    with pytest.raises(ZeroDivisionError):
        subjects.call_on_short_stack(lambda: 1 / 0)


@pytest.mark.filterwarnings("ignore:`torch.jit.trace:DeprecationWarning")
def test_traces_are_forgotten():
    """Afterwards torch holds no class of a deleted trace: its name can be used again."""
    import torch

    class Doubled(torch.nn.Module):
        def forward(self, values):
            return 2 * values

    def name():
        return torch.jit.trace(Doubled(), torch.ones(2), check_trace=False)._c._type().qualified_name()

    subjects.free_traces()
    first, second = name(), name()
    assert first != second
    subjects.free_traces()
    assert name() == first
