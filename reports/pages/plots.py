"""Records → plots as SVG text that takes its colours from the page, each with its numbers as a table."""

from __future__ import annotations

import io
import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from parity.reports.gate import baseline
from parity.reports.gate.changes import WORST, Run, worst_by_feature
from parity.reports.gate.upgrade import worst_ratio

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Placeholders that are replaced by CSS variables of the page: an SVG inside HTML may use them.
_INK = "#010203"
_COLOURS = {status: f"#0102{16 + number:02x}" for number, status in enumerate(WORST)}
# Equal answers have ratio 0, which a log scale cannot show.
_SMALLEST = 0.01
# Simplifying a path drops its lines of zero length.
_WHOLE = {"path.simplify": False}
_VERDICTS = {"generalises": "passed", "fixed by the model": "skipped", "raises": "xfailed", "silently wrong": "failed"}


@dataclass(frozen=True)
class Plot:
    """A plot of the page; if there is nothing to draw, it has no SVG and the caption says so."""

    name: str
    title: str
    caption: str
    svg: str = ""
    head: Sequence[str] = ()
    rows: Sequence[Sequence[object]] = ()


def all_plots(
    environment: Mapping[str, Any], lines: Sequence[Mapping[str, Any]], history: Sequence[Run] = ()
) -> list[Plot]:
    """Every plot of the page, in its order.

    Args:
        environment, lines: of the run.
        history: earlier runs, the oldest first.
    """
    runs = [*history, (environment, lines)]
    return [ratios(lines), opsets(lines), verdicts(lines), costs(lines), past(runs)]


def ratios(lines: Sequence[Mapping[str, Any]]) -> Plot:
    """Median, 90th percentile and maximum of the error ratios of each architecture."""
    by_architecture: dict[str, list[float]] = {}
    for line in lines:
        _, ratio = worst_ratio(line)
        if ratio is not None:
            by_architecture.setdefault(line["architecture"], []).append(ratio)
    title = "Error ratio by architecture"
    if not by_architecture:
        return Plot("ratios", title, "No error ratio is on record.")
    rows = []
    for name, values in by_architecture.items():
        ordered = sorted(values)
        rows.append(
            (name, statistics.median(ordered), ordered[int(0.9 * (len(ordered) - 1))], ordered[-1], len(ordered))
        )
    rows.sort(key=lambda row: -row[3])
    figure, axes = _figure(0.19 * len(rows) + 1.2)
    places = range(len(rows))
    points = [[max(value, _SMALLEST) for value in row[1:4]] for row in rows]
    axes.hlines(places, [row[0] for row in points], [row[2] for row in points], color=_INK, linewidth=1)
    for column, marker, label in ((0, "o", "median"), (1, "|", "nine tenths"), (2, "D", "maximum")):
        axes.plot([row[column] for row in points], places, marker, color=_INK, markersize=4, label=label)
    axes.axvline(2, color=_COLOURS["xfailed"], linestyle="--", label="reported above 2")
    axes.axvline(4, color=_COLOURS["failed"], linestyle="--", label="failed above 4")
    _scale_logarithmically(axes)
    axes.set_yticks(places, [row[0] for row in rows])
    axes.invert_yaxis()
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel("error of the file against float64, in units of PyTorch's own")
    caption = (
        "Of each check, the worst output; near 1 is as good as PyTorch itself, above 4 fails. A ratio below"
        f" {_SMALLEST} (0 is bit-equal) is drawn there."
    )
    texts = [
        (name, *(f"{value:.3g}" for value in (median, most, top)), count) for name, median, most, top, count in rows
    ]
    head = ("architecture", "median", "nine tenths", "maximum", "checks")
    return Plot("ratios", title, caption, _svg(figure, axes), head, texts)


def opsets(lines: Sequence[Mapping[str, Any]]) -> Plot:
    """How many pairs of architecture and feature have each worst status, by opset."""
    counts: dict[int, Counter[str]] = {}
    for statuses in worst_by_feature(lines).values():
        for opset, status in statuses.items():
            counts.setdefault(opset, Counter())[status] += 1
    title = "Opset coverage"
    if not counts:
        return Plot("opsets", title, "No ONNX cell is on record.")
    places = sorted(counts)
    figure, axes = _figure(3.2)
    _stack(axes, places, {status: [counts[opset][status] for opset in places] for status in WORST})
    axes.set_xticks(places, places)
    axes.set_xlabel("opset")
    axes.set_ylabel("architecture × feature")
    rows = [(opset, *(counts[opset][status] for status in WORST)) for opset in places]
    caption = "Each architecture × feature counts once at an opset, with the worst of its checks."
    return Plot("opsets", title, caption, _svg(figure, axes), ("opset", *WORST), rows)


