"""Run the parts of a model together: 32 greedy tokens compared with `generate`'s, or texts compared with images."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch

from parity import reference
from parity.axes import Role, is_past, role_of
from parity.configs import OnnxConfigWithPast
from parity.dtypes import array_of
from parity.errors import SessionError
from parity.judge import ratio
from parity.judge.findings import Finding
from parity.judge.pool import Answers, Pool, rms
from parity.judge.relations import Run
from parity.onnx.towers import similarities
from parity.shapes import choose_samples
from parity.traceable import evaluation_mode

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from parity.configs import OnnxConfig
    from parity.samples import Sample, SampleSource

ENCODER = "encoder"
NEW_TOKENS = 32
# (rows, whether the shorter ones are padded) of the prompts.
PROMPTS = ((1, False), (3, True))
_LENGTH = 11
# Below this gap, in units of the logits' size, two tokens are equally good.
_TIE = 1e-5
# The largest difference of two scores, in units of the drift: both drift, and this many units are rare.
_SHARES = 4.0


@dataclass(frozen=True)
class Together:
    """Files that run together.

    Args:
        runs: part → a run of its file under the model's names.
        drift: the largest drift that passes for the least precise of them; 0 for files in float32.
    """

    runs: Mapping[str, Run]
    drift: float = 0.0

    @property
    def has_towers(self) -> bool:
        return "text" in self.runs


@dataclass
class Outcome:
    """The findings, and a line for the log."""

    findings: list[Finding] = field(default_factory=list)
    note: str = ""


def runs_together(names: Sequence[str], base: OnnxConfig) -> bool:
    """Whether these parts together generate tokens, or compare texts with images.

    Args:
        base: the configuration of the whole.
    """
    if "text" in names:
        return True
    generates = (
        isinstance(base, OnnxConfigWithPast)
        and base.use_past
        and any(role_of(name) is Role.LOGITS for name in base.outputs)
    )
    return generates and (not base.dead_inputs or bool({ENCODER, "prefill"} & {*names}))


def judge_together(files: Together, model: PreTrainedModel, source: SampleSource) -> Outcome:
    """Compare files that run together with the whole model.

    Args:
        files: the files.
        model: the whole model; the caller must not use it again.
        source: of inputs for the whole.
    """
    if files.has_towers:
        return _judge_towers(files, model, source)
    longest = source.onnx_config.longest_sequence(model)
    count = NEW_TOKENS if longest is None else min(NEW_TOKENS, longest - 2)
    encodes = _has_encoder(source)
    outcome, prompts = Outcome(), []
    for seed, (rows, padded) in enumerate(PROMPTS, start=7):
        padding = ("right" if encodes else "left") if padded and source.masked else ""
        length = _LENGTH if encodes or longest is None else max(2, min(_LENGTH, longest - count))
        prompt = _prompt(source.generate(batch_size=rows, seq_length=length, seed=seed), padding)
        tokens = _generate(model, prompt, count)
        first = tokens.shape[1] - count
        try:
            step = _steps(files.runs, source, prompt)
            logits = [step(tokens, place) for place in range(first, tokens.shape[1])]
        except SessionError as error:
            message = f"batch {rows}: a file refuses what another answers: {error}"
        else:
            message = _disagreement(logits, tokens[:, first:], max(_TIE, _SHARES * files.drift))
        outcome.findings.append(Finding("tokens", f"batch {rows}", not message, message))
        prompts.append(f"batch {rows}{f' padded {padding}' if padding else ''}")
    outcome.note = f"{count} greedy tokens as generate gives them, for {' and '.join(prompts)}"
    return outcome


def _has_encoder(source: SampleSource) -> bool:
    return any(name.startswith("decoder_") for name in source.onnx_config.inputs)


def _prompt(sample: Sample, padding: str) -> dict[str, torch.Tensor]:
    """The inputs of the first step, of the encoder or the text, without a past that a sample may have."""
    own = {
        name: tensor
        for name, tensor in sample.inputs.items()
        if isinstance(tensor, torch.Tensor) and not name.startswith("decoder_")
    }
    if "attention_mask" in own:
        mask = torch.ones_like(own["input_ids"])
        rows, length = mask.shape
        for row in range(1, rows if padding else 0):
            count = length // 2 if row == rows - 1 else row
            mask[row, slice(None, count) if padding == "left" else slice(length - count, None)] = 0
        own["attention_mask"] = mask
    return own


def _generate(model: PreTrainedModel, prompt: Mapping[str, torch.Tensor], count: int) -> np.ndarray:
    """The text and the greedy tokens after it, or the start token and these; an end token does not stop generation.

    Without a cache: transformers 5 creates a cache with as many layers as the encoder has, and raises if the decoder
    has more.
    """
    from transformers import GenerationConfig, GenerationMixin

    padding = getattr(model.config, "pad_token_id", None) or 0
    own = model.generation_config
    starts = (getattr(each, "decoder_start_token_id", None) for each in (own, model.config))
    config = GenerationConfig(
        max_new_tokens=count,
        min_new_tokens=count,
        do_sample=False,
        num_beams=1,
        use_cache=False,
        # The oldest checkpoints have no start token: then it is the padding.
        decoder_start_token_id=next((start for start in starts if start is not None), padding),
        pad_token_id=padding,
        eos_token_id=None,
    )
    # The checkpoint's own may forbid or force tokens: BART's ends its longest texts, which no logits say.
    model.generation_config = GenerationConfig()
    try:
        with evaluation_mode(model):
            # Whisper's own method begins with tokens for the language, which a tiny vocabulary lacks.
            tokens = GenerationMixin.generate(model, **prompt, generation_config=config)
    finally:
        model.generation_config = own
    assert isinstance(tokens, torch.Tensor)
    return array_of(tokens)


Step = Callable[[np.ndarray, int], np.ndarray]
# Receives tokens and a place, and yields the logits for the token there.
_Dialogue: TypeAlias = "Generator[Any, tuple[np.ndarray, int], None]"


def _steps(runs: Mapping[str, Run], source: SampleSource, prompt: Mapping[str, torch.Tensor]) -> Step:
    """A function of the tokens so far and a place → the files' logits for the token there; call it in order."""
    arrays = {name: array_of(tensor) for name, tensor in prompt.items()}
    if ENCODER in runs:
        dialogue = _encoder_decoder(runs, arrays)
    elif _has_encoder(source):
        dialogue = _after_prefill(runs, source, arrays)
    else:
        dialogue = _decoder(runs, source, arrays)
    next(dialogue)
    return lambda tokens, place: dialogue.send((tokens, place))


