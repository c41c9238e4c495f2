"""Only `parity.axes` interprets names: no other module of the library or the fixtures looks into a name."""

import ast
from pathlib import Path

import pytest

from parity.axes import Role, is_past, role_of, text_of_output

ROOT = Path(__file__).parents[2]
# Without the links below parity; declarations of architectures may interpret their own names.
PLACES = [ROOT / "fixtures", ROOT / "architectures" / "conformance", ROOT / "parity"]
LINKS = [ROOT / "parity" / name for name in ("architectures", "fixtures", "reports")]
PARTS = ("mask", "past", "sequence", "input_ids", "token_type", "pixel", "logits", "present", "encoder")
SEARCHES = {"startswith", "endswith", "find", "rfind", "index", "rindex", "count", "partition", "rpartition", "split"}
PATTERNS = {"match", "search", "fullmatch", "findall", "finditer", "compile"}


def texts(node):
    """The constant texts in an expression."""
    return [each.value for each in ast.walk(node) if isinstance(each, ast.Constant) and isinstance(each.value, str)]


def has_part(text):
    """Whether a text has one of `PARTS`; the suffix of a feature is no name of an input."""
    return text != "-with-past" and any(part in text for part in PARTS)


def guesses(source):
    """The lines of a source that test whether a name contains one of `PARTS`.

    Looking up a whole name in a list of names (`"attention_mask" in inputs`) is no guess.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], (ast.In, ast.NotIn)):
            if isinstance(node.left, ast.Constant) and node.left.value in PARTS:
                yield node.lineno
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            function, owner = node.func.attr, ast.unparse(node.func.value)
            is_search = function in SEARCHES or (owner == "re" and function in PATTERNS)
            if is_search and any(has_part(text) for argument in node.args for text in texts(argument)):
                yield node.lineno


def modules():
    for place in PLACES:
        for path in sorted(place.rglob("*.py")):
            inside = path.relative_to(ROOT).parts
            is_test = "tests" in inside or path.name.startswith("test_")
            if not is_test and not any(path.is_relative_to(link) for link in LINKS):
                yield path


def test_no_other_module_guesses_at_names():
    """A new role or kind of axis needs one change."""
    paths = list(modules())
    assert len(paths) > 100
    lines = {p.relative_to(ROOT).as_posix(): [*guesses(p.read_text(encoding="utf-8"))] for p in paths}
    assert lines.pop("parity/axes.py")
    assert {file: numbers for file, numbers in lines.items() if numbers} == {}


@pytest.mark.parametrize(
    "source",
    [
        'ones if "mask" in value["name"] else zeros',
        'own if "past" not in axis else cross',
        '[name for name in names if name.startswith("past_key_values.")]',
        'name.endswith(("input_ids", "types"))',
        're.search("token_type", name)',
        'name.find("pixel") >= 0',
    ],
)
def test_a_guess_would_be_seen(source):
    """The control: each way to look into a name."""
    assert list(guesses(source)) == [1]


@pytest.mark.parametrize(
    "source",
    ['"attention_mask" in inputs', 'name == "input_ids"', 'feature.endswith("-with-past")', "name in PADDING_MASKS"],
)
def test_whole_names_and_features_pass(source):
    """Code may look up a whole name, and may test a feature's suffix for a past."""
    assert list(guesses(source)) == []


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("input_ids", Role.TOKENS),
        ("decoder_attention_mask", Role.MASK),
        ("decoder_token_type_ids", Role.TOKEN_TYPES),
        ("past_key_values.0.key", Role.CACHE),
        ("present.0.encoder.value", Role.CACHE),
        ("logits", Role.LOGITS),
        ("start_logits", Role.LOGITS),
        ("last_hidden_state", Role.OTHER),
    ],
)
def test_inputs_and_outputs_have_roles(name, role):
    """Outputs too: those that make decisions, and caches."""
    assert role_of(name) is role


def test_sides_and_pasts():
    """An encoder's own output has its length; a mask over past and text counts a past."""
    names = ("encoder_last_hidden_state", "last_hidden_state", "decoder_hidden_states")
    assert [text_of_output(name) for name in names] == ["encoder_sequence", "decoder_sequence", "decoder_sequence"]
    pasts = ("past_sequence", "past_sequence + sequence", "sequence", "encoder_sequence", "")
    assert [is_past(axis) for axis in pasts] == [True, True, False, False, False]
