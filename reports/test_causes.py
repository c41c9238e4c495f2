"""Similar failures have one cause: in pytest's summary, the gate, a difference and the page's summary."""

import json

import pytest

from parity import records
from parity.fixtures.controls import specimens
from parity.reports.__main__ import main
from parity.reports.gate import causes

PLUGINS = ("-p", "parity.fixtures.plugin", "-p", "parity.reports.recording.plugin", "-p", "no:cacheprovider")
RENAMED = {"exception": "TypeError", "place": "transformers.models.gpt2.modeling_gpt2:forward"}
WRONG = {"exception": "ValueMismatch", "place": "parity.validation:raise_on_failure"}


def red(architecture, feature, opset, number, cause=RENAMED, **more):
    """A record of a failure whose message differs from others only in names and numbers."""
    text = f"{architecture.upper()}Model.forward() got an unexpected keyword argument 'past_{number}' at {number}.5"
    if cause is WRONG:
        where = f"at batch {number} × sequence 9, padded left: output_{number}"
        text = f"{where}: error ratio {number}.2e+05, should be at most 4"
    fields = {"status": "failed", "error": text, "cause": cause, "seconds": 1 + number, **more}
    return specimens.line(architecture, feature, opset, **fields)


def two_causes():
    """500 cells with two causes, and some that pass."""
    names = [f"model{number}" for number in range(50)]
    features = ("causal-lm-with-past", "default-with-past")
    caches = [red(n, f, o, i) for i, n in enumerate(names) for f in features for o in (11, 12, 13, 14)]
    values = [red(n, "default", o, i, WRONG) for i, n in enumerate(names) for o in (11, 12)]
    return [*values, *caches, *(specimens.line(name, "default", 17) for name in names)]


def test_two_causes_over_500_cells_are_two_entries():
    """The larger first, each with a pattern of the affected cells, a whole message and its smallest case's command."""
    lines = two_causes()
    assert len({line["id"] for line in lines if line["status"] == "failed"}) == 500
    first, second = causes.causes_of(lines)
    assert (first.cells, first.exception, second.cells) == (400, "TypeError", 100)
    text = causes.cause_lines([first, second])
    assert text == [
        "1. 400 checks of 400 cells: *-with-past (100): TypeError in transformers.models.gpt2.modeling_gpt2:forward",
        "   MODEL0Model.forward() got an unexpected keyword argument 'past_0' at 0.5",
        '   pytest --pyargs parity.architectures -k "test_traced_sizes[model0-causal-lm-with-past-onnx11]"',
        "2. 100 checks of 100 cells: * default (50): ValueMismatch in parity.validation:raise_on_failure",
        "   at batch 0 × sequence 9, padded left: output_0: error ratio 0.2e+05, should be at most 4",
        '   pytest --pyargs parity.architectures -k "test_traced_sizes[model0-default-onnx11]"',
    ]


@pytest.mark.parametrize(
    ("message", "other"),
    [
        ("'cache' is no argument of GPT2Model", "'past' is no argument of T5ForConditionalGeneration"),
        ("logits: 2 of 12 values differ", "last_hidden_state: 40 of 96 values differ"),
        ("opset 11: bert-default-onnx11 has 3e-5", "opset 17: gpt2-causal-lm-with-past-onnx17-sdpa has -1.5"),
        ("/tmp/a/model.onnx: cannot be read", "/home/b_2/other.onnx: cannot be read"),
        (
            "at batch 1 × sequence 9: y: NaN at 3 of 9 places",
            "at batch 3 × past_sequence 1, padded left: z: NaN at 1 of 2 places",
        ),
        ("wrong in self.attn.out_proj and `a`", "wrong in encoder.layers and `b`"),
        ("one line\nand another", "one line\nand a third"),
        (
            "start_logits: error ratio 4.74, should be at most 4",
            "the smallest (python /tmp/out/electra-default-onnx17-1.py): y: error ratio 5, should be at most 4",
        ),
    ],
)
def test_names_numbers_ids_and_paths_tell_no_causes_apart(message, other):
    """Nor do the sizes in a message, or lines after the first."""
    assert causes.pattern_of(message) == causes.pattern_of(other)