def _encoder_decoder(runs: Mapping[str, Run], prompt: Mapping[str, np.ndarray]) -> _Dialogue:
    states = runs[ENCODER](prompt)["last_hidden_state"]
    own: dict[str, np.ndarray] = {"encoder_hidden_states": states}
    if "attention_mask" in prompt:
        own["encoder_attention_mask"] = prompt["attention_mask"]
    caches: dict[str, np.ndarray] = {}
    tokens, place = yield
    while True:
        name = "step" if caches else "decoder"
        answer = runs[name]({**own, **caches, "input_ids": tokens[:, place - 1 : place]})
        caches.update(_caches(answer))
        tokens, place = yield answer["logits"][:, -1]


def _after_prefill(runs: Mapping[str, Run], source: SampleSource, prompt: Mapping[str, np.ndarray]) -> _Dialogue:
    cross = _caches(runs["prefill"](prompt))
    own = _blank_past(source, len(next(iter(prompt.values()))))
    caches = {**own, **cross}
    tokens, place = yield
    while True:
        ids = tokens[:, place - 1 : place]
        text = {"decoder_input_ids": ids, "decoder_attention_mask": np.ones((len(ids), place), ids.dtype)}
        answer = runs[""]({**prompt, **text, **caches})
        caches.update(_caches(answer))
        tokens, place = yield answer["logits"][:, -1]


