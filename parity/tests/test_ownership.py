"""Foreign files at the output: no command replaces them without --overwrite, and each names them."""

import contextlib
import io
import json
import os

import pytest

from parity.fixtures.checkpoints import save_checkpoint
from parity.neuron.__main__ import main as neuron
from parity.onnx.__main__ import main as onnx
from parity.ownership import facts_of, is_ours
from parity.torchscript.__main__ import main as torchscript

COMMANDS = {"onnx": (onnx, "model.onnx"), "torchscript": (torchscript, "model.pt"), "neuron": (neuron, "model.pt")}
OPTIONS = {"onnx": (), "torchscript": (), "neuron": ("--emulate", "--sequence-length", 8)}


@pytest.fixture(params=COMMANDS)
def command(request):
    """The command's name, and a function that runs it on a checkpoint; returns exit status, output, errors."""
    main, _ = COMMANDS[request.param]

    def run(checkpoint, output, *options):
        out, err = io.StringIO(), io.StringIO()
        arguments = ["-m", checkpoint, *OPTIONS[request.param], *options, output]
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main([str(argument) for argument in arguments])
        return status, out.getvalue(), err.getvalue()

    run.model = COMMANDS[request.param][1]
    return run


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Model type → a checkpoint; `other bert` has other special tokens and other weights."""
    directories = {}
    for name, model_type, seed in (("bert", "bert", 0), ("other bert", "bert", 1), ("distilbert", "distilbert", 0)):
        directories[name] = tmp_path_factory.mktemp(name.replace(" ", "-"))
        save_checkpoint(directories[name], model_type, seed=seed)
    tokenizer_config = json.loads((directories["other bert"] / "tokenizer_config.json").read_text())
    (directories["other bert"] / "tokenizer_config.json").write_text(
        json.dumps({**tokenizer_config, "model_max_length": 77})
    )
    return directories


def tree(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


def require_refusal(run, checkpoint, output, *names):
    """Require exit status 2 with exactly these files named, and no change on disk."""
    directory = output if output.is_dir() else output.parent
    before = tree(directory)
    status, out, err = run(checkpoint, output)
    assert (status, out) == (2, "")
    (line,) = err.splitlines()
    listed = line.partition("output: ")[2].partition(" would be replaced")[0]
    assert {os.path.basename(name) for name in listed.split(", ")} == set(names)
    assert "--overwrite" in line
    assert tree(directory) == before


def test_a_text_is_not_replaced(command, checkpoints, tmp_path):
    """An output that is a foreign file is refused; with --overwrite it is replaced, and named."""
    notes = tmp_path / ("notes.md" if command.model.endswith("onnx") else "notes.pt")
    notes.write_text("remember the milk")
    require_refusal(command, checkpoints["bert"], notes, notes.name)
    status, out, _ = command(checkpoints["bert"], notes, "--overwrite")
    assert status == 0
    assert f"Overwriting: {notes}" in out
    assert "parity" in facts_of(notes)


def test_companions_of_another_model_are_not_replaced(command, checkpoints, tmp_path):
    """Another model's configuration and tokenizer in the directory are refused by name."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "roberta"}))
    (tmp_path / "tokenizer_config.json").write_text("{}")
    (tmp_path / "unrelated.json").write_text("{}")
    require_refusal(command, checkpoints["bert"], tmp_path, "config.json", "tokenizer_config.json")


def test_a_model_file_of_somebody_else_is_not_replaced(command, checkpoints, tmp_path):
    """A file of the right name that parity did not write, or for another type, is refused."""
    (tmp_path / command.model).write_bytes(b"")
    require_refusal(command, checkpoints["bert"], tmp_path, command.model)
    (tmp_path / command.model).unlink()
    assert command(checkpoints["distilbert"], tmp_path)[0] == 0
    require_refusal(command, checkpoints["bert"], tmp_path, command.model, "config.json", "tokenizer_config.json")


