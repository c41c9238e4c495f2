"""The table of operators on Inf1 is generated from records, and claims no more than they do."""

import pytest

from parity import records
from parity.architectures.conformance.inf1 import NEURON_FEATURES
from parity.fixtures.controls import specimens
from parity.reports.lanes import neuron

ENVIRONMENT = {"packages": {"torch": "1.13.1+cu117", "transformers": "4.46.3"}}


def line(feature="default", share=0.97, outside=None, status="passed", check="neuron_graph", **graph):
    graph = graph or {"operators": 97, "share": share, "limited": {}, "outside": outside or {"aten::embedding": 3}}
    return {"architecture": "bert", "feature": feature, "check": check, "status": status, "neuron": graph}


def table(*lines):
    """The rows of the table about bert."""
    return [row for row in neuron.page(ENVIRONMENT, lines).splitlines() if row.startswith("| bert")]


def test_features_with_equal_operators_share_a_row():
    """The share is the smallest of theirs; features with other operators have a row of their own."""
    other = line("masked-lm", 0.5, {"aten::erfinv": 2})
    assert table(line(), line("question-answering", 0.9), other) == [
        "| bert | default, question-answering | 90.0% | embedding ×3 | – |",
        "| bert | masked-lm | 50.0% | erfinv ×2 | – |",
    ]


def test_parts_are_joined():
    """The graphs of an encoder and a decoder share one row, with the worse share."""
    parts = {
        "encoder": {"operators": 50, "share": 0.95, "limited": {}, "outside": {"aten::embedding": 1}},
        "decoder": {"operators": 70, "share": 0.91, "limited": {"aten::where": 1}, "outside": {"aten::index": 2}},
    }
    found = table(line(check="neuron_translation_graph", **parts))
    assert found == ["| bert | default | 91.0% | embedding ×1, index ×2 | where ×1 |"]


def test_only_what_passed_is_told():
    """Records of a failure, a skip or another check give no row; having none is an error."""
    others = [line(status="failed"), line(status="skipped"), line(check="neuron_answers")]
    assert len(table(line("masked-lm"), *others)) == 1
    with pytest.raises(ValueError, match="none is about a graph for Neuron"):
        neuron.page(ENVIRONMENT, others)


def test_it_says_that_nothing_was_compiled(tmp_path):
    """The command writes the table with its environment, its source, and that it is static."""
    path = tmp_path / "records.jsonl"
    whole = specimens.line(format="neuron", opset=None, outputs={})
    records.write(path, {"parity": "1", "python": "3", **ENVIRONMENT}, [{**whole, **line()}])
    assert neuron.main([str(path), "--output", str(tmp_path / "table.md")]) == 0
    text = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "torch 1.13.1 and transformers 4.46.3" in text
    assert "Nothing was compiled, and no device has run any of it." in text


def test_the_committed_table_has_every_architecture():
    """It has every architecture and feature that the matrix has for Inf1."""
    text = neuron.COVERAGE.read_text(encoding="utf-8").splitlines()
    for architecture, features in NEURON_FEATURES.items():
        listing = ", ".join(row.split(" | ")[1] for row in text if row.startswith(f"| {architecture} |"))
        from parity.registry import architecture as find

        declared = {feature for feature in features if feature in find(architecture).features}
        assert set(listing.split(", ")) == declared
