"""The page shows the records, is self-contained, and works in a browser by keyboard, in light and dark."""

import json
import re
import subprocess
import sys
from math import inf

import pytest

from parity import records
from parity.fixtures.controls import specimens
from parity.reports import __main__ as command
from parity.reports.gate import baseline, causes
from parity.reports.gate.changes import WORST
from parity.reports.gate.parts import FIELD, Part
from parity.reports.pages import data as data_of
from parity.reports.pages import page, plots, screenshots

LINK = "https://github.com/pytorch/pytorch/issues/1"
WARNING = {"category": "FutureWarning", "module": "transformers.x", "text": "the old name <b>goes</b> in 9.0"}
HOSTILE = '</script><script>document.title = "bad"</script><img src=x onerror="document.title=1">'


def lines():
    """A run with every status, two formats, both attentions and a trace's verdicts."""
    changed_run = specimens.change_records(
        specimens.run(), "vit-default-onnx13", status="failed", error=f"logits: wrong {HOSTILE}"
    )
    verdict = {"axis": "sequence", "traced": 8, "verdict": "raises", "text": "right at 1; raises at 13", "trials": []}
    return [
        *changed_run,
        specimens.line(opset=14, attention="sdpa", id="bert-default-onnx14-sdpa"),
        specimens.line(feature="masked-lm", format="torchscript", opset=None, verdicts=[verdict]),
        specimens.line("roberta", feature="masked-lm", format="neuron", opset=None, runtime="neuron", status="skipped"),
        specimens.line(
            "vit", "masked-lm", None, format="neuron", runtime="emulation", id="vit-masked-lm-neuron-emulation"
        ),
        specimens.line("gpt2", status="skipped", outputs={}),
        specimens.line("t5", status="error", outputs={"logits": {"ratio": inf, "worst": inf}}, error="no file"),
        specimens.line("whisper", status="xpassed", error="[XPASS(strict)] upstream"),
        specimens.line("clip", warnings=[WARNING]),
    ]


# The accepted statuses: one check passed, one had failed, and one has no record any more.
ACCEPTED = {
    **{(line["id"], line["check"]): line["status"] for line in lines()},
    ("vit-default-onnx13", "traced_sizes"): "passed",
    ("gpt2-default-onnx17", "traced_sizes"): "skipped",
    ("vit-default-onnx11", "contract"): "failed",
    ("gone-default-onnx17", "contract"): "passed",
}
for cell in ("t5-default-onnx17", "bert-masked-lm-torchscript"):
    del ACCEPTED[cell, "traced_sizes"]


@pytest.fixture(scope="session")
def page_file(tmp_path_factory):
    """The page of `lines`, with an earlier run, a baseline and a reproducer."""
    directory = tmp_path_factory.mktemp("page")
    (directory / "reproductions").mkdir()
    (directory / "reproductions" / "vit-default-onnx13-3.py").write_text("print('it still fails')\n")
    for name in ("other-default-onnx13", "vit-default-onnx12"):
        (directory / "reproductions" / f"{name}-3.py").write_text("print('of another run')\n")
    (directory / "baseline").mkdir()
    (directory / "baseline" / f"{specimens.NAME}.csv").write_text(baseline.as_csv(ACCEPTED))
    records.write(directory / "new.jsonl", specimens.environment(), lines())
    records.write(directory / "old.jsonl", specimens.environment(transformers="4.46.3"), specimens.run())
    output = directory / "report.html"
    assert command.main([str(directory / "new.jsonl"), *options(directory), "--output", str(output)]) == 0
    return output


def options(directory):
    """Options of the command for everything but the records."""
    return ["--history", str(directory / "old.jsonl"), "--baseline", str(directory / "baseline")]


def read_data(path):
    """The data in a page."""
    text = path.read_text(encoding="utf-8")
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])


def test_every_record_is_in_the_page(page_file):
    """Its rows are the records, one for one; an infinite ratio is a word."""
    data = read_data(page_file)
    rows = [
        (data["cells"][cell]["id"], data["checks"][check], WORST[status])
        for cell, check, status in zip(*(data["rows"][name] for name in ("cell", "check", "status")), strict=True)
    ]
    assert rows == [(line["id"], line["check"], line["status"]) for line in lines()]
    assert "inf" in data["rows"]["ratio"]


def test_only_reproducers_of_these_cells_are_in_the_page(page_file):
    """Reproducers that an older run left, for another cell or one that passes now, are not."""
    assert read_data(page_file)["scripts"] == {
        "vit-default-onnx13": [["vit-default-onnx13-3.py", "print('it still fails')\n"]]
    }


def test_the_summary_names_what_is_not_passed(page_file):
    """Counts, then each status with its cells and messages, the worst first; without passed checks."""
    text = page_file.with_suffix(".md").read_text(encoding="utf-8")
    headings = [text.index(f"## {status}: ") for status in ("failed", "error", "xpassed", "xfailed", "skipped")]
    assert headings == sorted(headings)
    assert "`bert-default-onnx12` traced_sizes: the length is fixed" in text
    assert LINK in text
    assert "## passed" not in text
    assert f"{len(lines())} checks" in text


