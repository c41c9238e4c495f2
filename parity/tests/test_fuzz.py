"""Hostile cases from seeds for all entry points: a sample in every run, and all with `pytest -m fuzz`.

A case passes if it succeeds, or is refused by one of our errors in one clear sentence. It must keep existing files,
and leave no partial ones. Case N of an entry point is the same on every machine.
"""

import contextlib
import io
import json
import os
import random
import shutil
import sys
import zipfile
from pathlib import Path

import onnx
import pytest

from parity import archives, publication, records, schema, stages
from parity.errors import ParityError
from parity.files import replace_text, staging_directory
from parity.fixtures import subjects
from parity.fixtures.checkpoints import save_checkpoint
from parity.fixtures.controls import mutations, specimens
from parity.judge import contract
from parity.publication import Publication
from parity.reports import __main__ as reports
from parity.reports.gate import baseline

pytestmark = pytest.mark.fuzz

BLOCK = 40
# Entry point → blocks in the sample, and in all.
ENTRANCES = {
    "json": (1, 20),
    "declarations": (1, 40),
    "archives": (1, 25),
    "requests": (1, 30),
    "records": (2, 35),
    "tables": (1, 25),
    "graphs": (1, 30),
    "checkpoints": (1, 20),
    "options": (1, 20),
    "arguments": (1, 20),
    "publications": (1, 15),
}


def pytest_generate_tests(metafunc):
    if "block" in metafunc.fixturenames:
        whole = "fuzz" in (metafunc.config.option.markexpr or "")
        blocks = [(name, number) for name, counts in ENTRANCES.items() for number in range(counts[whole])]
        metafunc.parametrize("block", blocks, ids=[f"{name}-{number}" for name, number in blocks])


class Place:
    """Inputs that all cases of an entry point share, created once, and a directory for each."""

    def __init__(self, directory):
        self.root = directory
        self._made = {}

    def once(self, make):
        if make.__name__ not in self._made:
            (self.root / make.__name__).mkdir()
            self._made[make.__name__] = make(self.root / make.__name__)
        return self._made[make.__name__]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The place of this module's cases."""
    return Place(tmp_path_factory.mktemp("fuzz"))


def traced(directory):
    """A small TorchScript file."""
    from parity.torchscript import export

    subject = subjects.subject("bert", "default")
    export(subject.model, subject.source.dummy, directory / "model.pt", prove=False)
    return directory / "model.pt"


def runner(directory):
    """A Runner of a small trace."""
    from parity.torchscript import Runner

    return Runner(traced(directory))


def checkpoint(directory):
    """A tiny checkpoint."""
    save_checkpoint(directory, "bert")
    return directory


def graph(directory):
    """A small ONNX file, as a message."""
    subject = subjects.subject("bert", "default")
    subjects.artifact(subject, 17, directory / "model.onnx", "eager")
    return onnx.load(str(directory / "model.onnx"))


def run_json(draw, directory, place):
    """Any JSON text in a file."""
    path = directory / "x.json"
    path.write_text(mutations.json_text(specimens.line(), draw), encoding="utf-8", errors="surrogatepass")
    schema.read_json(path, constants=draw.random() < 0.5)


def run_declarations(draw, directory, place):
    """The declaration in a TorchScript file; only accepted files are loaded, and they are small."""
    from parity.torchscript import model

    path = directory / "model.pt"
    with zipfile.ZipFile(place.once(traced)) as old, zipfile.ZipFile(path, "w") as new:
        content = next(old.read(name) for name in old.namelist() if name.endswith(f"/extra/{archives.FACTS}"))
        new.writestr(f"model/extra/{archives.FACTS}", mutations.json_text(json.loads(content), draw))
    facts = model.declaration_of(path)
    archives.read_owner(path)
    if sum(len(value["shape"]) and max(value["shape"]) for value in facts["inputs"]) < 1000:
        model.fields_of(facts)


def run_archives(draw, directory, place):
    """The bytes of a TorchScript file."""
    from parity.torchscript import model

    path = directory / "model.pt"
    path.write_bytes(mutations.change_bytes(place.once(traced).read_bytes(), draw))
    archives.read_owner(path)
    model.declaration_of(path)