@pytest.mark.parametrize(
    "field",
    [
        {"error": "MODEL0Model.forward() lacks an argument 'past_0' at 0.5"},
        {"cause": {**RENAMED, "exception": "RuntimeError"}},
        {"cause": {**RENAMED, "place": "torch.nn.modules.module:_call_impl"}},
        {"cause": None},
    ],
    ids=["message", "exception", "place", "unknown"],
)
def test_what_else_differs_is_another_cause(field):
    """The control: another message, class or place; older records have none."""
    line = red("gpt2", "default", 11, 1)
    other = {**red("bert", "default", 11, 2), **field}
    assert len(causes.causes_of([line, other])) == 2
    assert len(causes.causes_of([line, {**other, **red("bert", "default", 11, 2)}])) == 1


def test_a_red_run_is_told_in_less_than_40_lines():
    """The ten largest causes; the rest is counted."""
    lines = [red("bert", f"f{number}", 11, 1, {"exception": f"E{number}", "place": ""}) for number in range(30)]
    text = causes.cause_lines(causes.causes_of(lines))
    assert len(text) == 31
    assert text[-1] == "and 20 causes more, of 20 checks"


@pytest.mark.parametrize(
    ("pairs", "fields", "text"),
    [
        (["gpt2 default"], {}, "gpt2 default"),
        (["gpt2 a", "bert b"], {"attention": "sdpa"}, "gpt2 a, bert b, sdpa"),
        (["gpt2 a", "gpt2 b", "gpt2 c"], {}, "gpt2 * (3)"),
        (["gpt2 a-with-past", "gpt2 b-with-past", "gpt2 c-with-past"], {}, "gpt2 *-with-past (3)"),
        (["gpt2 a", "bert b", "vit c"], {}, "gpt2 a, bert b, vit c"),
        (["gpt2 default", "bert a", "bert b", "vit default", "vit c"], {}, "gpt2 default … (5)"),
        (["a x", "b x", "c x"], {"format": "torchscript"}, "* x (3), torchscript"),
    ],
)
def test_what_is_affected_is_told_in_a_few_words(pairs, fields, text):
    """By their common part, else up to three names, else the first and a count."""
    assert causes.affected([specimens.line(*pair.split(), **fields) for pair in pairs]) == text


def test_an_error_that_was_raised_from_another_has_its_place():
    """The innermost frame of parity or upstream in the original error; empty if there is none."""
    from parity.errors import UsageError
    from parity.opsets import check_opset
    from parity.reports.recording.plugin import place_of

    def wrapped():
        try:
            check_opset(99)
        except UsageError as error:
            raise RuntimeError("outer") from error

    with pytest.raises(RuntimeError) as outer:
        wrapped()
    assert place_of(outer.value) == "parity.opsets:check_opset"
    namespace = {"__name__": "elsewhere"}
    exec("def act():\n    raise ValueError('no')", namespace)
    with pytest.raises(ValueError, match="no") as other:
        namespace["act"]()
    frames = other.value.with_traceback(other.value.__traceback__.tb_next)
    assert place_of(frames) == ""


