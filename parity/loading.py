"""A checkpoint → its configuration, eager model, preprocessor and fingerprint; every failure is one clear message."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import importlib
import importlib.util
import logging
import re
import socket
import urllib.parse
import urllib.request
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from parity import adapters, checkpoint_files, schema
from parity.dtypes import DEFAULT_DTYPE, torch_dtype
from parity.environment import version_of
from parity.errors import CheckpointError, EnvironmentGap, ParityError, UsageError
from parity.paths import require_regular
from parity.releases import auto_class, constructor_of, dtype_option, tensorflow_gap
from parity.schema import SchemaError
from parity.turns import in_turn, shared, without_warnings

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, ProcessorMixin
    from transformers.models.auto.auto_factory import _BaseAutoModelClass

    # Classes with `from_pretrained`.
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
_LARGEST_HEADER = 100_000_000  # bytes, as in the safetensors library
_HEADER = schema.entries(schema.prose(), schema.entries(schema.prose(), schema.anything), largest=10**7)
_INDEX = schema.table({}, {"weight_map": schema.entries(schema.prose(), schema.text(), largest=10**7)})
_CONFIGURATION = schema.entries(schema.prose(), schema.anything)
# Types of floating point in the header of a safetensors file → their names in PyTorch.
_STORED = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def resolve(
    source: str, cache_dir: str | None = None, *, revision: str | None = None, subfolder: str | None = None
) -> str:
    """The source of a checkpoint, a directory or a Hub id; a revision or subfolder on the Hub is downloaded.

    Args:
        source: directory of a checkpoint, or Hub id.
        cache_dir: directory for checkpoints from the Hub.
        revision: branch, tag or commit on the Hub.
        subfolder: folder of the checkpoint within the directory or the Hub's repository.

    Raises:
        UsageError, CheckpointError: see `locate`; or a revision of a directory, or a subfolder that is missing.
    """
    path = checkpoint_files.directory_of(source)
    if source and path.is_dir():
        if revision:
            raise UsageError(f"--revision: {source} is a directory, which has no revisions; those are the Hub's")
        source = str(path / subfolder) if subfolder else source
        if subfolder and not Path(source).is_dir():
            raise UsageError(f"--subfolder {subfolder}: {path} has no such directory{_directories_note(path)}")
    elif (revision or subfolder) and is_hub_id(source) and not path.exists():
        checkpoint_files.require_hub_id(source)
        prefix = f"{subfolder.strip('/')}/" if subfolder else ""
        _require_hub(source, cache_dir, revision, f"{prefix}config.json")
        source = _fetch(source, cache_dir, revision, prefix)
    locate(source, cache_dir)
    return source


def _fetch(source: str, cache_dir: str | None, revision: str | None, prefix: str) -> str:
    """The directory in the Hub's cache of the files that `from_pretrained` would read of a checkpoint on the Hub.

    Args:
        prefix: the subfolder with a slash at the end; empty for none.
    """
    from huggingface_hub import snapshot_download

    small = ("*.json", "*.txt", "*.jinja", *SENTENCE_PIECES, "target.spm", "bpe.codes")
    safe = ("model.safetensors", "model-*.safetensors", "adapter_model.safetensors")
    with _load_errors(f"--model {source}", "its files"):
        for names in (small + safe, ("pytorch_model*.bin", "adapter_model.bin")):
            patterns = [f"{prefix}{name}" for name in names]
            root = snapshot_download(source, revision=revision, cache_dir=cache_dir, allow_patterns=patterns)
            directory = Path(root, prefix)
            if any((directory / name).exists() for name in SAFE_WEIGHTS):
                break
    if not directory.is_dir():
        raise UsageError(f"--subfolder {prefix}: {source} has no such directory{_directories_note(Path(root))}")
    return str(directory)


def directories_below(directory: Path) -> list[str]:
    """The directories below this one, up to two levels, that hold a configuration and weights."""
    weights = SAFE_WEIGHTS + PICKLED_WEIGHTS + TENSORFLOW_WEIGHTS
    candidates = [path.parent for pattern in ("*/config.json", "*/*/config.json") for path in directory.glob(pattern)]
    holding = [each for each in candidates if any((each / name).is_file() for name in weights)]
    return sorted(each.relative_to(directory).as_posix() for each in holding)


def _directories_note(directory: Path) -> str:
    """The end of a message: the directories that hold a checkpoint; empty if there are none."""
    below = directories_below(directory)
    if not below:
        return ""
    verb = "holds a checkpoint" if len(below) == 1 else "hold checkpoints"
    return f"; {', '.join(below)} {verb}: give {'that directory' if len(below) == 1 else 'one of them'}, or --subfolder"


def locate(source: str, cache_dir: str | None = None) -> Path | None:
    """The directory of a local checkpoint, or of an adapter that names its base; None for a Hub id.

    Raises:
        EnvironmentGap: there is an adapter, and peft is not installed.
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
    if adapters.CONFIGURATION in names:
        adapters.require_peft(source)
        if not _holds_model(names):
            return path
    if "config.json" not in names:
        note = _directories_note(path) or "; save the model there with save_pretrained"
        raise CheckpointError(f"{source}: has no config.json{note}")
    checkpoint_files.require_configuration(path)
    if not _holds_model(names):
        raise CheckpointError(
            f"{source}: has a config.json but no weights, should have model.safetensors or pytorch_model.bin"
            + (_directories_note(path) or "; save the trained model there with save_pretrained")
        )
    return path


