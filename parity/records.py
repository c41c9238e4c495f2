"""Records of a run as JSON lines: the environment first, then one line for each check of each cell.

Line 1, `Environment`: kind `environment`, schema, parity, python, platform, cpus, packages (name → version), arguments
of pytest, workers (CPU seconds and peak memory in MiB of each that ended well), date of the run's end, of a run with
`--shard` which one it is, and, of a run of a part of the matrix, `selection`: the options that chose it, and which
checks it left out (see `parity.reports.gate.parts`). Every other line has the fields of `FIELDS` and may have those of
`OPTIONAL`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from parity import errors
from parity.errors import ParityError, UsageError

SCHEMA = 4
# Fields of schema 3 that have another name now.
_RENAMED = {3: {"engine": "runtime"}}

# Stages of what is no error of ours: any other exception, and the end of the process.
TEST, CRASH = "test", "crash"
_ERRORS = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, ParityError)]
STAGES = (*dict.fromkeys(error.stage for error in _ERRORS), TEST, CRASH)

STATUSES = ("passed", "failed", "error", "skipped", "xfailed", "xpassed")

# Field → (types, meaning).
FIELDS: dict[str, tuple[type | tuple[type, ...], str]] = {
    "kind": (str, "`check`"),
    "id": (str, "the cell, such as bert-masked-lm-onnx17"),
    "architecture": (str, "model type with `-`"),
    "feature": (str, "what the model is exported for"),
    "format": (str, "onnx, torchscript or neuron"),
    "runtime": (
        str,
        "what ran the file: onnxruntime, torch, neuron (a device), or emulation (torch in the place of neuron)",
    ),
    "opset": ((int, type(None)), "opset of an ONNX file"),
    "attention": (str, "attention implementation that was exported: eager or sdpa"),
    "variant": (str, "what else tells cells apart, such as fixed sizes; empty where nothing does"),
    "check": (str, "the claim: the test's name without test_"),
    "status": (str, f"one of {', '.join(STATUSES)}"),
    "stage": (
        (str, type(None)),
        f"where it failed: one of {', '.join(STAGES)}",
    ),
    "error": ((str, type(None)), "the message of the failure, or the reason of a skip or an expected failure"),
    "outputs": (dict, "output → ratio (error against float64 over float32's own) and worst (absolute difference)"),
    "verdicts": (list, "of a trace: the verdict on each of its axes, with the trials that show it"),
    "sizes": (list, "the sizes of the named axes in every input compared on, with its padding"),
    "seconds": ((int, float), "wall seconds of the check, what it shares with others of its cell included once"),
}

# What not every machine can tell, and not every format has.
OPTIONAL: dict[str, tuple[type | tuple[type, ...], str]] = {
    "cause": (dict, "of a failure: exception (its class) and place (the innermost frame of parity or upstream)"),
    "exporter": (str, "what wrote the ONNX file, if not the tracing exporter"),
    "dtype": (str, "type of the model's weights, if not float32"),
    "warnings": (list, "warnings of upstream packages during the check: category, module and first line of each"),
    "peak": ((int, float), "MiB that the process held at most during the check"),
    "neuron": (
        dict,
        "of a Neuron cell: operators, share and outside (what AWS's list leaves to the CPU), for each part where there"
        " are several; or relative error and cosine of each output",
    ),
}


def validate(line: dict[str, Any]) -> None:
    """Refuse a record that does not follow the schema.

    Raises:
        ValueError: names every wrong field.
    """
    if line.get("kind") == "environment":
        wrong = [name for name in ("schema", "parity", "python", "packages") if name not in line]
        wrong += [] if isinstance(line.get("packages"), dict) or "packages" in wrong else ["packages"]
        wrong += [] if _is_selection(line.get("selection")) else ["selection"]
    else:
        wrong = [name for name, (types, _) in FIELDS.items() if name not in line or not isinstance(line[name], types)]
        wrong += [name for name, (types, _) in OPTIONAL.items() if name in line and not isinstance(line[name], types)]
        wrong += sorted(set(line) - set(FIELDS) - set(OPTIONAL))
        if line.get("status") not in STATUSES:
            wrong.append(f"status {line.get('status')}")
    if wrong:
        raise ValueError(f"record {line.get('id', line.get('kind'))}: wrong or missing: {', '.join(wrong)}")


def _is_selection(value: Any) -> bool:
    """Whether it is what a run of a part has on record, or nothing."""
    if value is None:
        return True
    fields = (("options", dict), ("tests", list), ("left_out", list))
    if not isinstance(value, dict) or not all(isinstance(value.get(name), type_) for name, type_ in fields):
        return False
    groups = value["left_out"]
    return all(isinstance(group, dict) and {"models", "checks"} <= set(group) for group in groups)


def write(path: Path, environment: dict[str, Any], lines: Iterable[dict[str, Any]]) -> None:
    """Write a whole records file; an old one is replaced only by a finished one.

    Raises:
        ValueError: a record does not follow the schema.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    first = {"kind": "environment", "schema": SCHEMA, **environment}
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="utf-8") as stream:
        for line in [first, *lines]:
            validate(line)
            stream.write(json.dumps(line, ensure_ascii=False) + "\n")
    partial.replace(path)


def read(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The environment and the records of a file, those of an older schema by today's names.

    Raises:
        ValueError: the file is empty, of another schema, or a line does not follow it.
    """
    # Not splitlines: a message may have one of the other characters that end a line.
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    if not all(isinstance(line, dict) for line in lines):
        raise ValueError(f"{path}: every line should be a JSON object")
    schema = lines[0].get("schema") if lines and lines[0].get("kind") == "environment" else None
    if schema != SCHEMA and schema not in _RENAMED:
        older = ", ".join(map(str, _RENAMED))
        raise ValueError(
            f"{path}: should begin with the environment of schema {SCHEMA} (or {older}, which is read too)"
        )
    names = _RENAMED.get(schema, {})
    lines = [{names.get(name, name): value for name, value in line.items()} for line in lines]
    lines[0]["schema"] = SCHEMA
    for line in lines:
        validate(line)
    return lines[0], lines[1:]


def load(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """As `read`, for commands.

    Raises:
        UsageError: the file is not there, or no whole records file.
    """
    try:
        return read(path)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}; `pytest -n auto` leaves records behind") from error
    except ValueError as error:
        message = str(error) if str(error).startswith(str(path)) else f"{path}: {error}"
        raise UsageError(f"{message}; it is damaged, or was not written by this parity: run the suite again") from error
