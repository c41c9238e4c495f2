"""The files of the table: which exporter writes which model, and how. Each needs an environment with its exporter."""

from __future__ import annotations

import contextlib
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from parity.axes import Signature

OPSET = 18


@dataclass(frozen=True)
class Case:
    """One file, or one directory of files.

    Args:
        source: the exporter, a key of `SOURCES`.
        architecture, feature: of the tiny checkpoint.
        variant: the property that makes it special; empty if there is none, `directory` for several files.
        base: the exporter of the float32 file that a tool of onnxruntime converts.
    """

    source: str
    architecture: str
    feature: str = "default"
    variant: str = ""
    base: str = "torchscript"

    @property
    def name(self) -> str:
        """The name of its directory."""
        base = "" if self.base == "torchscript" else f"of-{self.base}"
        return "-".join(filter(None, [self.source, self.architecture, self.feature, self.variant, base]))

    @property
    def is_directory(self) -> bool:
        """Whether it is several files."""
        return self.variant == "directory"

    @property
    def checkpoint(self) -> str:
        """The name of the checkpoint that is exported."""
        return f"{self.architecture}-{self.feature}"


TEXT = (
    ("bert", "default"),
    ("bert", "masked-lm"),
    ("distilbert", "sequence-classification"),
    ("roberta", "token-classification"),
    ("albert", "default"),
    ("electra", "default"),
    ("xlm-roberta", "masked-lm"),
    ("camembert", "question-answering"),
)
IMAGES = (("vit", "image-classification"), ("resnet", "default"))
# Models of the calibration of quantised files; each is quantised from the files of both exporters.
CALIBRATION = (
    *TEXT,
    *IMAGES,
    ("squeezebert", "default"),
    ("deit", "image-classification"),
    ("convnext", "image-classification"),
    ("roformer", "token-classification"),
)
_PIXELS = {*IMAGES, *CALIBRATION[-3:-1]}


def cases() -> list[Case]:
    """All files of the table."""
    found = [Case("optimum", *each) for each in (*TEXT, *IMAGES)]
    found += [Case("optimum", name, "causal-lm-with-past") for name in ("gpt2", "gpt-neo", "bloom", "llama")]
    found += [Case("optimum", name, "seq2seq-lm-with-past", "directory") for name in ("bart", "t5", "marian")]
    found += [Case("optimum", "gpt2", "causal-lm-with-past", "directory")]
    for source in ("transformers", "torch-export", "torchscript"):
        found += [Case(source, *each) for each in (*TEXT[:6], *IMAGES)]
    found.append(Case("transformers", "gpt2", "causal-lm-with-past", "directory"))
    found.append(Case("torch-export", "gpt2", "causal-lm"))
    found += [Case("torch-export", "bert", "default", variant) for variant in ("static", "default-names", "int32")]
    found += [Case("torchscript", "bert", "default", variant) for variant in ("static", "default-names", "int32")]
    found += [Case("torchscript", "bert", "default", "more-outputs"), Case("torchscript", "gpt2", "causal-lm")]
    for name, feature in (*TEXT[:4], ("gpt2", "causal-lm")):
        found += [Case("optimiser", name, feature, variant) for variant in ("session", "transformers")]
    for name, feature in (*TEXT[:5], ("gpt2", "causal-lm")):
        found += [Case("quantiser", name, feature, variant) for variant in ("int8", "uint8")]
        found.append(Case("float16", name, feature))
    found += [Case("quantiser", "bert", "default", "static"), Case("quantiser", "bert", "masked-lm", "int4")]
    found += [Case("float16", "vit", "image-classification"), Case("float16", "resnet", "default")]
    for base in ("torchscript", "torch-export"):
        found += [Case("quantiser", *each, "int8", base) for each in CALIBRATION]
        found += [Case("float16", *each, "", base) for each in CALIBRATION]
    return list(dict.fromkeys(found))


# optimum declares the decoder's caches with the encoder's number of heads, so both must be equal.
_HEADS = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
_CHANGES = {"bart": _HEADS, "marian": _HEADS}


def prepare(case: Case, directory: Path) -> Path:
    """The checkpoint of a case below that directory; written if it does not exist."""
    from parity.fixtures.checkpoints import save_checkpoint, tiny_model

    path = directory / case.checkpoint
    if not (path / "config.json").exists():
        save_checkpoint(path, case.architecture, case.feature)
        if case.architecture in _CHANGES:
            tiny_model(case.architecture, case.feature, changes=_CHANGES[case.architecture]).save_pretrained(path)
    return path


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    import logging

    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)