SUITE = """
import pytest

@pytest.fixture
def broken(cell):
    raise KeyError(f"no {cell.id}")

def test_wrong(cell):
    raise ValueError(f"{cell.id}: got {cell.opset} at 0.{cell.opset}")

def test_unbuilt(cell, broken):
    pass

def test_right(cell):
    pass

def test_without_a_cell():
    assert not "this has no cell"
"""


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "two-workers"])
def test_pytest_ends_with_the_causes(pytester, monkeypatch, workers):
    """At 80 columns too: one traceback each, all failures counted, tests without a cell as usual, causes last."""
    monkeypatch.setenv("COLUMNS", "80")
    pytester.makepyfile(test_suite=SUITE)
    result = pytester.runpytest(*PLUGINS, "--records", "out.jsonl", "-k", "resnet-default or without", *workers)
    _, lines = records.read(pytester.path / "out.jsonl")
    cells = len({line["id"] for line in lines})
    assert cells > 5
    result.assert_outcomes(failed=cells + 1, errors=cells, passed=cells)
    text = result.outlines
    assert sum(line.startswith("E   ") and "ValueError" in line for line in text) == 1
    assert sum(line.startswith("E   ") and "KeyError" in line for line in text) == 1
    assert any("this has no cell" in line for line in text)
    start = next(number for number, line in enumerate(text) if f"2 causes of {2 * cells} red checks" in line)
    entries = text[start + 1 :]
    assert entries[0].startswith(("1. ", "2. "))
    assert {line.rpartition(": ")[2].partition(" ")[0] for line in entries if line[:2] in ("1.", "2.")} == {
        "KeyError",
        "ValueError",
    }
    assert sum('-k "test_' in line for line in entries) == 2
    assert all(line["cause"]["exception"] for line in lines if line["status"] != "passed")
    assert not any("cause" in line for line in lines if line["status"] == "passed")


@pytest.fixture
def files(tmp_path):
    """The records of a green run, and of a run with two causes."""
    green = [{**line, "status": "passed", "error": None} for line in two_causes()]
    for name, lines in {"green": green, "red": two_causes()}.items():
        lines = [{key: value for key, value in line.items() if key != "cause" or line["error"]} for line in lines]
        records.write(tmp_path / f"{name}.jsonl", specimens.environment(), lines)
    return tmp_path


def test_check_and_diff_begin_with_the_causes(files, capsys):
    """Before the cells; without failures that were accepted; JSON has all."""
    old, new, baseline = str(files / "green.jsonl"), str(files / "red.jsonl"), ["--baseline", str(files / "baseline")]
    assert main(["--accept", old, *baseline]) == 0
    capsys.readouterr()
    assert main(["--check", new, *baseline]) == 1
    check = capsys.readouterr().out.splitlines()
    assert check[2] == "2 causes of what is red and was not accepted:"
    assert check[3].startswith("1. 400 checks of 400 cells: *-with-past (100): TypeError")
    assert main(["--diff", old, new]) == 1
    difference = capsys.readouterr().out.splitlines()
    place = next(number for number, line in enumerate(difference) if line == "2 causes of what is red now and was not:")
    assert place < next(number for number, line in enumerate(difference) if line.startswith("regressed"))
    assert main(["--diff", old, new, "--format", "json"]) == 1
    assert [cause["cells"] for cause in json.loads(capsys.readouterr().out)["causes"]["all"]] == [400, 100]
    assert main(["--accept", new, *baseline, "--even-failed"]) == 0
    capsys.readouterr()
    assert main(["--check", new, *baseline]) == 0
    assert "cause" not in capsys.readouterr().out


def test_the_summary_beside_the_page_begins_with_the_causes(files):
    """Before the lists by status."""
    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib")
    assert main([str(files / "red.jsonl"), "--output", str(files / "page.html")]) == 0
    text = (files / "page.md").read_text(encoding="utf-8")
    assert text.index("1. 400 checks of 400 cells: *-with-past (100)") < text.index("## failed")


@pytest.mark.parametrize(
    ("fields", "title"),
    [
        ({}, "TypeError in transformers.models.gpt2.modeling_gpt2:forward"),
        ({"cause": {"exception": "KeyError", "place": ""}}, "KeyError"),
        ({"cause": None, "status": "xpassed"}, "deviation that passes again"),
        ({"cause": None, "status": "error", "stage": records.CRASH}, "worker that died"),
        ({"cause": None}, "failure"),
    ],
    ids=["exception", "without-a-frame", "passes-again", "crash", "older-record"],
)
def test_every_cause_has_a_title(fields, title):
    """Exception and frame; without them, the kind of failure."""
    (cause,) = causes.causes_of([{**red("gpt2", "default", 11, 1), **fields}])
    assert cause.title == title
    assert causes.cause_lines([cause])[0] == f"1. 1 check of 1 cell: gpt2 default: {title}"


