"""The words of declarations are those of the judge, the fixtures and the matrix; others are refused."""

import ast
from dataclasses import replace
from pathlib import Path

import pytest

from parity import errors, words
from parity.architectures.conformance import matrix
from parity.declaration import Deviation, Floor, Relations, TracedAxis
from parity.fixtures import preprocessors
from parity.judge import relations
from parity.registry import architecture
from parity.scope import Scope

ROOT = Path(__file__).parents[2]
# Fixtures of tests of the matrix: the cell, or something made from it.
OF_A_CELL = {"cell", "subject", "artifact", "session", "trace_and_model", "neuron_model"}


def matrix_tests():
    """The names of the tests that run on cells."""
    for path in (ROOT / "architectures" / "conformance").glob("test_*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            arguments = {each.arg for each in node.args.args} if isinstance(node, ast.FunctionDef) else set()
            if arguments & OF_A_CELL and node.name.startswith("test_"):
                yield node.name.removeprefix("test_")


def outcomes():
    """Outcomes that a declaration can give an axis of a trace; to generalise needs no declaration."""
    from parity.torchscript import verdicts

    return [outcome for outcome in verdicts.OUTCOMES if outcome != verdicts.GENERALISES]


# List in `words` → the same words in the code that uses them.
USES = {
    "TESTS": matrix_tests,
    "RELATIONS": lambda: relations.RELATIONS,
    "EXCEPTIONS": lambda: [name for name, value in vars(errors).items() if isinstance(value, type)],
    "PREPROCESSORS": lambda: [*preprocessors._TOKENIZERS, *preprocessors._MAKERS],
    "FORMATS": lambda: {cell.format for cell in matrix.cells()},
    "TRACE_OUTCOMES": outcomes,
}


@pytest.mark.parametrize("kind", USES)
def test_the_words_are_those_of_the_judge_the_fixtures_and_the_matrix(kind):
    """A new test, relation, exception, preprocessor, format or outcome must be added to the words."""
    assert sorted(USES[kind]()) == sorted(getattr(words, kind))


def test_the_attentions_of_the_matrix_are_words():
    """Not the reverse: an environment may have no sdpa."""
    assert {cell.attention for cell in matrix.cells()} <= {*words.ATTENTIONS}


def add_outcome(monkeypatch):
    from parity.torchscript import verdicts

    monkeypatch.setattr(verdicts, "OUTCOMES", (*verdicts.OUTCOMES, "new"))


def add_cell(monkeypatch):
    cells = (*matrix.cells(), matrix.Cell("bert", "default", "new", "new"))
    monkeypatch.setattr(matrix, "cells", lambda: cells)


ADDITIONS = {
    "RELATIONS": lambda monkeypatch: monkeypatch.setitem(relations.RELATIONS, "new", None),
    "EXCEPTIONS": lambda monkeypatch: monkeypatch.setattr(errors, "new", type("new", (), {}), raising=False),
    "PREPROCESSORS": lambda monkeypatch: monkeypatch.setitem(preprocessors._MAKERS, "new", None),
    "FORMATS": add_cell,
    "TRACE_OUTCOMES": add_outcome,
}


@pytest.mark.parametrize("kind", ADDITIONS)
def test_a_word_that_is_missing_would_be_seen(kind, monkeypatch):
    """The control: an addition in the code is part of the comparison, but not a word yet."""
    ADDITIONS[kind](monkeypatch)
    assert {*USES[kind]()} - {*getattr(words, kind)} == {"new"}


MISSPELT = {
    "feature": lambda: replace(architecture("bert"), features=("default", "maskedlm")),
    "feature of another field": lambda: replace(architecture("bert"), smoke=("object-detection",)),
    "kind": lambda: replace(architecture("bert"), kind="encodr"),
    "relation": lambda: replace(architecture("bert"), relations={"default": "batch-permutation paddingright"}),
    "preprocessor": lambda: replace(architecture("bert"), preprocessor="bret"),
    "part of a preprocessor": lambda: replace(architecture("bert"), preprocessors={"default": "image32+bret"}),
    "requirement": lambda: replace(architecture("bert"), sdpa="transformers=>5"),
    "package": lambda: replace(architecture("bert"), needs={"default": "transfomers>=5"}),
    "requirement of relations": lambda: replace(architecture("bert"), relations={("default", "torch=2"): ""}),
    "requirement of a floor": lambda: Floor(12, "reason", "issue", versions="tourch<2"),
    "exception": lambda: Deviation("ValueMissmatch", "reason", "issue", versions="torch"),
    "check": lambda: Deviation("ValueMismatch", "reason", "issue", versions="torch", checks=("contracts",)),
    "attention": lambda: Deviation("ValueMismatch", "reason", "issue", versions="torch", attention="flash"),
    "outcome": lambda: TracedAxis("batch", "raised", "text"),
    "exporter": lambda: Scope(exporter="dynamo"),
    "dtype": lambda: Scope(dtype="float8"),
}


@pytest.mark.parametrize("kind", MISSPELT)
def test_a_misspelt_word_is_refused_with_the_valid_ones(kind):
    """In the declaration, at the latest when the registry loads it."""
    with pytest.raises(ValueError, match=r"should be (one of|among) |is no requirement such as"):
        MISSPELT[kind]()


def test_a_preprocessor_may_be_a_function_of_any_package():
    """By its dotted name; called without arguments, it returns the preprocessor."""
    declared = replace(architecture("bert"), preprocessor="parity.tests.test_words.a_preprocessor")
    assert preprocessors.preprocessor(declared.preprocessor_of("default")) == "made by a function"


def a_preprocessor():
    return "made by a function"


@pytest.mark.parametrize(
    ("scope", "facts", "covered"),
    [
        (Scope(), {"feature": "default", "opset": 11, "attention": "sdpa"}, True),
        (Scope(features=("default",)), {"feature": "default"}, True),
        (Scope(features=("default",)), {"feature": "masked-lm"}, False),
        (Scope(features=("default",)), {"opset": 11}, True),
        (Scope(opsets=(11, 12)), {"opset": 12}, True),
        (Scope(opsets=(11, 12)), {"opset": 13}, False),
        (Scope(attention="sdpa"), {"attention": "eager"}, False),
        (Scope(attention="sdpa"), {"feature": "default"}, True),
        (Scope(versions="torch>=99"), {}, False),
        (Scope(versions="torch>=99 or transformers>=4"), {}, True),
    ],
)
def test_a_fact_holds_in_its_scope(scope, facts, covered):
    """Every known part must fit; unknown parts are ignored."""
    assert scope.covers(**facts) is covered


def test_relations_hold_in_their_scope():
    """A mapping is a short form: a feature with a requirement, the feature, all others with one, all others."""
    short = {"*": "batch-of-one", ("default", "torch>=99"): "", "default": "padding-left", ("*", "torch>=2"): ""}
    full = (
        Relations("", features=("default",), versions="torch>=99"),
        Relations("padding-left", features=("default",)),
        Relations("", versions="torch>=2"),
        Relations("batch-of-one"),
    )
    assert Relations.from_mapping(short) == full
    for spelling in (short, full):
        declared = replace(architecture("bert"), relations=spelling)
        assert declared.relations_of("default") == ["padding-left"]
        assert declared.relations_of("masked-lm") == []
    everywhere = replace(architecture("bert"), relations=full[3:])
    assert everywhere.relations_of("masked-lm") == ["batch-of-one"]


def test_sdpa_has_a_scope():
    """Features too; a requirement alone is a scope."""
    assert replace(architecture("bert"), sdpa="torch>=2.1.1").has_sdpa("default")
    assert not replace(architecture("bert"), sdpa="").has_sdpa("default")
    only = replace(architecture("bert"), sdpa=Scope(features=("default",)))
    assert only.has_sdpa("default")
    assert not only.has_sdpa("masked-lm")


@pytest.mark.parametrize(
    "field",
    [
        {"relations": (Relations("", features=("object-detection",)),)},
        {"sdpa": Scope(features=("object-detection",))},
    ],
)
def test_the_scope_of_a_fact_names_features_of_its_architecture(field):
    """Other features are refused with the valid ones."""
    with pytest.raises(ValueError, match=r"bert: features of .*: got 'object-detection', should be"):
        replace(architecture("bert"), **field)


@pytest.mark.parametrize(
    "fact",
    [lambda: Relations("", opsets=(11,)), lambda: replace(architecture("bert"), sdpa=Scope(opsets=(11,)))],
)
def test_what_is_never_asked_at_one_opset_has_none(fact):
    """Relations and sdpa concern a float64 model, which has no opset, like floors and traced axes."""
    with pytest.raises(ValueError, match="opsets: got 11, should be empty"):
        fact()