def _holds_model(names: Collection[str]) -> bool:
    return "config.json" in names and not set(names).isdisjoint(SAFE_WEIGHTS + PICKLED_WEIGHTS + TENSORFLOW_WEIGHTS)


def adapter_of(source: str, cache_dir: str | None = None) -> adapters.Adapter | None:
    """The adapter of a checkpoint, if it has one.

    Raises:
        EnvironmentGap: there is an adapter, and peft is not installed.
    """
    path = _adapter_configuration(source, cache_dir)
    if path is None:
        return None
    adapters.require_peft(source)
    return adapters.Adapter.read(path)


def _adapter_configuration(source: str, cache_dir: str | None) -> Path | None:
    find = has_file if locate(source, cache_dir) else _once_from_hub
    return find(source, adapters.CONFIGURATION, cache_dir)


@functools.cache
def _once_from_hub(source: str, name: str, cache_dir: str | None) -> Path | None:
    """Cached, because most checkpoints lack the file and the Hub would be asked for it again and again."""
    return has_file(source, name, cache_dir)


def base_of(source: str, cache_dir: str | None = None) -> str:
    """The source of a checkpoint's configuration and weights: itself, or the base that its adapter names.

    Raises:
        EnvironmentGap: see `adapter_of`.
        CheckpointError: the base cannot be located.
    """
    adapter = adapter_of(source, cache_dir)
    names = ("config.json", *SAFE_WEIGHTS, *PICKLED_WEIGHTS, *TENSORFLOW_WEIGHTS)
    if adapter is None or _holds_model([name for name in names if has_file(source, name, cache_dir)]):
        return source
    try:
        locate(adapter.base, cache_dir)
    except ParityError as error:
        name = adapter.base or "a model that it does not name"
        raise CheckpointError(
            f"{source}: holds an adapter of {name}, which cannot be loaded ({error}); put the base's config.json and"
            f" weights beside the adapter, or correct base_model_name_or_path in {adapters.CONFIGURATION}"
        ) from error
    return adapter.base