def test_the_summary_folds_opsets_with_one_message():
    """Three opsets give one line; another message gives another line."""
    seeded = [specimens.line(opset=opset, status="failed") for opset in (11, 12, 13)]
    seeded.append(specimens.line(opset=14, status="failed", error="else"))
    assert page.problems(seeded) == {
        "failed": [
            "`bert-default-onnx11–13` traced_sizes: logits: 2 of 12 values differ",
            "`bert-default-onnx14` traced_sizes: else",
        ]
    }


def test_each_plot_has_what_is_on_record():
    """The numbers under the plots are those of the records."""
    runs = [(specimens.environment(), specimens.run())]
    by_name = {plot.name: plot for plot in plots.all_plots(specimens.environment(), lines(), runs)}
    assert all(plot.svg.startswith("<svg ") for plot in by_name.values())
    assert ("vit", "0.8", "0.8", "0.8", 7) in by_name["ratios"].rows
    assert (12, 0, 0, 0, 1, 1, 0) in by_name["opsets"].rows
    assert by_name["verdicts"].rows == [("sequence", 1)]
    assert len(by_name["history"].rows) == 2
    assert by_name["costs"].rows[0][1:] == ("0.50", 600)


def test_error_ratios_are_on_a_log_scale(monkeypatch):
    """Also time and memory, but no count."""
    kinds = []
    monkeypatch.setattr(plots, "_svg", lambda figure, axes: kinds.append(axes.get_xscale()) or "")
    found = plots.all_plots(specimens.environment(), lines(), [(specimens.environment(), specimens.run())])
    scales = dict(zip((plot.name for plot in found), kinds, strict=True))
    assert {name for name, scale in scales.items() if scale == "log"} == {"ratios", "costs"}


def test_plots_of_nothing_say_so():
    """Records without ratios, verdicts, ONNX cells or an earlier run give a sentence in place of a plot."""
    bare = [specimens.line(format="neuron", opset=None, outputs={}, peak=None)]
    del bare[0]["peak"]
    by_name = {plot.name: plot for plot in plots.all_plots(specimens.environment(), bare)}
    assert {name for name, plot in by_name.items() if not plot.svg} == {"ratios", "opsets", "verdicts", "history"}
    assert all(plot.caption.endswith(".") for plot in by_name.values())


def test_equal_records_make_equal_pages(page_file, tmp_path):
    """They contain neither time nor machine of their creation."""
    sources = page_file.parent
    again = [*options(sources), "--output", str(sources / "again.html")]
    assert command.main([str(sources / "new.jsonl"), *again]) == 0
    assert (sources / "again.html").read_bytes() == page_file.read_bytes()


def test_the_command_of_a_check_finds_it():
    """It has the options that made the cells of the run; without them there is no emulated cell."""
    arguments = ["-n", "2", "--neuron-emulate", "--architecture", "bert", "--architecture=vit", "-k", "bert"]
    command = causes.rerun_command({**specimens.environment(), "arguments": arguments})
    assert command == f"{causes.COMMAND} --neuron-emulate --architecture bert --architecture=vit"
    assert causes.rerun_command(specimens.environment()) == causes.COMMAND
    selection = [
        "-k",
        "test_neuron_graph[bert-default-neuron-b1-l16-emulation]",
        "--collect-only",
        "-p",
        "no:cacheprovider",
    ]
    emulating = causes.rerun_command({**specimens.environment(), "arguments": ["--neuron-emulate"]})
    for exists, invocation in ((True, emulating), (False, causes.COMMAND)):
        run = subprocess.run([sys.executable, "-m", *invocation.split(), *selection], capture_output=True, text=True)
        assert (run.returncode == 0) == exists, run.stdout


def test_the_page_does_not_take_the_name_of_its_summary(tmp_path, capsys):
    """The summary, with suffix .md, would overwrite it."""
    records.write(tmp_path / "run.jsonl", specimens.environment(), specimens.run())
    assert command.main([str(tmp_path / "run.jsonl"), "--output", str(tmp_path / "report.md")]) == 2
    assert "should end in .html" in capsys.readouterr().err
    assert not (tmp_path / "report.md").exists()


