"""Which attention implementation gives the faster file in ONNX Runtime: sdpa or eager; and eager against itself."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parity.reports.measuring import measurements

if TYPE_CHECKING:
    import numpy as np
    from transformers.models.auto.auto_factory import _BaseAutoModelClass

    from parity.sessions import OnnxSession

# Sizes of small deployed models: (architecture, feature, configuration).
MODELS = (
    (
        "bert",
        "default",
        {
            "hidden_size": 384,
            "num_hidden_layers": 6,
            "num_attention_heads": 12,
            "intermediate_size": 1536,
            "max_position_embeddings": 512,
        },
    ),
    ("gpt2", "causal-lm", {"n_embd": 384, "n_layer": 6, "n_head": 12, "n_inner": 1536, "n_positions": 512}),
    (
        "bart",
        "default",
        {
            "d_model": 384,
            "encoder_layers": 4,
            "decoder_layers": 4,
            "encoder_attention_heads": 12,
            "decoder_attention_heads": 12,
            "encoder_ffn_dim": 1536,
            "decoder_ffn_dim": 1536,
            "max_position_embeddings": 512,
        },
    ),
)
# Batch × tokens, on both sides of an encoder-decoder.
SHAPES = ((1, 16), (1, 128), (8, 64))
OPSET = 17
EAGER, AGAIN, SDPA = "eager", "eager again", "sdpa"


def measure(rounds: int) -> dict[str, Any]:
    """Latency of one run in milliseconds, at each shape; ratios compare the smallest of `rounds` interleaved runs."""
    rows = []
    for architecture, feature, sizes in MODELS:
        with tempfile.TemporaryDirectory() as directory:
            runs, inputs = sessions(architecture, feature, sizes, Path(directory))
            for shape, arrays in inputs.items():
                measurements._tell(f"{architecture} {shape}")
                times: dict[str, list[float]] = {name: [] for name in runs}
                for index in range(rounds + 1):
                    for name, session in runs.items():
                        started = time.perf_counter()
                        session.run(arrays)
                        if index:
                            times[name].append(1000 * (time.perf_counter() - started))
                base = min(times[EAGER])
                for name, values in times.items():
                    value = min(values) / base
                    spread = {"median": value, "min": value, "max": value}
                    ratio = None if name == EAGER else measurements.ratio_verdict(spread, None)
                    rows.append(measurements.row(f"{architecture} {feature}, {shape}", name, values, ratio))
    method = (
        f"{rounds} interleaved runs of ONNX Runtime, opset {OPSET}, one thread; ratios of the smallest;"
        f" {AGAIN} is the control"
    )
    return measurements.outcome("attention", "ms", rows, method=method)


def sessions(
    architecture: str, feature: str, sizes: Mapping[str, int], directory: Path
) -> tuple[dict[str, OnnxSession], dict[str, dict[str, np.ndarray]]]:
    """Two mappings: name → session of the file with that attention implementation, and shape → inputs."""
    import transformers

    from parity.features import FeaturesManager, constructor
    from parity.fixtures.checkpoints import scramble
    from parity.fixtures.preprocessors import preprocessor
    from parity.onnx import export
    from parity.registry import architecture as find
    from parity.samples import SampleSource
    from parity.sessions import OnnxSession
    from parity.validation import backend_inputs

    declared = find(architecture)
    processor = preprocessor(declared.preprocessor)
    files = {}
    for name in (EAGER, SDPA):
        config = transformers.AutoConfig.for_model(declared.model_type, **{**declared.tiny, **sizes})
        model_class: type[_BaseAutoModelClass] = FeaturesManager.get_model_class_for_feature(feature)
        model = model_class.from_config(config, attn_implementation=name)
        scramble(model)
        onnx_config = constructor(architecture, feature)(model.config)
        files[name] = directory / f"{name}.onnx"
        export(processor, model.eval(), onnx_config, OPSET, files[name])
    source = SampleSource(onnx_config, processor, model.config)
    inputs = {}
    for batch, tokens in SHAPES:
        axes = {axis: batch if axis == "batch" else tokens for axis in source.axes}
        inputs[f"{batch} × {tokens}"] = backend_inputs(onnx_config, source.resize(axes))
    runs = {name: OnnxSession(files[file]) for name, file in ((EAGER, EAGER), (AGAIN, EAGER), (SDPA, SDPA))}
    return runs, inputs