def warning(text="`device` is deprecated and goes in v5", category="FutureWarning"):
    """The record of a warning."""
    return {"category": category, "module": "transformers.modeling_utils", "text": text}


def with_warnings(*texts, architectures=("bert", "vit")):
    """Records of checks that pass with warnings."""
    warned = [warning(text) for text in texts]
    return [specimens.line(name, opset=opset, warnings=warned) for name in architectures for opset in (11, 12)]


def test_a_warning_has_a_cause_too():
    """Category and module stand for class and place; names, numbers, ids and paths do not distinguish warnings."""
    lines = [*with_warnings("`a` goes in v5 of 9.1"), *with_warnings("`b` goes in v5 of 9.2", "other")]
    first, second = causes.warning_causes(lines)
    assert causes.cause_lines([first]) == [
        "1. 8 checks of 4 cells: bert default, vit default: FutureWarning in transformers.modeling_utils",
        "   `a` goes in v5 of 9.1",
        '   pytest --pyargs parity.architectures -k "test_traced_sizes[bert-default-onnx11]"',
    ]
    assert causes.warning_causes(lines, {first.key}) == [second]
    assert causes.causes_of(lines) == []


def test_ten_causes_leave_warnings_a_line():
    """Causes and warnings together have ten entries; the rest of the warnings is counted."""
    red_causes = causes.causes_of(red("bert", "a", 11, 1, {"exception": f"E{n}", "place": ""}) for n in range(12))
    warnings = causes.warning_causes(with_warnings("one", "two"))
    assert len(causes.listing(red_causes[:9], warnings)["warnings"]["lines"]) == 4
    listing = causes.listing(red_causes, warnings)
    assert (len(listing["causes"]["lines"]), listing["warnings"]["lines"]) == (31, [])
    assert causes.sections(listing, "a run")[-1] == f"2 new warnings {causes.WARNED}"


@pytest.fixture
def gate(tmp_path, capsys):
    """A function that runs the command on records; returns its exit status and output."""

    def run(*arguments, environment=None, **runs):
        for name, lines in runs.items():
            records.write(tmp_path / f"{name}.jsonl", environment or specimens.environment(), lines)
        paths = [str(tmp_path / each) if each.endswith(".jsonl") else each for each in arguments]
        capsys.readouterr()
        status = main([*paths, *([] if "--diff" in paths else ["--baseline", str(tmp_path / "baseline")])])
        return status, capsys.readouterr().out

    return run


def test_a_new_warning_is_in_the_gate_until_it_is_accepted(gate, tmp_path):
    """It fails nothing; another warning is new later; known ones stay known after a run without them."""
    assert gate("--accept", "run.jsonl", run=specimens.run())[0] == 0
    assert not (tmp_path / "baseline" / "warnings.json").exists()
    warned = [{**line, "warnings": [warning()]} for line in specimens.run()]
    status, text = gate("--check", "run.jsonl", run=warned)
    assert status == 0
    assert f"1 new warning {causes.WARNED}:" in text
    assert "FutureWarning in transformers.modeling_utils" in text
    assert "### 1 new warning of upstream" in gate("--check", "--format", "markdown", "run.jsonl")[1]
    assert gate("--accept", "run.jsonl")[0] == 0
    assert "warning" not in gate("--check", "run.jsonl")[1]
    assert gate("--accept", "run.jsonl", run=specimens.run())[0] == 0
    assert "warning" not in gate("--check", "run.jsonl", run=warned)[1]
    other = [{**line, "warnings": [warning(), warning("another one")]} for line in specimens.run()]
    assert "another one" in gate("--check", "run.jsonl", run=other)[1]


