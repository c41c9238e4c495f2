"""A checkpoint → its configuration, eager model, preprocessor and fingerprint; every failure is one clear message."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import importlib
import importlib.util
import json
import logging
import re
import socket
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from parity import checkpoint_files
from parity.dtypes import DEFAULT_DTYPE, torch_dtype
from parity.environment import version_of
from parity.errors import CheckpointError, EnvironmentGap, ParityError, UsageError
from parity.releases import dtype_option, tensorflow_gap
from parity.turns import in_turn, shared, without_warnings

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, ProcessorMixin
    from transformers.models.auto.auto_factory import _BaseAutoModelClass

    # What has `from_pretrained`.
    ModelLoader: TypeAlias = type[PreTrainedModel] | type[_BaseAutoModelClass]

SAFE_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
PICKLED_WEIGHTS = ("pytorch_model.bin", "pytorch_model.bin.index.json")
TENSORFLOW_WEIGHTS = ("tf_model.h5", "tf_model.h5.index.json")
SENTENCE_PIECES = (
    "spiece.model",
    "sentencepiece.bpe.model",
    "sentencepiece.model",
    "tokenizer.model",
    "source.spm",
    "spm.model",
)
_PREPROCESSOR_FILES = {
    "processor": ("processor_config.json",),
    "tokenizer": (
        "tokenizer_config.json",
        "tokenizer.json",
        "vocab.txt",
        "vocab.json",
        *SENTENCE_PIECES,
    ),
    "image_processor": ("preprocessor_config.json",),
    "feature_extractor": ("preprocessor_config.json",),
}
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def locate(source: str, cache_dir: str | None = None) -> Path | None:
    """The directory of a local checkpoint, or None for a Hub id.

    Raises:
        UsageError: neither a directory nor a Hub id in the cache or within reach.
        CheckpointError: the directory has no configuration or no weights.
    """
    if not source:
        raise UsageError("--model: is empty; give the directory of a checkpoint or a Hub id")
    path = checkpoint_files.directory_of(source)
    if not path.exists():
        if is_hub_id(source):
            checkpoint_files.require_hub_id(source)
            _require_hub(source, cache_dir)
            return None
        raise UsageError(f"--model {source}: no such directory; give the directory of a checkpoint or a Hub id")
    if not path.is_dir():
        raise UsageError(f"--model {source}: is a file, should be the directory that holds config.json and the weights")
    names = {child.name for child in path.iterdir()}
    if not names:
        raise CheckpointError(f"{source}: the directory is empty, should hold config.json and the weights")
    if "config.json" not in names:
        raise CheckpointError(f"{source}: has no config.json; save the model there with save_pretrained")
    checkpoint_files.require_configuration(path)
    if names.isdisjoint(SAFE_WEIGHTS + PICKLED_WEIGHTS + TENSORFLOW_WEIGHTS):
        raise CheckpointError(
            f"{source}: has a config.json but no weights, should have model.safetensors or pytorch_model.bin;"
            " save the trained model there with save_pretrained"
        )
    return path


@functools.cache
def _require_hub(source: str, cache_dir: str | None) -> None:
    """Refuse at once what the Hub cannot be asked for; its client would try again for half a minute."""
    from huggingface_hub import constants, try_to_load_from_cache

    if isinstance(try_to_load_from_cache(source, "config.json", cache_dir=cache_dir), str):
        return
    why = "in offline mode only its cache is looked at" if constants.HF_HUB_OFFLINE else ""
    if not why and not urllib.request.getproxies():
        try:
            socket.getaddrinfo(urllib.parse.urlsplit(constants.ENDPOINT).hostname, 443)
        except OSError as error:
            why = f"{error.strerror or error}"
    if why:
        raise UsageError(
            f"--model {source}: it is no directory here, and the Hub cannot be reached ({why}); give the directory of a"
            " checkpoint, or check the network"
        )


def framework_of(directory: Path) -> str:
    """`pt` or `tf`, by the weights that the directory holds; PyTorch's are preferred."""
    pytorch = any((directory / name).exists() for name in SAFE_WEIGHTS + PICKLED_WEIGHTS)
    return "pt" if pytorch else "tf"


def class_by_name(name: str) -> type[Any]:
    """The class of transformers of that name, or that of another package by its dotted name.

    Raises:
        ImportError, AttributeError: there is none.
    """
    module, _, own = name.rpartition(".")
    return getattr(importlib.import_module(module or "transformers"), own)


