"""Records of a run as JSON lines: the environment first, then one line for each check of each cell.

Line 1, `Environment`: kind `environment`, schema, parity, python, platform, cpus, packages (name → version), arguments
of pytest, workers (CPU seconds and peak memory in MiB of each that ended well), date of the run's end, for a run with
`--shard` its shard, and, for a run of a part of the matrix, `selection`: the options that chose it, and the checks
that it left out (see `parity.reports.gate.parts`). Every other line has the fields of `FIELDS` and may have those of
`OPTIONAL`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version

from parity import errors, schema
from parity.errors import ParityError, UsageError
from parity.files import replacing
from parity.paths import short
from parity.schema import Schema, SchemaError

SCHEMA = 4
# The suffix of a file whose run has not ended.
PARTIAL = ".partial"
# Fields of schema 3 that were renamed.
_RENAMED = {3: {"engine": "runtime"}}

# Stages of failures that are no error of ours: any other exception, and the end of the process.
TEST, CRASH = "test", "crash"
_ERRORS = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, ParityError)]
STAGES = (*dict.fromkeys(error.stage for error in _ERRORS), TEST, CRASH)

STATUSES = ("passed", "failed", "error", "skipped", "xfailed", "xpassed")

_VERDICTS = ("silently wrong", "raises", "fixed by the model", "generalises")
_LONG = 1e9  # seconds, and MiB: more than any run takes
_WORDS, _PROSE, _COUNT = schema.text(500), schema.prose(), schema.whole(0)
_COUNTS = schema.entries(_WORDS, _COUNT)
_GRAPH = schema.table({"share": schema.number(0, 1), "operators": _COUNT, "outside": _COUNTS, "limited": _COUNTS})


# Next to the graphs: the source of the tolerances, and the measurements of each output.
_MEASURED = {"tolerances": _WORDS, "outputs": schema.entries(_WORDS, schema.entries(_WORDS, schema.measured))}


def _neuron(value: Any, place: str) -> None:
    """Facts about one graph by AWS's list, or about several by their names; or measurements by output."""
    if not isinstance(value, dict) or "share" in value:
        return _GRAPH(value, place)
    for name, item in value.items():
        _WORDS(name, f"a key of {place}")
        if name in _MEASURED:
            _MEASURED[name](item, f"{place}.{name}")
        elif isinstance(item, dict) and (
            "share" in item or not all(isinstance(n, (int, float)) for n in item.values())
        ):
            _GRAPH(item, f"{place}.{name}")
        elif isinstance(item, dict):
            schema.entries(_WORDS, schema.measured)(item, f"{place}.{name}")
        else:
            schema.measured(item, f"{place}.{name}")
    return None


# Field → (what it must be, meaning).
FIELDS: dict[str, tuple[Schema, str]] = {
    "kind": (schema.choice("check"), "`check`"),
    "id": (schema.text(300), "the cell, such as bert-masked-lm-onnx17"),
    "architecture": (schema.text(200), "model type with `-`"),
    "feature": (schema.text(200), "what the model is exported for"),
    "format": (_WORDS, "onnx, torchscript or neuron"),
    "runtime": (
        _WORDS,
        "what ran the file: onnxruntime, torch, neuron (a device), or emulation (torch in the place of neuron)",
    ),
    "opset": (schema.maybe(schema.whole(1, 999)), "opset of an ONNX file"),
    "attention": (_WORDS, "attention implementation that was exported: eager or sdpa"),
    "variant": (_WORDS, "what else tells cells apart, such as fixed sizes; empty where nothing does"),
    "check": (schema.pattern(r"\w{1,200}", "the name of a test"), "the claim: the test's name without test_"),
    "status": (schema.choice(*STATUSES), f"one of {', '.join(STATUSES)}"),
    "stage": (
        schema.maybe(_WORDS),
        f"where it failed: one of {', '.join(STAGES)}",
    ),
    "error": (schema.maybe(_PROSE), "the message of the failure, or the reason of a skip or an expected failure"),
    "outputs": (
        schema.entries(_WORDS, schema.table({}, {name: schema.maybe(schema.measured) for name in ("ratio", "worst")})),
        "output → ratio (error against float64 over float32's own) and worst (absolute difference)",
    ),
    "verdicts": (
        schema.items(
            schema.table(
                {"axis": _WORDS, "traced": schema.maybe(_COUNT), "verdict": schema.choice(*_VERDICTS)},
                {"text": _PROSE},
            )
        ),
        "of a trace: the verdict on each of its axes, with the trials that show it",
    ),
    "sizes": (
        schema.items(schema.table({"sizes": schema.entries(_WORDS, _COUNT)}, {"padding": _WORDS})),
        "the sizes of the named axes in every input compared on, with its padding",
    ),
    "seconds": (
        schema.number(0, _LONG),
        "wall seconds of the check, what it shares with others of its cell included once",
    ),
}