@functools.cache
def _require_hub(
    source: str, cache_dir: str | None, revision: str | None = None, configuration: str = "config.json"
) -> None:
    """Refuse a name at once if the Hub cannot be reached; its client would try again for half a minute."""
    from huggingface_hub import constants, try_to_load_from_cache

    if isinstance(try_to_load_from_cache(source, configuration, cache_dir=cache_dir, revision=revision), str):
        return
    why = "in offline mode only the local cache is read" if constants.HF_HUB_OFFLINE else ""
    if not why and not urllib.request.getproxies():
        try:
            socket.getaddrinfo(urllib.parse.urlsplit(constants.ENDPOINT).hostname, 443)
        except OSError as error:
            why = f"{error.strerror or error}"
    if why:
        raise UsageError(
            f"--model {source}: is not a directory on this machine, and the Hub cannot be reached ({why}); give"
            " the directory of a checkpoint, or check the network"
        )


def framework_of(directory: Path) -> str:
    """`pt` or `tf`, by the weights in the directory; PyTorch's are preferred."""
    pytorch = any((directory / name).exists() for name in SAFE_WEIGHTS + PICKLED_WEIGHTS)
    return "pt" if pytorch else "tf"


def class_by_name(name: str) -> type[Any]:
    """The class of transformers with this name, or a class of another package by its dotted name.

    Raises:
        ImportError, AttributeError: there is no such class.
    """
    module, _, own = name.rpartition(".")
    return getattr(importlib.import_module(module or "transformers"), own)


def load_config(source: str, cache_dir: str | None = None) -> PretrainedConfig:
    """The checkpoint's `PretrainedConfig`, read without executing code that comes with it."""
    source = base_of(source, cache_dir)
    directory = locate(source, cache_dir)
    from transformers import AutoConfig

    with _gap_first(source, cache_dir), _load_errors(source, "its configuration"), quiet_transformers():
        config = AutoConfig.from_pretrained(source, cache_dir=cache_dir, trust_remote_code=False)
        path = has_file(source, "config.json") if directory else None
        # transformers 4 guesses it from the directory's name.
        if path and "model_type" not in schema.read_json(path, _CONFIGURATION, constants=True):
            raise ValueError("config.json should have a `model_type` key")
    _require_unquantised(source, config)
    return config


@contextlib.contextmanager
def _gap_first(source: str, cache_dir: str | None) -> Iterator[None]:
    """Inside, a configuration is not blamed if the installed transformers cannot load its architecture."""
    from parity.registry import architectures

    try:
        yield
    except CheckpointError as error:
        path = has_file(source, "config.json", cache_dir)
        with contextlib.suppress(schema.SchemaError):
            model_type = schema.read_json(path, _CONFIGURATION, constants=True).get("model_type") if path else None
            gap = next((each.gap for each in architectures() if each.model_type == model_type), "")
            if gap:
                raise UsageError(f"{source}: {gap}") from error
        raise


def quantisation_of(settings: object) -> str:
    """The method that a `quantization_config` names, which is a dictionary or an object."""
    facts = settings if isinstance(settings, Mapping) else vars(settings)
    method = facts.get("quant_method") or "a method that it does not name"
    return str(getattr(method, "value", method))


def _require_unquantised(source: str, config: PretrainedConfig) -> None:
    settings = getattr(config, "quantization_config", None)
    if settings:
        raise CheckpointError(
            f"{source}: its weights are quantised ({quantisation_of(settings)}), should be floating point; use the"
            " checkpoint from before it was quantised, then quantise the file"
        )


class Loading(NamedTuple):
    """A loaded model, and the weights that it and its checkpoint do not share.

    Attributes:
        model: in eval mode.
        missing: names of the model's weights that the checkpoint lacks; they are random.
        unused: names of the checkpoint's weights that the model does not have.
        lacking: names of weights that its adapter lacks; they change nothing.
    """

    model: PreTrainedModel
    missing: list[str]
    unused: list[str]
    lacking: tuple[str, ...] = ()


