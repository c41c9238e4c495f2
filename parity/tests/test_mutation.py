"""A sample of `tox -e mutation`: visible faults are rejected, and a judge that checks nothing is noticed."""

import ast
import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from parity.reports.mutation import catalogue, scores, traces, visibility
from parity.reports.mutation.cases import Case
from parity.reports.mutation.graphs import Graph

SEED = 7
BERT = Case("bert", "masked-lm", 11, "eager", "opset 11")
GPT2 = Case("gpt2", "causal-lm-with-past", 20, "sdpa", "sdpa")
CONVNEXT = Case("convnext", "default", 17, "eager", "opset 17")
CASES = {case.name: case for case in (BERT, GPT2, CONVNEXT)}
# Case → classes and names of faults; for each name, the first such fault of the file is seeded.
SAMPLE = {
    BERT.name: {
        "rows of tables": ("the last row is zero", "rows from the half on are zero"),
        "one element": ("one element has the other sign",),
        "masks open beyond the traced length": ("padding from token 8 on is seen", "padding from token 32 on is seen"),
        "fill values and naive softmax": ("filled with -1e4", "filled with -100", "a softmax without a maximum"),
        "leaks": ("each key gets a ten-thousandth",),
        "wrong only under a condition": ("with padding on the right", "more than 5", "as large as the batch"),
        "contract": ("a weight that nothing reads", "a weight that is an input", "one symbol for two axes"),
    },
    GPT2.name: {
        "presents": ("cut to the last 32", "each other's", "beyond 32 are zero"),
        "windows and causal masks": ("keys 32 and more before are not seen", "the first key is not seen after 16"),
        "positions": ("the last row is read as the one before",),
        "exchanged": ("two layers'",),
        "large values": ("clamped at 6", "clamped at 4"),
        "contract": ("another order", "declared one lower", "a domain that nothing uses"),
    },
    CONVNEXT.name: {
        "lower precision inside": ("its result is rounded to float16",),
        "constants, eps and scales": ("a hundredth more",),
        "wrong only under a condition": ("in the last row of several",),
    },
}


class Subject:
    """A right file, the truth about it, its judges, and its faults."""

    def __init__(self, case, directory):
        # Imported here, because it imports torch, and the collection of tests does not.
        from parity.reports.mutation import judges

        self.path = directory / "model.onnx"
        self.bench = judges.prepare(case, self.path)
        self.graph = Graph(onnx.load(self.path))
        self.truth = visibility.Truth(self.graph.model, self.bench.bounds, SEED, self.bench.torch_model, 30)
        self.faults = catalogue.faults_of(self.graph, case, SEED)

    def sample(self, case):
        """Name → fault."""
        return {
            f"{group}: {name}": next(f for f in self.faults if (f.group, f.name) == (group, name))
            for group, names in SAMPLE[case.name].items()
            for name in names
        }

    def change(self, fault):
        """The model with the fault."""
        graph = self.graph.copy()
        fault.change(graph)
        if fault.group != "contract":
            graph.sort()
        return graph.model


@pytest.fixture(scope="module", params=CASES)
def case(request):
    """The case of one of the files."""
    return CASES[request.param]


@pytest.fixture(scope="module")
def subject(case, tmp_path_factory):
    """The file of the case with its truth, judges and faults."""
    return Subject(case, tmp_path_factory.mktemp(case.name))


def survivors(case, subject, path):
    """Judge → the faults of the sample that it passes; all faults of the sample must be visible."""
    passed = {"command": [], "suite": []}
    for name, fault in subject.sample(case).items():
        model = subject.change(fault)
        state, detail = subject.truth.judge(model, contract=fault.group == "contract")
        assert (name, state) == (name, visibility.VISIBLE), detail
        path.write_bytes(model.SerializeToString())
        reasons = subject.bench.judge(path, contract=fault.group == "contract")
        for judge, names in passed.items():
            names += [] if reasons[judge] else [name]
    return passed


def test_sampled_faults_are_rejected(case, subject, tmp_path):
    """The commands and the suite reject every fault; neither rejects the right file."""
    for judge in (subject.bench.command, subject.bench.suite):
        outcome = judge.judge(subject.path)
        assert (outcome.reason, outcome.comparisons > 0) == ("", True)
    assert survivors(case, subject, tmp_path / "model.onnx") == {"command": [], "suite": []}


def test_a_blind_judge_would_be_seen(case, subject, tmp_path, monkeypatch):
    """The control: with judges that check nothing, every fault of the sample survives."""
    from parity.reports.mutation import judges
    from parity.validation import Validation

    monkeypatch.setattr(judges, "judge_file", lambda file, reference: Validation((), {}, ()))
    monkeypatch.setattr(subject.bench.suite, "tests", {})
    every = list(subject.sample(case))
    assert survivors(case, subject, tmp_path / "model.onnx") == {"command": every, "suite": every}


def test_what_changes_nothing_is_no_fault(case, subject):
    """The control of visibility: the file itself, an equivalent graph, and a file that cannot be loaded."""
    assert subject.truth.judge(subject.graph.model, contract=False) == (visibility.EQUIVALENT, "")
    assert subject.truth.judge(subject.graph.model, contract=True) == (visibility.EQUIVALENT, "")
    same = subject.graph.copy()
    output = next(iter(same.outputs))
    same.replace(output, lambda b, own: b.op("Neg", b.op("Neg", own)))
    assert subject.truth.judge(same.model, contract=False) == (visibility.EQUIVALENT, "")
    broken = subject.graph.copy()
    broken.proto.node[0].op_type = "NoSuchOperator"
    assert subject.truth.judge(broken.model, contract=False)[0] == visibility.STILLBORN