def load_config(source: str, cache_dir: str | None = None) -> PretrainedConfig:
    """The checkpoint's `PretrainedConfig`, read without executing code that comes with it."""
    directory = locate(source, cache_dir)
    from transformers import AutoConfig

    with _load_errors(source, "its configuration"), quiet_transformers():
        config = AutoConfig.from_pretrained(source, cache_dir=cache_dir, trust_remote_code=False)
        path = has_file(source, "config.json") if directory else None
        # transformers 4 guesses it from the name of the directory.
        if path and "model_type" not in json.loads(path.read_text(encoding="utf-8")):
            raise ValueError("config.json should have a `model_type` key")
    return config


@in_turn
def load_model(
    source: str,
    model_class: ModelLoader,
    *,
    framework: str | None = None,
    cache_dir: str | None = None,
    attention: str = "eager",
    dtype: str = DEFAULT_DTYPE,
) -> tuple[PreTrainedModel, list[str]]:
    """The model in that dtype and in eval mode, and the names of the weights that the checkpoint lacks.

    Weights are loaded without executing pickles. Weights that the checkpoint lacks are initialised at random, as
    transformers does: a caller that goes on must know that no output depends on them.

    Raises:
        UsageError, CheckpointError: see `locate`; and weights that are truncated, do not fit, or want code to run.
    """
    directory = locate(source, cache_dir)
    if directory is not None:
        framework = framework or framework_of(directory)
    if framework == "tf":
        model, missing = _load_tensorflow(source, model_class, cache_dir, attention)
        return model.to(torch_dtype(dtype)), missing
    with _load_errors(source, "its weights"), quiet_transformers():
        model, info = model_class.from_pretrained(
            source,
            cache_dir=cache_dir,
            attn_implementation=attention,
            output_loading_info=True,
            trust_remote_code=False,
            weights_only=True,
            **dtype_option(torch_dtype(dtype)),
        )
    return model.eval(), sorted(info["missing_keys"])


def _load_tensorflow(
    source: str, model_class: ModelLoader, cache_dir: str | None, attention: str
) -> tuple[PreTrainedModel, list[str]]:
    """TensorFlow weights into a PyTorch model; `from_pretrained(from_tf=True)` of transformers 4.57 leaves it empty."""
    gap = tensorflow_gap()
    if gap:
        raise EnvironmentGap(f"{source}: holds TensorFlow weights: {gap}")
    config = load_config(source, cache_dir)
    with _load_errors(source, "its TensorFlow weights"), quiet_transformers():
        from transformers.modeling_tf_pytorch_utils import load_tf2_checkpoint_in_pytorch_model

        model = model_class.from_config(config, attn_implementation=attention)
        weights = has_file(source, TENSORFLOW_WEIGHTS[0], cache_dir)
        if weights is None:
            raise CheckpointError(f"{source}: has no {TENSORFLOW_WEIGHTS[0]}; give --framework pt, or save it there")
        model, info = load_tf2_checkpoint_in_pytorch_model(
            model, str(weights), allow_missing_keys=True, output_loading_info=True
        )
    return model.float().eval(), sorted(info["missing_keys"])


