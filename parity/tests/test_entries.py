"""One entry makes a task, an exporter or a dtype: it is in the matrix, in `parity check` and in the records."""

import importlib
import pathlib
from dataclasses import replace
from types import SimpleNamespace

import onnx
import pytest

from parity import check, dtypes, exporters, records, registry
from parity.architectures.conformance import matrix
from parity.architectures.conformance.matrix import Cell
from parity.check import guess_feature
from parity.errors import UsageError
from parity.fixtures import reproducer, subjects
from parity.fixtures.checkpoints import save_checkpoint, tiny_config
from parity.fixtures.controls import specimens
from parity.fixtures.sizes import Example
from parity.onnx.config import OnnxConfig
from parity.opsets import MAXIMUM_OPSET
from parity.registry import architecture
from parity.scope import Scope
from parity.sessions import OnnxSession
from parity.tasks import TASKS, Task


@pytest.fixture
def next_sentence(monkeypatch):
    """A new task, and an architecture with that feature."""
    # It reads all declarations at import, so import it before they are replaced.
    importlib.import_module("parity.features")
    monkeypatch.setitem(TASKS, "next-sentence", Task({"scores": {0: "batch"}}, ("AutoModelForNextSentencePrediction",)))
    bert = replace(architecture("bert"), features=("default", "next-sentence"), smoke=())
    monkeypatch.setattr(registry, "architectures", lambda: (bert,))
    monkeypatch.setattr(registry, "_by_name", lambda: {"bert": bert})
    monkeypatch.setattr(matrix, "architectures", lambda: (bert,))
    return bert


def test_a_task_is_one_entry(next_sentence, monkeypatch):
    """In the matrix and in `parity check`, and so in ids and records; without it the feature is refused."""
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


def stamped():
    """The class of one more exporter: the tracing one with another name, and with opset 21, which changes nothing."""
    from parity.onnx.exporter import TraceExporter

    class Stamped(TraceExporter):
        name = "stamped"

        def export(self, traceable, tensors, signature, opset, path):
            super().export(traceable, tensors, signature, min(opset, MAXIMUM_OPSET), path)
            model = onnx.load(path)
            model.opset_import[0].version = opset
            onnx.save(model, path)

    return Stamped


ENTRIES = {
    "exporter": (exporters.EXPORTERS, "stamped", exporters.Entry("Stamped", range(20, 22))),
    "dtype": (dtypes.DTYPES, "float16", "half precision"),
}


@pytest.fixture(params=ENTRIES)
def entry(request, monkeypatch):
    """One more exporter or dtype: its kind, its name, and the cells with it."""
    table, name, value = ENTRIES[request.param]
    monkeypatch.setitem(table, name, value)
    monkeypatch.setattr("parity.onnx.exporter.Stamped", stamped(), raising=False)
    cells = [cell for cell in matrix.cells.__wrapped__() if getattr(cell, request.param) == name]
    monkeypatch.setattr(matrix, "cells", matrix.cells.__wrapped__)
    return request.param, name, cells


def test_an_exporter_and_a_dtype_are_one_entry_in_the_matrix_and_the_records(entry):
    """Its cells have its name in their ids and records, at its own opsets; default cells do not."""
    kind, name, cells = entry
    ids = {cell.id: cell for cell in cells}
    assert f"bert-default-onnx20-{name}" in ids
    opsets = {cell.opset for cell in cells if cell.architecture == "bert"}
    assert opsets == ({20, 21} if kind == "exporter" else {*range(11, 21)})
    cell = ids[f"bert-default-onnx20-{name}"]
    assert cell.as_json()[kind] == name
    line = {**specimens.line("bert", "default", opset=20), **cell.as_json()}
    records.validate(line)
    assert (line["id"], line[kind]) == (cell.id, name)
    usual = next(each for each in matrix.cells() if each.id == "bert-default-onnx20")
    assert not {"exporter", "dtype"} & {*usual.as_json()}
    assert Scope(**{kind: name}).covers(**{kind: name})
    assert not Scope(**{kind: name}).covers(**{kind: getattr(usual, kind)})


def export_entry(kind, name, architecture, feature, path, opset=14):
    """Export a cell with that exporter or dtype; returns its subject."""
    subject = subjects.subject(architecture, feature, **({"dtype": name} if kind == "dtype" else {}))
    subjects.artifact(subject, opset, path, **({"exporter": name} if kind == "exporter" else {}))
    return subject


def test_parity_check_judges_its_files_as_what_they_are(entry, tmp_path, capsys):
    """File and log have its exporter and type, and the model is loaded in that type."""
    kind, name, cells = entry
    opset = max(cell.opset for cell in cells)
    save_checkpoint(tmp_path / "model", "bert", "default")
    path = tmp_path / "model.onnx"
    export_entry(kind, name, "bert", "default", path, opset)
    metadata = {each.key: each.value for each in onnx.load(path).metadata_props}
    assert metadata[kind] == name
    assert check.main([str(tmp_path / "model"), str(path)]) == 0
    assert f"Judging {path}: feature default, opset {opset}, {kind} {name}" in capsys.readouterr().out


