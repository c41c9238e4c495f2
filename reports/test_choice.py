"""pytest and `parity matrix` select the same cells by exact names."""

import json
import shlex

import pytest

from parity.architectures.conformance import matrix
from parity.architectures.conformance.choice import Choice, arguments_of, choice_of

PLUGINS = ("-p", "parity.fixtures.plugin", "-p", "parity.reports.recording.plugin", "-p", "no:cacheprovider")
SUITE = """
import pytest

@pytest.mark.cells(formats=("onnx", "torchscript", "neuron"))
def test_every(cell):
    pass

@pytest.mark.cells(features=("masked-lm",), opsets=(12,))
def test_few(cell):
    pass

def test_without_a_cell():
    pass
"""


@pytest.fixture
def collected(pytester):
    """A function that collects tests with options; returns them and the output."""
    pytester.makepyfile(test_suite=SUITE)

    def collect(*arguments):
        result = pytester.runpytest(*PLUGINS, "--collect-only", "-q", *arguments)
        text = "\n".join([*result.outlines, *result.errlines])
        return {line.partition("::")[2] for line in result.outlines if "::test_" in line}, text

    return collect


# Name → (options, predicate of the cells that they select).
CHOICES = {
    "bert alone, not camembert": (["--architecture", "bert"], lambda cell: cell.architecture == "bert"),
    "two, spelled otherwise": (
        ["--architecture", "vit", "--architecture", "Big_Bird"],
        lambda cell: cell.architecture in ("vit", "big-bird"),
    ),
    "a feature alone, without its like": (["--feature", "causal-lm"], lambda cell: cell.feature == "causal-lm"),
    "two opsets": (["--opset", "11", "--opset=20"], lambda cell: cell.opset in (11, 20)),
    "a format": (["--format", "torchscript"], lambda cell: cell.format == "torchscript"),
    "all four": (
        ["--architecture", "bert", "--feature", "default", "--opset", "14", "--format", "onnx"],
        lambda cell: cell.id in ("bert-default-onnx14", "bert-default-onnx14-sdpa"),
    ),
}


@pytest.mark.parametrize("name", CHOICES)
def test_pytest_and_the_listing_choose_the_same(collected, capsys, name):
    """The same number, and the same as the printed command selects; tests without a cell are left out."""
    arguments, chooses = CHOICES[name]
    capsys.readouterr()
    assert matrix.main(["--json", *arguments]) == 0
    listing = json.loads(capsys.readouterr().out)
    ids = {cell["id"] for cell in listing["cells"]}
    assert ids == {cell.id for cell in matrix.cells() if chooses(cell)}
    assert len(ids) == listing["count"] > 1
    tests, _ = collected(*arguments)
    assert {test for test in tests if test.startswith("test_every")} == {f"test_every[{each}]" for each in ids}
    few = [cell for cell in listing["cells"] if (cell["feature"], cell["opset"]) == ("masked-lm", 12)]
    assert len(tests) == len(ids) + len(few)
    command = shlex.split(listing["command"])
    assert command[:5] == ["pytest", "-n", "auto", "--pyargs", "parity.architectures"]
    assert collected(*command[5:])[0] == tests


def test_without_a_name_nothing_is_left_out(collected, capsys):
    """The control: all cells, and the test without a cell."""
    tests, _ = collected("-k", "bert-default-onnx1 or without")
    assert "test_without_a_cell" in tests
    assert len(tests) > 10
    capsys.readouterr()
    assert matrix.main(["--json"]) == 0
    listing = json.loads(capsys.readouterr().out)
    assert listing["count"] == len(matrix.cells())
    assert listing["command"].endswith("parity.architectures")


WRONG = {
    "--architecture": ("ber", "--architecture ber: is no declared architecture"),
    "--feature": ("lm", "--feature: got 'lm', should be among default"),
    "--opset": ("9", "--opset: got '9', should be among 11"),
    "--format": ("ONNX", "--format: got 'ONNX', should be among onnx, torchscript, neuron"),
}


@pytest.mark.parametrize("option", WRONG)
def test_a_name_that_is_none_is_refused(collected, capsys, option):
    """By both, in one sentence with the valid names; nothing is collected."""
    word, message = WRONG[option]
    tests, text = collected(option, word)
    assert not tests
    assert message in text
    assert "Traceback" not in text
    with pytest.raises(SystemExit) as refused:
        matrix.main([option, word])
    assert refused.value.code == 2
    assert message in capsys.readouterr().err


def test_names_of_which_no_cell_has_all_are_refused(collected, capsys):
    """A trace has no opset; for a feature of another architecture, the message lists the valid ones."""
    arguments = ["--opset", "17", "--format", "torchscript"]
    assert "no cell has all of --opset 17 --format torchscript" in collected(*arguments)[1]
    with pytest.raises(SystemExit):
        matrix.main(arguments)
    assert "no cell has all of" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"--feature: got 'masked-lm', should be among default, default-with-past"):
        choice_of({"architecture": ["gpt2"], "feature": ["masked-lm"], "opset": [], "format": []})


def test_a_choice_is_told_as_the_options_that_ask_for_it():
    """Parsed again, they give the same choice."""
    choice = Choice(("bert", "vit"), ("default",), (11, 17), ("onnx",))
    words = {"architecture": ["bert", "vit"], "feature": ["default"], "opset": ["11", "17"], "format": ["onnx"]}
    assert choice_of(words) == choice
    assert arguments_of(choice)[:4] == ["--architecture", "bert", "--architecture", "vit"]
    assert not Choice()
    assert Choice().has(None)
    assert not choice.has(None)


def test_the_table_ends_with_the_command(capsys):
    """After the numbers of selected cells."""
    assert matrix.main(["--architecture", "vit", "--format", "torchscript"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 9
    assert lines[-3].split() == ["all", "1", "2", "0", "4"]
    assert lines[-1] == "run by: pytest -n auto --pyargs parity.architectures --architecture vit --format torchscript"
