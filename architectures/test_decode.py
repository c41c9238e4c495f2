"""Decoding with caches on the file goes as it goes on the PyTorch model."""

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from parity.fixtures import decoding_checks, subjects
from parity.fixtures.decoding_checks import Episode
from parity.judge import ratio
from parity.sessions import OnnxSession

GENERATING = ("causal-lm-with-past", "seq2seq-lm-with-past")
CACHING = ("default-with-past", *GENERATING)

BOUNDED = settings(
    max_examples=3,
    derandomize=True,
    database=None,
    deadline=None,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow],
)

OPERATIONS = st.tuples(st.sampled_from(("step", "reorder", "crop")), st.integers(0, 99), st.integers(1, 3))
EPISODES = st.builds(
    Episode,
    batch=st.integers(1, 3),
    prompt=st.integers(1, 8),
    padding=st.sampled_from(("", "left")),
    seed=st.integers(0, 999),
    operations=st.lists(OPERATIONS, min_size=ratio.MINIMUM_POOL - 1, max_size=ratio.MINIMUM_POOL).map(tuple),
)


@pytest.mark.cells(features=GENERATING, every_opset=False)
def test_greedy_tokens(subject, session, figures):
    """32 tokens generated greedily from prompts of unequal lengths are those of the eager model's `generate`."""
    rows = decoding_checks.greedy_rows(subject, session)
    figures(outputs=decoding_checks.ratios(rows))
    decoding_checks.raise_on_failure(rows)
    assert sum(row.check == "tokens" for row in rows) == 3


@pytest.mark.cells(features=("seq2seq-lm-with-past",), every_opset=False)
def test_generation_without_pytorch(cell, subject, session, figures, tmp_path):
    """With the prefill file the same 32 tokens come out of ONNX Runtime alone."""
    prefill = subjects.prefill(subject, cell.opset, tmp_path / "prefill.onnx")
    rows = decoding_checks.greedy_rows(subject, session, prefill=OnnxSession(prefill))
    figures(outputs=decoding_checks.ratios(rows))
    decoding_checks.raise_on_failure(rows)
    assert sum(row.check == "tokens" for row in rows) == 3


@pytest.mark.cells(features=CACHING, every_opset=False)
def test_split_decoding(subject, session, figures):
    """Decoding in two pieces gives what decoding at once gives, and the returned caches extend the given ones."""
    rows = decoding_checks.split_rows(subject, session)
    figures(outputs=decoding_checks.ratios(rows))
    decoding_checks.raise_on_failure(rows)


@pytest.mark.cells(features=CACHING, every_opset=False)
def test_steps_reorder_and_crop(subject, session):
    """Whatever is prefilled, stepped, reordered and cropped, the file returns what the eager model does."""
    tried = []

    @BOUNDED
    @example(decoding_checks.EVERYTHING)
    @given(EPISODES)
    def goes_as_eager(episode):
        tried.append(episode)
        decoding_checks.raise_on_failure(decoding_checks.episode_rows(subject, session, episode))

    goes_as_eager()
    assert len(tried) > 1
