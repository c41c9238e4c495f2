"""The results: scores by class, setting and judge, survivors by name, and whether the scores are high enough."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from parity.reports.mutation.cases import MINILM, SETTINGS
from parity.reports.mutation.catalogue import is_of_surviving_kind
from parity.reports.mutation.conditions import CONDITIONS
from parity.reports.mutation.traces import COUNT, LISTED
from parity.reports.mutation.visibility import EQUIVALENT, STILLBORN, VISIBLE

JUDGES = ("suite", "command", "one_shape")
HEADS = {"suite": "suite", "command": "`parity check`", "one_shape": "one shape, atol 1e-5"}
# Judge → the share of visible faults that it must reject at least, in every class; below, the shares for faults under a
# condition, for MiniLM and for traces.
REQUIRED = {"suite": 0.97, "command": 0.95}
UNDER_A_CONDITION, ON_MINILM, OF_TRACES = 0.80, 0.95, 0.90
ARCHITECTURES, KINDS, SURVIVING, COMPARISONS = 15, 150, 60, 3000
MARKS = ("<!-- mutation: begin -->", "<!-- mutation: end -->")

Line = Mapping[str, Any]


def summarise(mutants: Sequence[Line], originals: Sequence[Line], traces: Sequence[Line], seed: int) -> dict[str, Any]:
    """All results as one JSON object.

    Args:
        mutants, originals, traces: the lines of a run.
        seed: the seed of the run.
    """
    visible = [each for each in mutants if each["state"] == VISIBLE]
    kinds = {(each["group"], each["kind"]) for each in visible}
    shown = [each for each in traces if each["state"] == VISIBLE]
    return {
        "seed": seed,
        "files": len(originals),
        "files by setting": dict(Counter(each["setting"] for each in originals)),
        "architectures": sorted({each["architecture"] for each in originals} - {MINILM}),
        "states": dict(Counter(each["state"] for each in mutants)),
        "visible": len(visible),
        "kinds": len(kinds),
        "surviving kinds": sum(is_of_surviving_kind(*kind) for kind in kinds),
        "scores": _scores(visible),
        "survivors": {judge: _names(visible, judge) for judge in JUDGES[:2]},
        "stillborn": [each["name"] for each in mutants if each["state"] == STILLBORN],
        "equivalent": [each["name"] for each in mutants if each["state"] == EQUIVALENT],
        "comparisons": sum(each["comparisons"] for each in originals),
        "alarms": [f"{each['name']}: {each[j]}" for each in originals for j in JUDGES[:2] if each.get(j)],
        "traces": {
            "visible": len(shown),
            "caught": sum(bool(each["verdict"]) for each in shown),
            "by kind": {kind: _caught(shown, kind) for kind in dict.fromkeys(each["kind"] for each in shown)},
            "survivors": [each["name"] for each in shown if not each["verdict"]],
        },
    }


def _caught(shown: Iterable[Line], kind: str) -> list[int]:
    """The number of traces of a kind that were caught, and the number of all."""
    own = [bool(each["verdict"]) for each in shown if each["kind"] == kind]
    return [sum(own), len(own)]


def _names(visible: Iterable[Line], judge: str) -> list[str]:
    return [f"{each['name']} ({each['detail']})" for each in visible if judge in each and not each[judge]]


def _scores(visible: Sequence[Line]) -> dict[str, dict[str, dict[str, list[int]]]]:
    """Judge → setting → class → number of rejected faults and of visible ones."""
    scores: dict[str, Any] = {judge: defaultdict(lambda: defaultdict(lambda: [0, 0])) for judge in JUDGES}
    for each in visible:
        for judge in JUDGES:
            if judge in each:
                for setting in (each["setting"], "all"):
                    if setting == "all" and each["setting"] == MINILM:
                        continue
                    pair = scores[judge][setting][each["group"]]
                    pair[0] += bool(each[judge])
                    pair[1] += 1
    return {judge: {setting: dict(groups) for setting, groups in own.items()} for judge, own in scores.items()}


def total(groups: Mapping[str, Sequence[int]], *, without: str = "") -> tuple[int, int]:
    """The numbers of rejected and of visible faults over all classes."""
    chosen = [pair for name, pair in groups.items() if name != without]
    return sum(pair[0] for pair in chosen), sum(pair[1] for pair in chosen)


def shortfalls(summary: Mapping[str, Any], *, small: bool = False) -> list[str]:
    """A sentence for each result that is lower than required.

    Args:
        summary: the result of `summarise`.
        small: whether the run was a part, whose counts are not checked.
    """
    lines = []
    for judge, least in REQUIRED.items():
        for setting in (*SETTINGS, "all"):
            for group, (killed, visible) in summary["scores"][judge].get(setting, {}).items():
                required = UNDER_A_CONDITION if group == CONDITIONS else least
                # Shares of few faults say little: single settings are checked only from twenty faults on.
                if (visible >= 20 or setting == "all") and killed < required * visible:
                    lines.append(f"{judge}, {setting}, {group}: {killed} of {visible}, should be {required:.0%}")
    killed, visible = total(summary["scores"]["command"].get(MINILM, {}), without=CONDITIONS)
    if visible and killed < ON_MINILM * visible:
        lines.append(f"command, {MINILM}: {killed} of {visible}, should be {ON_MINILM:.0%}")
    lines += [f"alarm: {each}" for each in summary["alarms"]]
    traces = summary["traces"]
    if traces["caught"] < OF_TRACES * traces["visible"]:
        lines.append(f"traces: {traces['caught']} of {traces['visible']}, should be {OF_TRACES:.0%}")
    for kind in LISTED:
        caught, count = traces["by kind"].get(kind, (0, 0))
        if caught < count:
            lines.append(f"traces, {kind}: {caught} of {count}, should be all")
    if not small:
        counts = {
            "architectures": (len(summary["architectures"]), ARCHITECTURES),
            "kinds": (summary["kinds"], KINDS),
            "kinds that once survived": (summary["surviving kinds"], SURVIVING),
            "healthy comparisons": (summary["comparisons"], COMPARISONS),
            "traces": (traces["visible"], COUNT),
        }
        lines += [f"{what}: {count}, should be {least}" for what, (count, least) in counts.items() if count < least]
    return lines


def share(pair: Sequence[int]) -> str:
    """Rejected and visible faults, as text."""
    killed, visible = pair
    return f"{killed} of {visible}" + (f" ({killed / visible:.1%})" if visible else "")


def headline(summary: Mapping[str, Any]) -> list[str]:
    """The paragraphs above the tables."""
    states = summary["states"]
    traces = summary["traces"]
    part = []
    and_minilm = f" and of {MINILM}" if MINILM in summary["files by setting"] else ""
    if summary["files"] < summary.get("all files", 0):
        counts = ", ".join(f"{setting}: {count}" for setting, count in summary["files by setting"].items())
        part = [
            f"**Part of a run**: {summary['files']} of {summary['all files']} files have been judged so far ({counts}),"
            " the last one perhaps not with all its faults.",
            "",
        ]
    return [
        *part,
        f"{summary['visible']:,} visible faults of {summary['kinds']} kinds in {summary['files']} files of"
        f" {len(summary['architectures'])} architectures{and_minilm}; {summary['surviving kinds']} of the kinds"
        f" survived in an earlier version. Not counted: {states.get(EQUIVALENT, 0)} faults that show at no input, and"
        f" {states.get(STILLBORN, 0)} files that ONNX Runtime does not load. Seed {summary['seed']}.",
        "",
        f"On files without a fault, {summary['comparisons']:,} comparisons (of an output at an input) gave"
        f" {len(summary['alarms'])} false alarms. Of {traces['visible']} TorchScript traces that lost a branch of their"
        f" model, {traces['caught']} were detected.",
    ]


def table_by_setting(summary: Mapping[str, Any]) -> list[str]:
    """The scores of each judge at each opset and attention implementation, and on MiniLM."""
    lines = [f"| files | {' | '.join(HEADS.values())} | under a condition: suite | `parity check` |"]
    lines.append("|---" * 6 + "|")
    for setting in ("all", *SETTINGS, MINILM):
        scores = [summary["scores"][judge].get(setting, {}) for judge in JUDGES]
        if not any(scores):
            continue
        cells = [share(total(each, without=CONDITIONS)) if each else "–" for each in scores]
        cells += [share(each[CONDITIONS]) if CONDITIONS in each else "–" for each in scores[:2]]
        label = "tiny, all" if setting == "all" else setting
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return lines


def table_by_class(summary: Mapping[str, Any]) -> list[str]:
    """The scores of each class on the tiny files, and on MiniLM."""
    lines = [f"| class | {' | '.join(HEADS.values())} | {MINILM}: `parity check` | {MINILM}: one shape |"]
    lines.append("|---" * 6 + "|")
    own = [summary["scores"][judge].get("all", {}) for judge in JUDGES]
    own += [summary["scores"][judge].get(MINILM, {}) for judge in JUDGES[1:]]
    for group in sorted({*own[0], *own[3]}):
        cells = [share(each[group]) if group in each else "–" for each in own]
        lines.append(f"| {group} | {' | '.join(cells)} |")
    return lines


def report(summary: Mapping[str, Any]) -> list[str]:
    """The whole report in Markdown."""
    lines = ["# Seeded faults", "", "Made by `tox -e mutation`; `docs/judge.md` says what is counted.", ""]
    lines += [*headline(summary), "", "Faults under a condition are counted in the last two columns only:", ""]
    lines += [*table_by_setting(summary), "", "## By class", "", *table_by_class(summary)]
    for judge in JUDGES[:2]:
        names = summary["survivors"][judge]
        lines += ["", f"## Survivors of the {judge}", "", *(f"- {name}" for name in names or ["none"])]
    traces = summary["traces"]
    lines += ["", "## Traces", "", "| kind | caught |", "|---|---|"]
    lines += [f"| {kind} | {caught} of {count} |" for kind, (caught, count) in traces["by kind"].items()]
    lines += ["", *(f"- survived: {name}" for name in traces["survivors"])]
    for title, key in (("Stillborn", STILLBORN), ("Equivalent", EQUIVALENT)):
        lines += ["", f"## {title}", "", *(f"- {name}" for name in summary[key] or ["none"])]
    return [*lines, ""]


def write(summary: Mapping[str, Any], results: Path, page: Path) -> None:
    """Write the results, and their summary between the marks of the page.

    Raises:
        ValueError: the page has no marks.
    """
    results.mkdir(parents=True, exist_ok=True)
    (results / "mutation.json").write_text(json.dumps(summary, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (results / "mutation.md").write_text("\n".join(report(summary)), encoding="utf-8")
    text = page.read_text(encoding="utf-8")
    begin, end = MARKS
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"{page}: should have {begin} and {end} once each")
    own = "\n".join([*headline(summary), "", *table_by_setting(summary), "", *table_by_class(summary)])
    pattern = re.escape(begin) + ".*" + re.escape(end)
    page.write_text(re.sub(pattern, lambda _: f"{begin}\n{own}\n{end}", text, flags=re.DOTALL), encoding="utf-8")
