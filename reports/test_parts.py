"""A part of the matrix is compared and accepted as a part: checks that its selection left out stay accepted."""

import json

import pytest

from parity import records
from parity.fixtures.controls import specimens
from parity.reports import __main__ as command
from parity.reports.gate import parts, shards
from parity.reports.gate.parts import Part, part_of
from parity.words import TESTS

PLUGINS = ("-p", "parity.fixtures.plugin", "-p", "parity.reports.recording.plugin", "-p", "no:cacheprovider")
CELL = "bert-default-onnx11"
KEYS = frozenset((line["id"], line["check"]) for line in specimens.run())


def leave_out(*checks, **more):
    """The selection of a run that left these checks out."""
    return Part({"-k": "vit"}, checks=frozenset(checks), **more).as_json()


CASES = {
    "nothing": frozenset(),
    "opsets with a gap": {(f"bert-masked-lm-onnx{n}", "contract") for n in (9, 10, 11, 13, 17, 18)},
    "attention, exporter, variant": {
        ("bert-default-onnx14-sdpa", "contract"),
        ("bert-default-onnx14", "contract"),
        ("bert-default-torchscript-sdpa", "trace"),
        ("bert-default-neuron-b1-l128-emulation", "neuron_graph"),
    },
    "different checks of one model": {
        ("t5-seq2seq-lm-with-past-onnx17", "contract"),
        ("t5-seq2seq-lm-with-past-onnx17", "relations"),
        ("t5-seq2seq-lm-with-past-onnx18", "contract"),
    },
    "an id of no format": {("something", "else")},
    "all": KEYS,
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_left_out_is_on_record_exactly(name):
    """It survives a round trip through JSON, to the check."""
    part = Part({"-k": "a b"}, frozenset({"trace"}), frozenset(CASES[name]))
    assert part_of({"selection": json.loads(json.dumps(part.as_json()))}) == part


def test_what_is_left_out_takes_little_room():
    """All opsets, and all models that lack the same checks, are one entry."""
    checks = {(f"m{i}-default-onnx{n}", check) for i in range(100) for n in range(11, 21) for check in TESTS}
    text = json.dumps(Part(checks=frozenset(checks)).as_json())
    assert len(text) < 3000
    assert len(part_of({"selection": json.loads(text)}).checks) == len(checks)


def test_records_without_a_selection_are_of_the_whole():
    """They are read as leaving nothing out."""
    assert not part_of(specimens.environment())
    assert Part(tests=frozenset({"trace"}))


@pytest.mark.parametrize("selection", [[], {"options": {}}, {"options": {}, "tests": [], "left_out": [1]}])
def test_a_damaged_selection_is_refused(tmp_path, selection):
    """When writing records and when reading them."""
    with pytest.raises(ValueError, match="selection"):
        records.write(tmp_path / "a.jsonl", {**specimens.environment(), "selection": selection}, [])
    records.write(tmp_path / "a.jsonl", {**specimens.environment(), "selection": leave_out()}, [])
    first = json.loads((tmp_path / "a.jsonl").read_text())
    (tmp_path / "a.jsonl").write_text(json.dumps({**first, "selection": selection}))
    with pytest.raises(ValueError, match="selection"):
        records.read(tmp_path / "a.jsonl")


def test_two_parts_leave_out_what_both_do():
    """Whether a test is left out as a whole or by checks; nothing, if one of them is the whole."""
    a, b, c = [(f"bert-default-onnx{n}", "contract") for n in (11, 12, 13)]
    first = Part({"-k": "x", "--shard": "1/2"}, frozenset({"trace"}), frozenset({a, b}))
    second = Part({"-k": "x", "--shard": "2/2"}, frozenset({"contract"}), frozenset({(a[0], "trace")}))
    both = Part({"-k": "x"}, frozenset(), frozenset({a, b, (a[0], "trace")}))
    assert first.join(second) == both == second.join(first)
    assert not first.join(Part())
    assert not first.leaves_out(c)
    assert second.leaves_out(c)


SUITE = """
import pytest

pytestmark = pytest.mark.cells(features=("default",), opsets=(11, 12, 13))

def test_one(cell):
    pass

def test_other(cell):
    pass
"""
OTHER = """
import pytest

@pytest.mark.cells(features=("default",), opsets=(11,))
def test_contract(cell):
    pass

def test_plain():
    pass
"""


@pytest.fixture
def run(pytester):
    """A function that runs two test files with options; returns the checks with a result and the recorded part."""
    pytester.makepyfile(test_suite=SUITE, test_contract=OTHER)

    def select(*arguments):
        pytester.runpytest(*PLUGINS, "--records", "out.jsonl", *arguments)
        environment, lines = records.read(pytester.path / "out.jsonl")
        return {(line["id"], line["check"]) for line in lines}, part_of(environment)

    return select


FEW = "resnet-default or vit-default"
SELECTIONS = {
    "-k": ("-k", "resnet-default-onnx11 or vit"),
    "-m": ("-m", "smoke"),
    "--architecture": ("--architecture", "resnet", "--architecture", "vit"),
    "--shard": ("--shard", "1/2", "-k", FEW),
    "--deselect": ("-k", FEW, "--deselect", "test_suite.py::test_one[vit-default-onnx12]"),
    "--only-changed": ("--only-changed", "old.jsonl"),
    "a node id": ("test_suite.py::test_one[vit-default-onnx12]", "test_suite.py::test_other[vit-default-onnx12]"),
    "workers": ("-n", "2", "-k", FEW),
}


@pytest.mark.parametrize("name", SELECTIONS)
def test_a_selection_is_on_record(run, pytester, name):
    """With and without workers: checks with a result and checks left out are disjoint and together all."""
    lines = [specimens.line(a, opset=n, check=c) for a in ("bert", "vit") for n in (11, 12) for c in ("one", "other")]
    records.write(pytester.path / "old.jsonl", specimens.environment(), lines)
    results, part = run(*SELECTIONS[name])
    assert results
    assert not any(map(part.leaves_out, results))
    if name != "a node id":
        models, pair = ("bert", "gpt2", "vit"), ("one", "other")
        every = {(f"{model}-default-onnx{n}", check) for model in models for n in (11, 12, 13) for check in pair}
        every |= {(f"{model}-default-onnx11", "contract") for model in models}
        assert all(part.leaves_out(key) != (key in results) for key in every)
    assert part.tests >= {*TESTS} - {"contract"}
    assert ("contract" in part.tests) == (name == "a node id")
    # A check that no test of the run has is not left out.
    assert not part.leaves_out(("vit-default-onnx9", "one"))
    assert not part.leaves_out(("gone-default-onnx11", "other"))
    assert name in part.reason or name in ("a node id", "workers")


def test_without_a_selection_nothing_is_left_out_but_what_was_not_collected(run):
    """The control: every collected check has a result."""
    results, part = run("--deselect", "test_suite.py::test_one[vit-default-onnx12]")
    assert part.checks == {("vit-default-onnx12", "one")}
    more, part = run()
    assert more == {*results, ("vit-default-onnx12", "one")}
    assert part.checks == frozenset()


@pytest.fixture
def accepted(tmp_path, monkeypatch, capsys):
    """A directory with the baseline of a whole run, and a function that runs the command on records of a part."""
    monkeypatch.chdir(tmp_path)
    records.write(tmp_path / "whole.jsonl", specimens.environment(), specimens.run())
    assert command.main(["--accept", "whole.jsonl"]) == 0
    capsys.readouterr()

    def act(lines, *arguments, selection=None, **packages):
        keys = {(line["id"], line["check"]) for line in lines}
        selection = selection or leave_out(*KEYS - keys)
        records.write(tmp_path / "part.jsonl", specimens.environment(selection=selection, **packages), lines)
        status = command.main([*arguments, "part.jsonl"])
        output = capsys.readouterr()
        return status, output.out + output.err

    return act


VIT = [line for line in specimens.run() if line["architecture"] == "vit"]


def test_a_part_is_checked_as_a_part(accepted):
    """One line counts the checks left out; nothing has disappeared."""
    status, text = accepted(VIT, "--check")
    assert (status, text.splitlines()[0]) == (0, f"{specimens.NAME}: 3 cells: 6 passed: all is as accepted")
    assert "not compared, because the selection (-k vit) left them out: 3 cells" in text
    assert "disappeared" not in text
    status, text = accepted([line for line in VIT if line["check"] == "contract"], "--check")
    assert status == 0
    assert "left them out: 3 cells and 3 checks of other cells" in text


def test_what_a_part_should_have_and_has_not_is_gone(accepted):
    """The control: a cell of the selection without a result, and a failure in it."""
    selection = leave_out(*(key for key in KEYS if key[0].startswith("bert")))
    status, text = accepted(specimens.drop_cell(VIT, "vit-default-onnx12"), "--check", selection=selection)
    assert status == 1
    assert "vit-default-onnx12 contract, traced_sizes: passed → missing" in text
    assert text.splitlines()[-1].endswith("--accept part.jsonl --drop 2")
    status, text = accepted(specimens.change_records(VIT, "vit-default-onnx12", status="failed"), "--check")
    assert status == 1
    assert text.splitlines()[-1].endswith("--accept part.jsonl --even-failed")


def test_accepting_a_part_changes_its_rows_alone(accepted, tmp_path):
    """Rows left out stay, and --drop does not count them; the seconds of half a model are not recorded."""
    path = tmp_path / "reports" / "baseline" / f"{specimens.NAME}.csv"
    lines = path.read_text().splitlines()
    seconds = shards.read_seconds(path.parent / shards.SECONDS.name)
    half = [{**line, "seconds": 9.0} for line in VIT if line["check"] == "contract"]
    status, text = accepted(
        specimens.change_records(half, "vit-default-onnx12", "contract", status="xfailed"), "--accept"
    )
    assert status == 0
    assert text.endswith("1 regressed; 9 checks that the selection left out stay\n")
    after = path.read_text().splitlines()
    assert {*after} - {*lines} == {"vit-default-onnx12,passed,traced_sizes", "vit-default-onnx12,xfailed,contract"}
    assert {*lines} - {*after} == {"vit-default-onnx12,passed,contract traced_sizes"}
    assert shards.read_seconds(path.parent / shards.SECONDS.name) == seconds
    status, text = accepted(VIT, "--accept", "--drop", "9")
    assert status == 2
    assert "every check that was selected has a result" in text
    accepted([{**line, "seconds": 9.0} for line in VIT], "--accept")
    assert shards.read_seconds(path.parent / shards.SECONDS.name) == {**seconds, "vit-default": 54.0}


def test_a_part_begins_no_baseline(accepted, tmp_path):
    """If the nearest baseline has rows that were left out; a whole run is accepted."""
    status, text = accepted(VIT, "--accept", transformers="5.24.0")
    assert status == 2
    assert "does not exist yet, and these records are of a part of the matrix: the selection (-k vit) left out" in text
    assert len([*(tmp_path / "reports" / "baseline").glob("transformers-*.csv")]) == 1
    status, text = accepted(VIT, "--check", transformers="5.24.0")
    assert status == 0
    assert text.endswith("A baseline of its own is made from a run of the whole matrix.\n")
    records.write(tmp_path / "other.jsonl", specimens.environment(transformers="5.24.0"), specimens.run())
    assert command.main(["--accept", "other.jsonl"]) == 0


def test_a_matrix_of_ones_own_architectures_is_a_whole(tmp_path, monkeypatch, capsys):
    """In a directory without baselines, if its architectures are complete; half of one is refused."""
    monkeypatch.chdir(tmp_path)
    others = {key for key in KEYS if key[0].startswith("bert")}
    for left_out, status in (({*others, ("vit-masked-lm-onnx11", "contract")}, 2), (others, 0)):
        environment = specimens.environment(selection=leave_out(*left_out))
        records.write(tmp_path / "records.jsonl", environment, VIT)
        assert command.main(["--accept", "records.jsonl"]) == status
    assert "left out checks of 1 cell" in capsys.readouterr().err


def test_parts_are_joined(accepted, tmp_path, capsys):
    """Two files of one environment count as their union."""
    bert = [line for line in specimens.run() if line["architecture"] == "bert"]
    for name, lines in {"bert": bert, "vit": VIT}.items():
        keys = {(line["id"], line["check"]) for line in lines}
        environment = specimens.environment(selection=leave_out(*KEYS - keys))
        records.write(tmp_path / f"{name}.jsonl", environment, lines)
    assert command.main(["--check", "bert.jsonl", "vit.jsonl"]) == 0
    assert "not compared" not in capsys.readouterr().out
    assert command.main(["--check", "bert.jsonl"]) == 0
    assert "left them out: 3 cells" in capsys.readouterr().out


def test_shards_of_a_part_are_merged_to_the_part(tmp_path, monkeypatch):
    """Checks that no shard has were left out by the common selection; merged shards of the whole leave out nothing."""
    monkeypatch.chdir(tmp_path)
    extra = ("t5-default-onnx17", "contract")
    for more, expected in (({extra}, {extra}), (set(), set())):
        for index, architecture in enumerate(("bert", "vit"), 1):
            lines = [line for line in specimens.run() if line["architecture"] == architecture]
            keys = {(line["id"], line["check"]) for line in lines}
            part = Part({"-k": "not t5", "--shard": f"{index}/2"}, checks=frozenset(KEYS - keys | more))
            shard = {"index": index, "of": 2, "whole": "abc", "checks": len(lines)}
            environment = specimens.environment(shard=shard, selection=part.as_json())
            records.write(tmp_path / f"{index}.jsonl", environment, lines)
        assert command.main(["--merge", "1.jsonl", "2.jsonl", "--output", "merged.jsonl"]) == 0
        environment, _ = records.read(tmp_path / "merged.jsonl")
        assert part_of(environment).checks == expected
        assert part_of(environment).options == ({"-k": "not t5"} if expected else {})


def test_a_difference_is_of_what_both_have_selected(accepted, tmp_path, capsys):
    """A part and a whole, either way: nothing is new or gone; the control is a failure in the part."""
    accepted(VIT, "--check")
    for pair in (["whole.jsonl", "part.jsonl"], ["part.jsonl", "whole.jsonl"]):
        assert command.main(["--diff", *pair]) == 0
        text = capsys.readouterr().out
        assert "left them out: 3 cells" in text
        assert "0 disappeared, 0 new" in text
    accepted(specimens.change_records(VIT, "vit-default-onnx12", status="failed"), "--check")
    assert command.main(["--diff", "whole.jsonl", "part.jsonl"]) == 1
    assert command.main(["--diff", "part.jsonl", "whole.jsonl"]) == 0


@pytest.mark.parametrize(
    ("identity", "names"),
    [
        ("bert-masked-lm-onnx11", ("bert", "masked-lm")),
        ("gpt-neo-causal-lm-with-past-onnx17-sdpa", ("gpt-neo", "causal-lm-with-past")),
        ("m2m-100-seq2seq-lm-torchscript", ("m2m-100", "seq2seq-lm")),
        ("bert-nonsense-neuron-b1-l128", ("bert-nonsense", "")),
    ],
)
def test_names_of_a_cell(identity, names):
    """Architecture and feature, from the id only."""
    assert parts.names_of(identity) == names
