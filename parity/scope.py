"""The scope of a fact: features, opsets, attention implementations, exporters, dtypes and versions."""

from __future__ import annotations

from dataclasses import dataclass

from parity import words
from parity.dtypes import DTYPES
from parity.environment import meets
from parity.exporters import EXPORTERS
from parity.tasks import TASKS, task_of


@dataclass(frozen=True, kw_only=True)
class Scope:
    """The cells and environments that a fact is about; an empty field excludes nothing.

    Args:
        features, opsets: any of these.
        attention, exporter, dtype: this one.
        versions: the requirement that the environment must meet, such as `transformers>=5`.
    """

    features: tuple[str, ...] = ()
    opsets: tuple[int, ...] = ()
    attention: str = ""
    exporter: str = ""
    dtype: str = ""
    versions: str = ""

    def __post_init__(self) -> None:
        subject = type(self).__name__.lower()
        words.require(f"{subject}: features", map(task_of, self.features), tuple(TASKS))
        words.require(f"{subject}: attention", filter(None, [self.attention]), words.ATTENTIONS)
        words.require(f"{subject}: exporter", filter(None, [self.exporter]), tuple(EXPORTERS))
        words.require(f"{subject}: dtype", filter(None, [self.dtype]), tuple(DTYPES))
        if self.versions:
            words.require_versions(subject, self.versions)

    def require_no_opsets(self) -> None:
        """Refuse opsets in the scope of a fact that does not depend on the opset.

        Raises:
            ValueError
        """
        if self.opsets:
            opsets = ", ".join(map(str, self.opsets))
            raise ValueError(f"{type(self).__name__.lower()}: opsets: got {opsets}, should be empty; leave them out")

    def covers(
        self,
        *,
        feature: str | None = None,
        opset: int | None = None,
        attention: str | None = None,
        exporter: str | None = None,
        dtype: str | None = None,
    ) -> bool:
        """Whether the fact holds there, in this environment; arguments that are None are not compared.

        Args:
            feature: such as `masked-lm`.
            opset: of the ONNX file.
            attention: the implementation of attention, `eager` or `sdpa`.
            exporter: a name in `parity.exporters`.
            dtype: the type of the weights, a name in `parity.dtypes`.
        """
        values = {"attention": attention, "exporter": exporter, "dtype": dtype}
        return (
            (feature is None or not self.features or feature in self.features)
            and (opset is None or not self.opsets or opset in self.opsets)
            and all(value is None or getattr(self, name) in ("", value) for name, value in values.items())
            and (not self.versions or meets(self.versions))
        )