def test_the_files_are_right_without_the_judge(subject):
    """If the model can be called with the file's inputs, the file's error is below 16 times the noise."""
    assert subject.truth.original is None or subject.truth.original < visibility.FACTOR


def test_visibility_knows_nothing_of_the_judge():
    """The module that decides which faults are visible imports nothing of parity."""
    tree = ast.parse(Path(visibility.__file__).read_text(encoding="utf-8"))
    names = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    names += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    assert {name.split(".")[0] for name in names} >= {"numpy", "onnx", "onnxruntime"}
    assert [name for name in names if name.startswith("parity")] == []


def test_traces():
    """A trace that lost a branch is visible and caught; one whose branch is never taken is neither."""
    (chosen,) = [each for each in traces.traces(SEED) if each.name == "bert: with padding on the right"]
    assert traces.judge(chosen) == (visibility.VISIBLE, "ValueMismatch")
    never = traces.Trace("never", "", chosen.model, lambda arguments: False, {}, "right")
    assert traces.judge(never) == ("equivalent", "")


def test_traces_are_drawn_anew():
    """48 traces with different names, of every kind; another seed gives others."""
    one, other = traces.traces(1), traces.traces(2)
    assert len({each.name for each in one}) == len(one) == traces.COUNT
    assert {each.kind for each in one} >= {*traces.LISTED}
    assert {each.name for each in one} != {each.name for each in other}


def line(**more):
    """A fault that both judges reject."""
    about = {"name": "f", "group": "leaks", "kind": "k", "setting": "opset 17", "state": "visible", "detail": ""}
    return {**about, "suite": "weights", "command": "ratio", "one_shape": "", **more}


ORIGINAL = {
    "name": "bert",
    "architecture": "bert",
    "setting": "opset 17",
    "comparisons": 10,
    "suite": "",
    "command": "",
}
TRACE = {"name": "t", "kind": "only at one length", "state": "visible", "verdict": "sequence silently wrong"}


@pytest.mark.parametrize(
    ("mutants", "originals", "lines", "words"),
    [
        ([line()] * 20, [ORIGINAL], [TRACE], []),
        ([line()] * 19 + [line(suite="")], [ORIGINAL], [TRACE], ["suite, opset 17", "suite, all"]),
        ([line()] * 18 + [line(command="")] * 2, [ORIGINAL], [TRACE], ["command, opset 17", "command, all"]),
        ([line()] * 19 + [line(command="")], [ORIGINAL], [TRACE], []),
        ([line(setting="MiniLM")] * 9 + [line(setting="MiniLM", command="")], [ORIGINAL], [TRACE], ["command, MiniLM"]),
        ([line(group="wrong only under a condition", suite="")], [ORIGINAL], [TRACE], ["suite, all"]),
        ([line()], [{**ORIGINAL, "suite": "contract"}], [TRACE], ["alarm: bert: contract"]),
        ([line()], [ORIGINAL], [{**TRACE, "verdict": ""}], ["traces: 0 of 1", "traces, only at one length"]),
        ([line(), line(state="equivalent", suite="")], [ORIGINAL], [TRACE], []),
    ],
)
def test_a_low_score_is_told(mutants, originals, lines, words):
    """For each threshold there is a run below it; faults that are not visible do not count."""
    told = scores.shortfalls(scores.summarise(mutants, originals, lines, 1), small=True)
    assert [any(each.startswith(word) for each in told) for word in words] == [True] * len(words)
    assert len(told) == len(words)


def test_a_run_that_is_too_small_is_told():
    """Too few architectures, kinds, comparisons or traces are reported."""
    told = scores.shortfalls(scores.summarise([line()], [ORIGINAL], [TRACE], 1))
    assert [each.partition(":")[0] for each in told] == [
        "architectures",
        "kinds",
        "kinds that once survived",
        "healthy comparisons",
        "traces",
    ]


def test_the_page_has_the_figures(tmp_path):
    """Only the text between the marks changes; without marks nothing is overwritten."""
    page = tmp_path / "judge.md"
    page.write_text("\n".join(["before", scores.MARKS[0], "old", scores.MARKS[1], "after"]), encoding="utf-8")
    summary = scores.summarise([line(), line(suite="")], [ORIGINAL], [TRACE], 1)
    scores.write(summary, tmp_path / "results", page)
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n")
    assert text.endswith("\nafter")
    assert "| tiny, all | 1 of 2 (50.0%) | 2 of 2 (100.0%) | 0 of 2 (0.0%) |" in text
    assert json.loads((tmp_path / "results" / "mutation.json").read_text(encoding="utf-8"))["visible"] == 2
    page.write_text("no marks", encoding="utf-8")
    with pytest.raises(ValueError, match="should have"):
        scores.write(summary, tmp_path / "results", page)


def test_kinds_are_seeded_evenly():
    """Of two files, the second gets the kinds that the first did not have."""
    from collections import Counter

    from parity.reports.mutation.graphs import Fault

    faults = [Fault("g", f"f{number}", "w", lambda graph: None) for number in range(6)]
    draw, uses = np.random.default_rng(1), Counter()
    first = catalogue.choose(faults, 3, uses, draw)
    uses.update(f"{fault.group}: {fault.kind}" for fault in first)
    second = catalogue.choose(faults, 3, uses, draw)
    assert {fault.name for fault in (*first, *second)} == {fault.name for fault in faults}