@in_turn
def load_model(
    source: str,
    model_class: ModelLoader,
    *,
    framework: str | None = None,
    cache_dir: str | None = None,
    attention: str = "eager",
    dtype: str = DEFAULT_DTYPE,
) -> Loading:
    """Load the model in this dtype and in eval mode, and list the weights that only it or only the checkpoint has.

    An adapter is merged into its base. Weights are loaded without executing pickles. Weights that the checkpoint lacks
    are initialised at random, as transformers does: the caller must make sure that no output depends on them.

    Args:
        source: directory of a checkpoint or an adapter, or Hub id.
        model_class: a class with `from_pretrained`.
        framework: framework of the weights, `pt` or `tf`; None takes the one that exists.
        cache_dir: directory for checkpoints from the Hub.
        attention: the implementation of attention, `eager` or `sdpa`.
        dtype: the type of the model's weights, a name in `parity.dtypes`.

    Raises:
        UsageError, CheckpointError: see `locate`; or weights that are truncated, do not fit, or need code to run.
    """
    adapter = adapter_of(source, cache_dir)
    if adapter is not None:
        with _load_errors(source, "its adapter"), _base_alone(source, cache_dir) as base:
            loading = load_model(base, model_class, cache_dir=cache_dir, attention=attention, dtype=dtype)
            with quiet_transformers():
                merge = adapters.merge(loading.model, adapter)
        missing = [name for name in loading.missing if name not in merge.replaced]
        return Loading(merge.model.to(torch_dtype(dtype)).eval(), missing, loading.unused, merge.lacking)
    directory = locate(source, cache_dir)
    if directory is not None:
        framework = framework or framework_of(directory)
    if framework == "tf":
        loading = _load_tensorflow(source, model_class, cache_dir, attention)
        return loading._replace(model=loading.model.to(torch_dtype(dtype)))
    with _load_errors(source, "its weights"), quiet_transformers():
        model, info = model_class.from_pretrained(
            source,
            cache_dir=cache_dir,
            attn_implementation=attention,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            trust_remote_code=False,
            weights_only=True,
            **dtype_option(torch_dtype(dtype)),
        )
    _require_sizes(source, info["mismatched_keys"])
    return Loading(model.eval(), sorted(info["missing_keys"]), sorted(info["unexpected_keys"]))


@contextlib.contextmanager
def _base_alone(source: str, cache_dir: str | None) -> Iterator[str]:
    """The base of an adapter, in a directory without the adapter's files."""
    base = base_of(source, cache_dir)
    path = _adapter_configuration(base, cache_dir)
    with adapters.hidden(path.parent) if path else contextlib.nullcontext(base) as alone:
        yield alone


def _require_sizes(source: str, mismatches: Iterable[tuple[str, Sequence[int], Sequence[int]]]) -> None:
    """Refuse weights of other sizes than the configuration's: the model's would be random."""
    texts = [f"{name} is {tuple(there)}, should be {tuple(here)}" for name, there, here in sorted(mismatches)]
    if texts:
        more = f" and {len(texts) - 2} more" if len(texts) > 2 else ""
        raise CheckpointError(
            f"{source}: its weights do not fit its config.json: {', '.join(texts[:2])}{more}; correct the sizes in"
            " config.json (id2label says how many labels there are), or save the model again with save_pretrained"
        )


def _load_tensorflow(source: str, model_class: ModelLoader, cache_dir: str | None, attention: str) -> Loading:
    """Load TensorFlow weights into a PyTorch model; `from_pretrained(from_tf=True)` of transformers 4.57 loads none."""
    gap = tensorflow_gap()
    if gap:
        raise EnvironmentGap(f"{source}: holds TensorFlow weights: {gap}")
    config = load_config(source, cache_dir)
    with _load_errors(source, "its TensorFlow weights"), quiet_transformers():
        from transformers.modeling_tf_pytorch_utils import load_tf2_checkpoint_in_pytorch_model

        model = constructor_of(model_class)(config, attn_implementation=attention)
        weights = has_file(source, TENSORFLOW_WEIGHTS[0], cache_dir)
        if weights is None:
            raise CheckpointError(f"{source}: has no {TENSORFLOW_WEIGHTS[0]}; give --framework pt, or save it there")
        model, info = load_tf2_checkpoint_in_pytorch_model(
            model, str(weights), allow_missing_keys=True, output_loading_info=True
        )
    return Loading(model.float().eval(), sorted(info["missing_keys"]), sorted(info["unexpected_keys"]))


