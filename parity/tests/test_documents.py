"""README, CONTRIBUTING and the pages under docs/: commands and snippets run, tables match the code.

Commands that export, check or trace run here with tiny checkpoints, and so does all Python. `.ci/newcomer` runs the
other commands of README and CONTRIBUTING. What nothing runs as it stands is in `PARSED_ONLY` and `ILLUSTRATIONS`, with
the reason.
"""

import configparser
import contextlib
import importlib
import importlib.util
import io
import itertools
import re
import runpy
import shlex
import shutil
from pathlib import Path

import pytest

from parity import errors
from parity.fixtures.checkpoints import save_checkpoint
from parity.judge.findings import CHECKS

ROOT = Path(__file__).parents[2]
# Pages about earlier versions, and pages that only include others.
APART = ("changes.md", "changelog.md", "contributing.md", "security.md")
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *(path for path in sorted((ROOT / "docs").rglob("*.md")) if path.name not in APART and "_build" not in path.parts),
]
NAMES = [path.relative_to(ROOT).as_posix() for path in PAGES]
# A fenced block: its indentation, its language, its text.
BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:python -m parity|parity|pytest|tox)(?:\.[\w.]+)? [^`]+)`")
# Commands that run here → their modules.
TRIED = {
    "onnx": "parity.onnx.__main__",
    "check": "parity.check",
    "torchscript": "parity.torchscript.__main__",
    "matrix": "parity.architectures.conformance.matrix",
}
# Placeholder in a text → value.
PLACEHOLDERS = {
    "$(python -m parity.fixtures.minilm)": "checkpoint/",
    "CHECKPOINT_DIRECTORY": "checkpoint/",
    "RECORDS": "records.jsonl",
    "*.jsonl": "records.jsonl",
    "DIR_OR_ID": "checkpoint/",
    "…": "",
    # An example of a new declaration.
    "--architecture ernie": "--architecture bert",
}
# Start of a command → why nothing runs it as it stands; its arguments are parsed all the same.
PARSED_ONLY = {
    "pytest -n auto": "selects cells; .ci/run runs all of them, .ci/newcomer a part",
    "pytest --dist load": "needs two other machines",
    "pytest --pyargs parity.architectures": "reports/test_third_party.py runs it for a package that it writes",
    "python -m parity.reports": "needs the records of a run; reports/test_*.py run each action, .ci/newcomer the page",
    "python -m parity.neuron": "needs the SDK; test_neuron.py runs it with --emulate",
    "parity benchmarks": "takes minutes on a quiet machine, and another environment",
    "pip install parity[test] @ git+": "the address is left to the reader",
    "pip install torch==1.13.1": "needs Python 3.10; tox -e inf1 installs these versions",
    "pip install --extra-index-url": "needs AWS's repository of packages",
    "pip install --no-deps -e .": "goes with the two commands before it",
    "pip install pytest": "goes with the three commands before it",
}
# Start of a block of text or TOML → what it is compared with, or why with nothing.
ILLUSTRATIONS = {
    "Pooling, Normalize of modules.json: ": "test_minilm.py compares it with what the command prints",
    "R = √(": "a formula",
    "axis sequence: the file is right if": "test_the_sentence_about_a_fixed_length_is_the_judges",
    "At other sizes:": "a BigBird of 64 tokens; test_torchscript_verdicts.py has the table of a small one",
    '[project.entry-points."parity.architectures"]': "test_the_entry_point_is_the_one_that_is_read",
}


def blocks(text):
    """Language and text without its indentation of each fenced block."""
    for indentation, language, body in (match.groups() for match in BLOCK.finditer(text)):
        yield language, "".join(line.removeprefix(indentation) for line in body.splitlines(keepends=True))


def commands(text):
    """The words of each command in a shell block, without assignments before it."""
    for line in text.replace("\\\n", " ").splitlines():
        for part in line.split(" && "):
            for placeholder, value in PLACEHOLDERS.items():
                part = part.replace(placeholder, value)
            words = shlex.split(part, comments=True)
            while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
                words = words[1:]
            if words:
                yield words


def shell(words):
    """The command of Parity and its arguments in the words of a shell command; None for other programs."""
    if words[:2] == ["python", "-m"] and words[2].startswith("parity."):
        return words[2].removeprefix("parity."), words[3:]
    return (words[1], words[2:]) if words[0] == "parity" and len(words) > 1 else None


def refusal(parse, arguments):
    """The error of argparse about arguments; empty if it accepts them."""
    told = io.StringIO()
    with contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()):
        try:
            parse(arguments)
        except SystemExit as end:
            return told.getvalue() if end.code else ""
    return ""