def verdicts(lines: Sequence[Mapping[str, Any]]) -> Plot:
    """Verdicts on the axes of traces at sizes that differ from the traced ones."""
    counts: dict[str, Counter[str]] = {}
    for line in lines:
        for each in line["verdicts"]:
            counts.setdefault(str(each.get("axis")), Counter())[str(each.get("verdict"))] += 1
    title = "Trace verdicts"
    if not counts:
        return Plot("verdicts", title, "No verdict of a trace is on record.")
    axes_of = sorted(counts, key=lambda axis: -counts[axis].total())
    names = sorted(
        {verdict for by_verdict in counts.values() for verdict in by_verdict},
        key=lambda v: list(_VERDICTS).index(v) if v in _VERDICTS else 9,
    )
    figure, axes = _figure(0.3 * len(axes_of) + 1.3)
    offsets = [0] * len(axes_of)
    for name in names:
        values = [counts[axis][name] for axis in axes_of]
        axes.barh(axes_of, values, left=offsets, color=_COLOURS[_VERDICTS.get(name, "skipped")], label=name)
        offsets = [one + other for one, other in zip(offsets, values, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("traces")
    caption = "A trace at other sizes of one axis: right at all, raising at some, or silently wrong at some."
    rows = [(axis, *(counts[axis][name] for name in names)) for axis in axes_of]
    return Plot("verdicts", title, caption, _svg(figure, axes), ("axis", *names), rows)


def costs(lines: Sequence[Mapping[str, Any]]) -> Plot:
    """Seconds of all checks of a cell, against the peak memory of its process."""
    seconds: dict[str, float] = defaultdict(float)
    peaks: dict[str, float] = {}
    for line in lines:
        seconds[line["id"]] += line["seconds"]
        if line.get("peak") is not None:
            peaks[line["id"]] = max(peaks.get(line["id"], 0), line["peak"])
    title = "Time and memory per cell"
    if not seconds:
        return Plot("costs", title, "No cell is on record.")
    figure, axes = _figure(3.6)
    if peaks:
        shown = list(peaks)
        _dots(axes, [max(seconds[cell], 1e-3) for cell in shown], [peaks[cell] for cell in shown])
        axes.set_ylabel("peak of the process, MiB")
    else:
        axes.hist([max(value, 1e-3) for value in seconds.values()], bins=60, color=_INK)
        axes.set_ylabel("cells")
    _scale_logarithmically(axes)
    axes.set_xlabel("seconds, all checks of the cell")
    caption = (
        f"{len(seconds):,} cells, {sum(seconds.values()):,.0f} seconds in all, the median cell"
        f" {statistics.median(seconds.values()):.2f}. "
        + (
            "The peak has the libraries in it."
            if peaks
            else "These records have no memory: their system does not tell it."
        )
    )
    slowest = sorted(seconds.items(), key=lambda pair: -pair[1])[:30]
    rows = [(cell, f"{took:.2f}", peaks.get(cell, "–")) for cell, took in slowest]
    return Plot("costs", title, caption, _svg(figure, axes), ("slowest cells", "seconds", "peak, MiB"), rows)


def past(runs: Sequence[Run]) -> Plot:
    """Statuses and total seconds of several runs, the oldest first."""
    dates = [environment.get("date", f"run\u00a0{number}")[:10] for number, (environment, _) in enumerate(runs, 1)]
    names = [f"{date} {_short(environment)}" for date, (environment, _) in zip(dates, runs, strict=True)]
    counts = [Counter(line["status"] for line in lines) for _, lines in runs]
    seconds = [round(sum(line["seconds"] for line in lines)) for _, lines in runs]
    title = "History"
    rows = [
        (name, *(count[status] for status in WORST), took)
        for name, count, took in zip(names, counts, seconds, strict=True)
    ]
    head = ("run", *WORST, "seconds")
    if len(runs) == 1:
        return Plot("history", title, "One run; --history RECORDS… puts earlier ones beside it.", "", head, rows)
    figure, axes = _figure(3.4)
    places = list(range(len(runs)))
    _stack(axes, places, {status: [count[status] for count in counts] for status in WORST})
    axes.set_xticks(places, [name.replace(" ", "\n") for name in names])
    axes.set_ylabel("checks")
    return Plot("history", title, "Checks by status in each run, the oldest first.", _svg(figure, axes), head, rows)


def _short(environment: Mapping[str, Any]) -> str:
    packages = environment["packages"]
    return " ".join(
        f"{name} {packages[name]}".replace(" ", "\u00a0") for name in baseline.DECIDING if packages.get(name)
    )


def _stack(axes: Axes, places: Sequence[int], values: Mapping[str, Sequence[int]]) -> None:
    bottom = [0] * len(places)
    for status in reversed(WORST):
        if any(values[status]):
            axes.bar(places, values[status], bottom=bottom, color=_COLOURS[status], label=status)
            bottom = [one + other for one, other in zip(bottom, values[status], strict=True)]


def _dots(axes: Axes, horizontal: Sequence[float], vertical: Sequence[float]) -> None:
    """Draw thousands of dots as one SVG element: lines of zero length with round ends."""
    import matplotlib

    gap = float("nan")
    places = [[value for each in values for value in (each, each, gap)] for values in (horizontal, vertical)]
    with matplotlib.rc_context(_WHOLE):
        axes.plot(*places, color=_INK, linewidth=2.5, solid_capstyle="round")


def _figure(height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, height), layout="constrained")
    axes = figure.subplots()
    axes.set_facecolor("none")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=_INK, labelsize=8)
    for spine in axes.spines.values():
        spine.set_color(_INK)
    return figure, axes


def _scale_logarithmically(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.tick_params(axis="x", which="minor", labelbottom=False, colors=_INK)


def _svg(figure: Figure, axes: Axes) -> str:
    """The figure as SVG for the page; text stays text."""
    import matplotlib

    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(_INK)
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside upper right", ncols=6, frameon=False, labelcolor=_INK, fontsize=8)
    stream = io.StringIO()
    # Without the salt, ids differ from run to run.
    settings = {
        "svg.fonttype": "none",
        "svg.hashsalt": axes.get_xlabel() + axes.get_ylabel(),
        "font.family": "sans-serif",
        **_WHOLE,
    }
    with matplotlib.rc_context(settings):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    # The frame around it has the accessible name; hide the drawing itself from screen readers.
    text = text[text.index("<svg") :].replace("<svg", '<svg aria-hidden="true"', 1).replace(_INK, "currentColor")
    for status, colour in _COLOURS.items():
        text = text.replace(colour, f"var(--{status}-bar)")
    return text
