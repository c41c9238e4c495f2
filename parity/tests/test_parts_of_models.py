"""Directories with the halves of an encoder-decoder: each half is judged, then all together; faults are detected."""

import functools
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from parity.check import main
from parity.fixtures.checkpoints import save_checkpoint
from parity.fixtures.controls import commands
from parity.fixtures.controls.parts import write_part
from parity.onnx import directories
from parity.onnx.directories import PartFile

run = functools.partial(commands.run, command=main)
FEATURE = "seq2seq-lm-with-past"
NAMES = {"encoder": "encoder_model.onnx", "decoder": "decoder_model.onnx", "step": "decoder_with_past_model.onnx"}


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    """The checkpoint, and the directory of its three files."""
    directory, files = tmp_path_factory.mktemp("t5"), tmp_path_factory.mktemp("halves")
    save_checkpoint(directory, "t5", FEATURE)
    for part, name in NAMES.items():
        assert write_part("t5", FEATURE, part, files) == files / name
    return directory, files


@pytest.fixture(scope="module")
def verdict(halves):
    """Exit status, output and log of the right directory."""
    return run(*halves, "--json", "--feature", FEATURE)


def test_each_half_is_judged_and_all_together(verdict):
    """Exit status 0, one verdict per file, and the same 32 tokens as generate."""
    status, out, log = verdict
    result = json.loads(out)
    assert (status, result["status"]) == (0, "passed")
    assert [each["status"] for each in result["files"]] == ["passed"] * 4
    assert result["files"][-1]["together"] == [*NAMES]
    assert "32 greedy tokens as generate gives them, for batch 1 and batch 3 padded right" in log


def test_tokens_after_padding_are_judged(verdict):
    """The encoder's padding affects its own answer and the decoder's caches."""
    encoder, decoder, *_ = json.loads(verdict[1])["files"]
    assert 0 < encoder["masked"] < encoder["values"] / 3
    assert 0 < decoder["masked"] < decoder["values"] / 3


@pytest.fixture
def spoil(halves, tmp_path):
    """A function that copies the directory with one half changed."""

    def change(name, edit):
        shutil.copytree(halves[1], tmp_path / "spoiled")
        model = onnx.load(tmp_path / "spoiled" / name)
        edit(model)
        onnx.save(model, tmp_path / "spoiled" / name)
        return tmp_path / "spoiled"

    return change


def move_weight(model):
    tensor = [each for each in model.graph.initializer if len(each.dims) == 2 and each.data_type == 1][-1]
    values = numpy_helper.to_array(tensor).copy()
    values[1, 1] += 0.05
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def swap_caches(model):
    """Swap the first layer's keys and values."""
    key, value = [each for each in model.graph.output if each.name.startswith("present.0.decoder")]
    for node in model.graph.node:
        names = {key.name: value.name, value.name: key.name}
        node.output[:] = [names.get(name, name) for name in node.output]
        node.input[:] = [names.get(name, name) for name in node.input]


def drop_mask(model):
    for node in model.graph.node:
        node.input[:] = ["mask.ones" if name == "encoder_attention_mask" else name for name in node.input]
    model.graph.initializer.append(numpy_helper.from_array(np.array([1]), "mask.one"))
    names = ["encoder_attention_mask", "encoder_attention_mask"]
    model.graph.node.insert(0, onnx.helper.make_node("Add", ["mask.zeros", "mask.one"], ["mask.ones"]))
    model.graph.node.insert(0, onnx.helper.make_node("Sub", names, ["mask.zeros"]))


FAULTS = [
    ("encoder_model.onnx", move_weight),
    ("decoder_model.onnx", move_weight),
    ("decoder_with_past_model.onnx", move_weight),
    ("decoder_model.onnx", swap_caches),
    ("decoder_with_past_model.onnx", swap_caches),
    ("decoder_model.onnx", drop_mask),
    ("decoder_with_past_model.onnx", drop_mask),
]


@pytest.mark.parametrize(("name", "edit"), FAULTS, ids=[f"{n.split('.')[0]}-{e.__name__}" for n, e in FAULTS])
def test_a_fault_in_one_half_is_rejected(halves, spoil, name, edit):
    """Exit status 1; that half fails and the others pass."""
    status, out, _ = run(halves[0], spoil(name, edit), "--json", "--feature", FEATURE)
    verdicts = {each["file"].rpartition("/")[2]: each["status"] for each in json.loads(out)["files"]}
    assert status == 1
    assert verdicts == {each: "failed" if each == name else "passed" for each in NAMES.values()}