def pytest_refusal(config, arguments):
    """The options that pytest with our plug-ins does not have, and the paths that do not exist."""
    options, unknown = config._parser.parse_known_and_unknown_args(arguments)
    paths = [] if options.pyargs else [path.partition("::")[0] for path in options.file_or_dir]
    return " ".join([*unknown, *(path for path in paths if not (ROOT / path).exists())])


PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def pip_refusal(arguments):
    """The missing extras and files in the arguments of an installation."""
    extras = [each for word in arguments for group in re.findall(r"\[([\w,]+)\]", word) for each in group.split(",")]
    ours = any(word.startswith((".", "parity[")) for word in arguments)
    unknown = [extra for extra in extras if ours and not re.search(rf"^{extra} = \[", PROJECT, re.MULTILINE)]
    files = [after for word, after in itertools.pairwise(arguments) if word in ("-c", "-r")]
    return " ".join([*unknown, *(file for file in files if not (ROOT / file).is_file())])


def tox_refusal(arguments):
    """The environments that tox.ini does not have."""
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini")
    names = [after for word, after in itertools.pairwise(arguments) if word == "-e"]
    return " ".join(name for name in names if f"testenv:{name}" not in tox)


def complaint(words, config):
    """The error in a command, as far as it shows without running it; empty if there is none."""
    ours = shell(words)
    if ours:
        name, arguments = ours
        module = {**TRIED, "reports": "parity.reports.__main__", "benchmarks": "parity.reports.measuring.benchmarks"}
        module["neuron"] = "parity.neuron.__main__"
        if name == "--version" or name == "--help":
            return ""
        if name == "matrix":
            return refusal(importlib.import_module(module[name]).main, arguments)
        if name in module:
            return refusal(importlib.import_module(module[name]).parser().parse_args, arguments)
        # A module that is run with `python -m` must exist.
        return "" if importlib.util.find_spec(f"parity.{name}") else f"parity.{name}: no such module"
    others = {
        "pytest": lambda: pytest_refusal(config, words[1:]),
        "pip": lambda: pip_refusal(words[1:]),
        "uv": lambda: pip_refusal(words[1:]),
        "tox": lambda: tox_refusal(words[1:]),
        "pre-commit": lambda: "" if words[1] in ("install", "run") else words[1],
        "sphinx-build": lambda: "",
    }
    return others.get(words[0], lambda: f"{words[0]}: no test knows this command")()


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_each_command_has_arguments_that_exist(page, pytestconfig):
    """In shell blocks, and in the text."""
    text = page.read_text(encoding="utf-8")
    lines = [body for language, body in blocks(text) if language == "bash"]
    complaints = {" ".join(words): complaint(words, pytestconfig) for line in lines for words in commands(line)}
    # In the text a command may omit required arguments.
    for words in commands("\n".join(" ".join(inline.split()) for inline in INLINE.findall(text))):
        told = complaint(words, pytestconfig)
        complaints[" ".join(words)] = "" if "arguments are required" in told else told
    assert {command: told for command, told in complaints.items() if told} == {}


