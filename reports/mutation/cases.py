"""The files that faults are seeded into: tiny models of every kind at three opsets and with sdpa, and MiniLM."""

from __future__ import annotations

from dataclasses import dataclass

# Architecture → the feature whose file is taken.
MODELS = {
    "bert": "masked-lm",
    "gpt2": "causal-lm-with-past",
    "t5": "seq2seq-lm-with-past",
    "vit": "image-classification",
    "modernbert": "default",
    "llama": "causal-lm-with-past",
    "bart": "seq2seq-lm-with-past",
    "whisper": "speech2seq-lm-with-past",
    "clip": "default",
    "distilbert": "question-answering",
    "gpt-neo": "causal-lm-with-past",
    "layoutlm": "token-classification",
    "convnext": "default",
    "albert": "sequence-classification",
    "bloom": "causal-lm-with-past",
    "roberta": "token-classification",
    "swin": "default",
    "deberta-v2": "default",
}
MINILM = "MiniLM"
# Name of the column of the table → opset and attention.
SETTINGS = {"opset 17": (17, "eager"), "opset 11": (11, "eager"), "opset 20": (20, "eager"), "sdpa": (20, "sdpa")}


@dataclass(frozen=True)
class Case:
    """One file into which faults are seeded.

    Args:
        setting: a key of `SETTINGS`, or MiniLM.
    """

    architecture: str
    feature: str
    opset: int
    attention: str
    setting: str

    @property
    def name(self) -> str:
        return f"{self.architecture}-{self.feature}-{self.opset}" + ("-sdpa" if self.attention == "sdpa" else "")

    @property
    def is_tiny(self) -> bool:
        return self.setting != MINILM


def cases() -> list[Case]:
    """All files that exist in the matrix, one setting after the other; MiniLM comes after the first setting."""
    from parity.architectures.conformance.matrix import cells

    present = {(cell.architecture, cell.feature, cell.opset, cell.attention) for cell in cells()}
    every: list[Case] = []
    for setting, (opset, attention) in SETTINGS.items():
        every += [
            Case(architecture, feature, opset, attention, setting)
            for architecture, feature in MODELS.items()
            if (architecture, feature, opset, attention) in present
        ]
        if setting == next(iter(SETTINGS)):
            every.append(Case(MINILM, "default", 17, "eager", MINILM))
    return every
