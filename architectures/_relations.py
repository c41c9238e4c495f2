"""On record: the metamorphic relations of each architecture and feature, as the float64 model has them."""

from __future__ import annotations

RECORD = {
    "bart": {
        "default": "batch-permutation batch-of-one padding-right",
        "default-with-past": "batch-permutation batch-of-one padding-right",
        "causal-lm": "batch-permutation batch-of-one padding-right",
        "causal-lm-with-past": "batch-permutation batch-of-one padding-right",
        "seq2seq-lm": "batch-permutation batch-of-one padding-right",
        "seq2seq-lm-with-past": "batch-permutation batch-of-one padding-right",
        "sequence-classification": "batch-permutation batch-of-one padding-right",
        "question-answering": "batch-permutation batch-of-one padding-right",
    },
    "bert": {
        "default": "batch-permutation batch-of-one padding-right",
        "masked-lm": "batch-permutation batch-of-one padding-right",
        "causal-lm": "batch-permutation batch-of-one padding-right",
        "sequence-classification": "batch-permutation batch-of-one padding-right",
        "multiple-choice": "batch-permutation batch-of-one padding-right",
        "token-classification": "batch-permutation batch-of-one padding-right",
        "question-answering": "batch-permutation batch-of-one padding-right",
    },
    "distilbert": {
        "default": "batch-permutation batch-of-one padding-right",
        "masked-lm": "batch-permutation batch-of-one padding-right",
        "sequence-classification": "batch-permutation batch-of-one padding-right",
        "multiple-choice": "batch-permutation batch-of-one padding-right",
        "token-classification": "batch-permutation batch-of-one padding-right",
        "question-answering": "batch-permutation batch-of-one padding-right",
    },
    "gpt2": {
        "default": "batch-permutation batch-of-one padding-right padding-left",
        "default-with-past": "batch-permutation batch-of-one padding-right padding-left",
        "causal-lm": "batch-permutation batch-of-one padding-right padding-left",
        "causal-lm-with-past": "batch-permutation batch-of-one padding-right padding-left",
        "sequence-classification": "batch-permutation batch-of-one padding-right padding-left",
        "token-classification": "batch-permutation batch-of-one padding-right padding-left",
    },
    "resnet": {
        "default": "batch-permutation batch-of-one",
        "image-classification": "batch-permutation batch-of-one",
    },
    "roberta": {
        "default": "batch-permutation batch-of-one padding-right padding-left",
        "masked-lm": "batch-permutation batch-of-one padding-right padding-left",
        "causal-lm": "batch-permutation batch-of-one padding-right padding-left",
        "sequence-classification": "batch-permutation batch-of-one padding-right",
        "multiple-choice": "batch-permutation batch-of-one padding-right",
        "token-classification": "batch-permutation batch-of-one padding-right padding-left",
        "question-answering": "batch-permutation batch-of-one padding-right padding-left",
    },
    "t5": {
        "default": "batch-permutation batch-of-one padding-right padding-left",
        "default-with-past": "batch-permutation batch-of-one padding-right padding-left",
        "seq2seq-lm": "batch-permutation batch-of-one padding-right padding-left",
        "seq2seq-lm-with-past": "batch-permutation batch-of-one padding-right padding-left",
    },
    "vit": {
        "default": "batch-permutation batch-of-one",
        "image-classification": "batch-permutation batch-of-one",
    },
}


def of(architecture: str, feature: str) -> tuple[str, ...]:
    """The relations on record, by name; none for what is not on record."""
    return tuple(RECORD.get(architecture, {}).get(feature, "").split())
