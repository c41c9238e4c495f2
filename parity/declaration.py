"""The vocabulary of a declaration: facts about one architecture. Data only; imports neither torch nor transformers."""

from __future__ import annotations

import builtins
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from parity import errors, words
from parity.configs import OnnxConfig
from parity.dtypes import DEFAULT_DTYPE
from parity.environment import at_least, meets, version_of
from parity.exporters import DEFAULT_EXPORTER
from parity.scope import Scope
from parity.tasks import TASKS, task_of
from parity.words import KINDS, TRACE_OUTCOMES

FEATURE_TASKS = tuple(TASKS)

_BATCH = "batch-permutation batch-of-one"
# Relations of a kind unless a declaration says otherwise. Padding on the left shifts absolute positions.
RELATIONS = {
    "encoder": f"{_BATCH} padding-right",
    "decoder": f"{_BATCH} padding-right padding-left",
    "encoder-decoder": f"{_BATCH} padding-right",
    "vision": _BATCH,
    "multimodal": f"{_BATCH} padding-right",
    "speech": _BATCH,
}
EITHER_PADDING = f"{_BATCH} padding-right padding-left"


class Cell(Protocol):
    """The attributes of a cell that a deviation reads; `parity.architectures.conformance.matrix.Cell` has them."""

    @property
    def architecture(self) -> str: ...

    @property
    def feature(self) -> str: ...

    @property
    def opset(self) -> int | None: ...

    @property
    def attention(self) -> str: ...

    @property
    def exporter(self) -> str: ...

    @property
    def dtype(self) -> str: ...


@dataclass(frozen=True)
class Floor(Scope):
    """The lowest opset that works, if it is above the exporter's own, and why the opset below does not.

    Args:
        reason, issue: what the opset below lacks, and the source for it.
        error: text in the message of the failure at the opset below.
        features, versions, …: its scope; see `Scope`. A floor concerns every opset: `opsets` stays empty.
    """

    opset: int
    reason: str
    issue: str
    error: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_no_opsets()


@dataclass(frozen=True)
class Deviation(Scope):
    """A tracked upstream bug: cells that are expected to fail with this exception, in the test or in its fixtures.

    Strict: without a `message`, every check in the scope must fail like this, and a check that passes fails the run.
    With a `message`, the checks that fail like this may be anywhere in the scope; if the whole scope ran and no check
    failed like this, the run fails.

    Args:
        raises: the exception's class: a class of `parity.errors`, or a built-in such as `TypeError`.
        reason: what goes wrong, in one sentence.
        issue: the upstream thread.
        checks: the tests of the matrix that fail, among `words.TESTS`; empty means all.
        message: a regular expression to find in the message of the exception; empty for any message.
        architectures: their names; empty means all. A deviation in an architecture's declaration concerns only itself.
        versions: the requirement that the environment must meet, such as `transformers>=5`.
        features, opsets, attention, …: its scope; see `Scope`.
    """

    raises: str
    reason: str
    issue: str
    checks: tuple[str, ...] = ()
    message: str = ""
    architectures: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("raises", "reason", "issue", "versions"):
            if not getattr(self, name):
                raise ValueError(f"deviation: {name} is empty, should be a text")
        words.require_exception("deviation: raises", self.raises)
        words.require("deviation: checks", self.checks, words.TESTS)
        words.require_pattern("deviation: message", self.message)

    @property
    def sentence(self) -> str:
        """The reason, with the thread and the versions."""
        return f"{self.reason} ({self.issue}; {self.versions})"

    def matches(self, cell: Cell, check: str) -> bool:
        """Whether this check of this cell is in the scope, in this environment."""
        where = {name: getattr(cell, name) for name in ("feature", "opset", "attention", "exporter", "dtype")}
        of_cell = self.covers(**where) and (not self.architectures or cell.architecture in self.architectures)
        # If opsets are listed, a cell without an opset is not in the scope.
        return of_cell and (not self.opsets or cell.opset is not None) and (not self.checks or check in self.checks)

    def explains(self, error: BaseException) -> bool:
        """Whether a failure is the expected one."""
        kind = getattr(errors, self.raises, None) or getattr(builtins, self.raises)
        return isinstance(error, kind) and re.search(self.message, str(error)) is not None


