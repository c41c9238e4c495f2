"""`python -m parity.onnx` on bad input: one helpful message, the right exit status, no partial file."""

import errno
import functools
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys

import pytest

from parity.fixtures.checkpoints import earlier_export, save_checkpoint
from parity.fixtures.controls import commands
from parity.fixtures.preprocessors import preprocessor
from parity.loading import load_preprocessor
from parity.onnx.__main__ import main

BERT_FEATURES = (
    "default, masked-lm, causal-lm, sequence-classification, multiple-choice, token-classification, question-answering"
)
EARLIER = earlier_export("bert")


run = functools.partial(commands.run, command=main)


def tree(directory):
    """Every path below a directory, files with their contents."""
    return {path: path.read_bytes() if path.is_file() else None for path in directory.rglob("*")}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Architecture, feature, safetensors → the directory of a tiny checkpoint, which tests must not change."""

    @functools.cache
    def save(model_type="bert", feature="default", safe=True):
        directory = tmp_path_factory.mktemp(model_type)
        save_checkpoint(directory, model_type, feature, safe=safe)
        return directory

    return save


@pytest.fixture
def output(tmp_path):
    """An output directory with an earlier export in it."""
    directory = tmp_path / "output"
    directory.mkdir()
    (directory / "model.onnx").write_bytes(EARLIER)
    return directory


def require_refusal(tmp_path, status, fragments, *argv):
    """Assert that the command fails with that status and one message with all fragments, and changes no file."""
    before = tree(tmp_path)
    got, out, err = run(*argv)
    lines = err.splitlines()
    assert got == status
    assert out == ""
    assert "Traceback" not in err
    assert [line for line in lines if "error:" in line] == lines[-1:]
    assert lines[-1].startswith("python -m parity.onnx: error: ")
    assert lines[:-1] == [] or lines[0].startswith("usage: ")
    assert [fragment for fragment in fragments if fragment not in lines[-1]] == []
    assert tree(tmp_path) == before


def cut(name, keep):
    """A function that truncates a file to so many bytes; a negative number removes bytes at the end."""

    def spoil(directory):
        content = (directory / name).read_bytes()
        (directory / name).write_bytes(content[:keep])

    return spoil


def without(*names):
    """A function that removes files."""

    def spoil(directory):
        for name in names:
            (directory / name).unlink()

    return spoil


def empty(directory):
    for path in directory.iterdir():
        path.unlink()


def change_config(**items):
    """A function that changes items of config.json; None removes an item."""

    def spoil(directory):
        config = {**json.loads((directory / "config.json").read_text()), **items}
        kept = {name: value for name, value in config.items() if value is not None}
        (directory / "config.json").write_text(json.dumps(kept))

    return spoil


TRUNCATED = ("truncated or damaged", "copy or download it again")
PICKLED = ("bert", "default", False)
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
SPOILED = {
    "empty directory": ((), empty, ("directory is empty", "config.json and the weights")),
    "no config": ((), without("config.json"), ("no config.json", "save_pretrained")),
    "config that is no JSON": ((), cut("config.json", 50), ("config.json is not valid JSON", "again")),
    "config without weights": ((), without("model.safetensors"), ("no weights", "save_pretrained")),
    "safetensors without end": ((), cut("model.safetensors", -500), TRUNCATED),
    "safetensors cut in the header": ((), cut("model.safetensors", 1000), TRUNCATED),
    "safetensors of no bytes": ((), cut("model.safetensors", 0), TRUNCATED),
    "bin without end": (PICKLED, cut("pytorch_model.bin", -500), TRUNCATED),
    "bin cut in the middle": (PICKLED, cut("pytorch_model.bin", 40000), TRUNCATED),
    "bin of no bytes": (PICKLED, cut("pytorch_model.bin", 0), TRUNCATED),
    "unknown architecture": (
        (),
        change_config(model_type="nonsense"),
        ("no model_type that transformers", "correct it"),
    ),
    "no architecture": ((), change_config(model_type=None, architectures=None), ("no model_type", "correct it")),
    "no image processor": (("vit",), without("preprocessor_config.json"), ("image processor", "save_pretrained")),
}


@pytest.mark.parametrize("case", SPOILED)
def test_spoiled_checkpoint_is_refused(checkpoint, output, tmp_path, case):
    """An incomplete checkpoint gives exit status 1; the message names it, the problem and what to do."""
    kind, spoil, fragments = SPOILED[case]
    directory = shutil.copytree(checkpoint(*kind), tmp_path / "checkpoint")
    spoil(directory)
    require_refusal(tmp_path, 1, (str(directory), *fragments), "-m", directory, output)


@pytest.mark.parametrize("kind", ["tokenizer", "image_processor", "feature_extractor"])
def test_preprocessor_that_is_asked_for_is_not_made_up(checkpoint, output, tmp_path, kind):
    """If the checkpoint lacks the requested tokenizer or image processor, the export is refused."""
    directory = shutil.copytree(checkpoint(), tmp_path / "checkpoint")
    without(*TOKENIZER)(directory)
    fragments = (f"has no {kind.replace('_', ' ')}", "should have", "save_pretrained")
    require_refusal(tmp_path, 1, fragments, "-m", directory, "--preprocessor", kind, output)


def test_tokenizer_and_image_processor_that_the_model_joins(checkpoint, tmp_path):
    """A model type with a processor joins the two, although an older checkpoint has no file for it."""
    directory = shutil.copytree(checkpoint("clip"), tmp_path / "checkpoint")
    (directory / "processor_config.json").unlink(missing_ok=True)
    joined = preprocessor("clip")
    joined.tokenizer.save_pretrained(directory)
    joined.image_processor.save_pretrained(directory)
    assert not (directory / "processor_config.json").exists()
    found = load_preprocessor(str(directory))
    assert type(found).__name__ == "CLIPProcessor"
    assert (found.tokenizer.pad_token_id, found.image_processor.size["height"]) == (95, 32)


def test_tokenizer_and_image_processor_that_nothing_joins(checkpoint, tmp_path):
    """Without a model that decides, the user must choose one of the two."""
    directory = shutil.copytree(checkpoint("vit"), tmp_path / "checkpoint")
    preprocessor("distilbert").save_pretrained(directory)
    with pytest.raises(ValueError, match=r"no processor that joins them.*--preprocessor tokenizer"):
        load_preprocessor(str(directory))
    assert load_preprocessor(str(directory), "image_processor").size["height"] == 32


def test_architecture_that_is_not_supported_lists_those_that_are(checkpoint, output, tmp_path):
    """A model type that only transformers supports gives exit status 2 with the supported ones."""
    directory = shutil.copytree(checkpoint(), tmp_path / "checkpoint")
    change_config(model_type="mamba")(directory)
    require_refusal(tmp_path, 2, ("mamba is not supported yet", "bert", "gpt2", "vit"), "-m", directory, output)


class WantsToRun:
    """Unpickling it creates a file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


