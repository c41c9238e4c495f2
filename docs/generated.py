"""The directive `generated`: parts of a page that are made from code and records while the pages are built."""

from __future__ import annotations

import configparser
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import messages
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

ROOT = Path(__file__).resolve().parents[1]


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A table in Markdown."""
    yield from (f"| {' | '.join(heads)} |", "|---" * len(heads) + "|")
    yield from (f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)


def environments() -> Iterator[str]:
    """The environments of tox.ini with their descriptions."""
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini")
    names = [name for name in tox.sections() if name.startswith("testenv:") and "description" in tox[name]]
    rows = [(f"`tox -e {name.removeprefix('testenv:')}`", tox[name]["description"]) for name in names]
    yield from table(("command", "runs"), rows)


def tasks() -> Iterator[str]:
    """Every task with outputs, Auto classes and the names that others have for it."""
    from parity.tasks import ALIASES, TASKS

    def axes(names: dict[int, str]) -> str:
        return ", ".join(f"{axis}: {name}" for axis, name in names.items())

    rows = [
        (
            f"`{name}`",
            "; ".join(f"`{output}` ({axes(dict(names))})" for output, names in task.outputs.items()),
            ", ".join(f"`{each}`" for each in task.auto_classes),
            ", ".join(f"`{alias}`" for alias, feature in ALIASES.items() if feature == name),
        )
        for name, task in TASKS.items()
    ]
    yield from table(("task", "outputs (dynamic axes)", "Auto classes", "other names"), rows)


def exporters() -> Iterator[str]:
    """Every exporter with its opsets."""
    from parity.exporters import EXPORTERS

    rows = [(f"`{n}`", f"`{e.class_name}`", f"{e.opsets.start} to {e.opsets.stop - 1}") for n, e in EXPORTERS.items()]
    yield from table(("exporter", "class", "opsets"), rows)


def errors() -> Iterator[str]:
    """The exceptions, as a tree."""
    from parity import errors as module

    classes = [each for each in vars(module).values() if isinstance(each, type) and each.__module__ == module.__name__]
    rows = [
        (
            f"`{each.__name__}`",
            ", ".join(f"`{base.__name__}`" for base in each.__bases__),
            f"`{each.stage}`",
            str(each.exit_status),
            (each.__doc__ or "").strip().splitlines()[0],
        )
        for each in classes
        if hasattr(each, "stage")
    ]
    yield from table(("class", "is a", "stage", "exit status", "raised for"), rows)


def commands() -> Iterator[str]:
    """What `--help` prints, for `parity` and each of its commands."""
    for name, text in messages.helps():
        yield from (f"## {name}", "", "```text", text, "```", "")


def benchmarks() -> Iterator[str]:
    """Every measured ratio that has a budget."""
    rows = []
    for path in sorted((ROOT / "reports" / "benchmarks").glob("*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        for row in result["rows"]:
            ratio = row["ratio"]
            if ratio and ratio.get("budget"):
                what = f"{row['what']}, {row['figure']}" if "figure" in row else row["what"]
                cells = (
                    f"{result['benchmark']}, {result['date'][:10]}",
                    row["subject"],
                    what,
                    f"{ratio['median']:.2f}",
                    f"≤ {ratio['budget']:.2f}",
                )
                rows.append((*cells, "yes" if ratio["holds"] else "**no**"))
    yield from table(("benchmark, date", "model", "what", "ratio", "budget", "holds"), rows)


def benchmark_tables() -> Iterator[str]:
    """All figures of every benchmark."""
    for path in sorted((ROOT / "reports" / "benchmarks").glob("*.md")):
        yield from (f"## {path.stem}", "", path.read_text(encoding="utf-8"), "")


def deviations() -> Iterator[str]:
    """What the declarations say of bugs of other packages, and of opsets and axes that do not work."""
    from parity.architectures.conformance.deviations import DEVIATIONS
    from parity.registry import architectures

    rows = [("many", each.reason, each.versions, f"[thread]({each.issue})") for each in DEVIATIONS]
    for architecture in architectures():
        for fact in (*architecture.deviations, *architecture.floors, *architecture.traces):
            reason = getattr(fact, "reason", "") or f"{fact.axis}: {fact.outcome}: {fact.text}"
            scope = ", ".join(filter(None, [*fact.features, fact.versions]))
            issue = f"[thread]({fact.issue})" if fact.issue else ""
            opset = f"opset {fact.opset} and above: " if hasattr(fact, "opset") else ""
            rows.append((architecture.name, opset + reason, scope, issue))
    yield from table(("architecture", "what", "where", "upstream"), rows)


def refusals() -> Iterator[str]:
    """Configurations that are refused."""
    from parity.registry import architectures

    rows = [
        (each.name, f"`{refusal.item} = {refusal.value!r}`", refusal.reason, f"[thread]({refusal.issue})")
        for each in architectures()
        for refusal in each.refusals
    ]
    yield from table(("architecture", "configuration", "why", "upstream"), rows)


PARTS: dict[str, Callable[[], Iterator[str]]] = {
    each.__name__: each
    for each in (
        *(environments, tasks, exporters, errors, commands),
        *(benchmarks, benchmark_tables, deviations, refusals),
    )
}


class Generated(SphinxDirective):
    """The part of that name, in Markdown, in the place of the directive."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        lines = "\n".join(PARTS[self.arguments[0]]())
        return self.parse_text_to_nodes(lines, allow_section_headings=True)


def setup(app: Sphinx) -> ExtensionMetadata:
    """Called by Sphinx."""
    app.add_directive("generated", Generated)
    return {"parallel_read_safe": True}