@pytest.mark.parametrize(
    "command",
    [
        "parity onnx --modell=checkpoint/ onnx/",
        "parity onnx onnx/",
        "parity matrix --opset 99",
        "python -m parity.reports --accept --drop five",
        "parity benchmarks exports",
        "python -m parity.nothing",
        "pytest --sharde 2/4",
        "pytest parity/tests/test_nothing.py",
        "pip install -e '.[tests]'",
        "pip install -c constraint.txt .",
        "tox -e doc",
        "make all",
    ],
)
def test_a_wrong_command_is_seen(command, pytestconfig):
    """The control: a nonexistent option, value, module, path, extra, environment and program."""
    (words,) = commands(command)
    assert complaint(words, pytestconfig)


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """A directory with the exports of the pages: `checkpoint/`, `encoder-decoder/`, and a file of the first."""
    from parity.onnx.__main__ import main

    directory = tmp_path_factory.mktemp("originals")
    save_checkpoint(directory / "checkpoint", "distilbert", "masked-lm")
    save_checkpoint(directory / "encoder-decoder", "t5", "seq2seq-lm")
    assert main([f"--model={directory / 'checkpoint'}", "--quiet", str(directory / "export")]) == 0
    shutil.move(directory / "export" / "model.onnx", directory / "model.onnx")
    shutil.rmtree(directory / "export")
    return directory


def prepare_torchscript(namespace):
    """The names that the page's Python needs: a model, its inputs, and two traces of it."""
    from transformers import AutoModel, AutoTokenizer

    from parity.torchscript import export

    model = AutoModel.from_pretrained("checkpoint", attn_implementation="eager").eval()
    tokenizer = AutoTokenizer.from_pretrained("checkpoint")
    texts = ["w1 w2 w3", "w4 w5"]
    for length, path in ((8, "model64.pt"), (16, "model128.pt")):
        encoded = tokenizer(texts, padding="max_length", max_length=length, return_tensors="pt")
        inputs = {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}
        export(model, inputs, path)
    named = {"ids": inputs["input_ids"], "mask": inputs["attention_mask"]}
    namespace.update(model=model, tokenizer=tokenizer, texts=texts, **named)


def prepare_neuron(namespace):
    """The same, with torch in place of the SDK, which is not installed."""
    import functools

    import parity.neuron

    prepare_torchscript(namespace)
    Path("neuron").mkdir()
    for length, tokens in ((64, 8), (128, 16)):
        inputs = [namespace["ids"][:1, :tokens], namespace["mask"][:1, :tokens]]
        parity.neuron.trace(namespace["model"], inputs, f"neuron/model-{length}.pt", emulate=True)
    namespace["tokens_tensor"], namespace["segments_tensors"] = inputs
    return {"trace": functools.partial(parity.neuron.trace, emulate=True)}


PREPARATIONS = {"docs/torchscript.md": prepare_torchscript, "docs/neuron.md": prepare_neuron}


def run_page(page, namespace):
    """Run the commands and the Python of a page in the working directory; compare the output with the page."""
    printed, count = "", 0
    for language, body in blocks(page.read_text(encoding="utf-8")):
        if language == "bash":
            for words in commands(body):
                name, arguments = shell(words) or ("", [])
                if name in TRIED:
                    main = importlib.import_module(TRIED[name]).main
                    assert main(arguments) == 0, words
                    count += 1
        elif language == "python":
            output = io.StringIO()
            with contextlib.redirect_stdout(output):
                exec(compile(body, str(page), "exec"), namespace)
            printed, count = output.getvalue(), count + 1
        elif printed and language == "text":
            assert printed == body
            printed = ""
    return count


RUNNING = [path for path in PAGES if re.search(r"^ *```(python|bash)", path.read_text(encoding="utf-8"), re.MULTILINE)]


