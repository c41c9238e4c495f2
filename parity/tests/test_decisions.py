"""Decisions: a ranking may differ only if the exact gap is no larger than the noise."""

import time
from dataclasses import replace

import numpy as np
import pytest

from parity.judge import decisions
from parity.judge.findings import failures
from parity.judge.pool import Pool

# Candidates closer than 4 · 1e-6 · rms may change places.
NOISE = {"logits": 1e-6, "hidden": 1e-6, "start_logits": 1e-6}


def make_logits(*values, width=96, rows=3):
    """Logits whose leading candidates at (0, 0) are 0, 1, …, with these values; all others are far below."""
    array = np.tile(np.linspace(-1, 0, width), (rows, 2, 1))
    array[0, 0, : len(values)] = values
    return array


def judge(exact, actual, name="logits", eager=None, place=""):
    sides = [{name: exact}], [{name: exact if eager is None else eager}], [{name: exact}], [{name: actual}]
    pool = replace(Pool.from_answers(*sides, [place]), unit=NOISE)
    return decisions.judge_decisions(pool, eager=eager is not None)


def swap(array, first, second):
    actual = array.astype(np.float32)
    actual[0, 0, [first, second]] = actual[0, 0, [second, first]]
    return actual


def test_equal_rankings_pass():
    """The same order passes, whatever the values."""
    exact = make_logits(9, 8, 7, 6, 5)
    (row,) = judge(exact, (2 * exact).astype(np.float32))
    assert row.passed


def test_another_argmax_is_told_with_both_candidates_gap_and_noise():
    """The message has the place, both candidates, their exact values, the gap and the noise."""
    exact = make_logits(3, 2.5, 1)
    (row,) = judge(exact, swap(exact, 0, 1), place="batch 3")
    assert (row.check, row.subject, row.passed, row.where) == ("decision", "logits", False, "batch 3")
    assert row.message.startswith(
        "logits: argmax at index (0, 0): got candidate 1, should be 0; their float64 values 2.5 and 3 are 0.5 apart,"
        " the noise is "
    )


@pytest.mark.parametrize(("gap", "passed"), [(1e-6, True), (1e-4, False)])
def test_only_a_gap_above_the_noise_decides(gap, passed):
    """Only candidates closer than the noise may change places, even at a single place out of hundreds."""
    exact = make_logits(1 + gap, 1, rows=100)
    actual = exact.astype(np.float64)
    actual[0, 0, [0, 1]] = actual[0, 0, [1, 0]]
    assert judge(exact, actual)[0].passed is passed


def test_a_lower_rank_of_the_first_five_is_told():
    """The fourth and fifth in another order fail; the sixth and seventh do not matter."""
    exact = make_logits(9, 8, 7, 6, 5, 4, 3)
    assert judge(exact, swap(exact, 5, 6))[0].passed
    assert "rank 4 of the top 5" in judge(exact, swap(exact, 3, 4))[0].message


def test_one_that_drops_out_of_the_five_is_told():
    """The fifth and sixth in another order make another top five."""
    exact = make_logits(9, 8, 7, 6, 5, 4)
    assert "rank 5 of the top 5 at index (0, 0): got candidate 5, should be 4" in (
        judge(exact, swap(exact, 4, 5))[0].message
    )


def test_equal_infinities_have_no_gap():
    """Candidates at -inf may be in any order, but none of them may be first."""
    exact = np.array([[1.0, -np.inf, -np.inf, -np.inf]])
    assert judge(exact, exact[:, [0, 2, 1, 3]])[0].passed
    assert not judge(exact, np.array([[-np.inf, 1.0, -np.inf, -np.inf]]))[0].passed


def test_hidden_states_decide_nothing():
    """Only logits are judged, under any name; a single candidate is always right."""
    exact = make_logits(3, 2)
    assert judge(exact, swap(exact, 0, 1), name="hidden") == []
    assert failures(judge(exact, swap(exact, 0, 1), name="start_logits"))
    assert judge(exact[..., :1], -exact[..., :1])[0].passed


def test_a_large_vocabulary_is_judged_alike():
    """The leading candidates of thousands are those of a full sort, ties in their original order."""
    values = np.random.default_rng(0).integers(0, 2000, (4, 5, 3000)).astype(np.float32)
    values[0, 0, [2000, 10, 500]] = 3000
    expected = np.argsort(-values, axis=-1, kind="stable")[..., :5]
    leading = np.take_along_axis(values, decisions._leading(values), -1)
    assert np.array_equal(leading, np.take_along_axis(values, expected, -1))
    assert decisions._leading(values)[0, 0, :3].tolist() == [10, 500, 2000]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_large_vocabulary_with_masked_candidates_is_judged_alike(dtype):
    """NaN comes last and no candidate twice, whether three or all candidates of a row are masked."""
    values = np.random.default_rng(0).permutation(3000).reshape(1, 3000).astype(dtype).repeat(4, axis=0)
    values[1, 3:] = -np.inf
    values[2] = -np.inf
    values[3, :10] = np.nan
    values[0, 7] = np.inf
    expected = np.argsort(-values, axis=-1, kind="stable")[..., :5]
    leading = decisions._leading(values)
    assert np.array_equal(np.take_along_axis(values, leading, -1), np.take_along_axis(values, expected, -1))
    assert all(len(set(row)) == 5 for row in leading.tolist())
    assert not np.isnan(values[3, leading[3]]).any()


def test_it_costs_next_to_nothing():
    """Eight inputs of a tiny model take less than 2 ms (ten times as much here, for a busy machine)."""
    exact = [{"logits": np.random.default_rng(i).normal(size=(3, 16, 96))} for i in range(8)]
    actual = [{"logits": array["logits"].astype(np.float32)} for array in exact]
    pool = replace(Pool.from_answers(exact, actual, actual, actual), unit=NOISE)
    start = time.process_time()
    (row,) = decisions.judge_decisions(pool)
    assert time.process_time() - start < 0.02
    assert row.passed


def test_a_ranking_that_is_pytorchs_own_passes():
    """If float32 PyTorch decides differently from float64 at that place, the file may too."""
    exact = make_logits(3, 2.5, 1)
    actual = swap(exact, 0, 1)
    assert judge(exact, actual, eager=actual)[0].passed
    assert not judge(exact, actual, eager=exact.astype(np.float32))[0].passed
    assert not judge(exact, swap(exact, 0, 2), eager=actual)[0].passed