def stored_dtype(source: str, config: PretrainedConfig, cache_dir: str | None = None) -> str:
    """The PyTorch name of the type of most weights, from the checkpoint's files or else config.json; empty if unknown.

    Args:
        source: directory of a checkpoint, or Hub id.
        config: its configuration.
        cache_dir: directory for checkpoints from the Hub.
    """
    source = base_of(source, cache_dir)
    for name in SAFE_WEIGHTS:
        path = has_file(source, name, cache_dir)
        if path and path.suffix == ".json":
            shards = _read(path, _INDEX).get("weight_map", {}).values()
            path = has_file(source, min(shards), cache_dir) if shards else None
        if path:
            types = [_STORED.get(entry.get("dtype")) for entry in _header(path).values()]
            floats = [each for each in types if each]
            return max(floats, key=floats.count, default="")
    said = getattr(config, "dtype", None) or getattr(config, "torch_dtype", None)
    return str(said or "").removeprefix("torch.")


def _read(path: Path, form: schema.Schema) -> Any:
    try:
        return schema.read_json(path, form)
    except SchemaError as error:
        raise CheckpointError(f"{error}; copy or download it again") from None


def _header(path: Path) -> Mapping[str, Any]:
    """The description of the tensors in a safetensors file.

    Raises:
        CheckpointError: its header has another form.
    """
    require_regular(path, "file")
    try:
        with path.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            header = schema.parse_json(stream.read(min(size, _LARGEST_HEADER)))
        _HEADER(header, "header")
    except SchemaError as error:
        raise CheckpointError(f"{path}: its header {error}; copy or download it again") from None
    return header


@shared
def quiet_transformers() -> Iterator[None]:
    """Silence transformers' progress bars and reports, which are for training; problems are raised or returned."""
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
    """Turn any exception of a loader into one CheckpointError that names the checkpoint and what to do."""
    try:
        yield
    except ParityError:
        raise
    except Exception as error:
        raise CheckpointError(f"{source}: {part} cannot be loaded: {_explanation(error, source)}") from error


def _explanation(error: Exception, source: str) -> str:
    """The fault and what to do; transformers 4 raises a guess, whose cause names the fault."""
    found = checkpoint_files.wrong_item(str(error)) or checkpoint_files.broken_json(Path(source).expanduser())
    if found:
        return found
    each: BaseException | None = error
    while each is not None:
        explanation = _explanation_of_known(each)
        if explanation:
            return explanation
        each = each.__cause__ or each.__context__
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(str(error).split())[:400])
    return (
        f"config.json and the files beside it do not match ({type(error).__name__}: {text}); save the checkpoint"
        " again with save_pretrained, or correct what this names"
    )


