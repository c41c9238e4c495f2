"""Element types: bfloat16 counts as floating point, and a pool of it has an error ratio."""

import numpy as np
import pytest

from parity import dtypes
from parity.judge import ratio
from parity.judge.pool import Pool


@pytest.mark.parametrize("name", ["float64", "float32", "float16", "bfloat16", "int64", "bool"])
def test_an_array_has_the_type_of_its_tensor(name):
    """Equal values and types; every type that rounds has a unit roundoff."""
    import torch

    tensor = torch.tensor([[1.0, 0.0], [1.0, 1.0]]).to(getattr(torch, name))
    array = dtypes.array_of(tensor)
    assert (array.dtype.name, array.shape) == (name, (2, 2))
    assert array.astype(np.float64).tolist() == tensor.double().tolist()
    assert torch.equal(dtypes.tensor_of(array), tensor)
    assert dtypes.tensor_of(array).dtype is tensor.dtype
    assert dtypes.is_floating(array.dtype) is tensor.is_floating_point()
    if tensor.is_floating_point():
        assert dtypes.unit_roundoff(array.dtype) == torch.finfo(tensor.dtype).eps / 2


def test_a_bfloat16_output_is_judged():
    """Relative to bfloat16's rounding: one more rounding passes, a hundred roundoffs fail."""
    import ml_dtypes

    exact = [{"y": np.random.default_rng(seed).normal(size=(4, 8))} for seed in range(8)]
    rounded = [{"y": each["y"].astype(ml_dtypes.bfloat16)} for each in exact]
    wrong = [{"y": (each["y"] * (1 + 100 * 2.0**-8)).astype(ml_dtypes.bfloat16)} for each in exact]
    (healthy,) = ratio.judge_ratio(Pool.from_answers(exact, rounded, rounded, rounded))
    faulty, *_ = ratio.judge_ratio(Pool.from_answers(exact, rounded, rounded, wrong))
    assert (healthy.passed, faulty.passed) == (True, False)
