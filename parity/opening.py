"""The first steps of the commands: locate and open the checkpoint, and choose the feature."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from typing import TYPE_CHECKING

from parity.tasks import AUTO

if TYPE_CHECKING:
    import argparse

    from parity.checkpoint import Checkpoint
    from parity.console import Console


@contextlib.contextmanager
def without_collections() -> Iterator[None]:
    """Inside, no garbage is collected; afterwards, collections never visit the objects that were made until then.

    Imports of torch and transformers make a million objects that stay: to visit them takes a fifth of the time of these
    imports, and finds next to nothing.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
    gc.freeze()


def locate(args: argparse.Namespace) -> str:
    """Locate the checkpoint of `--model`, `--revision` and `--subfolder`, before torch is imported.

    Raises:
        UsageError, CheckpointError: see `loading.resolve`.
    """
    from parity import loading

    return loading.resolve(args.model, args.cache_dir, revision=args.revision, subfolder=args.subfolder)


def open_checkpoint(args: argparse.Namespace, source: str, console: Console) -> Checkpoint:
    """Open the checkpoint at `source`; its warnings go to the console.

    Args:
        args: the options of the command.
        source: from `locate`.
        console: prints the warnings.

    Raises:
        UsageError, CheckpointError: see `Checkpoint`.
    """
    from parity import unused
    from parity.checkpoint import Checkpoint

    checkpoint = Checkpoint(
        source,
        framework=getattr(args, "framework", None),
        cache_dir=args.cache_dir,
        preprocessor=getattr(args, "preprocessor", "auto"),
        tokenizer=args.tokenizer,
        policy=unused.Policy(args.allow_unused, console.warn),
    )
    checkpoint.name = "/".join(filter(None, [args.model, args.subfolder]))
    if args.revision:
        checkpoint.name += f"@{args.revision}"
    return checkpoint


def choose_feature(checkpoint: Checkpoint, name: str, console: Console) -> str:
    """The feature of the option; log the choice of `auto`, and what the feature leaves out.

    Args:
        checkpoint: the checkpoint.
        name: of the option `--feature`.
        console: prints the log.

    Raises:
        UsageError: see `Checkpoint.feature`.
    """
    from parity import sentences

    feature = checkpoint.feature(name)
    if name == AUTO:
        console.say(checkpoint.automatic_choice)
    checkpoint.warn_of_lost_head(feature)
    behind = [kind for kind, _ in checkpoint.modules[1:]]
    if behind and feature != sentences.FEATURE:
        console.say(
            f"{', '.join(behind)} of {sentences.MODULES}: not exported for feature {feature};"
            f" --feature {sentences.FEATURE} exports the whole directory"
        )
    return feature