def test_a_library_that_is_missing_is_named(tmp_path, monkeypatch, capsys):
    """Without matplotlib the command says what to install; gate and difference need neither library."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.chdir(tmp_path)
    records.write(tmp_path / "run.jsonl", specimens.environment(), specimens.run())
    assert command.main(["run.jsonl"]) == 1
    assert "pip install 'parity[report]'" in capsys.readouterr().err
    assert command.main(["--accept", "run.jsonl"]) == 0
    assert command.main(["--check", "run.jsonl"]) == 0


def test_causes_warnings_and_changes_are_in_the_data(page_file):
    """Each check has its cause, its accepted status and its kind of change; unchanged ones have none."""
    data = read_data(page_file)
    by_check = {
        (data["cells"][cell]["id"], data["checks"][check]): row
        for row, (cell, check) in enumerate(zip(data["rows"]["cell"], data["rows"]["check"], strict=True))
    }
    changed = {
        key: (data["changes"][data["rows"]["change"][row]], data["rows"]["was"][row])
        for key, row in by_check.items()
        if data["rows"]["change"][row] >= 0
    }
    assert changed == {
        ("vit-default-onnx13", "traced_sizes"): ("regressed", WORST.index("passed")),
        ("vit-default-onnx11", "contract"): ("fixed", WORST.index("failed")),
        ("t5-default-onnx17", "traced_sizes"): ("new", -1),
        ("bert-masked-lm-torchscript", "traced_sizes"): ("new", -1),
    }
    numbers = {key: data["rows"]["cause"][row] for key, row in by_check.items() if data["rows"]["cause"][row] >= 0}
    assert len(numbers) == len(set(numbers.values())) == 3
    row = by_check["clip-default-onnx17", "traced_sizes"]
    assert data["warnings"][data["warned"][str(row)][0]].startswith("FutureWarning of transformers.x: the old name")


def test_the_summary_begins_with_causes_and_warnings(page_file):
    """Before the packages; accepted warnings are not among them."""
    text = page_file.with_suffix(".md").read_text(encoding="utf-8")
    assert text.index("## 3 causes of what is red") < text.index(f"## 1 new warning {causes.WARNED}")
    assert text.index("the old name") < text.index("| package |")
    page.write(
        page_file.parent / "known.html",
        specimens.environment(),
        lines(),
        page.Context(known={cause.key for cause in causes.warning_causes(lines())}),
    )
    assert "new warning" not in (page_file.parent / "known.md").read_text(encoding="utf-8")
    assert "new warning" not in (page_file.parent / "known.html").read_text(encoding="utf-8")


def test_architectures_are_grouped_by_kind():
    """The largest kind first, sorted by name; an unregistered architecture is under `other`."""
    grouped = data_of.group_by_kind(
        lines(), {"bert": "encoder", "roberta": "encoder", "vit": "vision", "gpt2": "decoder"}
    )
    assert list(grouped.items()) == [
        ("other", ["clip", "t5", "whisper"]),
        ("encoder", ["bert", "roberta"]),
        ("decoder", ["gpt2"]),
        ("vision", ["vit"]),
    ]


# The tests below use a real browser.


@pytest.fixture(scope="session")
def chromium():
    """A headless browser for all tests; without one they are skipped."""
    reason = screenshots.gap()
    if reason:
        pytest.skip(f"the page is not tried in a browser: {reason}")
    with screenshots.browser() as headless:
        yield headless


@pytest.fixture
def window(chromium, page_file):
    """The page in a window."""
    with screenshots.open_page(chromium, page_file) as tab:
        yield tab


SIZES = pytest.mark.parametrize("width", [390, 1280])
SCHEMES = pytest.mark.parametrize("scheme", ["light", "dark"])
_BACKGROUND = "element => getComputedStyle(element).backgroundColor"
EVERYTHING = {
    "bert default",
    "bert masked-lm",
    "roberta masked-lm",
    "vit default",
    "vit masked-lm",
    "gpt2 default",
    "t5 default",
    "whisper default",
    "clip default",
}


def buttons(window):
    """The label of each square of the matrix."""
    return window.locator("#grids td button").evaluate_all("all => all.map(b => b.getAttribute('aria-label'))")


def squares(window):
    """Architecture and feature of each square of the matrix."""
    return {label.partition(":")[0] for label in buttons(window)}


def open_square(window, name):
    """Click a square and return the dialog that opens."""
    window.locator(f"#grids button[aria-label^='{name}:']").click()
    dialog = window.get_by_role("dialog", name=name)
    dialog.wait_for()
    return dialog


def test_the_matrix_has_the_worst_status_of_each_cell(window):
    """Colour, symbol and label of architecture × feature; opsets by status in the label and as strokes."""
    labels = {label.partition(":")[0]: label for label in buttons(window)}
    assert set(labels) == EVERYTHING
    assert labels["bert default"] == "bert default: xfailed: onnx12; passed: onnx11, 13, onnx14-sdpa; 7 checks"
    assert labels["vit default"] == "vit default: failed: onnx13; passed: onnx11–12; 6 checks; regressed"
    assert labels["bert masked-lm"] == "bert masked-lm: passed: torchscript; 1 check; new"
    colours = {
        name: window.locator(f"#grids button[aria-label^='{name}']").evaluate(_BACKGROUND)
        for name in ("bert default", "vit default", "gpt2 default", "t5 default", "whisper default", "bert masked-lm")
    }
    assert len(set(colours.values())) == len(WORST)
    legend = {status: window.locator(f".counts .{status}").evaluate(_BACKGROUND) for status in WORST}
    assert colours["vit default"] == legend["failed"]
    assert colours["bert default"] == legend["xfailed"]
    assert colours["bert masked-lm"] == legend["passed"]
    strokes = window.get_by_role("gridcell").filter(has_text="✗").locator("i").evaluate("i => i.style.backgroundImage")
    assert re.findall(r"var\(--(\w+)-bar\)|transparent 30%|transparent \d+% (?=40)", strokes)[:3] == [
        "passed",
        "passed",
        "failed",
    ]


def test_kinds_of_models_are_groups_of_the_matrix(window):
    """Each is a grid with the columns of its models and the kind in its corner."""
    heads = window.get_by_role("grid").evaluate_all(
        "all => all.map(g => [...g.tHead.rows[0].cells].map(c => c.innerText))"
    )
    assert ["encoder 2", "default", "masked-lm"] in heads
    assert ["decoder 1", "default"] in heads
    assert ["vision 1", "default", "masked-lm"] in heads
    rows = window.get_by_role("grid", name="encoder", exact=False).first.get_by_role("rowheader")
    assert rows.all_inner_texts() == ["bert", "roberta"]


@pytest.mark.parametrize(
    ("name", "value", "labels"),
    [
        ("architecture", "bert", {"bert default", "bert masked-lm", "roberta masked-lm"}),
        ("message", "LENGTH is fixed", {"bert default"}),
        ("message", "right at 1; raises", {"bert masked-lm"}),
        ("message", "old name <b>goes", {"clip default"}),
        ("cause", "2", None),
        ("feature", "masked-lm", {"bert masked-lm", "roberta masked-lm", "vit masked-lm"}),
        ("format", "torchscript", {"bert masked-lm"}),
        ("format", "neuron", {"roberta masked-lm", "vit masked-lm"}),
        ("runtime", "torch", {"bert masked-lm"}),
        ("runtime", "neuron", {"roberta masked-lm"}),
        ("runtime", "emulation", {"vit masked-lm"}),
        ("status", "failed", {"vit default"}),
        ("status", "xfailed", {"bert default"}),
        ("change", "any change", {"vit default", "t5 default", "bert masked-lm"}),
        ("change", "regressed", {"vit default"}),
        ("change", "fixed", {"vit default"}),
        ("change", "new", {"t5 default", "bert masked-lm"}),
    ],
)
def test_each_filter_leaves_what_matches(window, name, value, labels):
    """The button next to the filters restores all."""
    everything = buttons(window)
    field = window.locator(f"[name={name}]")
    field.fill(value) if name in ("architecture", "message", "cause") else field.select_option(value)
    if labels is None:
        data = window.evaluate("data.rows.cause.indexOf(1)")
        labels = {window.evaluate(f"cellOf({data}).architecture + ' ' + cellOf({data}).feature")}
    assert squares(window) == labels
    assert f"{len(labels)} architecture × feature" in window.get_by_role("status").inner_text()
    window.get_by_role("button", name="all", exact=True).click()
    window.locator("#grids td button").nth(len(everything) - 1).wait_for()
    assert buttons(window) == everything


def test_filters_go_together(window):
    """A message and an architecture; nothing is left if no cell has both."""
    window.locator("[name=message]").fill("logits")
    window.locator("[name=architecture]").fill("vit")
    assert squares(window) == {"vit default"}
    window.locator("[name=architecture]").fill("gpt2")
    assert squares(window) == set()


def test_what_changed_has_its_own_colour(window):
    """A ring in a colour that no status has, only around changed squares; the numbers are a filter."""
    ring = "element => getComputedStyle(element).boxShadow"
    rings = {
        name: window.locator(f"#grids button[aria-label^='{name}:']").evaluate(ring)
        for name in ("vit default", "t5 default", "bert masked-lm", "bert default", "gpt2 default")
    }
    assert rings["bert default"] == rings["gpt2 default"] == "none"
    assert len({rings["vit default"], rings["t5 default"], rings["bert masked-lm"]}) == 1
    colour = "name => getComputedStyle(document.documentElement).getPropertyValue(name)"
    names = ["--changed", *(f"--{status}{kind}" for status in WORST for kind in ("", "-bar"))]
    assert len({window.evaluate(colour, name) for name in names}) == len(names)
    text = window.locator(".against").inner_text()
    assert specimens.NAME in text
    assert "1 check of it without a result here" in text
    window.get_by_role("button", name="1 check regressed").click()
    window.locator("#grids td button").nth(1).wait_for(state="detached")
    assert squares(window) == {"vit default"}


def test_without_a_baseline_nothing_has_changed(chromium, tmp_path):
    """The page says so; there is no filter and no ring."""
    page.write(tmp_path / "page.html", specimens.environment(), lines())
    with screenshots.open_page(chromium, tmp_path / "page.html") as tab:
        assert "no baseline of this environment" in tab.locator(".against").inner_text()
        assert tab.locator("[name=change]").count() == 0
        assert tab.locator("#grids .changed").count() == 0


def test_the_nearest_baseline_is_named(chromium, tmp_path):
    """With the packages that differ; checks that the selection left out are counted, and not missing."""
    (tmp_path / "baseline").mkdir()
    whole_run = {**ACCEPTED, ("bert-default-onnx20", "contract"): "passed"}
    (tmp_path / "baseline" / f"{specimens.NAME}.csv").write_text(baseline.as_csv(whole_run))
    selection = Part({"-k": "not onnx20"}, frozenset(), frozenset([("bert-default-onnx20", "contract")])).as_json()
    environment = {**specimens.environment(onnxruntime="1.31.0"), FIELD: selection}
    records.write(tmp_path / "new.jsonl", environment, lines())
    arguments = ["--baseline", str(tmp_path / "baseline"), "--output", str(tmp_path / "page.html")]
    assert command.main([str(tmp_path / "new.jsonl"), *arguments]) == 0
    with screenshots.open_page(chromium, tmp_path / "page.html") as tab:
        text = tab.locator(".against").inner_text()
    assert f"nearest baseline {specimens.NAME} (onnxruntime 1.32.0 → 1.31.0)" in text
    assert "1 check of it without a result here" in text
    assert "Not compared, because the selection (-k 'not onnx20') left them out" in text


def test_a_page_is_compared_with_a_run(chromium, tmp_path):
    """As `--upgrade` writes it: the earlier run is named, and its warnings are not new."""
    before = specimens.environment(transformers="4.46.3"), specimens.run()
    old, new = (before[0], [*before[1], specimens.line("clip", warnings=[WARNING])]), (specimens.environment(), lines())
    page.write(tmp_path / "page.html", *new, page.against(old, new))
    with screenshots.open_page(chromium, tmp_path / "page.html") as tab:
        text = tab.locator(".against").inner_text()
        assert "the run transformers-4.46.3-" in text
        assert "(transformers 4.46.3 → 5.23.0)" in text
        assert "1 check regressed" in text
        assert tab.locator("#warnings").count() == 0


def test_the_page_begins_with_the_causes(window):
    """Before the matrix: size, pattern, whole message and command of each; a click on one shows its cells."""
    assert window.get_by_role("heading", name="3 causes of 3 red checks").is_visible()
    above = "e => e.compareDocumentPosition(document.getElementById('grids')) & Node.DOCUMENT_POSITION_FOLLOWING"
    entries = window.locator("#causes ~ ol > li")
    assert entries.count() == 3
    assert all(entries.nth(number).evaluate(above) for number in range(3))
    entry = entries.filter(has_text="vit default")
    text = entry.inner_text()
    assert "1 cell" in text
    assert "logits: wrong </script>" in text
    assert '-k "test_traced_sizes[vit-default-onnx13]"' in text
    assert "deviation that passes again" in entries.filter(has_text="whisper").inner_text()
    entry.get_by_text("the cells").click()
    entry.get_by_role("link", name="onnx13").click()
    window.get_by_role("dialog", name="vit-default-onnx13").wait_for()
    window.keyboard.press("Escape")
    entry.get_by_role("button", name="show in the matrix").click()
    window.locator("#grids td button").nth(1).wait_for(state="detached")
    assert squares(window) == {"vit default"}


def test_new_warnings_have_a_section(window):
    """After the causes, as text; the cell's square mentions it too."""
    heading = window.get_by_role("heading", name=f"1 new warning {causes.WARNED}")
    assert heading.is_visible()
    entry = window.locator("#warnings ~ ol > li")
    assert "FutureWarning in transformers.x" in entry.inner_text()
    assert "the old name <b>goes</b> in 9.0" in entry.inner_text()
    assert "the old name <b>goes</b>" in open_square(window, "clip default").inner_text()


