"""The error ratio: its formula on numbers that can be checked by hand, and cases that it must not pass."""

from dataclasses import replace

import numpy as np
import pytest

from parity.judge import ratio
from parity.judge.pool import Pool


def sides(backend_error, eager_error=1e-6, jitter_error=1e-6, count=8):
    """Exact answers of rms 2, and answers with relative errors."""
    exact = [np.full((3, 5), 2.0) for _ in range(count)]

    def off(error):
        return [(array * (1 + error)).astype(np.float64).astype(np.float32) for array in exact]

    def off32(error):
        return [np.float32(2.0) + np.full((3, 5), np.float32(2.0 * error)) for _ in range(count)]

    return exact, off32(eager_error), off32(jitter_error), off(backend_error)


def pool(*args, **kwargs):
    """The sides as a pool of one output."""
    return pool_of(sides(*args, **kwargs))


def pool_of(arrays):
    return Pool.from_answers(*([{"logits": array} for array in side] for side in arrays))


def test_a_backend_as_good_as_eager_has_ratio_one():
    """The same error on both sides gives 1."""
    assert pool(1e-6).measure("logits").ratio == pytest.approx(1.0, rel=0.1)


def test_a_backend_ten_times_worse_has_ratio_ten():
    """The ratio is linear in the backend's error."""
    assert pool(1e-5).measure("logits").ratio == pytest.approx(10.0, rel=0.1)


def test_jitter_stands_in_for_a_lucky_eager():
    """If eager happens to be exact, the error from perturbed weights is the unit."""
    assert pool(1e-5, eager_error=0.0, jitter_error=1e-6).measure("logits").ratio == pytest.approx(10.0, rel=0.1)


def test_unit_roundoff_is_the_least_unit():
    """Without either error, the unit is float32's roundoff times the rms."""
    measured = pool(2.0**-20, eager_error=0.0, jitter_error=0.0).measure("logits")
    assert measured.ratio == pytest.approx(16.0, rel=0.1)


def test_one_bad_input_of_eight_is_enough():
    """A fault in one input of the pool is not averaged away."""
    exact, eager, jittered, actual = sides(1e-6)
    actual[5] = actual[5] + np.float32(1e-3)
    assert pool_of((exact, eager, jittered, actual)).measure("logits").ratio > ratio.LIMIT


def test_findings_fail_above_the_limit_and_name_the_output():
    """Above 4 the finding fails and gives the output, the ratio and the number of inputs."""
    finding, *located = ratio.judge_ratio(pool(1e-5))
    assert not finding.passed
    assert finding.message.startswith("logits: error ratio")
    assert "8 inputs" in finding.message
    assert {each.check for each in located} == {"values"}
    assert ratio.judge_ratio(pool(1e-5), locate=False) == [finding]


def test_a_small_pool_is_refused():
    """A pool needs more than seven inputs."""
    with pytest.raises(ValueError, match="7 inputs, should be at least 8"):
        ratio.judge_ratio(pool(1e-6, count=7))


def test_nan_is_never_within_the_ratio():
    """A NaN fails if the exact value is finite, whatever the other values are."""
    exact, eager, jittered, actual = sides(1e-6)
    actual[0] = actual[0].copy()
    actual[0][0, 0] = np.nan
    assert not ratio.judge_ratio(pool_of((exact, eager, jittered, actual)))[0].passed


def test_sides_of_unequal_length_are_an_error():
    """No input is silently dropped."""
    exact, eager, jittered, actual = sides(1e-6)
    with pytest.raises(ValueError, match="7 actual, should be 8, one for each of the answers"):
        pool_of((exact, eager, jittered, actual[:-1])).measure("logits")


def test_a_pool_without_answers_of_a_backend_is_no_pass():
    """Without a backend's answers there is no ratio; the noise is the reference's own."""
    exact, eager, jittered, _ = ([{"logits": array} for array in side] for side in sides(1e-6))
    pool = Pool.from_answers(exact, eager, jittered)
    assert pool.noise["logits"] > 0
    with pytest.raises(ValueError, match="no answers of a backend"):
        ratio.judge_ratio(pool)


