"""Whether a file computes what its checkpoint computes, found without the judge: with torch, onnxruntime and numpy.

Nothing of parity is imported here. A file is right if it agrees with the float64 model on all inputs, at tokens that
are not padding. `TOLERANCE` has the largest relative error for each type.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
import transformers

# Kind of file → the largest relative error (a ratio of norms) that is right, at tokens that are not padding.
TOLERANCE = {"float32": 1e-5, "float16": 0.05, "int8": 0.5, "uint8": 0.5, "static": 0.7, "int4": 0.7}
AUTO = {
    "default": "AutoModel",
    "masked-lm": "AutoModelForMaskedLM",
    "causal-lm": "AutoModelForCausalLM",
    "causal-lm-with-past": "AutoModelForCausalLM",
    "seq2seq-lm-with-past": "AutoModelForSeq2SeqLM",
    "sequence-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "question-answering": "AutoModelForQuestionAnswering",
    "image-classification": "AutoModelForImageClassification",
}
# (rows, tokens, tokens of padding in the last row: on the right if positive, on the left if negative)
SHAPES = ((1, 5, 0), (2, 8, 0), (3, 13, 0), (2, 17, 5), (3, 11, -4), (1, 1, 0), (2, 30, 0), (3, 9, 3), (2, 21, -7))


def texts(config: Any, fixed: Mapping[str, int]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Ids and masks, at the sizes that the file takes."""
    generator = np.random.default_rng(11)
    for rows, tokens, padding in SHAPES:
        rows, tokens = fixed.get("batch", rows), fixed.get("sequence", tokens)
        ids = generator.integers(5, config.vocab_size - 1, (rows, tokens))
        mask = np.ones_like(ids)
        if abs(padding) < tokens:
            mask[-1, slice(tokens - padding, None) if padding > 0 else slice(0, -padding)] = 0
        yield ids, mask


def is_right(checkpoint: Path, file: Path, feature: str, kind: str) -> tuple[bool, float]:
    """Whether the file is right, and its largest relative error.

    Args:
        kind: a key of `TOLERANCE`.
    """
    model = getattr(transformers, AUTO[feature]).from_pretrained(checkpoint, attn_implementation="eager")
    model = model.eval().double()
    if (file / "encoder_model.onnx").is_file():
        worst = max(error_of_halves(model, file, ids, mask) for ids, mask in texts(model.config, {}))
        return worst <= TOLERANCE[kind], worst
    if file.is_dir():
        file = next(file / name for name in ("model.onnx", "prefill.onnx") if (file / name).is_file())
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    worst = 0.0
    for arguments, feed, real in calls(model, session, feature):
        with torch.no_grad():
            returned = model(**arguments, return_dict=True)
        expected = [value for value in returned.values() if isinstance(value, torch.Tensor)]
        answers = session.run(None, feed)
        tensors = [each.numpy() for each in expected if each.is_floating_point()]
        for answer in answers:
            if answer.dtype.kind != "f" or (answer.ndim == 4 and "past" in feature):
                continue
            like = [each for each in tensors if each.shape == answer.shape]
            if not like:
                return False, float("inf")
            worst = max(worst, min(error(answer, each, real) for each in like))
    return worst <= TOLERANCE[kind], worst


def error_of_halves(model: Any, directory: Path, ids: np.ndarray, mask: np.ndarray) -> float:
    """The largest error of an encoder and its decoders, on four tokens: three in the first step, one in the next."""
    sessions = {
        path.stem: onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        for path in directory.glob("*.onnx")
    }
    words = np.random.default_rng(2).integers(5, model.config.vocab_size - 1, (len(ids), 4))
    with torch.no_grad():
        answer = model(
            input_ids=torch.from_numpy(ids),
            attention_mask=torch.from_numpy(mask),
            decoder_input_ids=torch.from_numpy(words),
        )
    logits, exact = answer.logits.numpy(), answer.encoder_last_hidden_state.numpy()
    (states,) = sessions["encoder_model"].run(None, {"input_ids": ids, "attention_mask": mask})
    worst = error(states, exact, mask.astype(bool))
    pairs = [("decoder_model", "decoder_with_past_model"), ("decoder_model_merged",) * 2]
    for first, later in (pair for pair in pairs if {*pair} <= {*sessions}):
        own: dict[str, np.ndarray] = {"encoder_hidden_states": states, "encoder_attention_mask": mask}
        pasts = [each for each in sessions[first].get_inputs() if each.name.startswith("past_key_values")]
        blank = {each.name: np.zeros((len(ids), each.shape[1], 1, each.shape[3]), np.float32) for each in pasts}
        for name, words_here, caches in ((first, slice(0, 3), blank), (later, slice(3, 4), None)):
            feed = {**own, **(own if caches is None else caches), "input_ids": words[:, words_here]}
            feed["use_cache_branch"] = np.array([caches is None])
            names = [each.name for each in sessions[name].get_inputs()]
            outputs = [each.name for each in sessions[name].get_outputs()]
            values = sessions[name].run(None, {each: feed[each] for each in names})
            answers = dict(zip(outputs, values, strict=True))
            worst = max(worst, error(answers["logits"], logits[:, words_here], None))
            own.update(
                {each.replace("present", "past_key_values"): answers[each] for each in outputs if "present" in each}
            )
    return worst