def make(case: Case, checkpoint: Path, directory: Path) -> None:
    """Write the file, or the files, of a case into a directory."""
    with _quietly():
        SOURCES[case.source](case, checkpoint, directory)


def _load(case: Case, checkpoint: Path) -> Any:
    import transformers

    from parity.features import model_class

    config = transformers.AutoConfig.from_pretrained(checkpoint)
    options = {"attn_implementation": "eager"} if case.variant == "eager" else {}
    return model_class(config.model_type, case.feature).from_pretrained(checkpoint, **options).eval()


def _inputs(case: Case, batch: int = 2, length: int = 8) -> dict[str, Any]:
    """Arguments of the model, in the order of its `forward`."""
    import torch

    from parity.fixtures.checkpoints import tiny_config

    generator = torch.Generator().manual_seed(5)
    config = tiny_config(case.architecture)
    if (case.architecture, case.feature) in _PIXELS:
        size = getattr(config, "image_size", None) or 64
        return {"pixel_values": torch.randn((batch, config.num_channels, size, size), generator=generator)}
    ids = torch.randint(5, config.vocab_size - 1, (batch, length), generator=generator)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


_OUTPUTS = {"question-answering": ["start_logits", "end_logits"]}


def _outputs(case: Case) -> list[str]:
    if case.feature == "default":
        return ["last_hidden_state"]
    return _OUTPUTS.get(case.feature, ["logits"])


def _optimum(case: Case, checkpoint: Path, directory: Path) -> None:
    from optimum.exporters.onnx import onnx_export_from_model

    tasks = {
        "default": "feature-extraction",
        "masked-lm": "fill-mask",
        "sequence-classification": "text-classification",
        "causal-lm-with-past": "text-generation-with-past",
        "seq2seq-lm-with-past": "text2text-generation-with-past",
    }
    task = tasks.get(case.feature, case.feature)
    # File names of earlier releases, which transformers.js reads: with them, a decoder alone is a directory, too.
    legacy = {"legacy": True} if case.is_directory and "causal" in case.feature else {}
    onnx_export_from_model(_load(case, checkpoint), directory, task=task, do_validation=False, **legacy)


def _transformers(case: Case, checkpoint: Path, directory: Path) -> None:
    from transformers.exporters import OnnxConfig, OnnxExporter

    model, inputs = _load(case, checkpoint), _inputs(case)
    if case.is_directory:
        exported = OnnxExporter().export_for_generation(model, inputs, OnnxConfig(dynamic=True))
    else:
        exported = OnnxExporter().export(model, inputs, OnnxConfig(dynamic=True))
    exported.save_pretrained(directory)


def _wrap(model: Any, names: list[str], outputs: list[str]) -> Any:
    """The model as a function of positional tensors that returns a tuple."""
    import torch

    class Wrapped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *tensors: Any) -> Any:
            results = self.model(**dict(zip(names, tensors, strict=True)), return_dict=True)
            return tuple(results[name] for name in outputs)

    return Wrapped().eval()


def _dynamic(case: Case, names: list[str]) -> dict[str, dict[int, str]]:
    text = {0: "batch", 1: "sequence"}
    return {name: {0: "batch"} if name == "pixel_values" else text for name in names}


def _torch_export(case: Case, checkpoint: Path, directory: Path) -> None:
    import torch

    model, inputs = _load(case, checkpoint), _inputs(case)
    if hasattr(model.config, "use_cache"):
        model.config.use_cache = False
    if case.variant == "int32":
        inputs = {name: tensor.int() if not tensor.is_floating_point() else tensor for name, tensor in inputs.items()}
    dynamic = None if case.variant == "static" else _dynamic(case, list(inputs))
    names = {} if case.variant == "default-names" else {"output_names": _outputs(case)}
    directory.mkdir(parents=True, exist_ok=True)
    torch.onnx.export(
        model,
        (),
        str(directory / "model.onnx"),
        kwargs=inputs,
        dynamic_shapes=dynamic,
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
        external_data=False,
        **names,
    )


