"""An ONNX file → its contract: opset, names, order, dtypes, ranks, dynamic axes, data; and findings on it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parity.axes import Axes, HasAxes, Signature
from parity.errors import ExportError
from parity.judge import artifact, graph, sanity, stored
from parity.judge.findings import Finding
from parity.judge.precision import Precision, read_precision
from parity.judge.subgraphs import nodes_of

if TYPE_CHECKING:
    import onnx

# Replaces the symbol of a dynamic axis that has none.
UNKNOWN = "?"
# Names that the exporter and shape inference give to unknown sizes of outputs; they claim nothing.
_UNNAMED = re.compile(r"^\?$|_dim_\d+$|^unk__")


@dataclass(frozen=True)
class Value:
    """An input or output of a file: numpy dtype name, and one int (static) or str (dynamic) for each axis."""

    name: str
    dtype: str
    axes: tuple[int | str, ...]


@dataclass(frozen=True)
class Contract:
    """The facts in an ONNX file."""

    opset: int
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    metadata: Mapping[str, str]
    training: tuple[str, ...] = ()
    """Nodes in training mode: runtimes differ in what they make of these."""
    idle_domains: tuple[str, ...] = ()
    """Domains of operators that it imports and has none of: runtimes that do not know them refuse the file."""
    data: tuple[str, ...] = ()
    """The files beside it that hold tensors, by the names that it gives them."""
    flaws: tuple[Finding, ...] = ()
    """Verdicts on the file as it is: see `artifact.judge_artifact` and `graph.judge_graph`."""
    precision: Precision = field(default_factory=Precision)


def read(path: Path) -> Contract:
    """The contract of the file at `path`; external data is read only as far as comparing weights requires.

    Raises:
        ExportError: it is not a readable ONNX file, or cannot be judged; see `sanity.require_sane`.
    """
    try:
        model, values = stored.read_model(Path(path))
    except Exception as error:
        raise ExportError(f"{path}: is not a readable ONNX file; copy or export it again") from error
    sanity.require_sane(model, Path(path))
    opsets = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    if not opsets:
        raise ExportError(f"{path}: names no opset of the default domain, should name exactly one")
    initializers = {tensor.name for tensor in model.graph.initializer}
    return Contract(
        opset=opsets[0],
        inputs=tuple(_value(v) for v in model.graph.input if v.name not in initializers),
        outputs=tuple(_value(v) for v in model.graph.output),
        metadata={entry.key: entry.value for entry in model.metadata_props},
        training=tuple(_training_nodes(model.graph)),
        idle_domains=tuple(_idle_domains(model)),
        data=tuple(each.location for each in artifact.external_files(model)),
        precision=read_precision(model),
        flaws=(*artifact.judge_artifact(model, Path(path).parent, values), *graph.judge_graph(model)),
    )


def _idle_domains(model: onnx.ModelProto) -> list[str]:
    bodies = [model.graph.node, *(function.node for function in model.functions)]
    domains = {node.domain for body in bodies for node in nodes_of(body)} | {"", "ai.onnx"}
    return sorted({entry.domain for entry in model.opset_import} - domains)


def _training_nodes(graph: onnx.GraphProto) -> Iterator[str]:
    for node in graph.node:
        if node.op_type == "BatchNormalization" and any(a.name == "training_mode" and a.i for a in node.attribute):
            yield node.name
        # The third input of Dropout is its training mode.
        if node.op_type == "Dropout" and len(node.input) > 2 and _is_true(graph, node.input[2]):
            yield node.name


def _is_true(graph: onnx.GraphProto, name: str) -> bool:
    import onnx

    constants = (a.t for n in graph.node if n.op_type == "Constant" and name in n.output for a in n.attribute)
    tensors = [*(t for t in graph.initializer if t.name == name), *constants]
    return any(bool(onnx.numpy_helper.to_array(tensor).any()) for tensor in tensors)


def _value(info: onnx.ValueInfoProto) -> Value:
    import onnx

    tensor = info.type.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    axes = tuple(dim.dim_value if dim.HasField("dim_value") else dim.dim_param or UNKNOWN for dim in tensor.shape.dim)
    return Value(info.name, dtype, axes)


@dataclass(frozen=True)
class Claim:
    """The properties that a file was requested to have.

    Args:
        signature: the declared inputs and outputs.
        dtypes, ranks: numpy dtype names and numbers of axes of the inputs, and of the outputs if known.
    """

    signature: Signature
    dtypes: Mapping[str, str]
    ranks: Mapping[str, int]

    @classmethod
    def from_config(
        cls, onnx_config: HasAxes, tensors: Mapping[str, Any], outputs: Mapping[str, Any] | None = None
    ) -> Claim:
        """The claim of an OnnxConfig and the inputs of the export.

        Args:
            onnx_config: names inputs, outputs and their axes.
            tensors: the inputs by name, tensors of any framework.
            outputs: the types of the outputs by name, if known.
        """
        types = {**{name: tensor.dtype for name, tensor in tensors.items()}, **(outputs or {})}
        return cls(
            Signature.from_config(onnx_config, [name for name in onnx_config.inputs if name in tensors]),
            {name: str(dtype).removeprefix("torch.") for name, dtype in types.items()},
            {name: tensor.ndim for name, tensor in tensors.items()},
        )

    def with_inputs(self, also: Axes, contract: Contract) -> Claim:
        """The claim with those further inputs that the file has."""
        extra = {name: axes for name, axes in also.items() if any(value.name == name for value in contract.inputs)}
        inputs = {**self.signature.inputs, **extra}
        return replace(self, signature=replace(self.signature, inputs=inputs))


def judge_contract(contract: Contract, claim: Claim, *, opset: int | None, ordered: bool = True) -> list[Finding]:
    """Findings on a file, compared with what was requested.

    Args:
        contract: of the file.
        claim: the requested inputs and outputs.
        opset: the requested opset; None takes any.
        ordered: whether the order of the names is part of the claim; if not, another order is a remark.
    """
    findings: list[Finding] = []
    if opset is not None:
        message = "" if contract.opset == opset else f"opset: the file has {contract.opset}, should be {opset}"
        if contract.idle_domains and not message:
            message = f"opset: the file imports {', '.join(contract.idle_domains)}, which no node uses; should not"
        right = not message
        findings.append(Finding("opset", "file", right, message, measurements={"opset": contract.opset}))
    if contract.training:
        nodes = f"{len(contract.training)} nodes are in training mode ({contract.training[0]}, …)"
        message = f"file: {nodes}, should be none; export in eval mode"
        findings.append(Finding("mode", "file", False, message))
    else:
        findings.append(Finding("mode", "file", True))
    inputs, outputs = claim.signature.inputs, claim.signature.outputs
    findings.append(_names("input", [value.name for value in contract.inputs], list(inputs), ordered))
    findings.append(_names("output", [value.name for value in contract.outputs], list(outputs), ordered))
    sides = (("input", contract.inputs, inputs), ("output", contract.outputs, outputs))
    for kind, values, declared in sides:
        for value in values:
            if value.name in declared:
                findings.append(_dtype_and_rank(kind, value, claim.dtypes.get(value.name), claim.ranks.get(value.name)))
                findings.append(_axes(kind, value, declared[value.name], exact=opset is not None))
    findings += _judge_symbols(contract, claim)
    return [*findings, *contract.flaws]


def _names(kind: str, got: Sequence[str], reference: Sequence[str], ordered: bool) -> Finding:
    right = got == reference if ordered else sorted(got) == sorted(reference)
    message = "" if right else f"{kind} names: the file has {', '.join(got)}; should be {', '.join(reference)}"
    if right and got != reference:
        message = f"{kind} names: are in the order {', '.join(got)}; should be in the order {', '.join(reference)}"
    return Finding("names", f"{kind}s", right, message)


def _judge_symbols(contract: Contract, claim: Claim) -> list[Finding]:
    """A failure for each symbol that is used for two axes, which declares them to be of one size."""
    uses: dict[str, dict[str, str]] = {}
    for values, declared in ((contract.inputs, claim.signature.inputs), (contract.outputs, claim.signature.outputs)):
        for value in values:
            for axis, name in declared.get(value.name, {}).items():
                symbol = value.axes[axis] if axis < len(value.axes) else 0
                if isinstance(symbol, str) and symbol != UNKNOWN:
                    uses.setdefault(symbol, {}).setdefault(name, f"{name} (axis {axis} of {value.name})")
    return [
        Finding(
            "axes",
            symbol,
            False,
            f"symbol {symbol}: stands for {' and '.join(places.values())}, should stand for one axis",
        )
        for symbol, places in uses.items()
        if len(places) > 1
    ]


def _dtype_and_rank(kind: str, value: Value, dtype: str | None, rank: int | None) -> Finding:
    wrong = []
    if dtype is not None and value.dtype != dtype:
        wrong.append(f"dtype {value.dtype}, should be {dtype}")
    if rank is not None and value.axes and len(value.axes) != rank:
        wrong.append(f"{len(value.axes)} axes, should be {rank}")
    return Finding("dtype", value.name, not wrong, f"{kind} {value.name}: {'; '.join(wrong)}" if wrong else "")


def _axes(kind: str, value: Value, declared: Mapping[int, str], *, exact: bool) -> Finding:
    """A finding on the axes of one value.

    Args:
        exact: whether the named axes of an output, too, have to be the declared ones.
    """
    wrong = [
        f"axis {axis} ({name}) is fixed to {value.axes[axis]}, should be dynamic"
        for axis, name in declared.items()
        if axis < len(value.axes) and isinstance(value.axes[axis], int)
    ]
    if kind == "input" or exact:
        wrong += [
            f"axis {axis} is dynamic ({size}), should be fixed: nothing is claimed for other sizes there"
            for axis, size in enumerate(value.axes)
            if isinstance(size, str) and axis not in declared and (kind == "input" or not _UNNAMED.search(size))
        ]
    return Finding("axes", value.name, not wrong, f"{kind} {value.name}: {'; '.join(wrong)}" if wrong else "")