def test_a_pool_brings_the_noise_that_it_is_judged_in():
    """Its own noise, or the given unit, which slices and copies with other answers keep."""
    own = pool(1e-6)
    assert own.noise["logits"] > 0
    other = replace(own, unit={"logits": 0.5})
    for each in (other, other[1:], other.with_actual(own.eager)):
        assert each.noise == {"logits": 0.5}


def test_inputs_without_an_answer_are_an_error():
    """A reference with fewer or more answers than inputs cannot leave inputs unjudged."""
    answers = pool(1e-6).answers
    for samples, inputs in (([""] * 7, ()), ([""] * 9, ()), ([""] * 8, [{}] * 7)):
        with pytest.raises(ValueError, match="should be 8, one for each of the answers"):
            Pool(samples, answers, inputs)


def few_values(number, wrong=0.0):
    """Sixteen inputs of this many values, those of one near zero: there a backend is as far off as anywhere."""
    exact = [np.full((1, number), 1.0 if place else 0.003) for place in range(16)]
    lucky, usual = ([array + error for array in exact] for error in (2e-8, 1.5e-7))
    eager = [lucky[0], *usual[1:]]
    actual = [usual[0] + wrong, *usual[1:]]
    return pool_of((exact, eager, eager, [array.astype(np.float32) for array in actual]))


def test_a_single_value_near_zero_does_not_decide():
    """A right file passes where an output has one value that is near zero by chance, a wrong one does not.

    The control: 16 values near zero are no chance, and count in their own units.
    """
    assert few_values(1).measure("logits").ratio < ratio.REPORT
    assert few_values(16).measure("logits").ratio > ratio.LIMIT
    assert few_values(1, wrong=1e-5).measure("logits").ratio > ratio.LIMIT
    assert few_values(1).noise_at(0)["logits"] > 0.9 * few_values(1).noise_at(1)["logits"]
    assert few_values(16).noise_at(0)["logits"] < 0.01 * few_values(16).noise_at(1)["logits"]


def test_limit_is_four():
    """Five times the noise fails, three times passes: a healthy file is below two."""
    assert [ratio.judge_ratio(pool(error))[0].passed for error in (3e-6, 5e-6)] == [True, False]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_input_with_a_value_that_is_not_finite_counts(value):
    """Only that element is ignored: other faults in its input fail."""
    exact, eager, jittered, actual = sides(1e-6)
    for side in (exact, eager, jittered, actual):
        side[5] = side[5].copy()
        side[5][0, 0] = value
    assert ratio.judge_ratio(pool_of((exact, eager, jittered, actual)))[0].passed
    actual[5][1:] += np.float32(1e-3)
    assert not ratio.judge_ratio(pool_of((exact, eager, jittered, actual)))[0].passed


@pytest.mark.parametrize("hole", [None, np.nan, np.inf])
def test_the_noise_is_that_of_the_definition(hole):
    """It is the unit of every measurement, of the first as of later ones, whatever backend is measured."""
    exact, eager, jittered, actual = sides(1e-5)
    if hole is not None:
        for side in (exact, eager, jittered, actual):
            side[0] = np.where(np.arange(15).reshape(3, 5) == 3, hole, side[0])
    whole = pool_of((exact, eager, jittered, actual))
    total = 0.0
    for reference, *sides_of_torch in zip(exact, eager, jittered, strict=True):
        places = np.isfinite(reference)
        errors = [np.sqrt(np.mean((side[places] - reference[places]) ** 2)) for side in sides_of_torch]
        total += (max(errors) / 2) ** 2
    expected = pytest.approx(np.sqrt(total / len(whole)))
    assert whole.noise["logits"] == expected
    assert [whole.measure("logits").noise for _ in range(2)] == [expected] * 2
    # The control: answers that are replaced are measured anew.
    worse = [{"logits": array * (1 + 1e-3)} for array in eager]
    answers = [replace(answer, eager=each) for answer, each in zip(whole.answers, worse, strict=True)]
    assert replace(whole, answers=answers).noise["logits"] > 10 * whole.noise["logits"]