def test_a_file_of_an_unknown_exporter_or_dtype_is_refused(entry, monkeypatch, tmp_path, capsys):
    """The control: without the entry, the check refuses the file."""
    kind, name, _ = entry
    table = ENTRIES[kind][0]
    save_checkpoint(tmp_path / "model", "bert", "default")
    export_entry(kind, name, "bert", "default", tmp_path / "model.onnx", 20)
    monkeypatch.delitem(table, name)
    # float16 has no cells, but its files may be judged.
    monkeypatch.setattr(dtypes, "_ALSO_EXPORTED", ())
    assert check.main([str(tmp_path / "model"), str(tmp_path / "model.onnx")]) == 2
    assert f"its {kind} is {name}, should be one of {', '.join(table)}" in capsys.readouterr().err
    with pytest.raises(ValueError, match=f"'{name}', should be among {', '.join(table)}"):
        Scope(**{kind: name})


@pytest.mark.parametrize("entry", ["exporter"], indirect=True)
@pytest.mark.parametrize("opset", [19, 22])
def test_an_exporter_is_asked_for_its_own_opsets_only(entry, tmp_path, opset):
    """Opset 19 is valid for the default exporter; the message has the range of the chosen one."""
    with pytest.raises(UsageError, match=f"opset: got {opset}, should be 20 to 21"):
        subjects.artifact(subjects.subject("bert", "default"), opset, tmp_path / "model.onnx", exporter=entry[1])


@pytest.mark.parametrize("entry", ["exporter"], indirect=True)
def test_the_table_of_the_matrix_has_the_opsets_of_the_cells(entry, capsys):
    """From the lowest of any exporter to the highest."""
    assert matrix.main([]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["bert", "masked-lm", "11–21"] in [line[:3] for line in lines]


PLUGINS = ("-p", "parity.fixtures.plugin", "-p", "parity.reports.recording.plugin", "-p", "no:cacheprovider")
HALF = "from parity import dtypes\n\ndtypes.DTYPES['float16'] = 'half precision'\n"


@pytest.mark.parametrize("group", ["bert-default", "gpt2-causal-lm-with-past"])
def test_the_suite_judges_a_cell_of_a_new_dtype(group, pytester):
    """With the entry alone, model, file, inputs and answers have that type, and so has the unit of the ratio."""
    conformance = pathlib.Path(matrix.__file__).parent
    pytester.makepyfile(half=HALF)
    cell = f"{group}-onnx17-float16"
    checks = [("contract", "contract"), ("parity", "traced_sizes"), ("relations", "relations")]
    nodes = [f"{conformance / f'test_{file}.py'}::test_{check}[{cell}]" for file, check in checks]
    result = pytester.runpytest_subprocess("-p", "half", *PLUGINS, "--records", "out.jsonl", *nodes)
    result.assert_outcomes(passed=len(checks))
    _, lines = records.read(pytester.path / "out.jsonl")
    assert {(line["id"], line["dtype"], line["status"]) for line in lines} == {(cell, "float16", "passed")}


def test_a_float16_file_is_judged_in_roundoffs_of_float16(monkeypatch, tmp_path):
    """Its noise is at least float16's; the answers of the float32 model have another type."""
    monkeypatch.setitem(dtypes.DTYPES, "float16", "half precision")
    half, path = export_entry("dtype", "float16", "bert", "default", tmp_path / "model.onnx"), tmp_path / "model.onnx"
    pools = [subjects.pool("bert", "default", "traced", dtype=name) for name in ("float16", "float32")]
    assert [pool.noise["last_hidden_state"] > 2.0**-11 for pool in pools] == [True, False]
    verdicts = [subjects.verdict(half, OnnxSession(path), pool) for pool in pools]
    assert [verdict.passed for verdict in verdicts] == [True, False]
    assert {finding.check for finding in verdicts[1].failures} == {"dtype"}


def test_a_reproducer_makes_its_own_cell(monkeypatch, tmp_path):
    """The script has the exporter and the dtype of the cell, and exports with them."""
    monkeypatch.setitem(dtypes.DTYPES, "float16", "half precision")
    cell = Cell("bert", "default", "onnx", "onnxruntime", 17, dtype="float16", exporter="stamped")
    text = reproducer.write(tmp_path, cell, 1, Example({"batch": 1}), "wrong").read_text(encoding="utf-8")
    assert "subjects.subject('bert', 'default', dtype='float16')" in text
    assert "'eager', exporter='stamped')" in text
    usual = replace(cell, dtype="float32", exporter="trace")
    text = reproducer.write(tmp_path, usual, 1, Example({"batch": 1}), "wrong").read_text(encoding="utf-8")
    assert "dtype" not in text
    assert "exporter" not in text


def test_float64_replaces_every_type_of_an_entry(monkeypatch):
    """Casts inside the model to bfloat16 become float64 only if it is an entry; float16 may be exported without one."""
    import torch

    from parity.reference import default_dtype

    def casts():
        ones = torch.ones(1, dtype=torch.float64)
        with default_dtype(torch.float64):
            return [each.dtype for each in (ones.float(), ones.half(), ones.to(torch.float16), ones.bfloat16())]

    assert casts() == [torch.float64, torch.float64, torch.float64, torch.bfloat16]
    monkeypatch.setitem(dtypes.DTYPES, "bfloat16", "half precision with the range of float32")
    assert casts() == [torch.float64, torch.float64, torch.float64, torch.float64]
