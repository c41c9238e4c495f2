"""The page says what the records say, needs nothing but itself, and works in a browser by keyboard, light and dark."""

import json
import re
import subprocess
import sys
from math import inf

import pytest

from parity import records
from parity.fixtures.controls import specimens
from parity.reports import __main__ as command
from parity.reports.gate import causes
from parity.reports.gate.changes import WORST
from parity.reports.pages import page, plots, screenshots

LINK = "https://github.com/pytorch/pytorch/issues/1"
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
    ]


@pytest.fixture(scope="session")
def page_file(tmp_path_factory):
    """The page of `lines`, with a run before it and a reproducer."""
    directory = tmp_path_factory.mktemp("page")
    (directory / "reproductions").mkdir()
    (directory / "reproductions" / "vit-default-onnx13-3.py").write_text("print('it still fails')\n")
    for name in ("other-default-onnx13", "vit-default-onnx12"):
        (directory / "reproductions" / f"{name}-3.py").write_text("print('of another run')\n")
    records.write(directory / "new.jsonl", specimens.environment(), lines())
    records.write(directory / "old.jsonl", specimens.environment(transformers="4.46.3"), specimens.run())
    output = directory / "report.html"
    arguments = [str(directory / "new.jsonl"), "--history", str(directory / "old.jsonl"), "--output", str(output)]
    assert command.main(arguments) == 0
    return output


def read_data(path):
    """The data within a page."""
    text = path.read_text(encoding="utf-8")
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])


def test_every_record_is_in_the_page(page_file):
    """Its rows are the records, one for one; infinite ratios are told in a word."""
    data = read_data(page_file)
    rows = [
        (data["cells"][cell]["id"], data["checks"][check], WORST[status])
        for cell, check, status in zip(*(data["rows"][name] for name in ("cell", "check", "status")), strict=True)
    ]
    assert rows == [(line["id"], line["check"], line["status"]) for line in lines()]
    assert "inf" in data["rows"]["ratio"]


def test_only_reproducers_of_these_cells_are_in_the_page(page_file):
    """One that an older run left, for another cell or for one that passes now, is not."""
    assert read_data(page_file)["scripts"] == {
        "vit-default-onnx13": [["vit-default-onnx13-3.py", "print('it still fails')\n"]]
    }


def test_the_summary_names_what_is_not_passed(page_file):
    """Counts, then each status with its cells and messages, the worst first; nothing of what passed."""
    text = page_file.with_suffix(".md").read_text(encoding="utf-8")
    headings = [text.index(f"## {status}: ") for status in ("failed", "error", "xpassed", "xfailed", "skipped")]
    assert headings == sorted(headings)
    assert "`bert-default-onnx12` traced_sizes: the length is fixed" in text
    assert LINK in text
    assert "## passed" not in text
    assert f"{len(lines())} checks" in text


def test_the_summary_folds_opsets_with_one_message():
    """Three opsets are one line; another message is another."""
    seeded = [specimens.line(opset=opset, status="failed") for opset in (11, 12, 13)]
    seeded.append(specimens.line(opset=14, status="failed", error="else"))
    assert page.problems(seeded) == {
        "failed": [
            "`bert-default-onnx11–13` traced_sizes: logits: 2 of 12 values differ",
            "`bert-default-onnx14` traced_sizes: else",
        ]
    }


def test_each_plot_has_what_is_on_record():
    """The figures under the plots are those of the records."""
    runs = [(specimens.environment(), specimens.run())]
    by_name = {plot.name: plot for plot in plots.all_plots(specimens.environment(), lines(), runs)}
    assert all(plot.svg.startswith("<svg ") for plot in by_name.values())
    assert ("vit", "0.8", "0.8", "0.8", 7) in by_name["ratios"].rows
    assert (12, 0, 0, 0, 1, 1, 0) in by_name["opsets"].rows
    assert by_name["verdicts"].rows == [("sequence", 1)]
    assert len(by_name["history"].rows) == 2
    assert by_name["costs"].rows[0][1:] == ("0.50", 600)


def test_error_ratios_are_on_a_log_scale(monkeypatch):
    """Time and memory too, and no count is."""
    kinds = []
    monkeypatch.setattr(plots, "_svg", lambda figure, axes: kinds.append(axes.get_xscale()) or "")
    found = plots.all_plots(specimens.environment(), lines(), [(specimens.environment(), specimens.run())])
    scales = dict(zip((plot.name for plot in found), kinds, strict=True))
    assert {name for name, scale in scales.items() if scale == "log"} == {"ratios", "costs"}


def test_plots_of_nothing_say_so():
    """Records without ratios, verdicts, ONNX cells or an earlier run have a sentence in the place of a plot."""
    bare = [specimens.line(format="neuron", opset=None, outputs={}, peak=None)]
    del bare[0]["peak"]
    by_name = {plot.name: plot for plot in plots.all_plots(specimens.environment(), bare)}
    assert {name for name, plot in by_name.items() if not plot.svg} == {"ratios", "opsets", "verdicts", "history"}
    assert all(plot.caption.endswith(".") for plot in by_name.values())


