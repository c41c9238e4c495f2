"""Arrays of one call: each property can fail, with a message that names the output and the place."""

import numpy as np

from parity.judge import values

EXPECTED = {"logits": np.arange(12, dtype=np.float32).reshape(3, 4)}


def only(actual, **options):
    (row,) = values.judge_values(EXPECTED, {"logits": actual}, **options)
    return row


def test_equal_arrays_pass_with_no_difference():
    """Equal values pass, and the recorded difference is 0."""
    row = only(EXPECTED["logits"].copy(), atol=0.0)
    assert row.passed
    assert row.measurements["worst"] == 0.0


def test_a_missing_output_is_named():
    """A missing output fails by name."""
    (row,) = values.judge_values(EXPECTED, {})
    assert (row.check, row.passed) == ("names", False)


def test_an_output_too_many_is_named():
    """An output that the reference does not have fails by name."""
    rows = values.judge_values(EXPECTED, {**EXPECTED, "surprise": EXPECTED["logits"]})
    assert [row.subject for row in rows if not row.passed] == ["surprise"]


def test_another_dtype_fails():
    """float64 instead of float32 fails, whatever the values."""
    assert only(EXPECTED["logits"].astype(np.float64)).message == "logits: dtype float64, should be float32"


def test_another_shape_fails():
    """A transposed output fails, whatever the values."""
    assert only(EXPECTED["logits"].T).message == "logits: shape (4, 3), should be (3, 4)"


def test_a_broadcastable_shape_fails():
    """A shape that numpy would broadcast is another shape."""
    assert only(EXPECTED["logits"][None]).check == "shape"


def test_another_pattern_of_nan_fails():
    """NaN where there should be a number fails with its index."""
    actual = EXPECTED["logits"].copy()
    actual[1, 2] = np.nan
    row = only(actual)
    assert row.check == "nonfinite"
    assert "index (1, 2)" in row.message


def test_another_sign_of_infinity_fails():
    """-inf where +inf should be fails."""
    expected = {"logits": np.array([np.inf], np.float32)}
    rows = values.judge_values(expected, {"logits": np.array([-np.inf], np.float32)})
    assert not rows[0].passed


def test_values_are_told_with_count_worst_difference_and_index():
    """A mismatch has the number of differing values, the largest difference, and its index."""
    actual = EXPECTED["logits"].copy()
    actual[0, 1] += 0.5
    actual[2, 3] += 2
    row = only(actual, atol=1e-3)
    assert (row.check, row.passed) == ("values", False)
    message = row.message
    assert message.startswith("logits: 2 of 12 values differ by more than 0.001 (16.7 %)")
    assert "worst difference 2 at index (2, 3): got 13, should be 11" in message


def test_the_limit_is_hard():
    """A difference just above atol fails, one equal to atol passes: there is no relative part."""
    actual = EXPECTED["logits"].copy()
    actual[2, 3] += 2.0**-10
    assert only(actual, atol=2.0**-10).passed
    assert not only(actual, atol=2.0**-11).passed


def test_integers_must_be_equal():
    """Integer outputs have no tolerance."""
    rows = values.judge_values({"ids": np.array([1, 2])}, {"ids": np.array([1, 3])}, atol=10.0)
    assert not rows[0].passed