def test_a_new_warning_is_in_a_difference(gate):
    """In text, Markdown and JSON; not if it was there before; it makes nothing worse."""
    runs = {"old": with_warnings("old", architectures=("bert",)), "new": with_warnings("old", "new")[:2]}
    status, text = gate("--diff", "old.jsonl", "new.jsonl", **runs)
    assert status == 0
    assert text.index(f"1 new warning {causes.WARNED}:") < text.index("   new\n")
    assert "   old\n" not in text
    assert f"## 1 new warning {causes.WARNED}" in gate("--diff", "old.jsonl", "new.jsonl", "--format", "markdown")[1]
    found = json.loads(gate("--diff", "old.jsonl", "new.jsonl", "--format", "json")[1])
    assert [cause["message"] for cause in found["warnings"]["all"]] == ["new"]
    assert found["causes"]["all"] == []


def test_a_difference_from_a_baseline_knows_its_warnings(gate, tmp_path):
    """The warnings accepted with it are not new."""
    warned = [{**line, "warnings": [warning()]} for line in specimens.run()]
    gate("--accept", "run.jsonl", run=warned)
    csv = str(tmp_path / "baseline" / f"{specimens.NAME}.csv")
    assert "new warning" not in gate("--diff", csv, "run.jsonl")[1]
    other = [{**line, "warnings": [warning(), warning("another one")]} for line in specimens.run()]
    text = gate("--diff", csv, "run.jsonl", run=other)[1]
    assert "another one" in text
    assert "FutureWarning" in text


@pytest.mark.parametrize("content", ["{", "[]", '{"a": [["b"]]}', '{"a": 1}'])
def test_damaged_warnings_are_refused(gate, tmp_path, capsys, content):
    """In one sentence that says what to do, with exit status 2."""
    gate("--accept", "run.jsonl", run=specimens.run())
    (tmp_path / "baseline" / "warnings.json").write_text(content)
    assert main(["--check", str(tmp_path / "run.jsonl"), "--baseline", str(tmp_path / "baseline")]) == 2
    assert "write it again with --accept" in capsys.readouterr().err


@pytest.mark.parametrize("number", [1, 4, 10, 30])
@pytest.mark.parametrize("onnxruntime", ["1.32.0", "1.31.0"], ids=["own", "nearest"])
def test_the_gate_reports_a_red_run_in_less_than_40_lines(gate, number, onnxruntime):
    """Every cell regressed, some gone and some new: causes first, then as many cells as fit."""
    names, opsets = [f"model{n}" for n in range(60)], (11, 13, 15)
    before = [specimens.line(name, "default", opset) for name in names for opset in opsets]
    after = [
        red(name, "default", o, 1, {"exception": f"E{n % number}", "place": ""})
        for n, name in enumerate(names)
        for o in opsets
    ]
    before.append(specimens.line("gone"))
    after.append(specimens.line("added", warnings=[warning()]))
    gate("--accept", "old.jsonl", old=before)
    status, text = gate("--check", "new.jsonl", new=after, environment=specimens.environment(onnxruntime=onnxruntime))
    lines = text.splitlines()
    assert status == 1
    assert len(lines) < 40
    title = f"{number} cause{'s' * (number > 1)} of what is red and was not accepted:"
    assert lines.index(title) < lines.index(next(line for line in lines if line.startswith("1. "))) < 7
    for kind, count in (("regressed", "180 checks"), ("disappeared", "1 check"), ("new", "1 check")):
        assert f"{kind}: {count}" in text
    assert "--format json" in text


MANY = """
def test_wrong(cell):
    raise ValueError("x" * cell.opset)

def test_other(cell):
    raise TypeError("x" * cell.opset)
"""


def test_no_cause_loses_its_traceback(pytester):
    """Each opset and class is a cause here, which is more than the summary lists."""
    pytester.makepyfile(test_suite=MANY)
    result = pytester.runpytest(*PLUGINS, "--records", "out.jsonl", "-k", "resnet-default-onnx")
    _, lines = records.read(pytester.path / "out.jsonl")
    assert len(causes.causes_of(lines)) == len(lines) > causes.LISTED
    assert sum(line.startswith("E   ") and "Error: x" in line for line in result.outlines) == len(lines)