def test_equal_records_make_equal_pages(page_file, tmp_path):
    """Nothing in it is of the moment or of the machine it was made on."""
    sources = page_file.parent
    again = ["--history", str(sources / "old.jsonl"), "--output", str(sources / "again.html")]
    assert command.main([str(sources / "new.jsonl"), *again]) == 0
    assert (sources / "again.html").read_bytes() == page_file.read_bytes()


def test_the_command_of_a_check_finds_it():
    """With the options that made the cells of the run; without them there is no emulated cell."""
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
    """The summary goes beside it as .md: one of them would be lost."""
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


# From here on in a real browser.


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
    """The page in a window, with all it asks the network for and all it complains about."""
    with screenshots.open_page(chromium, page_file) as tab:
        yield tab


_BACKGROUND = "element => getComputedStyle(element).backgroundColor"


def buttons(window):
    """Architecture, feature and status of every cell of the matrix."""
    return window.locator("#matrix td button").evaluate_all("all => all.map(b => b.getAttribute('aria-label'))")


def test_the_matrix_has_the_worst_status_of_each_cell(window):
    """Colour, symbol and label of architecture × feature; its opsets inside."""
    labels = {label.partition(":")[0]: label for label in buttons(window)}
    assert set(labels) == {
        "bert default",
        "bert masked-lm",
        "roberta masked-lm",
        "vit default",
        "vit masked-lm",
        "gpt2 default",
        "t5 default",
        "whisper default",
    }
    assert labels["bert default"] == "bert default: xfailed; opsets 11–13, sdpa; 7 checks"
    assert labels["vit default"].startswith("vit default: failed; opsets 11–13;")
    assert labels["bert masked-lm"] == "bert masked-lm: passed; torchscript; 1 checks"
    colours = {
        name: window.locator(f"#matrix button[aria-label^='{name}']").evaluate(_BACKGROUND)
        for name in ("bert default", "vit default", "gpt2 default", "t5 default", "whisper default", "bert masked-lm")
    }
    assert len(set(colours.values())) == len(WORST)
    legend = {status: window.locator(f".counts td.{status}").evaluate(_BACKGROUND) for status in WORST}
    assert colours["vit default"] == legend["failed"]
    assert colours["bert default"] == legend["xfailed"]
    assert colours["bert masked-lm"] == legend["passed"]
    vit = window.get_by_role("gridcell").filter(has_text="✗").locator("button")
    assert vit.locator(".strokes i").evaluate_all("all => all.map(i => i.className)") == ["passed", "passed", "failed"]


@pytest.mark.parametrize(
    ("name", "value", "labels"),
    [
        ("architecture", "bert", {"bert default", "bert masked-lm", "roberta masked-lm"}),
        ("feature", "masked-lm", {"bert masked-lm", "roberta masked-lm", "vit masked-lm"}),
        ("format", "torchscript", {"bert masked-lm"}),
        ("format", "neuron", {"roberta masked-lm", "vit masked-lm"}),
        ("runtime", "torch", {"bert masked-lm"}),
        ("runtime", "neuron", {"roberta masked-lm"}),
        ("runtime", "emulation", {"vit masked-lm"}),
        ("status", "failed", {"vit default"}),
        ("status", "xfailed", {"bert default"}),
    ],
)
def test_each_filter_leaves_what_matches(window, name, value, labels):
    """And the button beside them brings all back."""
    everything = buttons(window)
    field = window.locator(f"[name={name}]")
    field.fill(value) if name == "architecture" else field.select_option(value)
    assert {label.partition(":")[0] for label in buttons(window)} == labels
    assert f"{len(labels)} architecture × feature" in window.get_by_role("status").inner_text()
    window.get_by_role("button", name="all").click()
    window.locator("#matrix td button").nth(len(everything) - 1).wait_for()
    assert buttons(window) == everything


def test_a_click_shows_rows_error_and_reproducer(window):
    """The failed check first, with its message, the command that runs it again, and the script that was left."""
    window.get_by_label("vit default: failed").click()
    dialog = window.get_by_role("dialog", name="vit default")
    rows = dialog.locator("tbody tr")
    assert rows.count() == 6
    first = rows.first.inner_text()
    assert "vit-default-onnx13" in first
    assert "✗ failed" in first
    assert "logits: wrong </script>" in first
    assert 'pytest --pyargs parity.architectures -k "test_traced_sizes[vit-default-onnx13]"' in first
    dialog.get_by_text("reproducer vit-default-onnx13-3.py").click()
    assert dialog.get_by_text("it still fails").is_visible()
    assert window.title().startswith("Parity: ")


def test_a_deviation_has_its_link(window):
    """The thread upstream, without the bracket after it."""
    window.get_by_label("bert default: xfailed").click()
    assert window.get_by_role("dialog").get_by_role("link").get_attribute("href") == LINK


