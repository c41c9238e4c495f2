"""Whether a fault is visible, found without the judge: with onnxruntime and torch, on inputs that are drawn here.

Nothing else of parity is imported here. A fault of values is visible if, for some input, an output of the changed file
differs from that of the right file by more than 16 times the float32 noise. The noise is the largest of: the change of
the output without optimisations; the change after each weight has moved by one unit in the last place; and, if the
model can be called with the file's inputs, its own error, float32 against float64. A fault of the contract is visible
if it changes the description of the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

FACTOR = 16
STILLBORN, EQUIVALENT, VISIBLE = "stillborn", "equivalent", "visible"
_LONGEST = 160
_UNIT = 2.0**-24
_NUMBERS = {"tensor(int64)": np.int64, "tensor(float)": np.float32, "tensor(bool)": np.bool_, "tensor(int32)": np.int32}


def session_of(model: bytes, *, optimise: bool = True) -> onnxruntime.InferenceSession:
    """A session of onnxruntime with one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


class Truth:
    """The answers of a right file to many inputs, and the noise of each.

    Args:
        model: the file.
        bounds: name of an integer input → its largest valid value plus one.
        seed: of the inputs.
        torch_model: the model, if its arguments have the names of the file's inputs; None otherwise.
        count: the number of inputs besides those of every length.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        bounds: Mapping[str, int],
        seed: int,
        torch_model: Any = None,
        count: int = 70,
    ) -> None:
        self.description = describe(model)
        own = session_of(model.SerializeToString())
        self.names = [value.name for value in own.get_outputs()]
        self._draw, self._bounds = np.random.default_rng([seed, 77]), bounds
        self._inputs = own.get_inputs()
        self._longest = self._find_longest(own)
        self.feeds: list[dict[str, np.ndarray]] = []
        self.answers: list[list[np.ndarray]] = []
        for feed in self._feeds(count):
            answer = answer_of(own, feed)
            if answer is not None:
                self.feeds.append(feed)
                self.answers.append(answer)
        others = [session_of(model.SerializeToString(), optimise=False)]
        others += [session_of(move_weights(model, each).SerializeToString()) for each in (1, 2)]
        self.noise = self._noise(others)
        self.original: float | None = None
        if torch_model is not None:
            self._ask(torch_model)

    def _noise(self, others: Sequence[onnxruntime.InferenceSession]) -> np.ndarray:
        """The noise of each input (first axis) and output (second axis)."""
        noise = np.array([[_UNIT * rms(each) for each in answer] for answer in self.answers])
        for session in others:
            for place, feed in enumerate(self.feeds):
                answer = answer_of(session, feed)
                if answer is not None:
                    moved = [difference(one, own) for one, own in zip(answer, self.answers[place], strict=True)]
                    noise[place] = np.maximum(noise[place], np.nan_to_num(moved, posinf=0.0))
        return np.maximum(noise, np.median(noise, axis=0))

    def _ask(self, model: Any) -> None:
        """Add torch's error to the noise; set `original`, the file's error without padding, in units of the noise."""
        import copy

        import torch

        wide, worst = copy.deepcopy(model).double(), 0.0
        for place, feed in enumerate(self.feeds):
            arguments = {name: torch.from_numpy(array) for name, array in feed.items()}
            exact_arguments = {
                name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in arguments.items()
            }
            with torch.no_grad():
                plain, exact = model(**arguments, return_dict=True), wide(**exact_arguments, return_dict=True)
            padded = any("mask" in name and not array.all() for name, array in feed.items())
            for index, name in enumerate(self.names):
                if plain.get(name) is None:
                    continue
                expected = exact[name].numpy()
                error = difference(plain[name].numpy(), expected)
                self.noise[place, index] = max(self.noise[place, index], error)
                if not padded:
                    own = difference(self.answers[place][index], expected)
                    worst = max(worst, own / self.noise[place, index])
        self.original = worst

    def judge(self, model: onnx.ModelProto, *, contract: bool, every: bool = False) -> tuple[str, str]:
        """`stillborn` (cannot be run), `equivalent` (never visible) or `visible`, and the input that shows it.

        Args:
            model: the changed file.
            contract: whether the fault is one of the contract.
            every: whether to count all inputs that show it.
        """
        try:
            session = session_of(model.SerializeToString())
        except Exception as error:  # onnxruntime raises what it likes
            return STILLBORN, " ".join(str(error).split())[:120]
        if contract:
            changed = [name for name, value in describe(model).items() if value != self.description[name]]
            return (VISIBLE, ", ".join(changed)) if changed else (EQUIVALENT, "")
        places, answered = [], 0
        for place, feed in enumerate(self.feeds):
            answer = answer_of(session, feed)
            answered += answer is not None
            if answer is None or self._differs(place, answer):
                places.append(place)
                if not every and answered:
                    break
        if not answered:
            return STILLBORN, "it answers no input"
        if not places:
            return EQUIVALENT, ""
        first = self.feeds[places[0]]
        shown = f"{len(places)} of {len(self.feeds)}" if every else "first"
        return VISIBLE, f"{shown}: {' '.join(f'{n}{[*a.shape]}' for n, a in first.items() if 'past' not in n)}"

    def _differs(self, place: int, answer: Sequence[np.ndarray]) -> bool:
        pairs = zip(answer, self.answers[place], self.noise[place], strict=True)
        return any(difference(one, own) > FACTOR * noise for one, own, noise in pairs)

    def _find_longest(self, session: onnxruntime.InferenceSession) -> int:
        """The length of the longest text that the file accepts."""
        low, high = 1, _LONGEST
        if not any("sequence" in str(dim) for value in self._inputs for dim in value.shape):
            return low
        while low < high:
            middle = (low + high + 1) // 2
            feed = self._feed(self._sizes(1, middle, 0), "none", 1.0)
            low, high = (middle, high) if answer_of(session, feed) is not None else (low, middle - 1)
        return low

    def _sizes(self, batch: int, text: int, past: int) -> dict[str, int]:
        """Name → size, for all named axes."""
        sizes = {}
        for value in self._inputs:
            for dim in value.shape:
                for name in str(dim).split(" + ") if isinstance(dim, str) else ():
                    sizes[name] = batch if "batch" in name and "image" not in name else text
                    if name.startswith("past"):
                        sizes[name] = past
                    elif name in ("height", "width"):
                        sizes[name] = int(self._draw.integers(8, 25)) * 4
                    elif "sequence" not in name and name != "batch":
                        sizes[name] = int(self._draw.integers(1, 5))
        return sizes

    def _feeds(self, count: int) -> Iterator[dict[str, np.ndarray]]:
        """Inputs of every length in batches of one or two, then with random sizes, paddings and values."""
        has_past = any(str(dim).startswith("past") for value in self._inputs for dim in value.shape)
        step = max(1, self._longest // 64)
        for text in range(1, self._longest + 1, step):
            past = int(self._draw.integers(0, self._longest - text + 1)) if has_past and text % 2 else 0
            yield self._feed(self._sizes(1 + text % 2, text, past), "none", 1.0)
        for past in range(step, self._longest if has_past else 0, step):
            yield self._feed(self._sizes(1 + past % 2, 1, past), "none", 1.0)
        ways = ("none", "left", "right", "holes", "every", "row", "mixed")
        for turn in range(count):
            batch = int(self._draw.integers(1, 9))
            text = int(self._draw.integers(1, self._longest + 1))
            if turn % 3 == 0:
                text = min(batch, self._longest)
            elif turn % 3 == 1:
                text = min(int(self._draw.integers(1, 21)), self._longest)
            past = int(self._draw.integers(0, self._longest - text + 1)) if has_past else 0
            yield self._feed(self._sizes(batch, text, past), ways[turn % len(ways)], (1.0, 1.0, 4.0)[turn % 3])

    def _feed(self, sizes: Mapping[str, int], way: str, scale: float) -> dict[str, np.ndarray]:
        """One input.

        Args:
            sizes: name → size, for all named axes.
            way: how rows are padded.
            scale: of floating point values.
        """
        feed: dict[str, np.ndarray] = {}
        for value in self._inputs:
            shape = [sum(sizes[n] for n in d.split(" + ")) if isinstance(d, str) else d for d in value.shape]
            dtype, name = _NUMBERS[value.type], value.name
            if "mask" in name:
                array = self._mask(shape, way)
            elif name == "bbox":
                array = np.sort(self._draw.integers(0, self._bounds.get(name, 2), [*shape[:-1], 2, 2]), axis=-2)
                array = array.reshape(shape)
            elif np.issubdtype(dtype, np.integer):
                array = self._draw.integers(0, self._bounds.get(name, 2), shape)
                if array.size:
                    array.reshape(-1)[0] = self._bounds.get(name, 2) - 1
            else:
                array = scale * self._draw.standard_normal(shape)
            feed[name] = array.astype(dtype)
        return feed

    def _mask(self, shape: Sequence[int], way: str) -> np.ndarray:
        mask = np.ones(shape, np.int64)
        if len(shape) != 2 or way == "none":
            return mask
        rows, length = shape
        for row in range(rows):
            own = way if way != "mixed" else ("left", "right", "holes", "none")[row % 4]
            if own in ("left", "right", "holes") and row and way != "mixed" and row % 2:
                continue
            amount = int(self._draw.integers(0, length))
            if own == "left" or (own == "every" and row % 2):
                mask[row, :amount] = 0
            elif own in ("right", "every"):
                mask[row, length - amount :] = 0
            elif own == "holes":
                mask[row] = self._draw.integers(0, 2, length)
                mask[row, -1] = 1
        if way == "row":
            mask[-1] = 0
        return mask


def answer_of(session: onnxruntime.InferenceSession, feed: Mapping[str, np.ndarray]) -> list[np.ndarray] | None:
    """All outputs; None if the file refuses the input."""
    try:
        return session.run(None, dict(feed))
    except Exception:  # onnxruntime raises what it likes
        return None


def rms(array: np.ndarray) -> float:
    """The root mean square of the finite values."""
    values = np.asarray(array, np.float64)
    values = values[np.isfinite(values)]
    return float(np.sqrt(np.mean(values**2))) if values.size else 0.0


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """The root mean square of the difference; infinite if shapes, types or the places of finite values differ."""
    if one.shape != other.shape or one.dtype.kind != other.dtype.kind:
        return float("inf")
    if one.dtype.kind != "f":
        return 0.0 if np.array_equal(one, other) else float("inf")
    finite = np.isfinite(one)
    if not np.array_equal(finite, np.isfinite(other)):
        return float("inf")
    return rms(one[finite].astype(np.float64) - other[finite].astype(np.float64))


def move_weights(model: onnx.ModelProto, seed: int) -> onnx.ModelProto:
    """A copy whose weights are moved by one unit in the last place, up or down."""
    moved, draw = onnx.ModelProto(), np.random.default_rng(seed)
    moved.CopyFrom(model)
    for tensor in moved.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            values = numpy_helper.to_array(tensor)
            towards = np.where(draw.random(values.shape) < 0.5, np.float32(-np.inf), np.float32(np.inf))
            tensor.CopyFrom(numpy_helper.from_array(np.nextafter(values, towards), tensor.name))
    return moved


def describe(model: onnx.ModelProto) -> dict[str, Any]:
    """The properties of a file on which a caller or another runtime may rely."""
    graph = model.graph
    read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    contents = [(array.shape, array.dtype.str, hash(array.tobytes())) for array in tensors.values() if array.size > 1]
    opset = next((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), 0)
    made = {*tensors, "", *(value.name for value in graph.input)}
    early = []
    for node in graph.node:
        early += [name for name in node.input if name not in made]
        made |= {*node.output}
    return {
        "inputs": [_value(each) for each in graph.input if each.name not in tensors],
        "outputs": [_value(each) for each in graph.output],
        "opsets": sorted((each.domain, each.version) for each in model.opset_import),
        "weights that nothing reads": sorted({*tensors} - read),
        "weights that are inputs": sorted({*tensors} & {value.name for value in graph.input}),
        "weights that are there twice": len(contents) - len({*contents}),
        "operators that the opset lacks": sorted({n.op_type for n in graph.node if not _is_defined(n, opset)}),
        "operators in training mode": [node.name for node in graph.node if _trains(node, graph)],
        "values that are read too early": early,
    }


def _value(value: onnx.ValueInfoProto) -> tuple[Any, ...]:
    kind = value.type.tensor_type
    return (value.name, kind.elem_type, *(dim.dim_param or dim.dim_value for dim in kind.shape.dim))


def _is_defined(node: onnx.NodeProto, opset: int) -> bool:
    try:
        return not onnx.defs.get_schema(node.op_type, opset, node.domain).deprecated
    except onnx.defs.SchemaError:
        return False


def _trains(node: onnx.NodeProto, graph: onnx.GraphProto) -> bool:
    if node.op_type != "Dropout" or len(node.input) < 3:
        return False
    return any(t.name == node.input[2] and bool(numpy_helper.to_array(t)) for t in graph.initializer)