def test_a_click_shows_what_failed_and_folds_what_passed(window):
    """The failed check is open with message, command and script; passed checks are one line until it is opened."""
    dialog = open_square(window, "vit default")
    first = dialog.get_by_role("article").first.inner_text()
    assert "✗ failed" in first
    assert "onnx13" in first
    assert "regressed, was passed" in first
    assert "logits: wrong </script>" in first
    assert 'pytest --pyargs parity.architectures -k "test_traced_sizes[vit-default-onnx13]"' in first
    assert dialog.locator("tbody tr").count() == 0
    dialog.get_by_text("✓ 4 passed").click()
    dialog.locator("tbody tr").nth(3).wait_for()
    assert dialog.locator("tbody tr").count() == 4
    dialog.get_by_text("reproducer vit-default-onnx13-3.py").click()
    assert dialog.get_by_text("it still fails").is_visible()
    assert window.title().startswith("Parity: ")


def test_alike_failures_of_a_square_are_one_entry(chromium, tmp_path):
    """The failures of one cause at ten opsets are listed once; a single cell has its own message."""
    failed = [
        specimens.line("gpt2", opset=opset, check=check, status="failed", error=f"y: error ratio {opset}.5")
        for opset in range(11, 21)
        for check in [f"check_{number}" for number in range(9)]
    ]
    page.write(tmp_path / "page.html", specimens.environment(), failed)
    with screenshots.open_page(chromium, tmp_path / "page.html") as tab:
        open_square(tab, "gpt2 default")
        dialog = tab.get_by_role("dialog")
        (text,) = dialog.get_by_role("article").all_inner_texts()
        assert "onnx11–20" in text
        assert "check_5 and 3 more" in text
        assert "10 messages that differ in names and numbers alone" in text
        dialog.get_by_role("link", name="✗ onnx14").click()
        tab.get_by_role("dialog", name="gpt2-default-onnx14").wait_for()
        (text,) = dialog.get_by_role("article").all_inner_texts()
        assert "error ratio 14.5" in text


