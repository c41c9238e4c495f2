"""Every check of decoding catches the faults it is for, and explains why it excuses a near tie."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import Phase, given, settings

from parity.architectures.conformance.matrix import Cell
from parity.environment import at_least
from parity.errors import ExportError, ParityError
from parity.fixtures import decoding, decoding_checks, episodes, properties, reproducer, subjects
from parity.fixtures.controls import cache_faults
from parity.fixtures.controls.cache_faults import FAULTS
from parity.judge import ratio
from parity.judge.findings import Finding, failures
from parity.sessions import OnnxSession

PASSED = Finding("ratio", "logits", True)

CHECKS = {
    "greedy": decoding_checks.judge_greedy,
    "split": decoding_checks.judge_split,
    "episode": lambda subject, session: decoding_checks.judge_episode(subject, session, decoding_checks.EVERYTHING),
}


def gpt2_file(write, path):
    subject = subjects.subject("gpt2", "causal-lm-with-past")
    write(subject, path / "model.onnx")
    return subject, OnnxSession(path / "model.onnx")


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_each_fault_is_caught(fault, tmp_path):
    """All three checks fail on the faulty file, each first with the intended finding.

    With transformers 4 exactly the recorded checks fail.
    """
    subject = subjects.subject(fault.architecture, fault.feature)
    catching = CHECKS if at_least("transformers", "5") else fault.with_4
    if catching is None:
        with pytest.raises(ExportError):
            fault.write(subject, tmp_path / "model.onnx")
        return
    fault.write(subject, tmp_path / "model.onnx")
    session = OnnxSession(tmp_path / "model.onnx")
    for name, check in CHECKS.items():
        findings = check(subject, session)
        assert bool(failures(findings)) == (name in catching), name
        if name not in catching:
            continue
        assert failures(findings)[0].check in getattr(fault, name).split(" or "), name
        assert all(row.message for row in failures(findings))
        with pytest.raises(ParityError):
            decoding_checks.raise_on_failure(findings)


@pytest.mark.parametrize("check", CHECKS)
def test_the_healthy_control_passes(check, tmp_path):
    """A correct file fails no check."""
    rows = CHECKS[check](*gpt2_file(cache_faults.healthy, tmp_path))
    assert [row.message for row in failures(rows)] == []


def test_a_wrong_token_is_told_with_its_gap(tmp_path):
    """A file that ignores its past gives other tokens, far from a tie in float64."""
    rows = decoding_checks.judge_greedy(*gpt2_file(cache_faults.past_ignored, tmp_path))
    wrong_tokens = [row for row in failures(rows) if row.check == "tokens"]
    assert wrong_tokens
    assert all("float64 holds them" in row.message for row in wrong_tokens)
    assert all(row.measurements["gap"] > 100 * row.measurements["allowed"] for row in wrong_tokens)


def test_equal_tokens_alone_let_a_fault_through(tmp_path):
    """Caches rounded to float16 change no token, but the logits of the same steps show them."""
    rows = decoding_checks.judge_greedy(*gpt2_file(cache_faults.rounded, tmp_path))
    assert all(row.passed for row in rows if row.check == "tokens")
    assert [row.passed for row in rows if row.check == "ratio"] == [False]


@pytest.mark.parametrize(("factor", "passed"), [(0.9, True), (1.1, False)])
def test_only_a_near_tie_is_excused(factor, passed):
    """Two tokens closer than the limit times the noise may change places; tokens a little further apart may not."""
    logits, noise = np.array([4.0, 4.0, 0.0, 0.0]), 1e-6
    rms = float(np.sqrt(np.mean(np.square(logits))))
    logits[0] = logits[1] - factor * ratio.LIMIT * noise * rms
    row = decoding_checks.judge_tokens(0, np.array([0]), np.array([1]), [logits[None]], noise)
    assert row.passed is passed


def test_equal_continuations_prove_nothing():
    """Tokens that do not depend on the prompt fail, for any backend."""
    said = np.array([[4, 5, 6], [7, 8, 9]])
    assert decoding_checks.judge_prompt_dependence(said).passed
    assert not decoding_checks.judge_prompt_dependence(said[[0, 0]]).passed


def test_a_relation_that_the_model_itself_has_not_is_told(tmp_path, monkeypatch):
    """If the reference itself ignores its past, the relation of splitting fails, whatever the file does."""
    subject, forgetful = gpt2_file(cache_faults.past_ignored, tmp_path)
    reference = decoding.Reference(subject.model, forgetful.run, forgetful.run, forgetful.run)
    monkeypatch.setattr(decoding_checks, "reference", lambda *_: reference)
    rows = decoding_checks.judge_split(
        subject, OnnxSession(subjects.artifact(subject, cache_faults.OPSET, tmp_path / "healthy.onnx"))
    )
    assert failures(rows)[0].check == "relation"


def test_no_rows_are_no_verdict():
    """A check that judged nothing does not pass."""
    with pytest.raises(AssertionError):
        decoding_checks.raise_on_failure([])


# --- drawn episodes: shrunk, with a reproducer

GPT2 = Cell("gpt2", "causal-lm-with-past", "onnx", "onnxruntime", 17)


def test_a_failing_episode_leaves_a_reproducer(tmp_path):
    """The faulty file fails with the path of a script that exits 1 on this file and 0 on a healthy one."""
    subject, session = gpt2_file(cache_faults.past_ignored, tmp_path)
    with pytest.raises(ParityError) as caught:
        episodes.judge_drawn_episodes(subject, session, lambda *failure: reproducer.write(tmp_path, GPT2, *failure))
    path = tmp_path / "gpt2-causal-lm-with-past-onnx17-episode-0.py"
    assert f"reproduce it with: python {path}" in "\n".join(caught.value.__notes__)
    processes = [
        subprocess.run([sys.executable, str(path), *options], capture_output=True, text=True, check=False)
        for options in (["--file", str(tmp_path / "model.onnx")], [])
    ]
    assert [each.returncode for each in processes] == [1, 0], processes
    assert processes[0].stdout.strip()
    assert processes[1].stdout.strip() == "passed"
    code = [line for line in path.read_text().split('"""')[2].splitlines() if line and not line.startswith("#")]
    assert len(code) <= 15


def test_drawn_episodes_of_a_healthy_file_pass(tmp_path):
    """The control: as many as in the profile, after the episode with all operations; no reproducer is written."""
    examples = episodes.judge_drawn_episodes(*gpt2_file(cache_faults.healthy, tmp_path), pytest.fail)
    assert examples[0] == decoding_checks.EVERYTHING
    assert len(examples) == 1 + settings().max_examples


def test_drawn_episodes_follow_the_profile(monkeypatch):
    """The settings of the loaded profile apply to episodes too, not the test's own."""
    calls = []
    monkeypatch.setattr(
        decoding_checks, "judge_episode", lambda subject, session, episode: calls.append(episode) or [PASSED]
    )
    monkeypatch.setattr(
        properties, "given", lambda strategy: lambda test: settings(max_examples=9)(given(strategy)(test))
    )
    assert len(episodes.judge_drawn_episodes(None, None, pytest.fail)) == len(calls) == 10


def test_an_episode_alone_is_not_enough(monkeypatch):
    """If hypothesis draws nothing after the explicit episode, the property fails."""
    never = settings(phases=(Phase.explicit,))
    monkeypatch.setattr(decoding_checks, "judge_episode", lambda *_: [PASSED])
    monkeypatch.setattr(properties, "given", lambda strategy: lambda test: never(given(strategy)(test)))
    with pytest.raises(AssertionError, match="drew nothing"):
        episodes.judge_drawn_episodes(None, None, pytest.fail)
