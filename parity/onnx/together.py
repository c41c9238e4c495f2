"""The parts of an encoder-decoder run together: 32 greedy tokens, held against what `generate` gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from parity.dtypes import array_of
from parity.judge.findings import Finding
from parity.judge.pool import rms
from parity.sessions import OnnxSession
from parity.traceable import evaluation_mode

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from parity.samples import Sample, SampleSource

NEW_TOKENS = 32
# (rows, padding) of the prompts.
PROMPTS = ((1, ""), (3, "right"))
_LENGTH = 11
# Below this gap, in units of the logits' size, two tokens are equally good.
_TIE = 1e-5


def judge_together(files: Mapping[str, Path], model: PreTrainedModel, source: SampleSource) -> list[Finding]:
    """One finding for each prompt.

    Args:
        files: part → its file; encoder, decoder and step.
        source: makes the prompts.
    """
    sessions = {part: OnnxSession(path) for part, path in files.items()}
    findings = []
    for seed, (rows, padding) in enumerate(PROMPTS, start=7):
        sample = source.generate(batch_size=rows, seq_length=_LENGTH, padding=padding, seed=seed)
        tokens = _generate(model, sample)
        message = _disagreement(_logits(sessions, sample, tokens), tokens)
        findings.append(Finding("tokens", f"batch {rows}", not message, message))
    return findings


def _generate(model: PreTrainedModel, sample: Sample) -> np.ndarray:
    """The start token and the greedy ones after it; the end of the text does not end them.

    Without a cache: transformers 5 makes one with as many layers as the encoder has, and raises where the decoder has
    more.
    """
    from transformers import GenerationConfig

    padding = getattr(model.config, "pad_token_id", None) or 0
    starts = (getattr(each, "decoder_start_token_id", None) for each in (model.generation_config, model.config))
    config = GenerationConfig(
        max_new_tokens=NEW_TOKENS,
        min_new_tokens=NEW_TOKENS,
        do_sample=False,
        num_beams=1,
        use_cache=False,
        # The oldest checkpoints name none: then it is the padding.
        decoder_start_token_id=next((start for start in starts if start is not None), padding),
        pad_token_id=padding,
        eos_token_id=None,
    )
    with evaluation_mode(model):
        tokens = model.generate(
            input_ids=sample.inputs["input_ids"],
            attention_mask=sample.inputs["attention_mask"],
            generation_config=config,
        )
    assert isinstance(tokens, torch.Tensor)
    return array_of(tokens)


def _logits(sessions: Mapping[str, OnnxSession], sample: Sample, tokens: np.ndarray) -> list[np.ndarray]:
    """The files' logits for each token after the first, each asked with the tokens that `generate` has chosen."""
    ids, mask = (array_of(sample.inputs[name]) for name in ("input_ids", "attention_mask"))
    encoded = sessions["encoder"].run({"input_ids": ids, "attention_mask": mask})
    (states,) = (encoded[name] for name in ("last_hidden_state",))
    given: dict[str, Any] = {"encoder_attention_mask": mask, "encoder_hidden_states": states}
    answer = sessions["decoder"].run({**given, "input_ids": tokens[:, :1]})
    logits = [answer["logits"][:, -1]]
    caches: dict[str, np.ndarray] = {}
    for place in range(1, tokens.shape[1] - 1):
        caches.update({_input_name(name): array for name, array in answer.items() if name != "logits"})
        answer = sessions["step"].run({**given, **caches, "input_ids": tokens[:, place : place + 1]})
        logits.append(answer["logits"][:, -1])
    return logits


def _input_name(name: str) -> str:
    """The input that a cache is for the next token."""
    return "past_key_values" + name.removeprefix("present")


def _disagreement(logits: Sequence[np.ndarray], tokens: np.ndarray) -> str:
    """The sentence for the first token that the files choose otherwise; empty if there is none."""
    for place, scores in enumerate(logits, start=1):
        chosen = scores.argmax(-1)
        rows = np.arange(len(scores))
        gaps = scores[rows, chosen] - scores[rows, tokens[:, place]]
        wrong = np.flatnonzero(~(gaps <= _TIE * rms(scores)))
        if len(wrong):
            row = int(wrong[0])
            return (
                f"token {place} of row {row}: the files together choose {int(chosen[row])}, should be"
                f" {int(tokens[row, place])} as `generate` gives; their scores are {float(gaps[row]):.3g} apart"
            )
    return ""