def error(answer: np.ndarray, exact: np.ndarray, real: np.ndarray | None) -> float:
    """The largest relative error of a row, so that a row with padding counts as much as the others."""
    if not np.isfinite(answer).all():
        return float("inf")
    worst = 0.0
    for row in range(len(exact)):
        chosen: Any = slice(None)
        if real is not None and answer.ndim > 1 and answer.shape[1] == real.shape[1]:
            chosen = real[row]
        a, e = answer[row][chosen].astype(np.float64), exact[row][chosen]
        worst = max(worst, float(np.linalg.norm(a - e) / (np.linalg.norm(e) or 1.0)))
    return worst


def calls(
    model: Any, session: Any, feature: str
) -> Iterator[tuple[dict[str, Any], dict[str, np.ndarray], np.ndarray | None]]:
    """The arguments of the model, the inputs of the file, and which tokens are not padding."""
    inputs = session.get_inputs()
    types = {each.name: each.type for each in inputs}
    if "pixel_values" in types:
        size = getattr(model.config, "image_size", None) or 64
        generator = np.random.default_rng(3)
        half = "float16" in types["pixel_values"]
        for index in range(6):
            rows = inputs[0].shape[0] if isinstance(inputs[0].shape[0], int) else 1 + index % 3
            pixels = generator.standard_normal((rows, model.config.num_channels, size, size)).astype(np.float32)
            feed: dict[str, np.ndarray] = {"pixel_values": pixels.astype(np.float16 if half else np.float32)}
            yield {"pixel_values": torch.from_numpy(pixels).double()}, feed, None
        return
    first = inputs[0].shape
    fixed = {name: size for name, size in zip(("batch", "sequence"), first, strict=True) if isinstance(size, int)}
    names = list(types)
    for ids, mask in texts(model.config, fixed):
        arguments = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
        positions = np.maximum(mask.cumsum(-1) - 1, 0)
        if "causal" in feature:
            arguments["position_ids"] = torch.from_numpy(positions)
        tokens: dict[str, np.ndarray] = {}
        for name in names:
            values = {"attention_mask": mask, "position_ids": positions, "token_type_ids": np.zeros_like(ids)}.get(name)
            if name.startswith(("past_key_values", "past")):
                config = model.config
                heads, width = config.num_attention_heads, config.hidden_size // config.num_attention_heads
                tokens[name] = np.zeros((len(ids), heads, 0, width), np.float32)
                continue
            if values is None:
                values = ids if name in ("input_ids", names[0]) else mask
            tokens[name] = values.astype(np.int32) if "int32" in types[name] else values
        yield arguments, tokens, mask.astype(bool)


if __name__ == "__main__":
    for line in sys.stdin:
        job = json.loads(line)
        answer: dict[str, Any]
        try:
            right, error_of_file = is_right(Path(job["checkpoint"]), Path(job["file"]), job["feature"], job["kind"])
            # A file that is converted from a wrong one is wrong, too, however large its tolerance is.
            base = Path(job["file"]).parent / "base" / "model.onnx"
            if base.is_file():
                right = right and is_right(Path(job["checkpoint"]), base, job["feature"], "float32")[0]
            answer = {"right": right, "error": error_of_file}
        except Exception as problem:
            answer = {"right": None, "problem": f"{type(problem).__name__}: {problem}"[:200]}
        print(json.dumps({"name": job["name"], **answer}), flush=True)