def run_requests(draw, directory, place):
    """Requests to a Runner."""
    import torch

    run = place.once(runner)
    good = torch.ones(2, 8, dtype=torch.int64)
    request = dict.fromkeys(("input_ids", "attention_mask", "token_type_ids"), good)
    for _ in range(draw.randint(1, 2)):
        request[draw.choice((*request, 3, "x"))] = mutations.argument(draw, good)
    run(mutations.argument(draw) if draw.randrange(8) == 0 else request)


def run_command(directory, main, arguments):
    """Run a command in that directory; an unexpected exception fails the test."""
    out, err, before = io.StringIO(), io.StringIO(), os.getcwd()
    os.chdir(directory)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main([*map(str, arguments)])
    except SystemExit as stop:
        status = stop.code
    finally:
        os.chdir(before)
    text = err.getvalue()
    assert "Traceback" not in text, text
    assert "PARITY_TRACEBACK" not in text, text
    assert status in (0, 1, 2), status
    assert (status == 2) <= ("error: " in text), text
    return status


def run_records(draw, directory, place):
    """Records, through every action of the gate."""
    lines = [{"kind": "environment", "schema": records.SCHEMA, **specimens.environment()}, *specimens.run()[:4]]
    number = draw.randrange(len(lines))
    texts = [mutations.json_text(line, draw) if n == number else json.dumps(line) for n, line in enumerate(lines)]
    (directory / "x.jsonl").write_text("\n".join(texts), encoding="utf-8", errors="surrogatepass")
    (directory / "baseline").mkdir()
    replace_text(directory / "baseline" / f"{specimens.NAME}.csv", baseline.as_csv({("bert", "contract"): "passed"}))
    action = draw.choice((["--check"], ["--accept", "--even-failed"], ["--diff", "x.jsonl"], ["--merge"]))
    run_command(directory, reports.main, [*action, "x.jsonl", "--baseline", "baseline"])
    for path in (directory / "baseline").iterdir():
        assert path.suffix in (".csv", ".json"), path
        assert path.name == "seconds.csv" or path.suffix == ".json" or baseline.read(path)


def run_tables(draw, directory, place):
    """Baseline, seconds and accepted warnings."""
    records.write(directory / "x.jsonl", specimens.environment(), specimens.run())
    run_command(directory, reports.main, ["--accept", "x.jsonl", "--baseline", "baseline"])
    replace_text(directory / "baseline" / "warnings.json", json.dumps({specimens.NAME: [["a", "b", "c"]]}))
    path = draw.choice(sorted((directory / "baseline").iterdir()))
    path.write_bytes(mutations.change_bytes(path.read_bytes(), draw))
    action = draw.choice((["--check"], ["--accept", "--even-failed"], ["--diff", path]))
    run_command(directory, reports.main, [*action, "x.jsonl", "--baseline", "baseline"])


def run_graphs(draw, directory, place):
    """An ONNX file with a changed message or changed bytes."""
    path = directory / "model.onnx"
    model = onnx.ModelProto()
    model.CopyFrom(place.once(graph))
    if draw.randrange(4) == 0:
        path.write_bytes(mutations.change_bytes(model.SerializeToString(), draw))
    else:
        for _ in range(draw.randint(1, 3)):
            change_message(model, draw)
        path.write_bytes(model.SerializePartialToString())
    contract.read(path)


def change_message(message, draw):
    """Change a value somewhere in a protocol buffer message."""
    while True:
        fields = message.ListFields()
        if not fields:
            return None
        field, value = draw.choice(fields)
        repeated = not isinstance(value, (str, bytes, int, float)) and not hasattr(value, "ListFields")
        if repeated and draw.randrange(4) == 0:
            value.append(value[0]) if not hasattr(value[0], "ListFields") else value.add().CopyFrom(value[0])
            return None
        if draw.randrange(8) == 0:
            return message.ClearField(field.name)
        inner = draw.choice(list(value)) if repeated else value
        if hasattr(inner, "ListFields"):
            message = inner
            continue
        other = {
            int: (0, -1, 1, 99, 2**31 - 1),
            float: (0.0, float("nan"), 1e30),
            str: ("", "x", "a\0b", "a\nb", "x" * 5000, "../x"),
            bytes: (b"", b"\xff", b"x" * 5000),
        }[type(inner)]
        if repeated:
            value[draw.randrange(len(value))] = draw.choice(other)
        else:
            setattr(message, field.name, draw.choice(other))
        return None