# For every encoder-decoder without a `prepare_inputs_for_generation` of its own.
GENERATE_WITHOUT_MASK = Deviation(
    raises="ValueMismatch",
    reason="generate hands the mask of the encoder's inputs to no decoder, so that padding is attended to",
    issue="https://github.com/huggingface/transformers/issues/36293",
    versions="transformers>=4.49,<4.50",
    features=("seq2seq-lm-with-past",),
    checks=("greedy_tokens", "generation_without_pytorch"),
)


# Requirements of architectures that 5.4.0 loads only in some environments. It takes no truth values for the whole
# numbers that it calls them: huggingface/transformers#45007, huggingface/huggingface_hub#3992.
TRUTH_VALUES = "transformers!=5.4.0 or huggingface-hub<1.9"
# Its image processors that use Pillow exist only next to Torchvision: huggingface/transformers#45042.
PILLOW = "transformers!=5.4.0 or torchvision>=0.1"


@dataclass(frozen=True)
class TracedAxis(Scope):
    """The outcome of an axis of a TorchScript trace at other sizes than its own, if it does not generalise.

    Args:
        axis: as the OnnxConfig names it.
        outcome: `raises`, `fixed by the model` or `silently wrong`.
        text: the beginning of the error, or of the description of the difference.
        issue: the upstream thread; required for `silently wrong`.
        features, versions, …: its scope; see `Scope`. A trace has no opset: `opsets` stays empty.
    """

    axis: str
    outcome: str
    text: str
    issue: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_no_opsets()
        if self.outcome not in TRACE_OUTCOMES or not self.text:
            raise ValueError(
                f"{self.axis}: got {self.outcome!r}, should be one of {', '.join(TRACE_OUTCOMES)}, with a text"
            )
        if self.outcome == "silently wrong" and not self.issue:
            raise ValueError(f"{self.axis}: is silently wrong, should have the upstream thread in `issue`")


@dataclass(frozen=True)
class Relations(Scope):
    """The metamorphic relations of a model in a scope.

    Args:
        names: relations of the float64 model, among `words.RELATIONS`, separated by spaces.
        features, versions, …: its scope; see `Scope`. A float64 model has no opset: `opsets` stays empty.
    """

    names: str

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_no_opsets()
        words.require("relation", self.names.split(), words.RELATIONS)

    @classmethod
    def from_mapping(cls, entries: Mapping[str | tuple[str, str], str]) -> tuple[Relations, ...]:
        """Read feature → names: `*` is every feature that is not a key, and `(feature, requirement)` goes first."""
        declared = [
            cls(names, features=(feature,) if feature != "*" else (), versions=versions)
            for key, names in entries.items()
            for feature, versions in [key if isinstance(key, tuple) else (key, "")]
        ]
        return tuple(sorted(declared, key=lambda each: (not each.features, not each.versions)))


@dataclass(frozen=True)
class Refusal:
    """A configuration that transformers runs and parity refuses to export, in one sentence.

    Args:
        item, value: the item of the model's configuration, and its value that is refused; an item of a nested
            configuration is written as in `rope_parameters.rope_type`.
        reason: why, and what to do.
        issue: the upstream thread that makes it necessary.
    """

    item: str
    value: Any
    reason: str
    issue: str

    def __post_init__(self) -> None:
        for name in ("item", "reason", "issue"):
            if not getattr(self, name):
                raise ValueError(f"refusal: {name} is empty, should be a text")

    def applies(self, config: object) -> bool:
        """Whether a model's configuration is refused."""
        own: Any = config
        for part in self.item.split("."):
            own = own.get(part) if isinstance(own, Mapping) else getattr(own, part, None)
        return own == self.value