def test_a_trace_shows_its_verdicts(window):
    """Axis, verdict and the sizes that show it."""
    window.get_by_label("bert masked-lm").click()
    assert "sequence: raises; right at 1; raises at 13" in window.get_by_role("dialog").inner_text()


def test_the_page_works_by_keyboard(window):
    """One cell is in the tab order; arrows move, over gaps too; Enter opens, Escape closes and comes back."""
    window.locator("#filters button").focus()
    window.keyboard.press("Tab")
    focused = "document.activeElement.getAttribute('aria-label')"
    assert window.evaluate(focused).startswith("bert default")
    window.keyboard.press("ArrowRight")
    assert window.evaluate(focused).startswith("bert masked-lm")
    window.keyboard.press("ArrowLeft")
    for _ in range(3):
        window.keyboard.press("ArrowDown")
    assert window.evaluate(focused).startswith("vit default")
    before = window.evaluate(focused)
    window.keyboard.press("Enter")
    assert window.get_by_role("dialog").is_visible()
    window.keyboard.press("Escape")
    assert not window.get_by_role("dialog").is_visible()
    assert window.evaluate(focused) == before
    assert window.locator("#matrix td button[tabindex='0']").count() == 1


def test_a_screen_reader_has_names_for_everything(window):
    """Grid, rows, columns, filters, plots and the live count have a role and a name."""
    assert window.get_by_role("grid", name="Architecture × feature").count() == 1
    assert window.get_by_role("rowheader", name="bert", exact=True).count() == 1
    assert window.get_by_role("columnheader", name="masked-lm").count() == 1
    assert window.get_by_role("search", name="Filters of the matrix").count() == 1
    for name in ("architecture", "feature", "format", "runtime", "status"):
        assert window.get_by_role("combobox", name=name, exact=True).count() == 1
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
  const texts = "h1, h2, p, th, td, button, label, input, select, summary, a, code, pre, dialog div";
  return Math.min(...[...document.querySelectorAll(texts)].map(of));
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_in_both_schemes(chromium, page_file, scheme):
    """Contrast of 4.5 or more everywhere, in what a click opens too; the two schemes differ, also within the plots."""
    with screenshots.open_page(chromium, page_file, scheme=scheme) as tab:
        assert tab.evaluate(_CONTRAST) >= 4.5
        for cell, element in (
            ("bert default", "a"),
            ("vit default: failed", "code"),
            ("vit default: failed", "summary"),
        ):
            tab.get_by_label(cell).click()
            assert tab.get_by_role("dialog").locator(element).count()
            assert tab.evaluate(_CONTRAST) >= 4.5
            tab.keyboard.press("Escape")
        paper = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(22, 22, 22)"}[scheme]
        ink = tab.evaluate("getComputedStyle(document.querySelector('#ratios svg text')).fill")
        assert ink == tab.evaluate("getComputedStyle(document.body).color")


def test_unreadable_text_would_be_seen(chromium, page_file):
    """The measure of contrast sees grey on grey."""
    with screenshots.open_page(chromium, page_file) as tab:
        tab.get_by_label("bert default").click()
        for text in (".hint", "dialog a"):
            tab.evaluate(f"document.querySelector('{text}').style.cssText = 'color: #888; background: #999'")
            assert tab.evaluate(_CONTRAST) < 1.5
            tab.evaluate(f"document.querySelector('{text}').style.cssText = ''")


def test_the_page_asks_the_network_for_nothing(chromium, page_file):
    """One request, for itself; no complaint of the browser; a message is text, whatever is in it."""
    context = chromium.new_context(offline=True)
    window, requests, complaints = context.new_page(), [], []
    window.on("request", lambda request: requests.append(request.url))
    window.on("console", lambda message: complaints.append(message.text))
    window.on("pageerror", lambda error: complaints.append(str(error)))
    window.goto(page_file.as_uri())
    window.wait_for_selector("html[data-ready]")
    window.get_by_label("vit default: failed").click()
    assert requests == [page_file.as_uri()]
    assert complaints == []
    assert window.title().startswith("Parity: ")
    # The control: a page that wants more is seen, and is refused by its own policy.
    window.evaluate("document.body.append(Object.assign(new Image(), { src: 'https://example.org/x.png' }))")
    window.wait_for_timeout(100)
    assert any("example.org" in text for text in [*requests, *complaints])
    context.close()


def test_ten_thousand_rows_open_in_two_seconds(chromium, tmp_path):
    """From the call to a matrix that answers; the best of three, since others use this machine too."""
    many = [
        specimens.line(f"model-{number:02}", feature, opset, check)
        for number in range(50)
        for feature in ("default", "masked-lm")
        for opset in range(11, 21)
        for check in [f"check_{index}" for index in range(10)]
    ]
    assert len(many) == 10_000
    page.write(tmp_path / "many.html", specimens.environment(), many)
    took = []
    for _ in range(3):
        with screenshots.open_page(chromium, tmp_path / "many.html") as window:
            assert window.locator("#matrix td button").count() == 100
            took.append(int(window.evaluate("document.documentElement.dataset.ready")))
    assert min(took) < 2000


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
