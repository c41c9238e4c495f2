"""Declarations: complete, one file each, and unknown words are refused."""

import json
from dataclasses import fields, replace

import pytest

from parity import dtypes, exporters, registry
from parity.architectures.conformance import matrix
from parity.declaration import KINDS, Deviation, Floor, TracedAxis
from parity.environment import meets, version_of
from parity.errors import ExportError, UsageError, ValueMismatch
from parity.fixtures import plugin
from parity.registry import architecture, architectures
from parity.scope import Scope

FIRST_EIGHT = {"bart", "bert", "distilbert", "gpt2", "resnet", "roberta", "t5", "vit"}


def test_the_first_eight_are_declared():
    """The first architectures are declared, each once."""
    names = [found.name for found in architectures()]
    assert set(names) >= FIRST_EIGHT
    assert len(names) == len(set(names))


def test_each_declaration_is_found_with_either_spelling():
    """Model types are spelled with - or _."""
    for found in architectures():
        assert architecture(found.name) is architecture(found.model_type) is found


def test_an_unknown_feature_is_refused():
    """A feature without a task is an error in the declaration."""
    with pytest.raises(ValueError, match="telepathy"):
        replace(architecture("bert"), features=("default", "telepathy"))


def test_a_smoke_feature_must_be_declared():
    """Smoke cannot name a feature that the architecture does not have."""
    with pytest.raises(ValueError, match="object-detection"):
        replace(architecture("bert"), smoke=("object-detection",))


def test_a_feature_that_the_environment_lacks_is_skipped_with_its_requirement(monkeypatch):
    """Only its cells are skipped, and the command says the same; a requirement of an undeclared feature is refused."""
    from parity.checkpoint import constructor_of

    bert = replace(architecture("bert"), needs={"masked-lm": "transformers<4 or transformers>=99"})
    assert bert.gap_of("default") == ""
    message = f"bert masked-lm needs transformers<4 or transformers>=99; transformers {version_of('transformers')} is"
    assert bert.gap_of("masked-lm").startswith(message)
    monkeypatch.setattr(plugin, "architecture", lambda name: bert)
    monkeypatch.setattr(registry, "architecture", lambda name: bert)
    skipped = {
        cell.feature
        for cell in matrix.cells()
        if cell.architecture == "bert" and "skip" in [mark.name for mark in plugin.marks(cell, "contract")]
    }
    assert skipped == {"masked-lm"}
    with pytest.raises(UsageError, match="feature: bert masked-lm needs"):
        constructor_of("bert", "masked-lm")
    assert constructor_of("bert", "default")
    with pytest.raises(ValueError, match="telepathy"):
        replace(architecture("bert"), needs={"telepathy": "transformers"})


@pytest.mark.parametrize(
    ("requirements", "met"),
    [
        ("torch>=1; transformers>=99", False),
        ("torch>=99 or transformers>=4", True),
        ("torch>=99 or transformers>=4; onnx>=99", False),
        ("torch>=1", True),
    ],
)
def test_requirements_are_joined_by_and_or_by_or(requirements, met):
    """`;` binds closer."""
    assert meets(requirements) is met


def test_a_deviation_needs_its_evidence():
    """A deviation without an upstream thread is refused."""
    with pytest.raises(ValueError, match="issue"):
        Deviation(raises="ExportError", reason="broken", issue="", versions="torch>=2")


def test_a_deviation_becomes_a_strict_expected_failure(monkeypatch):
    """The check of a matching cell is expected to fail, strictly, with that exception; others are not."""
    deviation = Deviation(
        "ExportError",
        "broken",
        "https://example.org/1",
        versions="torch>=1",
        features=("masked-lm",),
        opsets=(11,),
        checks=("contract",),
    )
    bert = replace(architecture("bert"), deviations=(deviation,))
    monkeypatch.setattr(registry, "architecture", lambda name: bert)
    cell = next(cell for cell in matrix.cells() if cell.id == "bert-masked-lm-onnx11")
    (mark,) = [mark for mark in plugin.marks(cell, "contract") if mark.name == "xfail"]
    assert mark.kwargs["strict"] is True
    assert mark.kwargs["raises"].matches(ExportError("x"))
    assert not mark.kwargs["raises"].matches(ValueMismatch("x"))
    assert "https://example.org/1" in mark.kwargs["reason"]
    assert [m for m in plugin.marks(cell, "checker") if m.name == "xfail"] == []
    assert [m for m in plugin.marks(replace(cell, opset=12), "contract") if m.name == "xfail"] == []


