"""Decoding with caches on the file goes as it goes on the PyTorch model."""

import pytest

from parity.fixtures import decoding_checks, episodes, subjects
from parity.sessions import OnnxSession

GENERATING = ("causal-lm-with-past", "seq2seq-lm-with-past")
CACHING = ("default-with-past", *GENERATING, "speech2seq-lm-with-past")


@pytest.mark.cells(features=GENERATING, every_opset=False)
def test_greedy_tokens(subject, session, measurements):
    """32 tokens generated greedily from prompts of unequal lengths are those of the eager model's `generate`."""
    rows = decoding_checks.judge_greedy(subject, session)
    measurements(outputs=decoding_checks.ratios(rows))
    decoding_checks.raise_on_failure(rows)
    assert sum(row.check == "tokens" for row in rows) == 3


@pytest.mark.cells(features=("seq2seq-lm-with-past",), every_opset=False)
def test_generation_without_pytorch(cell, subject, session, measurements, tmp_path):
    """With the prefill file the same 32 tokens come out of ONNX Runtime alone."""
    prefill = subjects.prefill(subject, cell.opset, tmp_path / "prefill.onnx")
    rows = decoding_checks.judge_greedy(subject, session, prefill=OnnxSession(prefill))
    measurements(outputs=decoding_checks.ratios(rows))
    decoding_checks.raise_on_failure(rows)
    assert sum(row.check == "tokens" for row in rows) == 3


@pytest.mark.cells(features=CACHING, every_opset=False)
def test_split_decoding(subject, session, measurements):
    """Decoding in two pieces gives what decoding at once gives, and the returned caches extend the given ones."""
    rows = decoding_checks.judge_split(subject, session)
    measurements(outputs=decoding_checks.ratios(rows))
    decoding_checks.raise_on_failure(rows)


@pytest.mark.cells(features=CACHING, every_opset=False)
def test_steps_reorder_and_crop(cell, subject, session, reproductions):
    """Whatever is prefilled, stepped, reordered and cropped, the file returns what the eager model does."""
    assert len(episodes.judge_drawn_episodes(subject, session, reproductions)) > 1
