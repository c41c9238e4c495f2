"""One entry makes a task, an exporter or a dtype: it is in the matrix, in `parity check` and in the records."""

import importlib
from dataclasses import replace
from types import SimpleNamespace

import onnx
import pytest

from parity import check, dtypes, exporters, records, registry
from parity.architectures.conformance import matrix
from parity.check import guess_feature
from parity.fixtures import subjects
from parity.fixtures.checkpoints import save_checkpoint, tiny_config
from parity.fixtures.controls import specimens
from parity.onnx.config import OnnxConfig
from parity.registry import architecture
from parity.scope import Scope
from parity.tasks import TASKS, Task


@pytest.fixture
def next_sentence(monkeypatch):
    """A task that nothing else names, and an architecture with that feature."""
    # It reads all declarations when it is imported, which is to be before there is only one.
    importlib.import_module("parity.features")
    monkeypatch.setitem(TASKS, "next-sentence", Task({"scores": {0: "batch"}}, ("AutoModelForNextSentencePrediction",)))
    bert = replace(architecture("bert"), features=("default", "next-sentence"), smoke=())
    monkeypatch.setattr(registry, "architectures", lambda: (bert,))
    monkeypatch.setattr(registry, "_by_name", lambda: {"bert": bert})
    monkeypatch.setattr(matrix, "architectures", lambda: (bert,))
    return bert


def test_a_task_is_one_entry(next_sentence, monkeypatch):
    """In the matrix, in what `parity check` infers, and so in ids and records; without it the feature is refused."""
    from parity.onnx import features
    from parity.onnx.features import FeaturesManager, supported_features_mapping

    found = {cell.id for cell in matrix.cells.__wrapped__() if cell.feature == "next-sentence"}
    assert "bert-next-sentence-onnx17" in found
    config = tiny_config("bert")
    assert list(next_sentence.onnx_config(config, task="next-sentence").outputs) == ["scores"]
    supported = supported_features_mapping(*next_sentence.features, onnx_config_cls=next_sentence.onnx_config)
    monkeypatch.setitem(FeaturesManager._SUPPORTED_MODEL_TYPE, "bert", supported)
    assert features.model_class("bert", "next-sentence").__name__ == "AutoModelForNextSentencePrediction"
    config.architectures = ["BertForNextSentencePrediction"]
    file = SimpleNamespace(metadata={}, outputs=[SimpleNamespace(name="scores")])
    assert guess_feature(file, config) == "next-sentence"


def test_without_its_entry_a_task_is_none():
    """The control."""
    with pytest.raises(ValueError, match="'next-sentence', should be among default, masked-lm"):
        replace(architecture("bert"), features=("default", "next-sentence"))
    with pytest.raises(ValueError, match="next-sentence is not a supported task"):
        type("Config", (OnnxConfig,), {"inputs": {}})(tiny_config("bert"), task="next-sentence")


class Stamped:
    """An exporter of somebody else's: the tracing one under another name."""

    name = "stamped"

    def __new__(cls, *args, **kwargs):
        from parity.onnx.exporter import TraceExporter

        made = TraceExporter(*args, **kwargs)
        made.name = cls.name
        return made


ENTRIES = {
    "exporter": (exporters.EXPORTERS, "stamped", exporters.Entry(f"{__name__}.Stamped", range(14, 16))),
    "dtype": (dtypes.DTYPES, "float16", "half precision"),
}


@pytest.fixture(params=ENTRIES)
def entry(request, monkeypatch):
    """One more exporter, or one more dtype: what it is, its name, and the cells with it."""
    table, name, value = ENTRIES[request.param]
    monkeypatch.setitem(table, name, value)
    cells = [cell for cell in matrix.cells.__wrapped__() if getattr(cell, request.param) == name]
    monkeypatch.setattr(matrix, "cells", matrix.cells.__wrapped__)
    return request.param, name, cells


def test_an_exporter_and_a_dtype_are_one_entry_in_the_matrix_and_the_records(entry):
    """Its cells have its name in their ids and records, at the opsets that it has; the usual ones have neither."""
    kind, name, cells = entry
    ids = {cell.id: cell for cell in cells}
    assert f"bert-default-onnx14-{name}" in ids
    opsets = {cell.opset for cell in cells if cell.architecture == "bert"}
    assert opsets == ({14, 15} if kind == "exporter" else {*range(11, 21)})
    cell = ids[f"bert-default-onnx14-{name}"]
    assert cell.as_json()[kind] == name
    line = {**specimens.line("bert", "default", opset=14), **cell.as_json()}
    records.validate(line)
    assert (line["id"], line[kind]) == (cell.id, name)
    usual = next(each for each in matrix.cells() if each.id == "bert-default-onnx14")
    assert not {"exporter", "dtype"} & {*usual.as_json()}
    assert Scope(**{kind: name}).covers(**{kind: name})
    assert not Scope(**{kind: name}).covers(**{kind: getattr(usual, kind)})


def test_parity_check_judges_its_files_as_what_they_are(entry, tmp_path, capsys):
    """The file says what wrote it and in which type, the log too, and the model is loaded in that type."""
    kind, name, _ = entry
    save_checkpoint(tmp_path / "model", "bert", "default")
    subject, path = subjects.subject("bert", "default"), tmp_path / "model.onnx"
    subjects.artifact(subject, 14, path, **{kind: name})
    metadata = {each.key: each.value for each in onnx.load(path).metadata_props}
    assert metadata[kind] == name
    assert check.main([str(tmp_path / "model"), str(path)]) == 0
    assert f"Judging {path}: feature default, opset 14, {kind} {name}" in capsys.readouterr().out


def test_a_file_of_an_unknown_dtype_is_refused(monkeypatch, tmp_path, capsys):
    """The control: once the entry is gone, so is the check."""
    monkeypatch.setitem(dtypes.DTYPES, "float16", "half precision")
    save_checkpoint(tmp_path / "model", "bert", "default")
    subjects.artifact(subjects.subject("bert", "default"), 14, tmp_path / "model.onnx", dtype="float16")
    monkeypatch.delitem(dtypes.DTYPES, "float16")
    assert check.main([str(tmp_path / "model"), str(tmp_path / "model.onnx")]) == 2
    assert "its dtype is float16, should be one of float32" in capsys.readouterr().err
    with pytest.raises(ValueError, match="'float16', should be among float32"):
        Scope(dtype="float16")
