"""Records made up for tests: small runs whose every status is known, and whole ones of any size."""

from __future__ import annotations

from collections.abc import Mapping

ENVIRONMENT = {
    "parity": "0.1.0",
    "python": "3.11.7",
    "platform": "Linux",
    "cpus": 2,
    "packages": {"torch": "2.13.0+cpu", "transformers": "5.23.0", "onnxruntime": "1.32.0"},
    "arguments": ["-n", "2"],
    "workers": [{"cpu": 10.0, "peak": 600}],
    "date": "2026-01-02T03:04:05+00:00",
}
NAME = "transformers-5.23.0-torch-2.13.0-onnxruntime-1.32.0"
DEVIATION = "the length is fixed (https://github.com/pytorch/pytorch/issues/1; torch<3)"


def environment(*, shard: Mapping | None = None, **packages) -> dict:
    """The environment of a run, with other packages."""
    made = {**ENVIRONMENT, "packages": {**ENVIRONMENT["packages"], **packages}}
    return {**made, "shard": dict(shard)} if shard else made


def line(
    architecture="bert",
    feature="default",
    opset: int | None = 17,
    check="traced_sizes",
    status="passed",
    ratio: float | None = 0.8,
    format="onnx",
    **more,
) -> dict:
    """One record of a cell."""
    errors = {"failed": "logits: 2 of 12 values differ", "xfailed": DEVIATION, "skipped": "Skipped: no device"}
    return {
        "kind": "check",
        "id": f"{architecture}-{feature}-{format}{opset or ''}",
        "architecture": architecture,
        "feature": feature,
        "format": format,
        "engine": {"onnx": "onnxruntime"}.get(format, "torch"),
        "opset": opset,
        "attention": "eager",
        "variant": "",
        "check": check,
        "status": status,
        "stage": "values" if status in ("failed", "xfailed") else None,
        "error": errors.get(status),
        "outputs": {} if ratio is None else {"logits": {"ratio": ratio, "worst": ratio * 1e-6}},
        "verdicts": [],
        "sizes": [],
        "seconds": 0.25,
        "peak": 600,
        **more,
    }


def run() -> list[dict]:
    """Two architectures at three opsets with two checks; bert's opset 12 has a deviation."""
    made = [
        line(architecture, opset=opset, check=check)
        for architecture in ("bert", "vit")
        for opset in (11, 12, 13)
        for check in ("contract", "traced_sizes")
    ]
    return [
        line("bert", opset=12, status="xfailed")
        if (of["id"], of["check"]) == ("bert-default-onnx12", "traced_sizes")
        else of
        for of in made
    ]


def changed(lines, cell: str, check: str = "traced_sizes", **fields) -> list[dict]:
    """The records with other fields in those of one check of a cell.

    Raises:
        ValueError: there is no such record.
    """
    if not any((of["id"], of["check"]) == (cell, check) for of in lines):
        raise ValueError(f"{cell} {check}: not among the records")
    return [{**of, **fields} if (of["id"], of["check"]) == (cell, check) else of for of in lines]


def without(lines, cell: str) -> list[dict]:
    """The records without those of a cell.

    Raises:
        ValueError: there is no such cell.
    """
    left = [of for of in lines if of["id"] != cell]
    if len(left) == len(lines):
        raise ValueError(f"{cell}: not among the records")
    return left