def save(value, path, form):
    import torch

    if form == "pickle":
        path.write_bytes(pickle.dumps(value))
    else:
        torch.save(value, path, _use_new_zipfile_serialization=form == "torch zip")


@pytest.mark.parametrize("form", ["torch zip", "torch legacy", "pickle"])
def test_pickle_does_not_run_code(checkpoint, output, tmp_path, form):
    """A pytorch_model.bin with code is refused before the code runs."""
    directory = shutil.copytree(checkpoint(*PICKLED), tmp_path / "checkpoint")
    marker = tmp_path / "it ran"
    save({"weight": WantsToRun(marker)}, directory / "pytorch_model.bin", form)
    require_refusal(tmp_path, 1, (str(directory), "contains code", "safetensors"), "-m", directory, output)
    assert not marker.exists()


def test_code_of_the_checkpoint_is_neither_run_nor_offered(checkpoint, output, tmp_path, monkeypatch):
    """A checkpoint with its own modelling code is refused without asking the user."""
    directory = shutil.copytree(checkpoint(), tmp_path / "checkpoint")
    marker, questions = tmp_path / "it ran", []
    monkeypatch.setattr("builtins.input", lambda *text: questions.append(text) or "y")
    (directory / "configuration_own.py").write_text(f"open({str(marker)!r}, 'w')")
    change_config(model_type="own", auto_map={"AutoConfig": "configuration_own.OwnConfig"})(directory)
    require_refusal(tmp_path, 1, (str(directory), "code of its own", "parity does not run"), "-m", directory, output)
    assert not marker.exists()
    assert questions == []