def test_an_earlier_export_is_replaced(command, checkpoints, tmp_path):
    """A second export of the same type, with other weights and another tokenizer, replaces the first."""
    assert command(checkpoints["bert"], tmp_path)[0] == 0
    before = tree(tmp_path)
    assert command(checkpoints["other bert"], tmp_path)[0] == 0
    assert {name for name, content in tree(tmp_path).items() if content != before[name]} == {
        command.model,
        "tokenizer_config.json",
    }


def test_equal_bytes_are_no_conflict(command, checkpoints, tmp_path):
    """Next to the same checkpoint's companions another file can be written."""
    assert command(checkpoints["bert"], tmp_path)[0] == 0
    second = tmp_path / f"second{os.path.splitext(command.model)[1]}"
    assert command(checkpoints["bert"], second)[0] == 0
    assert second.is_file()


def test_two_models_do_not_share_companions(checkpoints, tmp_path):
    """Of the same type, but with another tokenizer: the first file would lose its own."""
    assert quiet(checkpoints["bert"], tmp_path / "a.onnx")[0] == 0
    require_refusal(quiet, checkpoints["other bert"], tmp_path / "b.onnx", "tokenizer_config.json")


def test_two_traces_do_not_share_companions(command, checkpoints, tmp_path):
    """In every command: a file of another checkpoint of the same type would lose its tokenizer."""
    suffix = os.path.splitext(command.model)[1]
    assert command(checkpoints["bert"], tmp_path / f"a{suffix}")[0] == 0
    require_refusal(command, checkpoints["other bert"], tmp_path / f"b{suffix}", "tokenizer_config.json")


def quiet(checkpoint, output):
    """Run `parity.onnx --quiet`; returns exit status, output, errors."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        return onnx(["-m", str(checkpoint), "--quiet", str(output)]), out.getvalue(), err.getvalue()


def test_data_without_its_model_is_not_replaced(checkpoints, tmp_path):
    """A `model.onnx_data` without a model of ours is refused, because an export would remove it."""
    (tmp_path / "model.onnx_data").write_bytes(b"weights")
    require_refusal(quiet, checkpoints["bert"], tmp_path, "model.onnx_data")


def test_a_rejected_export_owns_no_companions(checkpoints, tmp_path):
    """A rejected file of ours has no companions: files next to it are foreign."""
    assert quiet(checkpoints["bert"], tmp_path)[0] == 0
    (tmp_path / "model.onnx").rename(tmp_path / "model.rejected.onnx")
    (tmp_path / "tokenizer_config.json").write_text("{}")
    require_refusal(quiet, checkpoints["bert"], tmp_path, "tokenizer_config.json")
    (tmp_path / "model.rejected.onnx").write_text("a text")
    require_refusal(quiet, checkpoints["bert"], tmp_path, "tokenizer_config.json", "model.rejected.onnx")


def test_the_checkpoints_own_directory(checkpoints, tmp_path):
    """There the companions are the checkpoint's own: they do not conflict, and stay unchanged."""
    save_checkpoint(tmp_path, "bert")
    before = tree(tmp_path)
    assert quiet(tmp_path, tmp_path)[0] == 0
    after = tree(tmp_path)
    assert is_ours(tmp_path / "model.onnx", "bert")
    assert {name: after[name] for name in before} == before


def test_a_file_of_an_older_parity_is_ours(checkpoints, tmp_path):
    """Until 0.1 files did not name the model's type, only the configuration next to them did."""
    from onnx import ModelProto

    model = ModelProto()
    model.metadata_props.add(key="parity", value="0.1.0")
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    assert not is_ours(tmp_path / "model.onnx", "bert")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    assert is_ours(tmp_path / "model.onnx", "bert")
    assert not is_ours(tmp_path / "model.onnx", "roberta")


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04", b"PK\x05\x06" + 18 * b"\0"])
def test_what_says_nothing_is_not_ours(content, tmp_path):
    """Empty files, texts and broken archives have no facts."""
    (tmp_path / "x").write_bytes(content)
    assert facts_of(tmp_path / "x") == {}
    assert facts_of(tmp_path) == facts_of(tmp_path / "nothing") == {}
