"""`python -m parity.torchscript`: what it prints, writes and refuses."""

import copy
import functools
import json
import re
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from parity import cli
from parity.fixtures import minilm
from parity.fixtures.checkpoints import save_checkpoint
from parity.fixtures.controls import commands
from parity.fixtures.processes import cost_of
from parity.fixtures.trace_verdicts import PROOF
from parity.torchscript.__main__ import main

run = functools.partial(commands.run, command=main)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Architecture, feature → the directory of a tiny checkpoint."""

    def save(model_type="bert", feature="default"):
        directory = tmp_path_factory.getbasetemp() / f"{model_type}-{feature}"
        if not directory.exists():
            save_checkpoint(directory, model_type, feature)
        return directory

    return save


@pytest.fixture(scope="module")
def export_result(checkpoint, tmp_path_factory):
    """The output directory of the tiny BERT, and the log."""
    output = tmp_path_factory.mktemp("exported") / "torchscript"
    status, log, err = run("-m", checkpoint(), "--batch", 1, "--sequence-length", 12, output)
    assert (status, err) == (0, "")
    return output, log.splitlines()


def test_log_tells_inputs_proof_axes_and_minimum_torch(export_result):
    """The input of each tensor, the proof, a line for every axis, and the minimum torch."""
    output, lines = export_result
    assert "feature default, attention eager, torch " in lines[0]
    assert lines[1:6] == [
        "Input 0: input_ids, int64 (1, 12)",
        "Input 1: attention_mask, int64 (1, 12)",
        "Input 2: token_type_ids, int64 (1, 12)",
        lines[4],
        "At other sizes:",
    ]
    assert re.fullmatch(f"At the traced shape: ({PROOF})", lines[4])
    table = [line.split() for line in lines[6:-2]]
    assert table[0] == ["axis", "traced", "at", "other", "sizes"]
    assert [row[:3] for row in table[1:3]] == [["batch", "1", "generalises"], ["sequence", "12", "generalises"]]
    assert lines[-2:] == ["Needs torch>=1.13", f"All good, model saved at: {output.as_posix()}/model.pt"]


def test_directory_is_enough_to_run_it(export_result):
    """Configuration and tokenizer are next to the file; nothing else is left."""
    names = {path.name for path in export_result[0].iterdir()}
    assert {"model.pt", "config.json", "tokenizer.json", "tokenizer_config.json"} <= names
    assert not [name for name in names if name.startswith(".")]


def test_file_has_the_sizes_asked_for(export_result):
    """--batch and --sequence-length set the traced sizes."""
    from parity.torchscript import load

    assert load(export_result[0] / "model.pt").sizes == {"batch": 1, "sequence": 12}


def test_silently_wrong_axis_is_a_warning(checkpoint, tmp_path, monkeypatch):
    """The table shows it, and a line on standard error gives advice, even with --quiet."""
    from parity.torchscript import verdicts

    monkeypatch.setattr(verdicts, "outcome_of", lambda trials: "silently wrong")
    status, out, err = run("-m", checkpoint("vit", "default"), "--quiet", tmp_path)
    assert (status, out) == (0, "")
    assert err.startswith("warning: the file is silently wrong at batch other than 2; run it at its traced sizes only")


def test_good_file_has_no_warning(checkpoint, tmp_path):
    """--quiet leaves both streams empty."""
    assert run("-m", checkpoint("vit", "default"), "--quiet", tmp_path) == (0, "", "")


def test_json_is_one_object_on_standard_output(checkpoint, tmp_path, monkeypatch):
    """--json prints one object there, the log goes to standard error; the object has an axis's error text."""
    from parity.architectures.deberta import DebertaOnnxConfig

    # Without the patch the trace fixes the length.
    monkeypatch.setattr(DebertaOnnxConfig, "patch_ops", lambda self: None)
    status, out, err = run("-m", checkpoint("deberta", "default"), "--json", tmp_path / "d.pt")
    result = json.loads(out)
    assert (status, result["status"]) == (0, "passed")
    assert re.fullmatch(PROOF, result["proof"])
    assert Path(result["model"]) == tmp_path / "d.pt"
    assert [value["name"] for value in result["inputs"]] == ["input_ids", "attention_mask"]
    verdicts = {each["axis"]: each for each in result["verdicts"]}
    assert verdicts["sequence"]["verdict"] == "raises"
    assert "out of bounds" in verdicts["sequence"]["text"]
    assert "out of bounds" in err
    assert {"minimum_torch", "environment", "seconds", "attention", "feature"} <= set(result)


def test_sdpa_file_needs_a_newer_torch(checkpoint, tmp_path):
    """The log shows --attention sdpa and the minimum torch."""
    log = run("-m", checkpoint(), "--attention", "sdpa", tmp_path)[1]
    assert "attention sdpa" in log
    assert [line for line in log.splitlines() if line.startswith("Needs torch>=2.")]


def test_check_trace_is_told(checkpoint, tmp_path):
    """The log states its cost."""
    assert "check_trace is on" in run("-m", checkpoint("vit", "default"), "--check-trace", tmp_path)[1]