@SIZES
@pytest.mark.parametrize("address", ["vit-default", "vit-default-onnx13"])
def test_each_cell_has_an_address(chromium, page_file, width, address):
    """It opens that cell, and the window shows it when the cell is opened by hand; closing removes it."""
    with screenshots.open_page(chromium, page_file, width=width, address=address) as tab:
        dialog = tab.get_by_role("dialog")
        alone = address.endswith("onnx13")
        assert tab.get_by_role("dialog", name="vit-default-onnx13" if alone else "vit default").is_visible()
        assert dialog.locator("[aria-current]").inner_text() == ("✗ onnx13" if alone else "all cells")
        assert dialog.get_by_text("✓ 1 passed" if alone else "✓ 4 passed").is_visible()
        tab.keyboard.press("Escape")
        tab.wait_for_url(re.compile(r"\.html$"))
        open_square(tab, "vit default")
        assert tab.url.endswith("#vit-default")
        dialog.get_by_role("link", name="✓ onnx12").click()
        assert tab.url.endswith("#vit-default-onnx12")
        tab.go_back()
        tab.get_by_role("dialog", name="vit default").wait_for()
        assert tab.url.endswith("#vit-default")


def test_an_address_of_no_cell_says_so(chromium, page_file):
    """In the line that counts the shown cells; hostile text stays text there too."""
    with screenshots.open_page(chromium, page_file, address="bert-default-onnx99<b>") as tab:
        assert tab.get_by_role("status").inner_text() == "#bert-default-onnx99<b>: no such cell on this page"
        assert not tab.get_by_role("dialog").is_visible()