def _explanation_of_known(error: BaseException) -> str | None:
    text = " ".join(str(error).split())
    name = type(error).__name__
    if package := missing_package(error):
        return f"it needs the package {package}, which is not installed: pip install {package}"
    if "ignore_mismatched_sizes" in text:
        return "its weights have other shapes than config.json says; correct one of them"
    if "trust_remote_code" in text:
        return "it needs code of its own, which parity does not run; use an architecture that transformers has"
    if "weights_only" in text or name == "UnpicklingError":
        return (
            "pytorch_model.bin is not a plain pickle of tensors: it contains code, or is damaged; if you trust it,"
            " convert it to safetensors"
        )
    if match := _NO_DTYPE.search(str(error)):
        return (
            f"config.json: its dtype is {match[1][:60]!a}, should be a type of PyTorch such as 'float32'; correct"
            " it, or save the checkpoint again with save_pretrained"
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
        return "it is not a directory on this machine, and the Hub cannot be reached; give a local checkpoint"
    if "is not a local folder" in text or "Repository Not Found" in text or "404" in text:
        return "it is not a directory on this machine, and the Hub has no such model; check the spelling"
    return None


_NO_DTYPE = re.compile(r"module 'torch' has no attribute '(.*)'", re.DOTALL)
_PACKAGE = re.compile(
    r"pip install `?([a-z]\w+)\b(?!\+)|requires the `?(\w+)`? library|No module named '(\w+)|`(\w+)` is required"
    r"|You need to install (\w+)"
)
# Names of packages in messages of transformers → their names for pip.
_PACKAGE_NAMES = {"SentencePiece": "sentencepiece", "PIL": "pillow", "rjieba": "rjieba"}


def missing_package(error: BaseException) -> str | None:
    """The package that a loader needs; None if it fails for another reason."""
    match = _PACKAGE.search(str(error)) if isinstance(error, (ImportError, ValueError)) else None
    name = next(filter(None, match.groups()), None) if match else None
    if name is None:
        return None
    name = _PACKAGE_NAMES.get(name, name)
    return None if importlib.util.find_spec(name.replace("-", "_")) else name


def is_hub_id(name: str) -> bool:
    """Whether a name can be a Hub id."""
    return bool(_HUB_ID.fullmatch(name)) and not name.startswith(".")


def has_file(source: str, name: str, cache_dir: str | None = None) -> Path | None:
    """The path of the file `name` of a checkpoint; None if the checkpoint lacks it.

    Args:
        source: directory of a checkpoint, or Hub id.
        name: relative to the checkpoint.
        cache_dir: directory for checkpoints from the Hub.
    """
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
    """The kinds of preprocessor that the checkpoint has files of; `image_processor` includes feature extractors."""
    automatic = {kind: names for kind, names in _PREPROCESSOR_FILES.items() if kind != "feature_extractor"}
    return [kind for kind, names in automatic.items() if any(has_file(source, name, cache_dir) for name in names)]


def load_preprocessor(
    source: str, kind: str = "auto", cache_dir: str | None = None, config: PretrainedConfig | None = None
) -> Any:
    """The checkpoint's tokenizer, image processor, feature extractor or processor; None if `auto` finds none.

    Args:
        source: directory of a checkpoint, or Hub id.
        kind: `auto`, `tokenizer`, `image_processor`, `feature_extractor` or `processor`.
        cache_dir: directory for checkpoints from the Hub.
        config: the model's configuration, which gives the tokenizer's class if there is no config.json.

    Raises:
        UsageError: `auto` finds a tokenizer and an image processor, but nothing that joins them.
        CheckpointError: the files cannot be read, or are missing although `kind` names them.
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
    classes = {
        "tokenizer": "AutoTokenizer",
        "image_processor": "AutoImageProcessor",
        "feature_extractor": "AutoFeatureExtractor",
        "processor": "AutoProcessor",
    }
    options: dict[str, Any] = {"cache_dir": cache_dir, "trust_remote_code": False}
    if kind == "tokenizer" and config is not None and has_file(source, "config.json", cache_dir) is None:
        options["config"] = config
    if kind == "tokenizer":
        _require_sentencepiece(source, cache_dir)
    with _load_errors(source, f"its {kind.replace('_', ' ')}"), quiet_transformers():
        try:
            return auto_class(classes[kind]).from_pretrained(source, **options)
        except ValueError:
            # Published files have either kind, whatever class reads them today.
            other = {"image_processor": "feature_extractor", "feature_extractor": "image_processor"}.get(kind)
            if other is None:
                raise
            return auto_class(classes[other]).from_pretrained(source, **options)


def _require_sentencepiece(source: str, cache_dir: str | None) -> None:
    """Name the missing package; transformers names tiktoken, or a configuration class."""
    if importlib.util.find_spec("sentencepiece") or has_file(source, "tokenizer.json", cache_dir):
        return
    files = [name for name in SENTENCE_PIECES if has_file(source, name, cache_dir)]
    if files:
        raise CheckpointError(
            f"{source}: its tokenizer ({files[0]}) needs the package sentencepiece, which is not installed:"
            " pip install sentencepiece, which the extra parity[sentencepiece] has too"
        )


def joint_processor(source: str, cache_dir: str | None) -> ProcessorMixin | None:
    """The processor that joins tokenizer and image processor of a checkpoint without a processor's file.

    Older checkpoints of clip and layoutlmv3 have none; the model's type gives its class. None if there is no such
    class, or if it cannot read the files.
    """
    import transformers

    # Before transformers 4.54 Whisper's does not recognise tokenizer.json, and opens a vocabulary named None.
    with quiet_transformers(), contextlib.suppress(ImportError, KeyError, OSError, TypeError, ValueError):
        processor = transformers.AutoProcessor.from_pretrained(source, cache_dir=cache_dir, trust_remote_code=False)
        # If a model type has no processor, transformers returns the tokenizer.
        return processor if isinstance(processor, transformers.ProcessorMixin) else None
    return None


# The files that a checkpoint is read from, whatever its architecture.
_READ = ("*.json", "*.safetensors", "pytorch_model*", "tf_model*", "adapter_*", "*.txt", "*.model")
# The files that hold a model, together with the configuration.
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*", "tf_model*", "adapter_*")
# Name → size, time of the last change, and inode number.
Snapshot: TypeAlias = dict[str, tuple[int, int, int]]


def directory_of_files(source: str, cache_dir: str | None = None) -> Path | None:
    """The directory of a checkpoint's or an adapter's files, for a Hub id in its cache; None if there is none."""
    directory = Path(source).expanduser()
    if directory.is_dir():
        return directory
    names = ("config.json", adapters.CONFIGURATION) if is_hub_id(source) else ()
    return next((path.parent for name in names if (path := has_file(source, name, cache_dir))), None)


def snapshot(directories: Mapping[str, Path]) -> Snapshot:
    """The state of a checkpoint's files, without reading them.

    Args:
        directories: prefix of the names of a directory's files → the directory.
    """
    files: Snapshot = {}
    for prefix, directory in directories.items():
        for path in {path for pattern in _READ for path in directory.glob(pattern)}:
            with contextlib.suppress(OSError):
                status = path.stat()
                files[f"{prefix}{path.name}"] = status.st_size, status.st_mtime_ns, status.st_ino
    return files


def fingerprint(source: str, cache_dir: str | None = None) -> str:
    """SHA-256 over names and contents of the checkpoint's configuration, weights and adapter, as `sha256:…`."""
    directory = directory_of_files(source, cache_dir) or Path(source)
    files = sorted({path for pattern in ("config.json", *_WEIGHTS) for path in directory.glob(pattern)})
    digest = hashlib.sha256()
    base = base_of(source, cache_dir)
    if base != source:
        digest.update(fingerprint(base, cache_dir).encode())
    for path in files:
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as stream:
            while block := stream.read(1 << 18):
                digest.update(block)
    return f"sha256:{digest.hexdigest()}"


def require_numbers(source: str, model: PreTrainedModel) -> None:
    """Refuse weights that are NaN, such as those of a training that diverged.

    Raises:
        CheckpointError
    """
    # A sum is NaN if any value is, and takes no memory; it also is if both infinities are among them.
    doubtful = [(name, each) for name, each in model.named_parameters() if bool(each.detach().sum().isnan())]
    wrong = [(name, int(each.isnan().sum()), each.numel()) for name, each in doubtful if bool(each.isnan().any())]
    if wrong:
        name, count, size = wrong[0]
        more = f", and {len(wrong) - 1} more weights" if len(wrong) > 1 else ""
        raise CheckpointError(
            f"{source}: its weights should be numbers, but {count} of {size} values of {name} are NaN{more}; use a"
            " checkpoint from before the training diverged"
        )


def random_weights_reach_outputs(
    model: PreTrainedModel, missing: Sequence[str], outputs: Callable[[], Iterable[torch.Tensor]]
) -> list[str]:
    """The `missing` weights, if the outputs depend on any: NaN in the weights reaches them. Sets the weights to zero.

    Args:
        model: the loaded model.
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
