"""Our files have the hash of their data: data of another export next to the file is detected when loading both."""

import shutil

import numpy as np
import onnx
import pytest

from parity.errors import SessionError
from parity.fixtures import subjects
from parity.fixtures.checkpoints import tiny_model
from parity.judge import contract
from parity.onnx import export
from parity.sessions import OnnxSession


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """Two exports of one type with external weights, as for models over 2 GB."""
    from parity.onnx.exporter import TraceExporter

    subject = subjects.subject("bert", "default")
    run = TraceExporter.export

    def export_scattered(self, traceable, tensors, signature, opset, path):
        run(self, traceable, tensors, signature, opset, path)
        options = {"save_as_external_data": True, "all_tensors_to_one_file": False, "size_threshold": 1024}
        onnx.save_model(onnx.load(path), path, **options)

    directories = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TraceExporter, "export", export_scattered)
        for seed in range(2):
            directory = tmp_path_factory.mktemp(f"export{seed}")
            model = tiny_model("bert", seed=seed)
            export(subject.source.preprocessor, model, subject.onnx_config, 14, directory / "model.onnx")
            directories.append(directory)
    return directories


def failed(path):
    return [finding.message for finding in contract.read(path).flaws if finding.check == "data" and not finding.passed]


def test_own_data_is_accepted(exports):
    """The control: the file as written loads and has no fault."""
    for directory in exports:
        assert sorted(path.name for path in directory.iterdir()) == ["model.onnx", "model.onnx_data"]
        assert failed(directory / "model.onnx") == []
        assert OnnxSession(directory / "model.onnx").metadata["data"].count("sha256:") == 1


def test_data_of_another_export_is_noticed(exports, tmp_path):
    """Each is healthy; mixed they load and run, but `parity check` and every session refuse them."""
    mixed = shutil.copytree(exports[0], tmp_path / "mixed") / "model.onnx"
    shutil.copy(exports[1] / "model.onnx_data", mixed.parent)
    import onnxruntime

    inputs = {name: np.ones((1, 4), np.int64) for name in ("input_ids", "attention_mask", "token_type_ids")}
    assert onnxruntime.InferenceSession(str(mixed)).run(None, inputs)
    assert failed(mixed) == [
        "external data: model.onnx_data is the data of another export than the model beside it; export again, or copy"
        " both files"
    ]
    with pytest.raises(SessionError, match=f"{mixed}: model.onnx_data is the data of another export"):
        OnnxSession(mixed)


def test_what_a_tool_has_written_anew_is_no_mixture(exports, tmp_path):
    """A tool that keeps the metadata and moves the tensors makes no claim about its data."""
    path = tmp_path / "model.onnx"
    model = onnx.load(exports[0] / "model.onnx")
    del model.graph.initializer[:1], model.graph.node[:]
    onnx.save_model(model, path, save_as_external_data=True, location="model.onnx_data", size_threshold=1024)
    assert [message for message in failed(path) if "another export" in message] == []


def test_a_file_with_its_weights_inside_says_nothing(tmp_path):
    """Its bytes stay the same: the metadata has no hash."""
    subject = subjects.subject("bert", "default")
    export(subject.source.preprocessor, subject.fresh_model(), subject.onnx_config, 14, tmp_path / "model.onnx")
    assert "data" not in {entry.key for entry in onnx.load(tmp_path / "model.onnx").metadata_props}