def test_a_deviation_has_its_link(window):
    """To the upstream thread, without the bracket after it."""
    dialog = open_square(window, "bert default")
    assert dialog.get_by_role("article").get_by_role("link").get_attribute("href") == LINK


def test_a_trace_shows_its_verdicts(window):
    """Axis, verdict and sizes."""
    assert "sequence: raises; right at 1; raises at 13" in open_square(window, "bert masked-lm").inner_text()


def test_the_page_works_by_keyboard(window):
    """One cell of each grid is in the tab order; arrows move, also over gaps; Enter opens, Escape returns."""
    window.locator("#grids button[aria-label^='bert default']").focus()
    focused = "document.activeElement.getAttribute('aria-label')"
    window.keyboard.press("ArrowRight")
    assert window.evaluate(focused).startswith("bert masked-lm")
    window.keyboard.press("ArrowDown")
    assert window.evaluate(focused).startswith("roberta masked-lm")
    window.keyboard.press("ArrowLeft")
    assert window.evaluate(focused).startswith("roberta masked-lm")
    before = window.evaluate(focused)
    window.keyboard.press("Enter")
    window.get_by_role("dialog").wait_for()
    window.keyboard.press("Escape")
    assert not window.get_by_role("dialog").is_visible()
    assert window.evaluate(focused) == before
    grids = window.get_by_role("grid").count()
    assert window.locator("#grids td button[tabindex='0']").count() == grids
    window.keyboard.press("Tab")
    assert window.evaluate("document.activeElement.closest('table').rows[0].cells[0].innerText") != "encoder 2"


def test_a_screen_reader_has_names_for_everything(window):
    """Grids, rows, columns, filters, plots and the live count have a role and a name."""
    names = window.get_by_role("grid").evaluate_all("all => all.map(g => g.getAttribute('aria-label'))")
    assert "Architecture × feature: encoder" in names
    assert len(set(names)) == len(names)
    assert window.get_by_role("rowheader", name="bert", exact=True).count() == 1
    assert window.get_by_role("columnheader", name="masked-lm").count() == 2
    assert window.get_by_role("search", name="Filters of the matrix").count() == 1
    for name in ("architecture", "feature", "format", "runtime", "status", "change"):
        assert window.get_by_role("combobox", name=name, exact=True).count() == 1
    assert window.get_by_role("searchbox", name="message").count() == 1
    assert window.get_by_role("spinbutton", name="cause").count() == 1
    assert window.get_by_role("img").count() == 5
    unnamed = "all => all.filter(e => !e.getAttribute('aria-label')).length"
    assert window.get_by_role("img").evaluate_all(unnamed) == 0
    assert window.evaluate("document.documentElement.lang") == "en"


