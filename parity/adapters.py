"""Adapters of peft, which lie beside the weights of their base or name it: applied to it, or refused."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parity.environment import version_of
from parity.errors import CheckpointError, EnvironmentGap

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CONFIGURATION = "adapter_config.json"
# Of the names of an adapter's weights, what stands before those of the model's.
_PREFIX = "base_model.model."


@dataclass(frozen=True)
class Adapter:
    """What an adapter says of itself.

    Args:
        directory: where its files are.
        base: the directory or Hub id of the model that it was trained on; empty where it does not say.
        kind: such as `LORA`.
        task_type: such as `SEQ_CLS`; empty where it does not say.
    """

    directory: Path
    base: str
    kind: str
    task_type: str

    @classmethod
    def read(cls, path: Path) -> Adapter:
        """That of an adapter_config.json.

        Raises:
            CheckpointError: it is no valid JSON.
        """
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
            names = ("base_model_name_or_path", "peft_type", "task_type")
            return cls(path.parent, *(str(facts.get(name) or "") for name in names))
        except (ValueError, AttributeError) as error:
            raise CheckpointError(f"{path}: is not valid JSON of an adapter; copy or download it again") from error


def gap() -> str:
    """Why no adapter can be applied here; empty where one can."""
    return "" if version_of("peft") else "peft is not installed, which applies adapters: pip install peft"


def require_peft(source: str) -> None:
    """Refuse an adapter that cannot be applied here: its base alone is another model.

    Raises:
        EnvironmentGap
    """
    if gap():
        raise EnvironmentGap(
            f"{source}: holds an adapter ({CONFIGURATION}), without which it would be another model; {gap()}"
        )


@contextlib.contextmanager
def hidden(directory: Path) -> Iterator[str]:
    """A directory that has all files of this one but the adapter's, which transformers would apply by itself."""
    with tempfile.TemporaryDirectory() as base:
        for path in directory.iterdir():
            if not path.name.startswith("adapter_"):
                os.symlink(path.resolve(), Path(base, path.name))
        yield base


def apply(model: PreTrainedModel, adapter: Adapter) -> tuple[PreTrainedModel, frozenset[str]]:
    """The model with the adapter's weights merged into its own, and the names of those that the adapter replaces.

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
    weights = dict.fromkeys(peft.utils.load_peft_weights(directory, device="cpu"))
    adapted = peft.PeftModel.from_pretrained(model, directory)
    wanted = peft.get_peft_model_state_dict(adapted)
    for what, names in {
        "which it lacks": wanted.keys() - weights,
        "which fit nothing": weights.keys() - wanted,
    }.items():
        if names:
            raise CheckpointError(
                f"{directory}: its adapter does not fit {own}: {min(names)} is one of {len(names)} weights {what};"
                f" choose the feature that it was trained for{_trained_for(adapter)}, or correct the base model"
            )
    replaced = frozenset(name.removeprefix(_PREFIX) for name in weights)
    return adapted.merge_and_unload(safe_merge=True), replaced


def _trained_for(adapter: Adapter) -> str:
    return f" ({adapter.task_type})" if adapter.task_type else ""