# Fields that some machines or formats do not have.
OPTIONAL: dict[str, tuple[Schema, str]] = {
    "cause": (
        schema.table({"exception": _WORDS, "place": _WORDS}),
        "of a failure: exception (its class) and place (the innermost frame of parity or upstream)",
    ),
    "exporter": (_WORDS, "what wrote the ONNX file, if not the tracing exporter"),
    "dtype": (_WORDS, "type of the model's weights, if not float32"),
    "warnings": (
        schema.items(schema.table({"category": _WORDS, "module": _WORDS, "text": _PROSE})),
        "warnings of upstream packages during the check: category, module and first line of each",
    ),
    "peak": (schema.number(0, _LONG), "MiB that the process held at most during the check"),
    "neuron": (
        _neuron,
        "of a Neuron cell: operators, share and outside (what AWS's list leaves to the CPU), for each part where there"
        " are several; or relative error and cosine of each output",
    ),
}


def _version(value: Any, place: str) -> None:
    """A version that packaging can compare, and that a file's name can contain."""
    schema.pattern(r"[\w.!+-]{1,80}", "a version")(value, place)
    try:
        Version(value)
    except InvalidVersion:
        raise SchemaError(f"{place}: is {value}, should be a version") from None


# The rest of a cell's id after the model, in the cells that a selection left out: opsets have few digits.
_OPSETS = r"\d{1,3}(\.\.\d{1,3})?"
_FOLDED = schema.pattern(
    rf"onnx{_OPSETS}(,{_OPSETS}){{0,50}}(-[^\0-\x1f\ud800-\udfff]{{1,200}})?|(?!onnx\d)[^\0-\x1f\ud800-\udfff]{{0,200}}",
    "what follows a model in the id of a cell",
)
_SELECTION = schema.table(
    {
        "options": schema.entries(_WORDS, schema.either(_PROSE, schema.items(_PROSE), schema.flag)),
        "tests": schema.items(_WORDS),
        "left_out": schema.items(
            schema.table(
                {
                    "models": schema.items(_WORDS),
                    "checks": schema.entries(schema.text(10_000), schema.items(_FOLDED, largest=1000)),
                }
            )
        ),
    }
)
_ENVIRONMENT = schema.table(
    {
        "schema": schema.whole(0),
        "parity": _WORDS,
        "python": _WORDS,
        "packages": schema.entries(schema.pattern(r"[\w.-]{1,100}", "a package"), schema.maybe(_version)),
    },
    {
        "platform": _WORDS,
        "cpus": schema.maybe(_COUNT),
        "arguments": schema.items(_PROSE),
        "workers": schema.items(schema.table({"cpu": schema.number(0, _LONG), "peak": schema.number(0, _LONG)})),
        "date": _WORDS,
        "shard": schema.maybe(
            schema.table({"index": schema.whole(1), "of": schema.whole(1, 10_000), "whole": _WORDS, "checks": _COUNT})
        ),
        "selection": schema.maybe(_SELECTION),
    },
)
_CHECK = schema.table(
    {name: field for name, (field, _) in FIELDS.items()},
    {name: field for name, (field, _) in OPTIONAL.items()},
    closed=True,
)


def validate(line: dict[str, Any]) -> None:
    """Refuse a record that does not follow the schema.

    Raises:
        SchemaError: names the field, its value, and what it should be (a ValueError).
    """
    if line.get("kind") == "environment":
        _ENVIRONMENT(line, "environment")
    else:
        own = line.get("id")
        _CHECK(line, f"record {own}" if isinstance(own, str) and own.isprintable() and len(own) < 300 else "record")


def as_line(record: Mapping[str, Any]) -> str:
    """A record as the line of a file.

    Raises:
        ValueError: it does not follow the schema.
    """
    line = dict(record)
    validate(line)
    return json.dumps(line, ensure_ascii=False) + "\n"