_CONTRAST = """() => {
  const light = (text) => {
    const [r, g, b] = text.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255)
      .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if (colour !== "rgba(0, 0, 0, 0)") return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const of = (element) => {
    const [a, b] = [light(getComputedStyle(element).color), light(behind(element))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  };
  const texts = "h1, h2, h3, p, b, li, pre, span, small, dt, th, td, button, label, input, select, summary, a, code";
  return Math.min(...[...document.querySelectorAll(texts)].filter((e) => e.innerText).map(of));
}"""


@SIZES
@SCHEMES
def test_text_is_readable_in_both_schemes(chromium, page_file, scheme, width):
    """Contrast is 4.5 or more everywhere, also in opened parts; plots use the page's colours."""
    with screenshots.open_page(chromium, page_file, scheme=scheme, width=width) as tab:
        tab.get_by_text("the cells").first.click()
        assert tab.evaluate(_CONTRAST) >= 4.5
        for cell, element in (("bert default", "a"), ("vit default", "code"), ("vit default", "summary")):
            dialog = open_square(tab, cell)
            assert dialog.locator(element).count()
            assert tab.evaluate(_CONTRAST) >= 4.5
            tab.keyboard.press("Escape")
        paper = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 22, 26)"}[scheme]
        ink = tab.evaluate("getComputedStyle(document.querySelector('#ratios svg text')).fill")
        assert ink == tab.evaluate("getComputedStyle(document.body).color")
        bars = "[...document.querySelectorAll('#opsets svg path')].map(p => getComputedStyle(p).fill)"
        probe = (
            "Object.assign(document.body.appendChild(document.createElement('i')), {style: 'color: var(--failed-bar)'})"
        )
        assert tab.evaluate(f"getComputedStyle({probe}).color") in tab.evaluate(bars)


@SIZES
@SCHEMES
def test_nothing_is_wider_than_the_window(chromium, page_file, scheme, width):
    """Neither the page nor an open cell scrolls sideways; the control is an element that is too wide."""
    with screenshots.open_page(chromium, page_file, scheme=scheme, width=width) as tab:
        wide = "[document.documentElement, document.getElementById('detail')].some((e) => e.scrollWidth > innerWidth)"
        assert not tab.evaluate(wide)
        open_square(tab, "vit default")
        assert not tab.evaluate(wide)
        tab.keyboard.press("Escape")
        tab.evaluate("document.querySelector('main').append(element('div', {style: 'width: 2000px; height: 1px'}))")
        assert tab.evaluate(wide)


def test_unreadable_text_would_be_seen(chromium, page_file):
    """The measurement of contrast detects grey on grey."""
    with screenshots.open_page(chromium, page_file) as tab:
        open_square(tab, "bert default")
        for text in (".quiet", "dialog a"):
            tab.evaluate(f"document.querySelector('{text}').style.cssText = 'color: #888; background: #999'")
            assert tab.evaluate(_CONTRAST) < 1.5
            tab.evaluate(f"document.querySelector('{text}').style.cssText = ''")


def test_the_page_asks_the_network_for_nothing(chromium, page_file):
    """One request, for itself; no complaint of the browser; a message stays text, whatever it contains."""
    context = chromium.new_context(offline=True)
    window, requests, complaints = context.new_page(), [], []
    window.on("request", lambda request: requests.append(request.url))
    window.on("console", lambda message: complaints.append(message.text))
    window.on("pageerror", lambda error: complaints.append(str(error)))
    window.goto(page_file.as_uri())
    window.wait_for_selector("html[data-ready]")
    open_square(window, "vit default")
    assert requests == [page_file.as_uri()]
    assert complaints == []
    assert window.title().startswith("Parity: ")
    # The control: another request is detected, and refused by the page's own policy.
    window.evaluate("document.body.append(Object.assign(new Image(), { src: 'https://example.org/x.png' }))")
    window.wait_for_timeout(100)
    assert any("example.org" in text for text in [*requests, *complaints])
    context.close()


def whole(features, architectures=65):
    """One ONNX cell of each architecture and feature."""
    return [specimens.line(f"architecture-{n:02}", each, 17) for n in range(architectures) for each in features]


TASKS = ("default", "masked-lm", "causal-lm", "seq2seq-lm", "token-classification", "question-answering")
FEATURES = [f"{task}{number}{past}" for task in TASKS for number in ("", "-2") for past in ("", "-with-past")]