def run_checkpoints(draw, directory, place):
    """A directory with changed JSON files: load its configuration, and look for its preprocessor."""
    from parity import loading, sentences
    from parity.adapters import Adapter

    source = shutil.copytree(place.once(checkpoint), directory / "bert")
    good = {
        "config.json": json.loads((source / "config.json").read_text()),
        "adapter_config.json": {"base_model_name_or_path": "bert", "peft_type": "LORA", "task_type": "X"},
        "modules.json": [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}],
        "model.safetensors.index.json": {"metadata": {}, "weight_map": {"a": "model.safetensors"}},
    }
    name = draw.choice(("config.json", *good))
    (source / name).write_text(mutations.json_text(good[name], draw), encoding="utf-8", errors="surrogatepass")
    if name == "adapter_config.json":
        Adapter.read(source / name)
    elif name == "modules.json":
        sentences.module_names(source / name)
    else:
        loading.stored_dtype(str(source), loading.load_config(str(source)))


def run_options(draw, directory, place):
    """Command lines; none of them has a checkpoint to export."""
    from parity.check import main as check
    from parity.neuron.__main__ import main as neuron
    from parity.onnx.__main__ import main as export
    from parity.torchscript.__main__ import main as torchscript

    os.mkfifo(directory / "fifo")
    (directory / "empty").mkdir()
    words = ("-m", "--model", "--feature", "--opset", "--atol", "--batch", "--sequence-length", "--preprocessor")
    words += ("--json", "--quiet", "--attention", "--tokenizer", "--subfolder", "--cache_dir", "--buckets", "--x")
    values = ("fifo", "empty", "nothing", "-1", "0", "9" * 30, "nan", "1e-5", "é✓", "x" * 5000, "~nosuch/x", "a\0b")
    values += ("/dev/zero", os.fsdecode(b"\xff"))
    arguments = [draw.choice((*words, *values)) for _ in range(draw.randint(1, 6))]
    status = run_command(directory, draw.choice((check, neuron, export, torchscript)), arguments)
    assert status != 0
    assert {path.name for path in directory.iterdir()} == {"fifo", "empty"}


def run_arguments(draw, directory, place):
    """The functions of the Python API."""
    from parity import neuron, torchscript
    from parity.onnx import export, validate_model_outputs

    subject = subjects.subject("bert", "default")
    preprocessor, config, model = subject.source.preprocessor, subject.onnx_config, subject.model
    output = directory / "model.onnx"
    calls = {
        export: [preprocessor, model, config, 17, output],
        validate_model_outputs: [config, preprocessor, model, output, ["last_hidden_state"], 1e-5],
        torchscript.export: [model, subject.source.dummy, directory / "model.pt"],
        torchscript.load: [output],
        torchscript.Runner: [output],
        torchscript.verdict: [None, model],
        torchscript.untie: [model],
        neuron.load: [output],
        neuron.trace: [model, subject.source.dummy, directory / "model.pt"],
    }
    function = draw.choice(list(calls))
    arguments = calls[function]
    place_ = draw.randrange(len(arguments))
    # One argument is wrong, because a valid call exports a model, which takes seconds.
    wrong = (3.5, object(), print, 1j, Ellipsis, None, b"x")
    optional = place_ == 2 and function in (torchscript.export, neuron.trace)
    arguments[place_] = draw.choice(wrong[:5] if optional else wrong)
    with pytest.raises(ParityError):
        function(*arguments)
    assert list(directory.iterdir()) == []