def write(path: Path, environment: dict[str, Any], lines: Iterable[dict[str, Any]]) -> None:
    """Write a whole records file; an old file is replaced only by a finished one.

    Args:
        path: the file.
        environment: the facts of the first line.
        lines: the records.

    Raises:
        ValueError: a record does not follow the schema.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial, partial.open("w", encoding="utf-8") as stream:
        for line in ({"kind": "environment", "schema": SCHEMA, **environment}, *lines):
            stream.write(as_line(line))


def partial_of(path: Path) -> Path:
    """The path of the records of a run until it ends; an interrupted run leaves them there."""
    return path.with_suffix(PARTIAL)


def printable(text: str) -> str:
    """A text in a form that a record can hold."""
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode("utf-8")


class Stream:
    """Records that are written as they come: each line is on the disk before the next record.

    Args:
        path: the records file of the whole run; see `partial_of`.
        environment: the facts of the first line.
    """

    def __init__(self, path: Path, environment: Mapping[str, Any]) -> None:
        self.path = partial_of(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("w", encoding="utf-8")
        self.append({"kind": "environment", "schema": SCHEMA, **environment})

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one record.

        Raises:
            ValueError: it does not follow the schema.
        """
        self._file.write(as_line(record))
        self._file.flush()

    def remove(self) -> None:
        """Remove the file, once the records of the whole run are written."""
        self._file.close()
        self.path.unlink(missing_ok=True)


def read(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The environment and the records of a file; fields of an older schema get today's names.

    Raises:
        SchemaError: it is not a regular file, is empty or of another schema, or has a bad line (a ValueError).
    """
    # Not splitlines: a message may have other characters that end a line there.
    whole = schema.read_text(path)
    if path.suffix == PARTIAL:
        # Its writer may have ended in the middle of a line.
        whole = whole[: whole.rfind("\n") + 1]
    texts = [(number, text) for number, text in enumerate(whole.split("\n"), 1) if text]
    names: Mapping[str, str] = {}
    lines: list[dict[str, Any]] = []
    for number, text in texts:
        place = f"{short(path)}: line {number}"
        try:
            line = schema.parse_json(text, constants=True)
        except SchemaError as error:
            raise SchemaError(f"{place}: {error}") from None
        if not isinstance(line, dict):
            raise SchemaError(f"{place}: should be a JSON object")
        if not lines:
            names = _names(path, line)
            line = {**line, "schema": SCHEMA}
            line.pop("baseline", None)  # only a baseline has it; see `reports.gate.runs`
        elif line.get("kind") == "environment":
            raise SchemaError(f"{place}: is a second environment, should be a check; join files with --merge")
        line = {names.get(name, name): value for name, value in line.items()}
        try:
            validate(line)
        except SchemaError as error:
            raise SchemaError(f"{place}: {error}") from None
        lines.append(line)
    if not lines:
        _names(path, {})
    return lines[0], lines[1:]


def _names(path: Path, first: Mapping[str, Any]) -> Mapping[str, str]:
    """Old → new names of fields, by the first line of a file."""
    number = first.get("schema") if first.get("kind") == "environment" else None
    if isinstance(number, int) and number == SCHEMA:
        return {}
    if not isinstance(number, int) or number not in _RENAMED:
        older = ", ".join(map(str, _RENAMED))
        raise SchemaError(
            f"{short(path)}: should begin with the environment of schema {SCHEMA} (or {older}, which is read too)"
        )
    return _RENAMED[number]


def load(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Read a records file for a command; see `read`.

    Raises:
        UsageError: the file is missing, or not a whole records file.
    """
    if not os.path.exists(path):
        partial = partial_of(path)
        if partial.exists():
            raise UsageError(
                f"{short(path)}: no such file; an interrupted run left {short(partial)}: give that, or run"
                f" the rest with pytest --only-changed {short(path)}"
            )
        raise UsageError(f"{short(path)}: no such file; `pytest -n auto` leaves records behind")
    try:
        return read(path)
    except SchemaError as error:
        raise UsageError(f"{error}; it is damaged, or was not written by this parity: run the suite again") from error


def load_latest(path: Path) -> list[dict[str, Any]]:
    """The records of a file, updated with those of a later run of the same name that was interrupted.

    Raises:
        UsageError: see `load`.
    """
    partial = partial_of(path)
    paths = [each for each in (path, partial) if os.path.exists(each)] or [path]
    lines: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for each in paths:
        own: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for line in load(each)[1]:
            own.setdefault((line["id"], line["check"]), []).append(line)
        lines.update(own)
    return [line for some in lines.values() for line in some]