@dataclass(frozen=True)
class Variation(Scope):
    """An item of a configuration that users set in different ways, and the values to try.

    Args:
        item: its name; an item of a nested configuration is written as in `text_config.hidden_act`. Several names are
            those of items that change together.
        values: other values than the declaration's own, the plainest first; for several items, tuples of one for each.
        silent: why neither the weights nor any output depends on it; empty if some do.
        features, versions: its scope; see `Scope`. A family shares its variations, so that features that an
            architecture lacks are allowed. A configuration has no opset: `opsets` stays empty.
    """

    item: str | tuple[str, ...]
    values: Sequence[Any]
    silent: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_no_opsets()
        if not all(self.items) or not self.values:
            raise ValueError(f"variation {self.name}: got {self.values!r}, should be an item and values of it")
        if self.items is self.item and any(len(value) != len(self.items) for value in self.values):
            raise ValueError(
                f"variation {self.name}: got {self.values!r}, should be tuples of {len(self.items)} values"
            )

    @property
    def items(self) -> tuple[str, ...]:
        """The names of the items that it changes."""
        return (self.item,) if isinstance(self.item, str) else self.item

    @property
    def name(self) -> str:
        """The names of its items, in one word."""
        return "+".join(self.items)

    def changes(self, value: Any) -> dict[str, Any]:
        """Item → its value, for one of `values`."""
        return dict(zip(self.items, (value,) if isinstance(self.item, str) else value, strict=True))


@dataclass(frozen=True)
class Absence(Scope):
    """Weights that our own files do not hold unchanged, because the exporter computes with them.

    Args:
        weights: patterns of the names of absent weights, such as `*.normalization.*`.
        reason: how the exporter changes them.
        features, opsets, …: its scope; see `Scope`.
    """

    weights: tuple[str, ...]
    reason: str

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("weights", "reason"):
            if not getattr(self, name):
                raise ValueError(f"absence: {name} is empty, should be a text")