def run_publications(draw, directory, place):
    """Publish files over existing ones; one call to the file system fails, or ends the process."""
    others = ["prefill.onnx", "model.onnx_data", "config.json", "vocab.txt"]
    names = ["model.onnx", *draw.sample(others, draw.randint(0, 4))]
    old = [name for name in names if draw.random() < 0.7]
    for name in old:
        (directory / name).write_text(f"old {name}")
    (directory / "notes.md").write_text("not ours")
    breaks, how, count = draw.randrange(25), draw.choice((OSError, KeyboardInterrupt)), 0

    def watch(own):
        def call(*arguments):
            nonlocal count
            count += 1
            if count - 1 == breaks:
                raise how(5, "Input/output error")
            return own(*arguments)

        return call

    own_calls = {name: getattr(publication, name) for name in ("_write", "_rename", "_unlink", "_sync")}
    try:
        for name, own in own_calls.items():
            setattr(publication, name, watch(own))
        publish(directory, names)
        broken = False
    except (ParityError, KeyboardInterrupt):
        broken = True
    finally:
        for name, own in own_calls.items():
            setattr(publication, name, own)
    publication.complete(directory)
    present = {path.name: path.read_text().split()[0] for path in directory.iterdir() if path.is_file()}
    assert present.pop("notes.md") == "not"
    whole = {"new": dict.fromkeys(names, "new"), "old": dict.fromkeys(old, "old")}
    assert present in ([whole["old"], whole["new"]] if broken else [whole["new"]])
    assert not [path for path in directory.iterdir() if path.name.startswith(stages.PREFIX)]


def publish(directory, names):
    with staging_directory(directory / names[0]) as stage:
        new = Publication(stage, directory)
        for name in names:
            (stage / name).write_text(f"new {name}")
            (new.add_entry if name.endswith(".onnx") else new.add)(stage / name, name)
        new.commit()


def failure_of(entrance, name, number, place):
    """The problem of a case; empty if it passes."""
    draw = random.Random(f"{name}-{number}")
    directory = place.root / f"{name}-{number}"
    directory.mkdir()
    modules = len(sys.modules)
    try:
        entrance(draw, directory, place)
    except ParityError as error:
        return text_problem(str(error))
    except schema.SchemaError as error:
        return text_problem(str(error))
    except BaseException as error:
        return f"{type(error).__name__}: {str(error)[:300]}"
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return "a module was imported" if "something" in sys.modules and len(sys.modules) > modules else ""


def text_problem(text):
    """Why a sentence is not fit for people; empty if it is."""
    if not text or len(text) > 3000:
        return f"a message of {len(text)} characters: {text[:200]}"
    names = ("KeyError", "AttributeError", "RecursionError", "UnicodeDecodeError", "JSONDecodeError", "Traceback")
    wrong = [name for name in names if name in text]
    return f"the text of an exception: {text[:300]}" if wrong else ""


def test_cases(block, place):
    """Forty cases of one entry point; each failing case is listed with its number."""
    name, number = block
    entrance = globals()[f"run_{name}"]
    cases = range(number * BLOCK, (number + 1) * BLOCK)
    failures = {case: problem for case in cases if (problem := failure_of(entrance, name, case, place))}
    assert failures == {}


def raising(draw, directory, place):
    {}["x"]


def speaking(draw, directory, place):
    raise ParityError("KeyError: 'x'")


def silent(draw, directory, place):
    raise ParityError("")


def leaving(draw, directory, place):
    raise SystemExit(2)


def good(draw, directory, place):
    raise ParityError("file x: is a list, should be an object")


@pytest.mark.parametrize("entrance", [raising, speaking, silent, leaving])
def test_a_bad_end_would_be_seen(place, entrance):
    """The controls: a Python exception, its text alone, no text, the end of the process; and a good case."""
    assert failure_of(entrance, entrance.__name__, 0, place)
    assert failure_of(good, entrance.__name__, 1, place) == ""


def test_the_profile_has_its_size():
    """At least 10,000 cases including those in processes, and a sample of 480."""
    assert sum(sample for sample, _ in ENTRANCES.values()) * BLOCK == 480
    assert sum(whole for _, whole in ENTRANCES.values()) * BLOCK >= 10_000
    assert Path(__file__).parent.name == "tests"