def _torchscript(case: Case, checkpoint: Path, directory: Path) -> None:
    import torch

    from parity.releases import traceable_masks

    model, inputs = _load(case, checkpoint), _inputs(case)
    if hasattr(model.config, "use_cache"):
        model.config.use_cache = False
    if case.variant == "int32":
        inputs = {name: tensor.int() for name, tensor in inputs.items()}
    outputs = _outputs(case) + (["pooler_output"] if case.variant == "more-outputs" else [])
    text = {0: "batch", 1: "sequence"}
    signature = Signature({}, {})
    if case.variant != "static":
        short = "classification" in case.feature and "token" not in case.feature
        last = {0: "batch"} if short or (case.architecture, case.feature) in _PIXELS else text
        signature = Signature(
            _dynamic(case, list(inputs)), {name: {0: "batch"} if name == "pooler_output" else last for name in outputs}
        )
    names: Mapping[str, Any] = {
        "input_names": list(inputs),
        "output_names": outputs,
        "dynamic_axes": signature.dynamic_axes,
    }
    if case.variant == "default-names":
        names = {}
    directory.mkdir(parents=True, exist_ok=True)
    with traceable_masks():
        torch.onnx.export(
            _wrap(model, list(inputs), outputs),
            tuple(inputs.values()),
            str(directory / "model.onnx"),
            opset_version=OPSET - 1,
            dynamo=False,
            **names,
        )


def _base(case: Case, checkpoint: Path, directory: Path) -> Path:
    """The float32 file that a tool of onnxruntime converts; copied if another case has it already."""
    alike = (
        replace(case, source=source, variant=variant) for source, variant in (("quantiser", "int8"), ("float16", ""))
    )
    places = [directory.parent / Case(case.base, case.architecture, case.feature).name]
    places += [directory.parent / each.name / "base" for each in alike]
    found = next((place for place in places if (place / "model.onnx").is_file()), None)
    if found:
        (directory / "base").mkdir(parents=True)
        shutil.copy(found / "model.onnx", directory / "base")
    else:
        export = {"torchscript": _torchscript, "torch-export": _torch_export}[case.base]
        export(Case(case.base, case.architecture, case.feature), checkpoint, directory / "base")
    return directory / "base" / "model.onnx"


def _optimiser(case: Case, checkpoint: Path, directory: Path) -> None:
    import onnxruntime

    base = _base(case, checkpoint, directory)
    if case.variant == "session":
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(directory / "model.onnx")
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        onnxruntime.InferenceSession(str(base), options, providers=["CPUExecutionProvider"])
        return
    from onnxruntime.transformers.optimizer import optimize_model

    from parity.fixtures.checkpoints import tiny_config

    config = tiny_config(case.architecture)
    kind = "gpt2" if case.architecture == "gpt2" else "bert"
    optimised = optimize_model(
        str(base), kind, num_heads=config.num_attention_heads, hidden_size=config.hidden_size, opt_level=0
    )
    optimised.save_model_to_file(str(directory / "model.onnx"))


def _quantiser(case: Case, checkpoint: Path, directory: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic, quantize_static

    base, file = _base(case, checkpoint, directory), directory / "model.onnx"
    if case.variant == "int4":
        import onnx
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

        quantiser = MatMulNBitsQuantizer(onnx.load(str(base)), block_size=16, is_symmetric=True)
        quantiser.process()
        quantiser.model.save_model_to_file(str(file), False)
        return
    if case.variant == "static":
        from onnxruntime.quantization import CalibrationDataReader

        class Reader(CalibrationDataReader):
            def __init__(self) -> None:
                feeds = [_inputs(case, batch=2, length=length) for length in (4, 8, 12)]
                self._feeds = iter([{name: tensor.numpy() for name, tensor in feed.items()} for feed in feeds])

            def get_next(self) -> Any:
                return next(self._feeds, None)

        quantize_static(str(base), str(file), Reader(), weight_type=QuantType.QInt8, activation_type=QuantType.QUInt8)
        return
    kind = QuantType.QInt8 if case.variant == "int8" else QuantType.QUInt8
    quantize_dynamic(str(base), str(file), weight_type=kind)


def _float16(case: Case, checkpoint: Path, directory: Path) -> None:
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    base = _base(case, checkpoint, directory)
    model = convert_float_to_float16(onnx.load(str(base)), keep_io_types=False)
    onnx.save(model, str(directory / "model.onnx"))


SOURCES: Mapping[str, Callable[[Case, Path, Path], None]] = {
    "optimum": _optimum,
    "transformers": _transformers,
    "torch-export": _torch_export,
    "torchscript": _torchscript,
    "optimiser": _optimiser,
    "quantiser": _quantiser,
    "float16": _float16,
}
