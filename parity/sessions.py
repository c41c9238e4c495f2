"""An artifact → a callable: named arrays in, named arrays out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from parity.environment import threads
from parity.errors import SessionError
from parity.onnx_files import DATA, require_own_data

# ONNX Runtime's names of the floating types → numpy's.
_FLOATING = {
    "tensor(float16)": "float16",
    "tensor(bfloat16)": "bfloat16",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
}


class OnnxSession:
    """An ONNX file in ONNX Runtime, on the CPU.

    Args:
        path: the file.
        optimise: whether ONNX Runtime may rewrite the graph; all of its optimisations, or none.

    Attributes:
        floating: the types of inputs and outputs that are floating, by name.

    Raises:
        SessionError: ONNX Runtime refuses the file, or one run of it; or the data next to it is another model's.
    """

    def __init__(self, path: Path, *, optimise: bool = True) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads()
        options.inter_op_num_threads = 1
        # Runs are as fast without it, and with it twice the memory of the largest run would be kept.
        options.enable_cpu_mem_arena = False
        if not optimise:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4  # errors come as exceptions
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise SessionError(f"{path}: ONNX Runtime cannot load it: {_first_line(error)}") from error
        self.metadata: Mapping[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        if DATA in self.metadata:
            require_own_data(Path(path))
        values = (*self._session.get_inputs(), *self._session.get_outputs())
        self.floating = {value.name: _FLOATING[value.type] for value in values if value.type in _FLOATING}
        self.input_names = tuple(value.name for value in self._session.get_inputs())
        self.output_names = tuple(value.name for value in self._session.get_outputs())

    def run(self, inputs: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """The outputs (all of them by default) for the inputs, both by name; inputs that the file lacks are left out.

        Raises:
            SessionError: the run fails, an input or an output is missing.
        """
        names = list(outputs if outputs is not None else self.output_names)
        unknown = [name for name in names if name not in self.output_names]
        if unknown:
            raise SessionError(f"outputs: got {', '.join(unknown)}, should be among {', '.join(self.output_names)}")
        missing = [name for name in self.input_names if name not in inputs]
        if missing:
            raise SessionError(f"inputs: got {', '.join(inputs)}, should also have {', '.join(missing)}")
        feed = {name: np.ascontiguousarray(inputs[name]) for name in self.input_names}
        try:
            return dict(zip(names, self._session.run(names, feed), strict=True))
        except Exception as error:
            raise SessionError(_first_line(error)) from error


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:400]