@pytest.mark.parametrize(
    ("options", "fragments"),
    [
        (["--feature=nonsense"], ("bert doesn't support feature nonsense", f"supported: {BERT_FEATURES}")),
        (["--feature=seq2seq-lm"], ("seq2seq-lm", f"supported: {BERT_FEATURES}")),
        (["--opset=5"], ("got 5", "should be 11 to 20")),
        (["--opset=10"], ("got 10", "should be 11 to 20")),
        (["--opset=99"], ("got 99", "should be 11 to 20")),
        (["--opset=x"], ("--opset", "'x'", "int")),
        (["--atol=-1"], ("--atol", "got -1", "should be a number ≥ 0 such as 1e-5")),
        (["--atol", "-1e-5"], ("--atol",)),
        (["--atol=x"], ("--atol", "got x", "should be a number")),
        (["--atol=nan"], ("--atol", "got nan", "should be a number")),
        (["--atol=inf"], ("--atol", "got inf", "should be a number")),
        (["--framework=jax"], ("--framework", "jax", "pt", "tf")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_option_is_refused(checkpoint, output, tmp_path, options, fragments):
    """An invalid option gives exit status 2; the message says what it should be."""
    require_refusal(tmp_path, 2, fragments, "-m", checkpoint(), *options, output)


def test_opset_below_the_architectures_own_floor_is_refused_with_the_reason(checkpoint, output, tmp_path):
    """t5 at opset 11 gives exit status 2, with its range and the reason."""
    fragments = ("got 11", "should be 12 to 20 for t5", "Min takes int64 only from opset 12")
    options = ("--feature", "seq2seq-lm", "--opset", "11")
    require_refusal(tmp_path, 2, fragments, "-m", checkpoint("t5", "seq2seq-lm"), *options, output)


@pytest.mark.parametrize("name", ["no/such/directory/here", "./nothing", "a b"])
def test_missing_path_is_refused(output, tmp_path, monkeypatch, name):
    """A path that does not exist and cannot be a Hub id gives exit status 2."""
    monkeypatch.chdir(tmp_path)
    require_refusal(tmp_path, 2, (f"--model {name}: no such directory", "give the directory"), "-m", name, output)


def test_file_instead_of_a_directory_is_refused(checkpoint, output, tmp_path):
    """The file of the weights, given in place of the checkpoint, gives exit status 2."""
    file = checkpoint() / "model.safetensors"
    require_refusal(tmp_path, 2, (f"--model {file}: is a file", "should be the directory"), "-m", file, output)


@pytest.mark.parametrize("feature", ["sequence-classification", "masked-lm", "question-answering"])
def test_random_weights_are_refused(checkpoint, output, tmp_path, feature):
    """A feature whose head the checkpoint lacks is refused, because its weights would be random."""
    fragments = (str(checkpoint()), f"which {feature} needs", "would be random", "BertModel", "choose the feature")
    require_refusal(tmp_path, 1, fragments, "-m", checkpoint(), "--feature", feature, output)


def test_weights_that_no_output_reads_may_be_missing(checkpoint, tmp_path):
    """The default feature of a masked-lm checkpoint, which has no pooler, is exported."""
    status, _, err = run("-m", checkpoint("bert", "masked-lm"), "--quiet", tmp_path)
    assert (status, err.count("\n"), err.startswith("warning: feature default leaves out the head of ")) == (0, 1, True)
    assert (tmp_path / "model.onnx").is_file()


@pytest.mark.parametrize("name", ["file/model.onnx", "file/deep/directory", "model.onnx"])
def test_output_that_cannot_be_written_is_refused(checkpoint, tmp_path, name):
    """An output below a file, or a directory in place of the file, is refused before any work."""
    (tmp_path / "file").write_text("a file")
    (tmp_path / "model.onnx").mkdir()
    fragments = (f"output {tmp_path / name}", "cannot be written", "give a directory")
    require_refusal(tmp_path, 1, fragments, "-m", checkpoint(), tmp_path / name)


def full(*arguments, **options):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    "place",
    [
        "torch.onnx.export",
        "parity.onnx.convert.gather_external_data",
        "parity.onnx.checkpoint_export.append_metadata",
        "os.replace",
    ],
)
def test_full_disk_leaves_nothing(checkpoint, output, tmp_path, monkeypatch, place):
    """A full disk at any write gives exit status 1, names the output and leaves no partial file."""
    monkeypatch.setattr(place, full)
    fragments = (f"output {output / 'model.onnx'}", "no space left", "free some")
    require_refusal(tmp_path, 1, fragments, "-m", checkpoint(), "--quiet", output)


def test_failing_exporter_leaves_nothing(checkpoint, tmp_path, monkeypatch):
    """If the exporter raises after writing half a file, even the directories made for it are removed."""

    def export(model, inputs, file, **options):
        (tmp_path / "reached").touch()
        raise RuntimeError("unsupported operator")

    monkeypatch.setattr("torch.onnx.export", export)
    status, _, err = run("-m", checkpoint(), tmp_path / "new" / "output")
    assert status == 1
    assert err.startswith("python -m parity.onnx: error: opset 11: the exporter failed: RuntimeError: unsupported")
    assert list(tree(tmp_path)) == [tmp_path / "reached"]


@pytest.fixture
def wrong_exporter(monkeypatch):
    """Make the exporter write a model with one changed weight."""
    import torch

    from parity.onnx import checkpoint_export

    export = checkpoint_export.export

    def export_wrong_model(preprocessor, model, *rest):
        with torch.no_grad():
            model.encoder.layer[1].output.LayerNorm.bias[3] += 0.5
        return export(preprocessor, model, *rest)

    monkeypatch.setattr(checkpoint_export, "export", export_wrong_model)


@pytest.mark.usefixtures("wrong_exporter")
@pytest.mark.parametrize("options", [[], ["--atol=1e-3"]], ids=["ratio", "atol"])
def test_mismatch_names_output_count_worst_difference_and_index(checkpoint, tmp_path, options):
    """One wrong weight gives exit status 1; each wrong shape has a count, the worst difference and its index."""
    status, out, err = run("-m", checkpoint(), *options, tmp_path)
    assert status == 1
    assert "All good" not in out
    assert "-[✓] all values close" not in out
    assert "-[x] batch 1 × sequence 1: largest difference 0.5" in out
    assert "at batch 1 × sequence 1: last_hidden_state: 1 of 32 values differ" in err
    assert "worst difference 0.5 at index (0, 0, 3)" in err
    assert "Traceback" not in err


@pytest.mark.usefixtures("wrong_exporter")
def test_rejected_file_is_kept_under_another_name(checkpoint, tmp_path):
    """After a mismatch there is only the rejected file, no model.onnx."""
    _, _, err = run("-m", checkpoint(), "--quiet", tmp_path / "new")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["model.rejected.onnx"]
    assert f"kept as {(tmp_path / 'new' / 'model.rejected.onnx').as_posix()}; model.onnx was not written" in err


@pytest.mark.usefixtures("wrong_exporter")
def test_earlier_export_survives_a_mismatch(checkpoint, output):
    """The old model.onnx is unchanged."""
    assert run("-m", checkpoint(), "--quiet", output)[0] == 1
    assert (output / "model.onnx").read_bytes() == EARLIER


@pytest.mark.usefixtures("wrong_exporter")
def test_mismatch_as_json(checkpoint, tmp_path):
    """With --json the object says failed, lists the failures and names the rejected file."""
    status, out, _ = run("-m", checkpoint(), "--json", tmp_path)
    result = json.loads(out)
    assert (status, result["status"]) == (1, "failed")
    assert "last_hidden_state" in [failure["subject"] for failure in result["failures"]]
    assert result["rejected"] == (tmp_path / "model.rejected.onnx").as_posix()
    assert "model" not in result


def test_failure_as_json(tmp_path):
    """With --json a refusal is also one object, in addition to the message."""
    status, out, err = run("-m", tmp_path, "--json", tmp_path / "output")
    assert (status, json.loads(out)["stage"]) == (1, "load")
    assert json.loads(out)["error"] in err


# The exporter writes half a file, then the process gets a signal once.
INTERRUPTED = """
import os, signal, sys, time
import torch

def export(model, inputs, file, **options):
    with open(file, "wb") as half:
        half.write(b"half")
    os.kill(os.getpid(), int(sys.argv[1]))
    time.sleep(5)

torch.onnx.export = export
signal.signal(signal.SIGINT, signal.default_int_handler)
from parity.console import leave
from parity.onnx.__main__ import main
leave(main(sys.argv[2:]))
"""


@pytest.mark.parametrize(
    ("number", "status", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_interruption_leaves_nothing_half_written(checkpoint, output, tmp_path, number, status, word):
    """Ctrl-C and SIGTERM during an export end it with one line; an earlier export stays."""
    before = tree(tmp_path)
    command = [sys.executable, "-c", INTERRUPTED, str(int(number)), "-m", str(checkpoint()), str(output)]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == status
    (line,) = (each for each in process.stderr.splitlines() if not each.startswith("… "))
    assert line == f"python -m parity.onnx: error: {word}; nothing was written"
    assert process.stdout == ""
    assert tree(tmp_path) == before


LONG = "x" * 5000


@pytest.mark.parametrize("where", ["output", "--tokenizer", "file of parity check", "output of parity torchscript"])
def test_a_path_that_is_too_long_is_one_sentence(checkpoint, tmp_path, where):
    """pathlib raises wherever such a path is first looked at; nothing is written."""
    from parity import check
    from parity.torchscript.__main__ import main as torchscript

    model = str(checkpoint())
    commands_of = {
        "output": (main, ["-m", model, LONG]),
        "--tokenizer": (main, ["-m", model, "--tokenizer", LONG, tmp_path / "onnx"]),
        "file of parity check": (check.main, [model, LONG]),
        "output of parity torchscript": (torchscript, ["--model", model, "--sequence-length", "8", LONG]),
    }
    command, arguments = commands_of[where]
    status, _, err = commands.run(*map(str, arguments), command=command)
    assert status == 2
    assert err.splitlines()[-1].endswith("…: is too long for the file system; give a shorter one")
    assert [*tmp_path.iterdir()] == []