def test_parity_torchscript_is_the_same_command(checkpoint, tmp_path):
    """`parity torchscript …` writes the file too."""
    status, log, _ = run("torchscript", "-m", checkpoint("vit", "default"), tmp_path, command=cli.main)
    assert (status, log.splitlines()[-1]) == (0, f"All good, model saved at: {tmp_path.as_posix()}/model.pt")


REFUSED = {
    "no such model": (("-m", "not/a/model/here"), 2, "no such directory"),
    "unknown feature": (("--feature", "seq2seq-lm"), 2, "bert doesn't support feature seq2seq-lm; supported: default"),
    "too long": (("--sequence-length", "41"), 2, "--sequence-length: got 41, the model takes at most 40 tokens"),
    "no room": (("--sequence-length", "1"), 2, "--sequence-length: got 1, should leave room"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_one_line_and_writes_nothing(checkpoint, tmp_path, case):
    """The message has the value and the expected value; no file, no directory, no traceback."""
    options, exit_status, message = REFUSED[case]
    status, out, err = run("-m", checkpoint(), *options, tmp_path / "output")
    assert (status, out) == (exit_status, "")
    assert len(err.splitlines()) == 1
    assert err.startswith("python -m parity.torchscript: error: ")
    assert message in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "options", [("--batch", "0"), ("--batch", "two"), ("--sequence-length", "-3"), ("--opset", "9")]
)
def test_arguments_out_of_range_are_exit_status_2(checkpoint, tmp_path, options, capsys):
    """A batch of 0 is refused before anything is loaded."""
    with pytest.raises(SystemExit) as error:
        main(["-m", str(checkpoint()), *options, str(tmp_path / "output")])
    assert error.value.code == 2
    assert options[0] in capsys.readouterr().err


def test_length_of_an_image_is_refused(checkpoint, tmp_path):
    """A model without text has no sequence length."""
    status, _, err = run("-m", checkpoint("vit", "default"), "--sequence-length", 8, tmp_path / "output")
    assert status == 2
    assert "vit default has no text whose length could be set" in err


def test_wrong_trace_is_exit_status_1_and_not_written(checkpoint, tmp_path, monkeypatch):
    """A file that fails its proof is not delivered; an existing file stays."""
    from parity.torchscript import trace

    own = trace._trace

    def wrong(model, *arguments):
        other = copy.deepcopy(model)
        for parameter in other.parameters():
            parameter.data *= 1.01
        return own(other, *arguments)

    monkeypatch.setattr(trace, "_trace", wrong)
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        archive.writestr("model/extra/parity.json", '{"parity": "0.1.0", "model_type": "vit"}')
    before = (tmp_path / "model.pt").read_bytes()
    status, _, err = run("-m", checkpoint("vit", "default"), tmp_path)
    assert status == 1
    assert "error ratio" in err
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]
    assert (tmp_path / "model.pt").read_bytes() == before


def test_weights_that_are_not_there_are_refused(checkpoint, tmp_path):
    """A head that the checkpoint lacks would be random: exit status 1, as in `parity onnx`."""
    status, _, err = run("-m", checkpoint(), "--feature", "token-classification", tmp_path / "output")
    assert status == 1
    assert "they would be random" in err
    assert list(tmp_path.iterdir()) == []


def test_help_answers_at_once_without_torch():
    """--help imports neither torch nor transformers."""
    process, _ = cost_of([sys.executable, "-X", "importtime", "-m", "parity.torchscript", "--help"])
    loaded = {line.rpartition("|")[2].strip() for line in process.stderr.splitlines()}
    assert "parity.console" in loaded
    assert not loaded & {"torch", "transformers", "onnx", "numpy"}
    assert "--sequence-length" in process.stdout


@pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated:DeprecationWarning")
def test_trained_checkpoint_gives_its_embeddings(tmp_path):
    """MiniLM, traced at 16 tokens: the directory alone gives PyTorch's hidden states, with the runner's padding."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    from parity.torchscript import Runner

    status, log, _ = run(f"--model={minilm.directory()}", "--sequence-length", 16, tmp_path / "here")
    assert status == 0
    assert "sequence               16      generalises" in log
    shutil.move(tmp_path / "here", tmp_path / "moved")
    sentences = ["A man is eating food.", "A woman is playing the violin."]
    inputs = AutoTokenizer.from_pretrained(tmp_path / "moved")(sentences, padding=True, return_tensors="pt")
    with torch.no_grad():
        reference = AutoModel.from_pretrained(minilm.directory())(**inputs).last_hidden_state.numpy()
    actual = Runner(tmp_path / "moved" / "model.pt")(inputs)["last_hidden_state"].numpy()
    assert inputs["input_ids"].shape[1] < 16
    real = inputs["attention_mask"].numpy().astype(bool)
    np.testing.assert_allclose(actual[real], reference[real], rtol=0, atol=1e-5)
    assert np.abs(actual[real] - np.roll(reference, 1, axis=0)[real]).max() > 0.1