@shared
def quiet_transformers() -> Iterator[None]:
    """Loading bars and reports are for training; what matters of them is raised or returned."""
    from transformers.utils import logging as transformers_logging

    logger = logging.getLogger("transformers")
    level, bars = logger.level, transformers_logging.is_progress_bar_enabled()
    logger.setLevel(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        with without_warnings():
            yield
    finally:
        logger.setLevel(level)
        if bars:
            transformers_logging.enable_progress_bar()


@contextlib.contextmanager
def _load_errors(source: str, part: str) -> Iterator[None]:
    """Any exception of a loader becomes one CheckpointError that names the checkpoint and what to do."""
    try:
        yield
    except ParityError:
        raise
    except Exception as error:
        raise CheckpointError(f"{source}: {part} cannot be loaded: {_explanation(error, source)}") from error


def _explanation(error: Exception, source: str) -> str:
    """What is wrong and what to do; transformers 4 puts its own guess before the error that says it."""
    found = checkpoint_files.wrong_item(str(error)) or checkpoint_files.broken_json(Path(source).expanduser())
    if found:
        return found
    each: BaseException | None = error
    while each is not None:
        explanation = _explanation_of_known(each)
        if explanation:
            return explanation
        each = each.__cause__ or each.__context__
    text = " ".join(str(error).split())[:400]
    return (
        f"config.json and the files beside it do not go together ({type(error).__name__}: {text}); save the checkpoint"
        " again with save_pretrained, or correct what this names"
    )


def _explanation_of_known(error: BaseException) -> str | None:
    text = " ".join(str(error).split())
    name = type(error).__name__
    if package := missing_package(error):
        return f"it needs the package {package}, which is not installed: pip install {package}"
    if "ignore_mismatched_sizes" in text:
        return "its weights have other shapes than config.json says; correct the one or the other"
    if "trust_remote_code" in text:
        return "it needs code of its own, which parity does not run; use an architecture that transformers has"
    if "weights_only" in text or name == "UnpicklingError":
        return (
            "pytorch_model.bin is not a plain pickle of tensors: it wants to run code, or is damaged; convert it to"
            " safetensors where you trust it"
        )
    cut = name in ("SafetensorError", "EOFError") or getattr(error, "errno", None) == errno.EINVAL
    if cut or "PytorchStreamReader" in text or "central directory" in text:
        text = text or "it ends too early"
        return f"the file is truncated or damaged ({text[:200]}); copy or download it again"
    if "does not recognize this architecture" in text or "should have a `model_type` key" in text.lower():
        return (
            f"config.json names no model_type that transformers {version_of('transformers')} knows; correct it, or"
            " install a transformers that has this architecture"
        )
    if "not a valid JSON file" in text:
        return "config.json is not valid JSON; copy or download it again"
    if "We couldn't connect" in text or "offline mode" in text or name in ("ConnectError", "LocalEntryNotFoundError"):
        return "it is no directory here, and the Hub cannot be reached; give a local checkpoint or check the network"
    if "is not a local folder" in text or "Repository Not Found" in text or "404" in text:
        return "it is no directory here and the Hub has no such model; check the spelling"
    return None


_PACKAGE = re.compile(
    r"pip install `?([a-z]\w+)\b(?!\+)|requires the `?(\w+)`? library|No module named '(\w+)|`(\w+)` is required"
    r"|You need to install (\w+)"
)
# What transformers takes some packages' names for.
_PACKAGE_NAMES = {"SentencePiece": "sentencepiece", "PIL": "pillow", "rjieba": "rjieba"}


def missing_package(error: BaseException) -> str | None:
    """The package that a loader asks for, None if it fails for another reason."""
    match = _PACKAGE.search(str(error)) if isinstance(error, (ImportError, ValueError)) else None
    name = next(filter(None, match.groups()), None) if match else None
    if name is None:
        return None
    name = _PACKAGE_NAMES.get(name, name)
    return None if importlib.util.find_spec(name.replace("-", "_")) else name


def is_hub_id(name: str) -> bool:
    """Whether a name can be one on the Hub."""
    return bool(_HUB_ID.fullmatch(name)) and not name.startswith(".")


def has_file(source: str, name: str, cache_dir: str | None = None) -> Path | None:
    """Where the file `name` of a checkpoint lies, None when the checkpoint has none."""
    directory = Path(source).expanduser()
    if directory.is_dir():
        return directory / name if (directory / name).is_file() else None
    from transformers.utils import cached_file

    path = cached_file(
        source,
        name,
        cache_dir=cache_dir,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return Path(path) if path else None


def kinds_of_preprocessor(source: str, cache_dir: str | None = None) -> list[str]:
    """The kinds that the checkpoint has files of; `image_processor` is a feature extractor, too."""
    automatic = {kind: names for kind, names in _PREPROCESSOR_FILES.items() if kind != "feature_extractor"}
    return [kind for kind, names in automatic.items() if any(has_file(source, name, cache_dir) for name in names)]


def load_preprocessor(
    source: str, kind: str = "auto", cache_dir: str | None = None, config: PretrainedConfig | None = None
) -> Any:
    """The checkpoint's tokenizer, image processor, feature extractor or processor; None when `auto` finds none.

    Args:
        kind: `auto`, `tokenizer`, `image_processor`, `feature_extractor` or `processor`.
        config: the model's configuration, if the files have none beside them that tells the class.

    Raises:
        UsageError: `auto` finds a tokenizer and an image processor, but nothing that joins them.
        CheckpointError: the files are there and cannot be read, or are not there and `kind` names them.
    """
    if kind == "auto":
        kinds = kinds_of_preprocessor(source, cache_dir)
        if not kinds:
            return None
        if "processor" not in kinds and len(kinds) > 1:
            processor = joint_processor(source, cache_dir)
            if processor is not None:
                return processor
            raise UsageError(
                f"{source}: has a tokenizer and an image processor or feature extractor, but no processor that joins"
                " them; choose one with --preprocessor tokenizer, image_processor or feature_extractor"
            )
        kind = kinds[0]
    names = _PREPROCESSOR_FILES[kind]
    if kind != "processor" and not any(has_file(source, name, cache_dir) for name in names):
        # transformers 5 would make up an empty tokenizer.
        raise CheckpointError(
            f"{source}: has no {kind.replace('_', ' ')}, should have {' or '.join(names)}; save the model's own one"
            " there with save_pretrained"
        )
    import transformers

    classes = {
        "tokenizer": "AutoTokenizer",
        "image_processor": "AutoImageProcessor",
        "feature_extractor": "AutoFeatureExtractor",
        "processor": "AutoProcessor",
    }
    options: dict[str, Any] = {"cache_dir": cache_dir, "trust_remote_code": False}
    if config is not None and has_file(source, "config.json", cache_dir) is None:
        options["config"] = config
    if kind == "tokenizer":
        _require_sentencepiece(source, cache_dir)
    with _load_errors(source, f"its {kind.replace('_', ' ')}"), quiet_transformers():
        try:
            return getattr(transformers, classes[kind]).from_pretrained(source, **options)
        except ValueError:
            # Published files say either, whatever the class that reads them today.
            other = {"image_processor": "feature_extractor", "feature_extractor": "image_processor"}.get(kind)
            if other is None:
                raise
            return getattr(transformers, classes[other]).from_pretrained(source, **options)


def _require_sentencepiece(source: str, cache_dir: str | None) -> None:
    """Say what is missing; transformers names tiktoken, or a configuration class."""
    if importlib.util.find_spec("sentencepiece") or has_file(source, "tokenizer.json", cache_dir):
        return
    files = [name for name in SENTENCE_PIECES if has_file(source, name, cache_dir)]
    if files:
        raise CheckpointError(
            f"{source}: its tokenizer ({files[0]}) needs the package sentencepiece, which is not installed:"
            " pip install sentencepiece, which the extra parity[sentencepiece] has too"
        )


def joint_processor(source: str, cache_dir: str | None) -> ProcessorMixin | None:
    """The processor that joins tokenizer and image processor of a checkpoint without a file of its own for it.

    Older checkpoints of clip and layoutlmv3 have none; the model's type tells its class. None where there is no such,
    or where it cannot read the files.
    """
    import transformers

    # Before transformers 4.54 Whisper's takes a tokenizer.json for no tokenizer, and opens a vocabulary named None.
    with quiet_transformers(), contextlib.suppress(ImportError, KeyError, OSError, TypeError, ValueError):
        processor = transformers.AutoProcessor.from_pretrained(source, cache_dir=cache_dir, trust_remote_code=False)
        # Where a model type has none, transformers hands out the tokenizer.
        return processor if isinstance(processor, transformers.ProcessorMixin) else None
    return None


# What a checkpoint is read from, whatever its architecture.
_READ = ("*.json", "*.safetensors", "pytorch_model*", "tf_model*", "*.txt", "*.model")
# Name → size, time of the last change, and number of the file.
Snapshot: TypeAlias = dict[str, tuple[int, int, int]]


def snapshot(source: str, cache_dir: str | None = None) -> Snapshot:
    """What the checkpoint's files are now, without reading them; empty where there is none."""
    directory = Path(source).expanduser()
    if not directory.is_dir():
        configuration = has_file(source, "config.json", cache_dir) if is_hub_id(source) else None
        if configuration is None:
            return {}
        directory = configuration.parent
    files: Snapshot = {}
    for path in {path for pattern in _READ for path in directory.glob(pattern)}:
        with contextlib.suppress(OSError):
            status = path.stat()
            files[path.name] = status.st_size, status.st_mtime_ns, status.st_ino
    return files


def fingerprint(source: str, cache_dir: str | None = None) -> str:
    """SHA-256 over the names and contents of the checkpoint's configuration and weights, as `sha256:…`."""
    configuration = has_file(source, "config.json", cache_dir)
    directory = configuration.parent if configuration else Path(source)
    patterns = ("config.json", "*.safetensors", "*.safetensors.index.json", "pytorch_model*", "tf_model*")
    files = sorted({path for pattern in patterns for path in directory.glob(pattern)})
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return f"sha256:{digest.hexdigest()}"


def random_weights_reach_outputs(
    model: PreTrainedModel, missing: Sequence[str], outputs: Callable[[], Iterable[torch.Tensor]]
) -> list[str]:
    """Which of the `missing` weights the outputs depend on: filled with NaN, they show. Ends with zeros there.

    Args:
        missing: names from `load_model`.
        outputs: a function without arguments that runs the model and returns its output tensors.
    """
    import torch

    parameters = dict(model.named_parameters(remove_duplicate=False))
    loaded = {tensor.data_ptr() for name, tensor in parameters.items() if name not in missing}
    absent = [name for name in missing if name in parameters and parameters[name].data_ptr() not in loaded]
    if not absent:
        return []
    try:
        for name in absent:
            parameters[name].data.fill_(float("nan"))
        with torch.no_grad():
            reach = any(bool(tensor.isnan().any()) for tensor in outputs())
    finally:
        for name in absent:
            parameters[name].data.zero_()
    return absent if reach else []
