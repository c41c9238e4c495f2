"""A directory of optimum, transformers, transformers.js or parity → its files, and which part each file is."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from parity.errors import UsageError

# Name of a file → its part; empty for a whole model. A merged decoder has two: see `PartFile.branch`.
PARTS = {
    "model": "",
    "encoder_model": "encoder",
    "decoder_model": "decoder",
    "decoder_with_past_model": "step",
    "decoder_model_merged": "merged",
    "prefill": "prefill",
    "decode": "step",
    "text_model": "text",
    "vision_model": "vision",
}
_SUFFIX = ".onnx"
# Sets of parts that run together, and give tokens or similarities; the longest first.
_GROUPS = (
    ("encoder", "decoder", "step"),
    ("prefill", ""),
    ("decoder", "step"),
    ("text", "vision"),
    ("",),
)


@dataclass(frozen=True)
class PartFile:
    """A file, or one of the two graphs of a merged decoder.

    Args:
        path: the file.
        part: a value of `PARTS` other than `merged`; empty for a whole model.
        branch: the value of `use_cache_branch` of a merged decoder; None for any other file.
        variant: the rest of its name after that of the part, such as `quantized`.
    """

    path: Path
    part: str = ""
    branch: bool | None = None
    variant: str = ""

    def __str__(self) -> str:
        branch = "" if self.branch is None else f" with use_cache_branch {str(self.branch).lower()}"
        return f"{self.path}{branch}"


def find_files(path: Path) -> list[PartFile]:
    """The files to judge: the file at `path`, or all of a directory, or of `onnx` below it.

    Raises:
        UsageError: a directory without a file of a known name.
    """
    if not path.is_dir():
        known = _known_name(path.stem)
        # A whole model may have any name.
        return _branches(PartFile(path, *known)) if known and path.suffix == _SUFFIX else [PartFile(path)]
    for place in (path, path / "onnx"):
        files = [
            PartFile(file, *known)
            for file in sorted(place.glob(f"*{_SUFFIX}"))
            if file.is_file() and (known := _known_name(file.stem))
        ]
        if files:
            if any(file.path.stem == "decode" for file in files):
                # transformers' two steps: its prefill is the decoder's first step, ours comes before the decoder.
                files = [replace(file, part="decoder") if file.part == "prefill" else file for file in files]
            order = [*PARTS.values()]
            files.sort(key=lambda each: (each.variant, order.index(each.part)))
            return [branch for file in files for branch in _branches(file)]
    names = ", ".join(f"{name}{_SUFFIX}" for name in PARTS)
    raise UsageError(f"file {path}: is a directory without any of {names}; give the ONNX file to judge")


def _known_name(stem: str) -> tuple[str, None, str] | None:
    """The part, no branch, and the variant of a file's name without its suffix."""
    for name in sorted(PARTS, key=len, reverse=True):
        if stem == name or stem.startswith(f"{name}_"):
            return PARTS[name], None, stem[len(name) + 1 :]
    return None


def _branches(file: PartFile) -> list[PartFile]:
    if file.part != "merged":
        return [file]
    return [replace(file, part=part, branch=branch) for part, branch in (("decoder", False), ("step", True))]


def alone(files: Sequence[PartFile], finished: Collection[PartFile]) -> list[tuple[list[str], list[str]]]:
    """For each variant the names of parts that did not run with others, and the names of the files that they need.

    Args:
        files: of a directory.
        finished: those that ran with others, or that failed before.
    """
    names = {part: name for name, part in reversed([*PARTS.items()])}
    pairs = []
    for variant in dict.fromkeys(file.variant for file in files):
        own = [file for file in files if file.variant == variant]
        left = [file for file in own if file.part and file not in finished]
        there = {file.part for file in own}
        needs = [
            [part for part in group if part not in there] for group in _GROUPS if {*group} & {f.part for f in left}
        ]
        if missing := min(filter(None, needs), key=len, default=None):
            suffix = f"_{variant}{_SUFFIX}" if variant else _SUFFIX
            pairs.append(
                ([*dict.fromkeys(file.path.name for file in left)], [names[each] + suffix for each in missing])
            )
    return pairs


def groups_of(files: Sequence[PartFile]) -> list[Mapping[str, PartFile]]:
    """The sets of files that run together, each by its parts; a merged decoder counts as two files.

    A file is in several sets if it runs with others in several ways: optimum's encoder with two decoders and with the
    merged one.
    """
    groups: list[Mapping[str, PartFile]] = []
    for variant in dict.fromkeys(file.variant for file in files):
        own = [file for file in files if file.variant == variant]
        alone = {file.part: file for file in own if file.branch is None}
        merged = {file.part: file for file in own if file.branch is not None}
        without_decoders = {part: file for part, file in alone.items() if part not in ("decoder", "step")}
        for by_part in (alone, {**without_decoders, **merged} if merged else {}):
            group = next(({part: by_part[part] for part in parts} for parts in _GROUPS if {*parts} <= {*by_part}), None)
            if group and group not in groups:
                groups.append(group)
    return groups
