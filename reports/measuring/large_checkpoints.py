"""Checkpoints of the sizes that people export, with random weights: `python -m … NAME DIRECTORY` writes one."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Files of a tokenizer, as published: the peer's transformers cannot read a tokenizer that transformers 5 saved.
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json")


@dataclass(frozen=True)
class LargeCheckpoint:
    """A checkpoint to write, and the feature to export.

    Args:
        model: the model's class in transformers.
        feature, task: the feature in Parity's terms, and the task in the peer's.
        options: arguments of the configuration.
        opset: None for the default.
    """

    model: str
    feature: str
    task: str
    options: Mapping[str, Any] = field(default_factory=dict)
    opset: int | None = None

    @property
    def family(self) -> str:
        """The beginning of the class's name, which the name of its configuration shares."""
        return next(name for name in ("BigBird", "Bert", "GPT2", "T5", "Whisper") if self.model.startswith(name))

    def write(self, directory: Path) -> None:
        """Save the model with its preprocessor."""
        import torch
        import transformers

        torch.manual_seed(0)
        config = getattr(transformers, f"{self.family}Config")(**self.options)
        getattr(transformers, self.model)(config).save_pretrained(directory)
        self._write_preprocessor(directory)

    def _write_preprocessor(self, directory: Path) -> None:
        from parity.fixtures import minilm, published

        if self.family in ("Bert", "BigBird"):
            for name in _TOKENIZER_FILES:
                if (minilm.directory() / name).is_file():
                    shutil.copy(minilm.directory() / name, directory / name)
        elif self.family == "Whisper":
            import transformers

            transformers.WhisperFeatureExtractor().save_pretrained(directory)
            published.write_tokenizer(directory, "bpe")
        else:
            published.write_tokenizer(directory, "gpt2" if self.family == "GPT2" else "unigram")


def _of_bert(hidden: int, layers: int) -> dict[str, int]:
    heads = max(1, hidden // 64)
    sizes = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads}
    return {**sizes, "intermediate_size": 4 * hidden}


CHECKPOINTS: Mapping[str, LargeCheckpoint] = {
    "bert-base": LargeCheckpoint("BertModel", "default", "feature-extraction"),
    "gpt2-small": LargeCheckpoint("GPT2LMHeadModel", "causal-lm-with-past", "text-generation-with-past"),
    "t5-small": LargeCheckpoint(
        "T5ForConditionalGeneration",
        "seq2seq-lm-with-past",
        "text2text-generation-with-past",
        {"decoder_start_token_id": 0},
    ),
    "whisper-tiny": LargeCheckpoint(
        "WhisperForConditionalGeneration",
        "speech2seq-lm",
        "automatic-speech-recognition",
        {
            "d_model": 384,
            **{f"{side}_layers": 4 for side in ("encoder", "decoder")},
            **{f"{side}_attention_heads": 6 for side in ("encoder", "decoder")},
            **{f"{side}_ffn_dim": 1536 for side in ("encoder", "decoder")},
        },
        opset=14,
    ),
    "big-bird": LargeCheckpoint(
        "BigBirdForMaskedLM",
        "masked-lm",
        "fill-mask",
        # Above the length up to which BigBird uses full attention, so every text is padded to this length.
        {"vocab_size": 30522, "max_position_embeddings": 1024, **_of_bert(128, 2)},
        opset=14,
    ),
    "gpt2-36m": LargeCheckpoint(
        "GPT2LMHeadModel",
        "causal-lm",
        "text-generation",
        {"n_embd": 256, "n_layer": 8, "n_head": 8, "vocab_size": 10000, "n_positions": 512},
    ),
    "bert-large": LargeCheckpoint("BertModel", "default", "feature-extraction", _of_bert(1024, 24)),
    "gpt2-3g": LargeCheckpoint(
        "GPT2LMHeadModel", "causal-lm", "text-generation", {"n_embd": 2048, "n_layer": 14, "n_head": 16}
    ),
}


if __name__ == "__main__":
    CHECKPOINTS[sys.argv[1]].write(Path(sys.argv[2]))