def test_a_deviation_outside_its_versions_does_not_apply(monkeypatch):
    """With installed versions out of its range, the check must pass."""
    deviation = Deviation("ExportError", "broken", "https://example.org/1", versions="torch<1")
    bert = replace(architecture("bert"), deviations=(deviation,))
    monkeypatch.setattr(registry, "architecture", lambda name: bert)
    cell = next(cell for cell in matrix.cells() if cell.id == "bert-masked-lm-onnx11")
    assert [mark for mark in plugin.marks(cell, "contract") if mark.name == "xfail"] == []


@pytest.fixture
def more_words(monkeypatch):
    """An additional exporter and dtype, so that a scope can name something other than the defaults."""
    monkeypatch.setitem(exporters.EXPORTERS, "stamped", exporters.Entry("Stamped", range(14, 21)))
    monkeypatch.setitem(dtypes.DTYPES, "float16", "half precision")


# Field of Scope → (its value, a covered fact, a fact not covered); a missing fact is the default.
SCOPES = {
    "features": (("masked-lm",), {"feature": "masked-lm"}, {"feature": "default"}),
    "attention": ("sdpa", {"attention": "sdpa"}, {}),
    "exporter": ("stamped", {"exporter": "stamped"}, {}),
    "dtype": ("float16", {"dtype": "float16"}, {}),
    "versions": ("torch>=99", None, {}),
    "opsets": ((14,), {"opset": 14}, {"opset": 17}),
}


def scoped(**scope):
    """BERT with a floor, a deviation and an axis with that scope."""
    versions = {"versions": "torch>=1", **scope}
    # Floors and traces cannot be limited to opsets; see below.
    scope = {name: value for name, value in scope.items() if name != "opsets"}
    return replace(
        architecture("bert"),
        floors=(Floor(18, "reason", "https://example.org/1", **scope),),
        deviations=(Deviation("ValueMismatch", "reason", "https://example.org/1", **versions),),
        traces=(TracedAxis("sequence", "raises", "text", **scope),),
    )


def test_each_field_of_a_scope_is_tried():
    """The table has every field of Scope."""
    assert {*SCOPES} == {each.name for each in fields(Scope)}


@pytest.mark.parametrize("field", SCOPES)
def test_floors_deviations_and_traced_axes_honour_their_scope(more_words, field):
    """They hold if each field covers the facts; an unknown fact means the default, not anything."""
    value, inside, outside = SCOPES[field]
    bert = scoped(**{field: value})
    for facts, holds in ((inside, True), (outside, False)):
        if facts is not None:
            cell = replace(matrix.cells()[0], **{"feature": "default", "opset": 17, **facts})
            assert bert.deviations[0].matches(cell, "contract") is holds
            if field != "opsets":
                facts = {"feature": "default", **facts}
                assert (bert.floor_of(**facts) is not None) is holds
                assert ("sequence" in bert.traced_axes(**facts)) is holds


@pytest.mark.parametrize("field", ["attention", "exporter", "dtype"])
def test_a_floor_of_some_cells_raises_no_others(more_words, monkeypatch, field):
    """The matrix has every opset except for the cells that the floor covers."""
    value = SCOPES[field][0]
    monkeypatch.setattr(matrix, "architectures", lambda: (scoped(**{field: value}),))
    opsets = {True: set(), False: set()}
    for cell in (cell for cell in matrix.cells.__wrapped__() if cell.format == "onnx"):
        opsets[getattr(cell, field) == value].add(cell.opset)
    assert opsets[False] == {*range(11, 21)}
    assert opsets[True] == ({20} if field == "attention" else {18, 19, 20})


