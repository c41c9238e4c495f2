"""The support table shows the records, and the committed table is neither edited nor outdated."""

import json

import pytest

from parity.architectures.conformance.fifty import FIFTY
from parity.architectures.conformance.matrix import cells
from parity.registry import architecture
from parity.reports.pages import support


def line(opset, status="passed", error=None, feature="default"):
    return {
        "format": "onnx",
        "architecture": "bert",
        "feature": feature,
        "opset": opset,
        "status": status,
        "error": error,
    }


def test_a_feature_is_as_good_as_its_worst_check():
    """One expected failure among passes makes the opset a deviation, with its reason; skips are ignored."""
    lines = [line(11), line(12), line(12, "xfailed", "broken upstream\nmore"), line(13), line(14, "skipped", "gate")]
    assert support.table(lines) == {
        "bert": {"default": {"opsets": {"xfailed": "12", "passed": "11, 13"}, "reasons": ["broken upstream"]}}
    }


def test_a_failure_is_shown_in_both_tables():
    """A failed opset is not supported."""
    tables = {"here": support.table([line(11, "failed", "wrong"), line(12), line(12, feature="default-with-past")])}
    assert "| bert | default | 12; failed at 11 |" in support.page(tables)
    assert "- bert default (here): wrong" in support.page(tables)
    assert "| bert | default | 12; failed at 11 |" in support.summary(tables)


def test_features_with_and_without_past_are_folded():
    """The row stays short."""
    tables = {"here": support.table([line(11), line(11, feature="default-with-past"), line(11, feature="masked-lm")])}
    assert "| bert | default ±past, masked-lm | 11 |" in support.summary(tables)


def test_a_page_without_marks_is_refused():
    """No table is written."""
    with pytest.raises(ValueError, match="the page has no <!-- support: begin -->"):
        support.between_marks("# Parity\n", "table")


def test_the_committed_tables_are_generated():
    """support.md, the page of the documentation and the README match support.json."""
    tables = json.loads(support.SUPPORT.read_text(encoding="utf-8"))
    page = support.page(tables["onnx"], tables["torchscript"])
    assert support.SUPPORT.with_suffix(".md").read_text(encoding="utf-8") == page
    for path, content in (
        (support.PAGE, support.summary(tables["onnx"])),
        (support.README, support.name_list(tables["onnx"])),
    ):
        text = path.read_text(encoding="utf-8")
        assert support.between_marks(text, content) == text


def test_the_committed_table_has_every_cell():
    """Everything declared has been run, and everything run is declared."""
    tables = json.loads(support.SUPPORT.read_text(encoding="utf-8"))
    declared = {(c.architecture, c.feature) for c in cells() if not architecture(c.architecture).gap_of(c.feature)}
    for part in ("onnx", "torchscript"):
        (current,) = [table for name, table in tables[part].items() if "transformers 5" in name]
        here = {name for name, _ in declared}
        combinations = {(name, feature) for name, features in current.items() for feature in features if name in here}
        # An architecture added since is included when the table is generated again.
        assert {*FIFTY} <= {*current}
        assert combinations == {(name, feature) for name, feature in declared if name in current}


def test_the_worst_verdict_of_an_axis_counts():
    """A trace that is wrong only with sdpa attention is wrong; the trial of all axes together counts as no axis."""

    def trace_line(attention, **axes):
        verdicts = [{"axis": axis, "traced": 8, "verdict": verdict} for axis, verdict in axes.items()]
        verdicts.append({"axis": "all of these together", "traced": None, "verdict": "raises"})
        return {**line(None), "format": "torchscript", "attention": attention, "verdicts": verdicts}

    lines = [
        trace_line("eager", batch="generalises", sequence="generalises"),
        trace_line("sdpa", batch="generalises", sequence="silently wrong"),
    ]
    folded = {"here": support.verdicts([*lines, {**line(11), "verdicts": []}])}
    assert folded == {"here": {"bert": {"default": {"batch": "generalises", "sequence": "silently wrong"}}}}
    page = support.page({}, folded)
    assert "| bert | default | sequence | silently wrong |\n| bert | default | batch | generalises |" in page