@dataclass(frozen=True)
class Architecture:
    """One architecture: its OnnxConfig class, its features, and a tiny configuration to try them on.

    Args:
        model_type: as transformers names it.
        kind: one of `KINDS`.
        kinds: feature → its kind, if it is not the architecture's.
        onnx_config: the class that users import.
        features: the declared features, in the order of lists for users.
        tiny: arguments of the model's configuration class for a checkpoint of a few thousand weights.
        preprocessor: its tiny preprocessor: a name in `parity.fixtures.preprocessors`, or the dotted name of a function
            without arguments that makes it.
        preprocessors: feature → its preprocessor, if it is another.
        heads: task → the class of transformers that has the head, or the dotted name of a class of another package, if
            the task's Auto class does not know the model type.
        config: the dotted name of the configuration class, if transformers has none for the model type.
        floors: the lowest opsets, if they are above the exporter's own; the highest that applies counts.
        deviations: tracked upstream bugs.
        traces: the axes of a TorchScript trace that do not generalise; all others do.
        smoke: features that `pytest -m smoke` tries.
        relations: the metamorphic relations of its float64 model, if they are not `RELATIONS` of the kind; the first
            that applies counts. A mapping is read by `Relations.from_mapping`.
        sdpa: the scope in which the model has scaled_dot_product_attention: a Scope, or only the requirement that the
            environment must meet; empty if it never has.
        versions: the requirement that the environment must meet for the architecture to exist.
        needs: feature → the requirement that the environment must meet for it, if it needs more.
        refusals: configurations that are not exported.
        variations: the configuration items that users set in different ways, each once.
        absences: the weights that our own files do not hold unchanged; they hold all others.
    """

    model_type: str
    kind: str
    onnx_config: type[OnnxConfig]
    features: tuple[str, ...]
    tiny: Mapping[str, Any]
    preprocessor: str
    preprocessors: Mapping[str, str] = field(default_factory=dict)
    heads: Mapping[str, str] = field(default_factory=dict)
    floors: tuple[Floor, ...] = ()
    deviations: tuple[Deviation, ...] = ()
    traces: tuple[TracedAxis, ...] = ()
    smoke: tuple[str, ...] = field(default=())
    relations: Sequence[Relations] | Mapping[str | tuple[str, str], str] = ()
    sdpa: Scope | str = ""
    versions: str = "transformers"
    kinds: Mapping[str, str] = field(default_factory=dict)
    config: str = ""
    needs: Mapping[str, str] = field(default_factory=dict)
    refusals: tuple[Refusal, ...] = ()
    variations: tuple[Variation, ...] = ()
    absences: tuple[Absence, ...] = ()

    def __post_init__(self) -> None:
        words.require(f"{self.model_type}: kind", (self.kind, *self.kinds.values()), KINDS)
        for name in (self.preprocessor, *self.preprocessors.values()):
            words.require_preprocessor(self.model_type, name)
        for requirement in filter(None, (self.versions, *self.needs.values())):
            words.require_versions(self.model_type, requirement)
        words.require(f"{self.model_type}: features", map(task_of, self.features), tuple(TASKS))
        if not self.features or len(set(self.features)) != len(self.features):
            raise ValueError(
                f"{self.model_type}: features {', '.join(self.features)}: should be one or more, each once"
            )
        scopes: dict[str, Iterable[Scope]] = {
            "relations": _relations(self.relations),
            "sdpa": _sdpa(self.sdpa),
            "floors": self.floors,
            "deviations": self.deviations,
            "traces": self.traces,
            "absences": self.absences,
        }
        own: dict[str, Iterable[str]] = {
            "preprocessors": self.preprocessors,
            "heads": self.heads,
            "needs": self.needs,
            "kinds": self.kinds,
            "smoke": self.smoke,
            **{name: [feature for each in some for feature in each.features] for name, some in scopes.items()},
        }
        others = [name for each in self.deviations for name in each.architectures]
        words.require(f"{self.model_type}: architectures of deviations", others, (self.name,))
        for name, features in own.items():
            words.require(f"{self.model_type}: features of {name}", features, self.features)

    def relations_of(self, feature: str) -> list[str]:
        """The declared metamorphic relations of a feature; a relation that is lost or gained fails."""
        declared = (each.names for each in _relations(self.relations) if each.covers(feature=feature))
        return next(declared, RELATIONS[self.kind_of(feature)]).split()

    def kind_of(self, feature: str) -> str:
        """The kind of a feature's model."""
        return self.kinds.get(feature, self.kind)

    def preprocessor_of(self, feature: str) -> str:
        """The name of the tiny preprocessor that goes with a feature."""
        return self.preprocessors.get(feature, self.preprocessor)

    def floor_of(
        self,
        feature: str,
        *,
        attention: str = "eager",
        exporter: str = DEFAULT_EXPORTER,
        dtype: str = DEFAULT_DTYPE,
    ) -> Floor | None:
        """The floor that applies to a feature in this environment; None if the exporter's own does.

        Args:
            feature: such as `masked-lm`.
            attention: the implementation of attention, `eager` or `sdpa`.
            exporter: a name in `parity.exporters`.
            dtype: the type of the weights, a name in `parity.dtypes`.
        """
        floors = [
            floor
            for floor in self.floors
            if floor.covers(feature=feature, attention=attention, exporter=exporter, dtype=dtype)
        ]
        return max(floors, key=lambda floor: floor.opset, default=None)

    def traced_axes(
        self,
        feature: str,
        *,
        attention: str = "eager",
        exporter: str = DEFAULT_EXPORTER,
        dtype: str = DEFAULT_DTYPE,
    ) -> dict[str, TracedAxis]:
        """The axes of a feature's trace that do not generalise in this environment, by name.

        Args:
            feature: such as `masked-lm`.
            attention: the implementation of attention, `eager` or `sdpa`.
            exporter: a name in `parity.exporters`.
            dtype: the type of the weights, a name in `parity.dtypes`.
        """
        return {
            each.axis: each
            for each in self.traces
            if each.covers(feature=feature, attention=attention, exporter=exporter, dtype=dtype)
        }

    def has_sdpa(self, feature: str) -> bool:
        """Whether its model has scaled_dot_product_attention in this environment; transformers needs torch 2.1.1."""
        return at_least("torch", "2.1.1") and any(scope.covers(feature=feature) for scope in _sdpa(self.sdpa))

    def refusal_of(self, config: object) -> str:
        """Why a model's configuration is not exported; empty if it is."""
        for each in self.refusals:
            if each.applies(config):
                return f"{self.name}: {each.item} is {str(each.value).lower()}: {each.reason} ({each.issue})"
        return ""

    def variations_of(self, feature: str) -> tuple[Variation, ...]:
        """The variations of a feature's configuration in this environment."""
        return tuple(each for each in self.variations if each.covers(feature=feature))

    def absent_weights(self, cell: Cell) -> tuple[str, ...]:
        """The name patterns of the weights that a cell's file does not hold unchanged."""
        where = {name: getattr(cell, name) for name in ("feature", "opset", "attention", "exporter", "dtype")}
        return tuple(pattern for each in self.absences if each.covers(**where) for pattern in each.weights)

    @property
    def gap(self) -> str:
        """Why the architecture is missing in this environment; empty if it exists."""
        return _gap(self.name, self.versions)

    def gap_of(self, feature: str) -> str:
        """Why a feature is missing in this environment; empty if it exists."""
        return self.gap or _gap(f"{self.name} {feature}", self.needs.get(feature, "transformers"))

    @property
    def name(self) -> str:
        """The name of the architecture in ids and tables: the model type with `-`."""
        return self.model_type.replace("_", "-")