@pytest.mark.parametrize(
    "fact",
    [
        lambda **scope: Floor(18, "reason", "issue", **scope),
        lambda **scope: TracedAxis("sequence", "raises", "text", **scope),
    ],
)
def test_what_has_no_opset_takes_none(fact):
    """A floor and a trace hold at every opset: a list of opsets would be ignored, so it is refused."""
    assert fact()
    with pytest.raises(ValueError, match="opsets: got 14, 15, should be empty"):
        fact(opsets=(14, 15))


def test_every_deviation_matches_a_cell():
    """A deviation without a matching cell is an error."""
    cells = list(matrix.cells())
    for found in architectures():
        own = [cell for cell in cells if cell.architecture == found.name]
        for deviation in found.deviations:
            checks = deviation.checks or ("contract",)
            anywhere = replace(deviation, versions="transformers")
            assert any(anywhere.matches(cell, check) for cell in own for check in checks)


def test_the_matrix_has_every_opset_from_the_lowest_to_twenty():
    """Each feature is claimed at every opset from its minimum, 11 unless the declaration has a reason, to 20."""
    opsets = {}
    for cell in (cell for cell in matrix.cells() if cell.format == "onnx"):
        opsets.setdefault((cell.architecture, cell.feature, cell.attention), []).append(cell.opset)
    for (name, feature, attention), found in opsets.items():
        lowest = matrix.minimum_opset(architecture(name), feature, attention=attention)
        assert found == (list(range(lowest, 21)) if attention == "eager" else [14, 20])


def test_smoke_has_one_architecture_of_each_kind():
    """`pytest -m smoke` runs every kind of architecture."""
    kinds = {architecture(cell.architecture).kind for cell in matrix.cells() if cell.smoke}
    assert kinds == set(KINDS)


def test_a_test_can_be_about_some_cells_only(monkeypatch):
    """The mark `cells` selects by feature, and one opset for each model: 17 if that is claimed."""
    monkeypatch.delenv("HYPOTHESIS_PROFILE", raising=False)
    cells = list(matrix.cells())
    chosen = [cell for cell in cells if plugin.Selection(features=("masked-lm",), every_opset=False).has(cell)]
    assert {cell.feature for cell in chosen} == {"masked-lm"}
    assert {cell.opset for cell in chosen} == {17}
    assert [cell for cell in cells if plugin.Selection().has(cell)] == [cell for cell in cells if cell.format == "onnx"]
    assert {cell.format for cell in cells if plugin.Selection(formats=("torchscript",)).has(cell)} == {"torchscript"}


def test_the_matrix_as_json(capsys):
    """`parity matrix --json` is an object whose cells have the eight fields for scripts."""
    assert matrix.main(["--json"]) == 0
    cells = json.loads(capsys.readouterr().out)["cells"]
    assert set(cells[0]) == {"id", "architecture", "feature", "format", "runtime", "opset", "attention", "variant"}
    assert len({cell["id"] for cell in cells}) == len(cells)


def test_the_fifty_of_the_document_are_counted(capsys, monkeypatch):
    """All are declared: 248 pairs of architecture and feature, a file for each opset; an added one does not count."""
    assert matrix.main(["--json"]) == 0
    listing = json.loads(capsys.readouterr().out)
    every, fifty = listing["counts"]["all"], listing["counts"]["fifty"]
    assert len(set(matrix.FIFTY)) == fifty["architectures"] == 50
    assert fifty["features"] >= 248
    cells = [cell for cell in listing["cells"] if cell["architecture"] in matrix.FIFTY and cell["format"] == "onnx"]
    assert fifty["files"] == len(cells) >= 2400
    assert every["architectures"] == len(list(architectures())) > 50
    assert every["cells"] == listing["count"] == len(listing["cells"])
    fewer = tuple(cell for cell in matrix.cells() if cell.architecture != "vit")
    monkeypatch.setattr(matrix, "cells", lambda: (*fewer, replace(fewer[0], architecture="added")))
    matrix.main(["--json"])
    assert json.loads(capsys.readouterr().out)["counts"]["fifty"]["architectures"] == 49


def test_the_matrix_as_a_table(capsys):
    """`parity matrix` lists the features and ends with counts and command."""
    assert matrix.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split() == ["bert", "masked-lm", "11–20", "18"] for line in lines)
    assert lines[-3].split()[-1] == f"{len(list(matrix.cells())):,}"
