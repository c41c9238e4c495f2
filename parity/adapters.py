"""Adapters of peft, stored next to the weights of their base model or naming it: read, apply or refuse them."""

from __future__ import annotations

import contextlib
import importlib
import os
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parity import schema
from parity.environment import version_of
from parity.errors import CheckpointError, EnvironmentGap
from parity.schema import SchemaError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CONFIGURATION = "adapter_config.json"
# Prefix of the names in an adapter's file; the name of a weight of the model follows.
_PREFIX = "base_model.model."


@dataclass(frozen=True)
class Adapter:
    """The facts in an adapter_config.json.

    Args:
        directory: the directory of its files.
        base: the directory or Hub id of the model that it was trained on; empty if it does not say.
        kind: such as `LORA`.
        task_type: such as `SEQ_CLS`; empty if it does not say.
    """

    directory: Path
    base: str
    kind: str
    task_type: str

    @classmethod
    def read(cls, path: Path) -> Adapter:
        """Read an adapter_config.json.

        Raises:
            CheckpointError: it is not valid JSON, or has values that peft does not write.
        """
        names = ("base_model_name_or_path", "peft_type", "task_type")
        schemas = dict.fromkeys(names, schema.maybe(schema.text(10_000)))
        try:
            facts = schema.read_json(path, schema.table({}, schemas), constants=True)
        except SchemaError as error:
            raise CheckpointError(f"{error}; copy or download it again") from None
        return cls(path.parent, *(facts.get(name) or "" for name in names))


def gap() -> str:
    """The reason why adapters cannot be applied here; empty if they can."""
    return "" if version_of("peft") else "peft, which applies adapters, is not installed: pip install peft"


def require_peft(source: str) -> None:
    """Refuse an adapter that cannot be applied here, because its base alone is another model.

    Raises:
        EnvironmentGap
    """
    if gap():
        raise EnvironmentGap(
            f"{source}: holds an adapter ({CONFIGURATION}), without which it would be another model; {gap()}"
        )


@contextlib.contextmanager
def hidden(directory: Path) -> Iterator[str]:
    """A temporary directory with links to all files but the adapter's, which transformers would apply by itself."""
    with tempfile.TemporaryDirectory() as base:
        for path in directory.iterdir():
            if not path.name.startswith("adapter_"):
                os.symlink(path.resolve(), Path(base, path.name))
        yield base


@dataclass(frozen=True)
class Merge:
    """The result of merging an adapter.

    Args:
        model: the base model with the adapter's weights merged into its own.
        replaced: names of the model's weights that the adapter holds whole, such as those of a new head.
        lacking: names of weights that peft adds and the adapter's file lacks; they change nothing.
    """

    model: PreTrainedModel
    replaced: frozenset[str]
    lacking: tuple[str, ...]


def merge(model: PreTrainedModel, adapter: Adapter) -> Merge:
    """Merge an adapter into its base model, which is changed in place.

    Raises:
        CheckpointError: it cannot be merged into this model, or fits it only in part.
    """
    peft: Any = importlib.import_module("peft")
    directory, own = str(adapter.directory), type(model).__name__
    settings = peft.PeftConfig.from_pretrained(directory)
    if settings.is_prompt_learning:
        raise CheckpointError(
            f"{directory}: its adapter ({adapter.kind}) adds tokens to the input and cannot be merged into the weights;"
            " export a model that was trained without it, or with LoRA"
        )
    weights = peft.utils.load_peft_weights(directory, device="cpu")
    before, modules = dict(model.named_parameters()), {name for name, _ in model.named_modules()}
    adapted = peft.get_peft_model(model, settings)
    expected = peft.get_peft_model_state_dict(adapted)
    if strange := weights.keys() - expected.keys():
        raise _misfit(adapter, own, "which fit nothing", strange)
    # PeftModel.from_pretrained raises a KeyError for a head that the adapter lacks.
    peft.set_peft_model_state_dict(adapted, {**expected, **weights})
    lacking = tuple(sorted(expected.keys() - weights.keys()))
    places = [_place(name.removeprefix(_PREFIX), modules) for name in lacking]
    parts = {name: before[name].detach().clone() for name in before if name.rpartition(".")[0] in places}
    merged = adapted.merge_and_unload(safe_merge=True)
    after = dict(merged.named_parameters())
    if not all(after[name].equal(tensor) for name, tensor in parts.items()):
        raise _misfit(adapter, own, "which it lacks", lacking)
    return Merge(merged, frozenset(name.removeprefix(_PREFIX) for name in weights), lacking)


def _place(name: str, modules: Collection[str]) -> str:
    """The innermost module of the base model that a weight of an adapter belongs to."""
    while name not in modules:
        name = name.rpartition(".")[0]
    return name


def _misfit(adapter: Adapter, model_class: str, problem: str, names: Collection[str]) -> CheckpointError:
    task = f" ({adapter.task_type})" if adapter.task_type else ""
    return CheckpointError(
        f"{adapter.directory}: its adapter does not fit {model_class}: {min(names)} is one of {len(names)} weights"
        f" {problem}; choose the feature that it was trained for{task}, or correct the base model"
    )