def test_files_that_do_not_fit_together_are_told():
    """The control: a different token is reported with its gap, an equally good token is not."""
    from parity.onnx.together import _disagreement

    tokens = np.array([[2, 1], [1, 1]])
    right = [np.eye(3)[[2, 1]], np.eye(3)[[1, 1]]]
    assert _disagreement(right, tokens) == ""
    assert _disagreement([right[0], np.ones((2, 3))], tokens) == ""
    message = _disagreement([right[0], np.eye(3)[[1, 0]]], tokens)
    assert message.startswith("token 2 of row 1: the files together choose 0, should be 1")
    assert _disagreement([right[0], np.full((2, 3), np.nan)], tokens) != ""


def test_tokens_are_greedy_whatever_the_checkpoint_forces():
    """A token that its configuration forces or forbids is not one that the files choose; it stays in the model."""
    import torch
    from transformers import GenerationMixin

    from parity.fixtures.checkpoints import tiny_model
    from parity.onnx.together import _generate

    prompt = {"input_ids": torch.arange(5, 16)[None], "attention_mask": torch.ones(1, 11, dtype=torch.int64)}
    model = tiny_model("bart", "seq2seq-lm-with-past")
    for name in ("forced_eos_token_id", "forced_bos_token_id", "bad_words_ids", "no_repeat_ngram_size"):
        setattr(model.generation_config, name, None)
    greedy = _generate(model, prompt, 8)
    last = int(greedy[0, -1])
    own = model.generation_config
    own.forced_eos_token_id, own.bad_words_ids, own.no_repeat_ngram_size = (last + 1) % 90, [[last]], 2
    assert (_generate(model, prompt, 8) == greedy).all()
    assert model.generation_config is own
    # The control: by its own configuration the model gives other tokens.
    forced = GenerationMixin.generate(model, **prompt, max_new_tokens=8, min_new_tokens=8, do_sample=False, num_beams=1)
    assert not (forced.numpy() == greedy).all()


def test_directory_without_files_is_usage(halves, tmp_path):
    """A directory without an ONNX file of a known name gives exit status 2, with the names."""
    status, _, err = run(halves[0], tmp_path)
    assert status == 2
    assert "model.onnx, encoder_model.onnx" in err


def test_halves_of_a_model_without_past_are_usage(halves, tmp_path):
    """A half needs a feature with past; any other gives exit status 2."""
    status, _, err = run(*halves, "--feature", "default")
    assert status == 2
    assert "encoder: is the encoder of an encoder-decoder, but default of t5 has no parts" in err


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (["encoder"], "decoder_model.onnx and decoder_with_past_model.onnx are missing"),
        (["decoder", "step"], "encoder_model.onnx is missing"),
        (["encoder", "decoder", "step"], ""),
        (["text"], "vision_model.onnx is missing"),
        (["prefill"], "model.onnx is missing"),
    ],
)
def test_parts_that_lack_others_are_named(names, missing):
    """Of files that ran together, and of a model in one file, nothing is missing."""
    files = [PartFile(Path(f"{name}.onnx"), name) for name in names]
    done = [] if missing else files
    pairs = directories.alone(files, done)
    assert directories.alone([PartFile(Path("model.onnx"))], []) == []
    assert [" and ".join(each) + (" are missing" if len(each) > 1 else " is missing") for _, each in pairs] == (
        [missing] if missing else []
    )
    assert [alone for alone, _ in pairs] == ([[file.path.name for file in files]] if missing else [])


def test_a_half_without_the_others_is_judged_alone(halves, verdict, tmp_path):
    """It passes by itself, with a warning that the rest of the model is missing; a whole directory has none."""
    shutil.copy(halves[1] / "encoder_model.onnx", tmp_path)
    status, _, err = run(halves[0], tmp_path, "--feature", FEATURE)
    assert status == 0
    assert (
        "encoder_model.onnx: judged alone, not together with the rest of the model, because decoder_model.onnx" in err
    )
    assert "judged alone" not in verdict[2]


def test_an_unreadable_file_does_not_hide_the_others(halves, tmp_path):
    """It has failed, in the log and in --json, and the others are judged."""
    shutil.copy(halves[1] / "encoder_model.onnx", tmp_path)
    (tmp_path / "decoder_model.onnx").write_bytes(b"no model")
    status, out, err = run(halves[0], tmp_path, "--json", "--feature", FEATURE)
    files = {each["file"].rpartition("/")[2]: each for each in json.loads(out)["files"]}
    assert (status, files["encoder_model.onnx"]["status"]) == (1, "passed")
    (failure,) = files["decoder_model.onnx"]["failures"]
    assert "is not a readable ONNX file" in failure["message"]
    assert "is not a readable ONNX file" in err
