"""Decoding with caches gives the same results on the file as on the PyTorch model."""

import pytest

from parity.fixtures import decoding_checks, episodes, subjects
from parity.sessions import OnnxSession

GENERATING = ("causal-lm-with-past", "seq2seq-lm-with-past")
CACHING = ("default-with-past", *GENERATING, "speech2seq-lm-with-past")


@pytest.mark.cells(features=GENERATING, every_opset=False)
def test_greedy_tokens(subject, session, measurements):
    """32 tokens generated greedily from prompts of unequal lengths equal those of the eager model's `generate`."""
    rows = decoding_checks.judge_greedy(subject, session)
    measurements(outputs=decoding_checks.ratios(rows))
    decoding_checks.raise_on_failure(rows)
    assert sum(row.check == "tokens" for row in rows) == 3


@pytest.mark.cells(features=("seq2seq-lm-with-past",), every_opset=False)
def test_generation_without_pytorch(cell, subject, session, measurements, tmp_path):
    """With the prefill file, ONNX Runtime alone generates the same 32 tokens."""
    prefill = subjects.prefill(subject, cell.opset, tmp_path / "prefill.onnx")
    rows = decoding_checks.judge_greedy(subject, session, prefill=OnnxSession(prefill))
    measurements(outputs=decoding_checks.ratios(rows))
    decoding_checks.raise_on_failure(rows)
    assert sum(row.check == "tokens" for row in rows) == 3


@pytest.mark.cells(features=CACHING, every_opset=False)
def test_split_decoding(subject, session, measurements):
    """Decoding in two pieces equals decoding at once, and the output caches extend the input caches."""
    rows = decoding_checks.judge_split(subject, session)
    measurements(outputs=decoding_checks.ratios(rows))
    decoding_checks.raise_on_failure(rows)


@pytest.mark.cells(features=CACHING, every_opset=False)
def test_steps_reorder_and_crop(cell, subject, session, reproductions):
    """After any prefill, steps, reorders and crops, the file returns what the eager model does."""
    assert len(episodes.judge_drawn_episodes(subject, session, reproductions)) > 1
