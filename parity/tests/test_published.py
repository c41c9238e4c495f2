"""Checkpoint directories as on the Hub: tokenizer files that name no class."""

import json

import pytest

from parity.check import main as check
from parity.fixtures.checkpoints import tiny_model
from parity.fixtures.controls import commands
from parity.fixtures.preprocessors import WORDS
from parity.neuron.__main__ import main as neuron
from parity.onnx.__main__ import main as onnx
from parity.torchscript.__main__ import main as torchscript

LOST_HEAD = (
    "warning: feature default leaves out the head of DistilBertForMaskedLM, the class that the checkpoint was saved"
    " with; --feature masked-lm keeps it"
)
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A masked-lm DistilBERT with a vocabulary and no `tokenizer_class`, like distilbert-base-uncased."""
    directory = tmp_path_factory.mktemp("published")
    tiny_model("distilbert", "masked-lm").save_pretrained(directory)
    words = [*SPECIAL, *(f"w{index}" for index in range(len(SPECIAL), WORDS))]
    (directory / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    (directory / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True, "model_max_length": 512}))
    return directory


@pytest.mark.parametrize(
    ("main", "options", "file"),
    [
        (onnx, (), "model.onnx"),
        (onnx, ("--feature", "masked-lm"), "model.onnx"),
        (torchscript, (), "model.pt"),
        (neuron, ("--emulate", "--sequence-length", 8), "model.pt"),
    ],
    ids=["onnx", "onnx-masked-lm", "torchscript", "neuron"],
)
def test_what_the_tokenizer_makes_beyond_the_model_is_left_out(checkpoint, tmp_path, main, options, file):
    """transformers 5 loads BERT's tokenizer, whose token types DistilBERT lacks: the export omits them."""
    status, _, err = commands.run("-m", checkpoint, "--quiet", *options, tmp_path, command=main)
    lost = [] if "--feature" in options else [LOST_HEAD]
    assert (status, err.splitlines()) == (0, lost)
    assert (tmp_path / file).is_file()
    if main is neuron:
        import torch
        from transformers import AutoTokenizer

        tokens = AutoTokenizer.from_pretrained(tmp_path)(
            "w7 w8", padding="max_length", max_length=8, return_tensors="pt"
        )
        assert torch.jit.load(tmp_path / file)(**tokens)[0].shape == (1, 8, 32)
    if main is onnx:
        from parity.judge.contract import read

        assert [value.name for value in read(tmp_path / file).inputs] == ["input_ids", "attention_mask"]
        status, _, err = commands.run(checkpoint, tmp_path / file, "--quiet", command=check)
        assert (status, err.splitlines()) == (0, lost)
