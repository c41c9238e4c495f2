"""A checkpoint that changes while it is read is reported as such, not as a wrong file."""

import os
import shutil

import pytest

from parity.check import main as check
from parity.errors import CheckpointError, ExportError
from parity.fixtures.checkpoints import save_checkpoint
from parity.fixtures.controls import commands
from parity.neuron.__main__ import main as neuron
from parity.onnx.__main__ import main as onnx
from parity.torchscript.__main__ import main as torchscript


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Two checkpoints of one type with different weights."""
    directories = [tmp_path_factory.mktemp(f"bert{seed}") for seed in range(2)]
    for seed, directory in enumerate(directories):
        save_checkpoint(directory, "bert", seed=seed)
    return directories


@pytest.fixture
def changing(checkpoints, tmp_path, monkeypatch):
    """A checkpoint whose weights are replaced as soon as a model has been loaded from it."""
    from parity.checkpoint import Checkpoint

    directory = shutil.copytree(checkpoints[0], tmp_path / "checkpoint")
    load = Checkpoint.load

    def load_and_replace(self, *arguments, **options):
        model = load(self, *arguments, **options)
        shutil.copy(checkpoints[1] / "model.safetensors", tmp_path / "new")
        os.replace(tmp_path / "new", directory / "model.safetensors")
        return model

    monkeypatch.setattr(Checkpoint, "load", load_and_replace)
    return directory


@pytest.mark.parametrize("name", ["onnx", "torchscript", "neuron"])
def test_exports_of_a_changing_checkpoint(changing, tmp_path, name):
    """One sentence that names the file; no error ratio, and no file is left."""
    command = {"onnx": onnx, "torchscript": torchscript, "neuron": neuron}[name]
    options = ("--emulate", "--sequence-length", 8) if name == "neuron" else ()
    output = tmp_path / "output"
    status, _, err = commands.run("-m", changing, "--quiet", *options, output, command=command)
    assert status == 1
    assert f"error: {changing}: model.safetensors changed while the checkpoint was read; run the command again" in err
    assert "ratio" not in err
    assert not output.exists()


def test_a_comparison_with_a_changing_checkpoint(checkpoints, changing, tmp_path):
    """`parity check` does not blame the file."""
    assert commands.run("-m", checkpoints[0], "--quiet", tmp_path / "out", command=onnx)[0] == 0
    status, _, err = commands.run(changing, tmp_path / "out" / "model.onnx", command=check)
    assert status == 1
    assert "model.safetensors changed while the checkpoint was read" in err


def test_what_stays_is_no_change(checkpoints, tmp_path):
    """The control: reading files or adding others is no change, and errors keep their messages."""
    from parity.checkpoint import Checkpoint

    directory = shutil.copytree(checkpoints[0], tmp_path / "checkpoint")
    checkpoint = Checkpoint(str(directory))
    with checkpoint.unchanged():
        (directory / "model.safetensors").read_bytes()
        (directory / "model.onnx").write_bytes(b"")
        (directory / ".parity-stage").mkdir()

    def fail():
        with checkpoint.unchanged():
            raise ExportError("the exporter failed")

    with pytest.raises(ExportError, match="the exporter failed"):
        fail()


@pytest.mark.parametrize("change", ["cut", "gone", "more", "error"])
def test_every_change_is_seen(checkpoints, tmp_path, change):
    """A file that is truncated in place, removed or added; also if it causes an error."""
    from parity.checkpoint import Checkpoint

    directory = shutil.copytree(checkpoints[0], tmp_path / "checkpoint")
    checkpoint = Checkpoint(str(directory))

    def work():
        with checkpoint.unchanged():
            if change == "gone":
                (directory / "tokenizer.json").unlink()
            elif change == "more":
                (directory / "adapter_config.json").write_text("{}")
            else:
                os.truncate(directory / "model.safetensors", 1000)
            if change == "error":
                raise ValueError("incomplete metadata")

    with pytest.raises(CheckpointError, match="changed while the checkpoint was read"):
        work()