@pytest.mark.parametrize("page", RUNNING, ids=[path.relative_to(ROOT).as_posix() for path in RUNNING])
def test_each_snippet_runs(page, originals, tmp_path, monkeypatch):
    """Each page from top to bottom, in a directory with tiny checkpoints; shown output is compared."""
    shutil.copytree(originals, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    namespace = {"__name__": "page"}
    prepare = PREPARATIONS.get(page.relative_to(ROOT).as_posix(), lambda namespace: {})
    for name, value in (prepare(namespace) or {}).items():
        monkeypatch.setattr(importlib.import_module("parity.neuron"), name, value, raising=False)
    run_page(page, namespace)


@pytest.mark.parametrize(
    "text",
    [
        "```bash\nparity check checkpoint/ missing.onnx\n```\n",
        "```python\nfrom parity.onnx import exprt\n```\n",
        "```python\nprint(1)\n```\n\n```text\n2\n```\n",
    ],
    ids=["command", "import", "output"],
)
def test_a_wrong_snippet_is_seen(text, originals, tmp_path, monkeypatch):
    """The control: a failing command, a name that does not exist, other output than shown."""
    (tmp_path / "page.md").write_text(text)
    monkeypatch.chdir(originals)
    with pytest.raises((AssertionError, ImportError)):
        run_page(tmp_path / "page.md", {})


def newcomer_commands():
    """The commands of README and CONTRIBUTING: those that `.ci/newcomer` runs, and those that it leaves out."""
    script = runpy.run_path(str(ROOT / ".ci" / "newcomer"))
    texts = [text for name in ("README.md", "CONTRIBUTING.md") for language, text in script["blocks"](name)]
    left_out = [line for text in texts for line in text.splitlines() if line.startswith(tuple(script["NOT_RUN"]))]
    run = script["commands"]("README.md", "CONTRIBUTING.md")
    return tuple({" ".join(words) for line in lines for words in commands(line)} for lines in (run, left_out))


def never_run(pages):
    """The commands and the texts of pages that nothing runs or compares, and the exemptions that no page needs."""
    (run, left_out), unknown, needed = newcomer_commands(), [], set()
    for page in pages:
        elsewhere = run | (left_out if page.parent == ROOT else set())
        printed = False
        for language, body in blocks(page.read_text(encoding="utf-8")):
            if language == "bash":
                lines = [" ".join(words) for words in commands(body) if (shell(words) or ("",))[0] not in TRIED]
                for line in lines:
                    starts = [start for start in PARSED_ONLY if line.startswith(start) and line not in elsewhere]
                    needed |= {*starts}
                    unknown += [] if starts or line in elsewhere else [line]
            elif language != "python" and not (printed and language == "text"):
                starts = [start for start in ILLUSTRATIONS if body.startswith(start)]
                needed |= {*starts}
                unknown += [] if starts else [body.splitlines()[0]]
            printed = language == "python"
    return unknown, [each for each in (*PARSED_ONLY, *ILLUSTRATIONS) if each not in needed]


def test_each_block_is_run_or_has_a_reason():
    """Every fenced command, snippet and text of README, CONTRIBUTING and the pages; no reason is left over."""
    assert never_run(PAGES) == ([], [])


@pytest.mark.parametrize(
    ("text", "unknown"),
    [
        ("```bash\npython -m parity.fixtures.published\n```\n", "python -m parity.fixtures.published"),
        ("```bash\npytest parity/tests\n```\n", "pytest parity/tests"),
        ("```text\nAll good\n```\n", "All good"),
        ("```toml\n[tool.parity]\n```\n", "[tool.parity]"),
    ],
)
def test_a_block_that_nothing_runs_is_found(text, unknown, tmp_path):
    """The control; on a page with one block, all reasons are left over."""
    (tmp_path / "page.md").write_text(text)
    assert never_run([tmp_path / "page.md"]) == ([unknown], [*PARSED_ONLY, *ILLUSTRATIONS])


def test_the_sentence_about_a_fixed_length_is_the_judges():
    """The page on `parity check` shows what the judge says of a file that is right at the length of the export only."""
    from parity.causes import cause_of
    from parity.judge.findings import Finding
    from parity.samples import Sample

    text = (ROOT / "docs" / "check.md").read_text(encoding="utf-8")
    (shown,) = [body for language, body in blocks(text) if body.startswith("axis sequence")]
    samples = [Sample({"batch": 2, "sequence": length}, "", {}) for length in (5, 8, 13)]
    findings = [Finding("ratio", "o", each.sizes["sequence"] == 8, "wrong", str(each)) for each in samples]
    assert shown == cause_of(findings, samples, {"batch": 2, "sequence": 8}, {}) + "\n"


def test_the_entry_point_is_the_one_that_is_read():
    """The group in which the page lets other packages declare architectures."""
    from parity.registry import ENTRY_POINT

    text = (ROOT / "docs" / "adding-an-architecture.md").read_text(encoding="utf-8")
    (body,) = [body for language, body in blocks(text) if language == "toml"]
    assert body.splitlines()[0] == f'[project.entry-points."{ENTRY_POINT}"]'


def test_the_readme_is_short():
    """At most 200 lines: what Parity is, and links to the rest."""
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


def table_of_checks(text):
    """Check → its exception, from the table on the page about the judge."""
    rows = re.findall(r"^\| `(\w+)` \| .+ \| `(\w+)` \|$", text, re.MULTILINE)
    return dict(rows)


def test_the_table_of_checks_is_complete():
    """Every check with its exception, in the order of the code."""
    text = (ROOT / "docs" / "judge.md").read_text(encoding="utf-8")
    assert list(table_of_checks(text).items()) == [(name, error.__name__) for name, error in CHECKS.items()]
    assert all(hasattr(errors, name) for name in table_of_checks(text).values())


def table_of_hostile_cases(text):
    """Entry point → cases in the sample and in all, from the table on the page about hostile input."""
    rows = re.findall(r"^\| ([\w: ]+) \| .* \| ([\d,]+) \| ([\d,]+) \|$", text, re.MULTILINE)
    return {name: tuple(int(count.replace(",", "")) for count in counts) for name, *counts in rows}


def test_the_table_of_hostile_cases_is_that_of_the_tests():
    """Every entry point with its counts, and the sums."""
    from parity.tests import test_fuzz, test_fuzz_processes

    table = table_of_hostile_cases((ROOT / "docs" / "hostile.md").read_text(encoding="utf-8"))
    counts = {name: tuple(n * test_fuzz.BLOCK for n in blocks) for name, blocks in test_fuzz.ENTRANCES.items()}
    counts |= {f"processes: {kind}": test_fuzz_processes.COUNTS for kind in test_fuzz_processes.KINDS}
    total = tuple(map(sum, zip(*counts.values(), strict=True)))
    assert table == {**counts, "together": total}
    assert table_of_hostile_cases("| json | any | 40 | 1,800 |") == {"json": (40, 1800)}


def members(text):
    """The members of a configuration in the table on its page."""
    rows = re.findall(
        r"^\| (`.+?`) \| (?:.* )?\| .* \|$", text.partition("What a configuration can say")[2], re.MULTILINE
    )
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def test_the_table_of_configurations_has_every_member():
    """Everything that a subclass of OnnxConfig may override, but not methods that are only called."""
    from parity.onnx import OnnxConfig

    text = (ROOT / "docs" / "configurations.md").read_text(encoding="utf-8").partition("OnnxConfigWithPast` adds")[0]
    calls = {"from_model_config", "use_external_data_format", "is_torch_support_available", "patch_ops", "restore_ops"}
    calls |= {"flatten_output_collection_property", "generate_dummy_inputs_onnxruntime"}
    public = {name for name in vars(OnnxConfig) if not name.startswith("_") and "fixed" not in name}
    constants = {"part", "torch_onnx_minimum_version"}
    assert members(text) - {"patching_specs"} == public - calls - constants
    assert members(text.replace("| `axis_sizes` |", "| `axis` |")) != members(text)


def test_what_is_included_exists():
    """Pages whose source is at the top of the repository."""
    for name in ("CONTRIBUTING", "CHANGELOG", "SECURITY"):
        text = (ROOT / "docs" / f"{name.lower()}.md").read_text(encoding="utf-8")
        assert f"{{include}} ../{name}.md" in text
        assert (ROOT / f"{name}.md").is_file()
