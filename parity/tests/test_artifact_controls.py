"""The file on disk: weights written twice, external data, and a copy that must be complete."""

import os

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from parity import files
from parity.errors import SessionError
from parity.fixtures.controls.faults import DATA_BESIDE, HEALTHY, SPECIMENS
from parity.judge import artifact, contract, stored
from parity.judge.findings import failures

BY_NAME = {specimen.name: specimen for specimen in SPECIMENS}
VALUES = np.arange(400, dtype=np.float32).reshape(20, 20)


def load_isolated(path, names):
    from parity.onnx import proof

    return proof.load_isolated(path, names)


def model_of(**tensors):
    """A ModelProto with these initializers and no nodes."""
    made = [numpy_helper.from_array(array, name) for name, array in tensors.items()]
    return helper.make_model(helper.make_graph([], "weights", [], [], made))


@pytest.mark.parametrize(
    ("other", "twice"),
    [
        (VALUES.copy(), True),
        (VALUES.T.copy(), False),
        (VALUES.astype(np.int32).view(np.float32), False),
        (VALUES.reshape(10, 40), False),
        (np.where(VALUES == 399, 0, VALUES).astype(np.float32), False),
    ],
    ids=["equal", "transposed", "of other bytes", "of another shape", "of another last value"],
)
def test_only_equal_bytes_of_one_shape_are_written_twice(other, twice, tmp_path):
    """Only equal bytes in equal shapes count; the row names both and their size."""
    model = model_of(one=VALUES, other=other)
    assert artifact.duplicate_weights(model, tmp_path) == ([("one", "other", 1600)] if twice else [])
    (row,) = artifact.judge_artifact(model, tmp_path)
    assert row.passed is not twice
    if twice:
        assert row.message == (
            "file: 1 weights are written twice, should be once each; the largest is one, again as other, 1600 bytes"
        )


def test_what_is_small_or_of_one_value_does_not_count(tmp_path):
    """Small vectors and the gains of fresh norms are equal without being tied; larger ones count."""
    small, ones = VALUES.ravel()[:255], np.ones(1000, np.float32)
    assert artifact.duplicate_weights(model_of(a=small, b=small, c=ones, d=ones), tmp_path) == []
    ones[-1] = 2
    larger = VALUES.ravel()[:256]
    found = artifact.duplicate_weights(model_of(a=larger, b=larger, c=ones, d=ones), tmp_path)
    assert found == [("a", "b", 1024), ("c", "d", 4000)]


def test_values_that_are_no_raw_bytes_are_compared_too(tmp_path):
    """Initializers stored as a list of numbers, the older kind, are compared too."""
    model = model_of()
    for name in ("a", "b"):
        model.graph.initializer.append(helper.make_tensor(name, TensorProto.FLOAT, (20, 20), VALUES.ravel().tolist()))
    assert artifact.duplicate_weights(model, tmp_path) == [("a", "b", 1600)]


@pytest.mark.parametrize(("offsets", "twice"), [((0, 1600), True), ((0, 0), False)], ids=["two places", "one place"])
def test_weights_in_a_file_of_their_own_are_compared(offsets, twice, tmp_path):
    """Equal bytes at two places of the data file are duplicates; two names for one place are not."""
    (tmp_path / "weights").write_bytes(VALUES.tobytes() * 2)
    model = model_of(a=VALUES, b=VALUES)
    for tensor, offset in zip(model.graph.initializer, offsets, strict=True):
        onnx.external_data_helper.set_external_data(tensor, "weights", offset, 1600)
        tensor.ClearField("raw_data")
    assert artifact.duplicate_weights(model, tmp_path) == ([("a", "b", 1600)] if twice else [])