def omit(variations: Iterable[Variation], *items: str) -> tuple[Variation, ...]:
    """The variations of a family without those of these items."""
    return tuple(each for each in variations if not set(items) & set(each.items))


# Functions model type → declaration: the registry adds its own, for a model that is made of two.
FINDERS: list[Callable[[str], Architecture]] = []


def _relations(declared: Sequence[Relations] | Mapping[str | tuple[str, str], str]) -> Sequence[Relations]:
    return Relations.from_mapping(declared) if isinstance(declared, Mapping) else declared


def _sdpa(declared: Scope | str) -> list[Scope]:
    if isinstance(declared, str):
        return [Scope(versions=declared)] if declared else []
    declared.require_no_opsets()
    return [declared]


def _gap(subject: str, requirement: str) -> str:
    if meets(requirement):
        return ""
    return f"{subject} needs {requirement}; transformers {version_of('transformers')} is installed"


def token_axes(task: str, *names: str) -> OrderedDict[str, dict[int, str]]:
    """The inputs of a text encoder: (batch, sequence), or (batch, choice, sequence) for multiple-choice."""
    axes = ("batch", "choice", "sequence") if task == "multiple-choice" else ("batch", "sequence")
    return OrderedDict((name, dict(enumerate(axes))) for name in names)


def decoder_axes(use_past: bool) -> OrderedDict[str, dict[int, str]]:
    """Token ids and mask of a decoder; with a past, the mask is as long as both together."""
    mask = "past_sequence + sequence" if use_past else "sequence"
    return OrderedDict(input_ids={0: "batch", 1: "sequence"}, attention_mask={0: "batch", 1: mask})


def encoder_decoder_axes(use_past: bool) -> OrderedDict[str, dict[int, str]]:
    """Token ids and masks of an encoder and its decoder; with a past, the decoder's mask is as long as both."""
    mask = "past_decoder_sequence + decoder_sequence" if use_past else "decoder_sequence"
    return OrderedDict(
        input_ids={0: "batch", 1: "encoder_sequence"},
        attention_mask={0: "batch", 1: "encoder_sequence"},
        decoder_input_ids={0: "batch", 1: "decoder_sequence"},
        decoder_attention_mask={0: "batch", 1: mask},
    )


def image_sizes(smallest: int, own: int | Sequence[int]) -> dict[str, range]:
    """Heights and widths, for `axis_sizes`: from the smallest that the model takes to three times its own.

    Args:
        own: one size, or height and width.
    """
    height, width = (own, own) if isinstance(own, int) else own
    return {name: range(smallest, 3 * max(smallest, size) + 1) for name, size in (("height", height), ("width", width))}


ENCODER_FEATURES = (
    "default",
    "masked-lm",
    "causal-lm",
    "sequence-classification",
    "multiple-choice",
    "token-classification",
    "question-answering",
)

# The features of an encoder without a head for generation.
BIDIRECTIONAL_FEATURES = tuple(feature for feature in ENCODER_FEATURES if feature != "causal-lm")