@SIZES
def test_a_matrix_of_65_by_24_takes_two_screens(chromium, tmp_path, width):
    """All squares filled, one kind, at 1280 × 800; on a phone it scrolls in its own frame."""
    assert len(FEATURES) == 24
    page.write(tmp_path / "page.html", specimens.environment(), whole(FEATURES))
    with screenshots.open_page(chromium, tmp_path / "page.html", width=width, height=800) as tab:
        assert tab.locator("#grids td button").count() == 65 * 24
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert tab.evaluate("document.getElementById('grids').offsetHeight") <= 2 * 800
        # A frame of its own would hide a part of it.
        assert tab.locator(".kind.wide").count() == (width == 390)
        rows = tab.locator("#grids tbody tr").evaluate_all("all => all.map(r => r.offsetHeight)")
        assert max(rows) <= (25 if width == 390 else 20)


@pytest.mark.parametrize(("width", "features"), [(390, TASKS), (390, FEATURES), (1280, TASKS), (1280, FEATURES)])
def test_headers_stay_in_sight(chromium, tmp_path, width, features):
    """Heads of columns and rows, at any scroll position; the control is a head that does not stick."""
    page.write(tmp_path / "page.html", specimens.environment(), whole(features))
    seen = """() => {
      const last = [...document.querySelectorAll("#grids td")].at(-1);
      const heads = [last.closest("table").tHead.rows[0].cells[last.cellIndex], last.parentElement.cells[0]];
      const frame = document.querySelector(".kind.wide");
      if (frame) frame.scrollIntoView();
      last.scrollIntoView({ block: frame ? "nearest" : "center", inline: "nearest" });
      return heads.map((e) => e.getBoundingClientRect())
        .every((b) => b.top >= -1 && b.bottom <= innerHeight && b.left >= -1 && b.left < innerWidth);
    }"""
    with screenshots.open_page(chromium, tmp_path / "page.html", width=width, height=600) as tab:
        assert tab.evaluate(seen)
        tab.evaluate("document.head.append(element('style', {}, '.kind th { position: static !important; }'))")
        assert not tab.evaluate(seen)


def many(failures):
    """10,000 checks in 100 squares, some of them failed, each for a cause of its own."""
    rows = [
        specimens.line(f"model-{number:02}", feature, opset, check)
        for number in range(50)
        for feature in ("default", "masked-lm")
        for opset in range(11, 21)
        for check in [f"check_{index}" for index in range(10)]
    ]
    for number in range(failures):
        word = "".join(chr(97 + int(digit)) for digit in str(number))
        fields = {
            "status": "failed",
            "error": f"word{word} is wrong",
            "cause": {"exception": "ValueError", "place": ""},
        }
        rows[3 * number].update(fields)
    return rows


def test_ten_thousand_rows_with_3000_failures_open_at_once(chromium, tmp_path):
    """Opening builds the squares and ten causes, however many checks failed; the rest is built on demand.

    The time depends on the processor, so it is not tested: `html[data-ready]` has the milliseconds.
    """
    built = {}
    for failures in (30, 3000):
        page.write(tmp_path / "many.html", specimens.environment(), many(failures))
        with screenshots.open_page(chromium, tmp_path / "many.html") as tab:
            assert tab.evaluate("data.rows.cell.length") == 10_000
            assert tab.locator("#grids td button").count() == 100
            assert tab.locator(".causes > li").count() == causes.LISTED
            built[failures] = tab.locator("*").count()
            if failures == 3000:
                tab.get_by_text("and 2,990 causes more, of 2,990 checks").click()
                tab.locator("#cause-3000").wait_for(state="attached")
                # The control: built elements are counted.
                assert tab.locator("*").count() > 3000 + built[3000]
    assert built[3000] == built[30] < 2500


def test_a_link_to_a_cause_beyond_the_largest_unfolds_it(chromium, tmp_path):
    """By its address, as in the dialog of a cell."""
    page.write(tmp_path / "many.html", specimens.environment(), many(30))
    with screenshots.open_page(chromium, tmp_path / "many.html", address="cause-25") as tab:
        entry = tab.locator("#cause-25")
        assert entry.is_visible()
        assert entry.locator(".number").inner_text() == "25"
        entry.get_by_text("the cells").click()
        # The cells are built after the click has been handled.
        entry.get_by_role("link").first.wait_for()
        assert entry.get_by_role("link").count() == 1


def test_the_pictures_of_the_readme_are_taken(chromium, page_file, tmp_path):
    """Three files, none larger than 300 kB."""
    arguments = [
        sys.executable,
        "-m",
        "parity.reports.pages.screenshots",
        str(page_file),
        "--output",
        str(tmp_path / "shots"),
    ]
    subprocess.run(arguments, check=True)
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "shots").iterdir()}
    assert set(sizes) == {"matrix.png", "ratios.png", "checks.png"}
    assert max(sizes.values()) < 300_000