@pytest.mark.parametrize(
    ("location", "problem"),
    [
        ("weights", ""),
        ("below/weights", ""),
        ("none", "does not exist"),
        ("", "does not exist"),
        ("../weights", "is outside the model's directory"),
        ("below/../../weights", "is outside the model's directory"),
        ("/weights", "is outside the model's directory"),
        ("C:\\weights", "is outside the model's directory"),
        ("short", "has 1599 bytes, should have at least 1600"),
    ],
)
def test_external_data_is_there_or_told(location, problem, tmp_path):
    """A data file next to or below the model is right; if it is missing, too short or elsewhere, it is named."""
    for name in ("weights", "model/weights", "model/below/weights", "model/short"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(VALUES.tobytes()[: 1599 if "short" in name else None])
    model = model_of(a=VALUES)
    onnx.external_data_helper.set_external_data(model.graph.initializer[0], location)
    model.graph.initializer[0].ClearField("raw_data")
    row = artifact.judge_artifact(model, tmp_path / "model")[0]
    assert (row.check, row.passed) == ("data", not problem)
    assert row.message.startswith(f"external data {location}: {problem}" if problem else "")


def test_the_checker_names_what_it_refuses(bert, tmp_path):
    """The checker refuses a file that ONNX Runtime would run, in its own words."""
    BY_NAME["unsorted-nodes"].write(bert, tmp_path / "model.onnx")
    row = artifact.judge_checker(tmp_path / "model.onnx")
    assert "topologically sorted" in row.message
    assert BY_NAME["unsorted-nodes"].session()


def checked_sizes(path, monkeypatch):
    """The verdict of the checker, and the bytes of the files that it got."""
    check, sizes = onnx.checker.check_model, []

    def measure(name, **options):
        sizes.append(os.path.getsize(name))
        return check(name, **options)

    with monkeypatch.context() as patch:
        patch.setattr(onnx.checker, "check_model", measure)
        return artifact.judge_checker(path), sizes


@pytest.mark.parametrize("name", [HEALTHY.name, "unsorted-nodes"])
def test_the_checker_gets_no_large_weights(bert, name, tmp_path, monkeypatch):
    """The verdict is the same without them; what it refuses without them, it gets as a whole."""
    path = tmp_path / "model.onnx"
    BY_NAME.get(name, HEALTHY).write(bert, path)
    whole, sizes = checked_sizes(path, monkeypatch)
    assert sizes == [path.stat().st_size]
    monkeypatch.setattr(stored, "_IN_PARTS_FROM", 0)
    monkeypatch.setattr(stored, "_BIG", 256)
    monkeypatch.setattr(stored, "_LARGE", 256)
    without, sizes = checked_sizes(path, monkeypatch)
    assert without == whole
    assert without.passed == (name == HEALTHY.name)
    assert sizes[0] < 0.8 * path.stat().st_size
    assert sizes[1:] == ([] if without.passed else [path.stat().st_size])


def test_a_weight_of_another_size_is_left_in_the_file_for_the_checker(tmp_path, monkeypatch):
    """Nobody else would see that the checker looks at its bytes."""
    monkeypatch.setattr(stored, "_IN_PARTS_FROM", 0)
    monkeypatch.setattr(stored, "_BIG", 256)
    monkeypatch.setattr(stored, "_LARGE", 256)
    path = tmp_path / "model.onnx"
    for count, is_whole in ((400, False), (399, True)):
        model = model_of(a=VALUES)
        model.graph.initializer[0].raw_data = VALUES.tobytes()[: 4 * count]
        model.graph.node.append(helper.make_node("Identity", ["a"], ["y"]))
        model.graph.output.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, [20, 20]))
        onnx.save(model, path)
        _, sizes = checked_sizes(path, monkeypatch)
        assert (sizes[0] == path.stat().st_size) == is_whole


def test_a_copy_holds_what_the_file_names_and_nothing_else(bert, tmp_path):
    """Model and data are linked, not copied, into a temporary directory; other files are left out."""
    DATA_BESIDE.write(bert, tmp_path / "model.onnx")
    (tmp_path / "unnamed").touch()
    path = tmp_path / "model.onnx"
    names = contract.read(path).data
    assert names == ("weights",)
    with files.isolated_copy(path, (*names, "../elsewhere", str(tmp_path / "unnamed"))) as copy:
        assert sorted(child.name for child in copy.parent.iterdir()) == ["model.onnx", "weights"]
        assert all(child.stat().st_ino == (tmp_path / child.name).stat().st_ino for child in copy.parent.iterdir())
    assert not copy.parent.exists()
    assert sorted(child.name for child in tmp_path.iterdir()) == ["model.onnx", "unnamed", "weights"]


def test_where_links_fail_files_are_copied(bert, tmp_path, monkeypatch):
    """On a disk without links the copy is a real one, and works too."""
    DATA_BESIDE.write(bert, tmp_path / "model.onnx")

    def refuse(*_):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    assert load_isolated(tmp_path / "model.onnx", ("weights",)).output_names == ("last_hidden_state",)


def test_a_file_that_needs_more_than_it_names_does_not_load_alone(bert, tmp_path):
    """The row names the file, and the error class is that of a file that does not load."""
    from parity.onnx.proof import Artifact, Reference, judge_file

    DATA_BESIDE.write(bert, tmp_path / "model.onnx")
    path = tmp_path / "model.onnx"
    with pytest.raises(SessionError, match=r"model.onnx \(alone with the files that it names\): ONNX Runtime"):
        load_isolated(path, ())
    found = contract.read(path)
    unnamed = type(found)(**{**vars(found), "data": ()})
    verdict = judge_file(Artifact(path, unnamed), Reference(bert.fresh_model, bert.source))
    assert [row.check for row in verdict.failures] == ["load"]
    with pytest.raises(SessionError, match="alone with the files that it names"):
        verdict.raise_on_failure()
    assert failures([artifact.judge_checker(path)]) == []
    HEALTHY.write(bert, path)
    assert load_isolated(path, ())