def _decoder(runs: Mapping[str, Run], source: SampleSource, prompt: Mapping[str, np.ndarray]) -> _Dialogue:
    mask, rows = prompt.get("attention_mask"), len(prompt["input_ids"])
    first = runs.get("decoder")
    later = runs.get("step", runs.get(""))
    assert later is not None
    caches = {} if first else _blank_past(source, rows)
    seen = 0
    tokens, place = yield
    while True:
        ids = tokens[:, seen:place]
        whole = np.ones((rows, place), np.int64)
        if mask is not None:
            whole[:, : mask.shape[1]] = mask
        positions = np.maximum(whole.cumsum(-1) - 1, 0)[:, seen:place]
        run = first if first and not seen else later
        answer = run({"input_ids": ids, "attention_mask": whole, "position_ids": positions, **caches})
        seen = place
        caches.update(_caches(answer))
        tokens, place = yield answer["logits"][:, -1]


def _blank_past(source: SampleSource, rows: int) -> dict[str, np.ndarray]:
    """The caches of a decoder before its first token."""
    flat = source.layout.flatten(source.dummy)
    blank = {}
    for name, tensor in flat.items():
        if role_of(name) is Role.CACHE and ".encoder." not in name:
            (axis,) = [axis for axis, axis_name in source.onnx_config.inputs[name].items() if is_past(axis_name)]
            shape = [0 if each == axis else size for each, size in enumerate(tensor.shape)]
            blank[name] = np.zeros([rows, *shape[1:]], np.float32)
    return blank


def _caches(answer: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The caches that a step returns, with the names of inputs."""
    return {
        "past_key_values" + name.removeprefix("present"): array
        for name, array in answer.items()
        if role_of(name) is Role.CACHE
    }


def _disagreement(logits: Sequence[np.ndarray], tokens: np.ndarray, tie: float = _TIE) -> str:
    """The sentence on the first token that the files choose differently; empty if there is none.

    Args:
        logits: for each token, (batch, vocabulary).
        tokens: (batch, tokens), the tokens that `generate` chose at the places of the logits.
        tie: the gap below which two tokens are equally good, in units of the logits' size.
    """
    for place, scores in enumerate(np.asarray(scores, np.float64) for scores in logits):
        choice = scores.argmax(-1)
        rows = np.arange(len(scores))
        gaps = scores[rows, choice] - scores[rows, tokens[:, place]]
        wrong = np.flatnonzero(~(gaps <= tie * rms(scores)))
        if len(wrong):
            row = int(wrong[0])
            return (
                f"token {place + 1} of row {row}: the files together choose {int(choice[row])}, should be"
                f" {int(tokens[row, place])} as `generate` gives; their scores are {float(gaps[row]):.3g} apart"
            )
    return ""


def _judge_towers(files: Together, model: PreTrainedModel, source: SampleSource) -> Outcome:
    """Compare the model's similarities of every text and image with those computed from the towers' answers."""
    config = source.onnx_config
    samples = choose_samples(source, longest=config.longest_sequence(model))
    compare = similarities(model)
    answers = reference.answers(model, config, samples, consume=True)
    name = "logits_per_image"
    actual = []
    for sample in samples:
        inputs = {each: array_of(tensor) for each, tensor in source.layout.flatten(sample.inputs).items()}
        both = [files.runs[side](inputs) for side in ("text", "vision")]
        actual.append({name: compare(*both)})
    pool = Pool(tuple(samples), [_only(answer, name) for answer in answers], actual=actual)
    note = f"{name} at {len(samples)} inputs"
    if not files.drift:
        return Outcome(ratio.judge_ratio(pool), note)
    pairs = [(own[name], exact[name]) for own, exact in zip(actual, pool.exact, strict=True)]
    # Not by Python's `max`, which may lose a NaN.
    relative = float(np.max([rms(own - exact) / (rms(exact) or 1.0) for own, exact in pairs]))
    message = f"{name}: the files together drift by {relative:.3g}, should be at most {files.drift:g} (--max-drift)"
    passed = relative <= files.drift
    return Outcome([Finding("drift", name, passed, "" if passed else message)], note)


def _only(answer: Answers, name: str) -> Answers:
    exact, eager, jittered = ({name: side[name]} for side in answer.sides())
    return Answers(eager, exact, jittered)
