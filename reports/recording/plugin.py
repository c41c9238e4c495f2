"""pytest plug-in: makes a record of every check of a cell; only the xdist controller writes them."""

from __future__ import annotations

import contextlib
import datetime
import resource
import sys
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from parity import records
from parity.architectures.conformance.matrix import cells
from parity.environment import describe
from parity.errors import UsageError
from parity.reports.gate.causes import RED, cause_lines, causes_of, rerun_command
from parity.reports.gate.changes import count_text
from parity.reports.gate.parts import FIELD
from parity.reports.recording.part import options_of
from parity.reports.recording.stash import PART, SHARD, lines_before, records_path
from parity.reports.recording.upstream import UPSTREAM

if TYPE_CHECKING:
    import warnings

    from xdist.workermanage import WorkerController

pytest_plugins = (
    "parity.reports.recording.selection",
    "parity.reports.recording.part",
    "parity.reports.recording.upstream",
)

_CELL, _FAILURE, _MEASUREMENTS, _USAGE, _PEAK = "cell", "failure", "measurements", "usage", "peak"
_SHARD, _PART = "shard", "part"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("parity")
    group.addoption("--records", type=Path, help="where records go (default: reports/out/records.jsonl)")


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        try:
            config.pluginmanager.register(_Recorder(config), "parity-recorder")
        except UsageError as error:
            raise pytest.UsageError(str(error)) from error


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    # Send what this worker used to the controller.
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput[_USAGE] = usage()
        session.config.workeroutput[_SHARD] = session.config.stash.get(SHARD, None)
        session.config.workeroutput[_PART] = session.config.stash.get(PART, None)


def usage() -> dict[str, float]:
    """CPU seconds and peak memory in MiB of this process, its imports included."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {"cpu": round(used.ru_utime + used.ru_stime, 2), "peak": _Peak.highest()}


class _Peak:
    """Peak memory of this process in MiB: over its lifetime, and since the last `restart`."""

    _before = 0
    restarted = False

    @classmethod
    def restart(cls) -> None:
        """Reset the peak, if the system can: Linux, for the process itself."""
        cls._before = cls.highest()
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
            cls.restarted = True

    @classmethod
    def highest(cls) -> int:
        return max(cls._before, cls.now())

    @staticmethod
    def now() -> int:
        # getrusage includes the memory of the parent at the time of the fork.
        with contextlib.suppress(OSError, StopIteration):
            lines = Path("/proc/self/status").read_text().splitlines()
            return round(int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 2**10)
        # Bytes on macOS, KiB elsewhere.
        scale = 2**20 if sys.platform == "darwin" else 2**10
        return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    # At setup, because a check whose fixtures fail has no call; before a mark skips it.
    cell = getattr(item, "callspec", None) and item.callspec.params.get("cell")
    if cell is not None:
        _Peak.restart()
        check = item.originalname.removeprefix("test_")
        item.user_properties.append((_CELL, {**cell.as_json(), "check": check}))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if call.excinfo is not None and hasattr(item, "callspec"):
        error = call.excinfo.value
        stage = getattr(error, "stage", records.TEST)
        cause = {"exception": type(error).__name__, "place": place_of(error)}
        report.user_properties.append((_FAILURE, {"stage": stage, "error": str(error)[:2000], "cause": cause}))
    if call.when == "teardown" and _Peak.restarted:
        report.user_properties.append((_PEAK, _Peak.now()))
    return report


def place_of(error: BaseException) -> str:
    """The innermost frame of parity or of an upstream package, as `module:function`; empty if there is none.

    For an error that was raised from another, the place of that other.
    """
    while error.__cause__ is not None:
        error = error.__cause__
    place, trace = "", error.__traceback__
    while trace is not None:
        module = trace.tb_frame.f_globals.get("__name__", "")
        if module.partition(".")[0] in ("parity", *UPSTREAM):
            place = f"{module}:{trace.tb_frame.f_code.co_name}"
        trace = trace.tb_next
    return place


class _Recorder:
    def __init__(self, config: pytest.Config) -> None:
        self._path = records_path(config)
        self._earlier = lines_before(config)
        self._stream: records.Stream | None = None
        self._stash = config.stash
        self._options = options_of(config)
        self._arguments = [str(argument) for argument in config.invocation_params.args]
        self._reports: dict[str, list[pytest.TestReport]] = {}
        self._warnings: dict[str, list[dict[str, str]]] = {}
        self._workers: list[dict[str, float]] = []

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: WorkerController, error: object) -> None:
        if not error:
            self._workers.append(node.workeroutput[_USAGE])
            self._stash[SHARD] = node.workeroutput[_SHARD]
            self._stash[PART] = node.workeroutput[_PART]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "???":
            report.user_properties = _crash(report)
        if dict(report.user_properties).get(_CELL):
            self._reports.setdefault(report.nodeid, []).append(report)
            if report.when in ("teardown", "???"):
                self._write_now(report.nodeid)

    def _write_now(self, nodeid: str) -> None:
        """Write the record at once, in case this process is killed; its warnings come with the whole file."""
        # A record that violates the schema, or that cannot be written, is reported at the end.
        with contextlib.suppress(ValueError, OSError):
            if self._stream is None:
                self._stream = records.Stream(self._path, self._environment())
                for line in self._earlier:
                    self._stream.append(line)
            self._stream.append(record(self._reports[nodeid]))

    def _environment(self) -> dict[str, Any]:
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        arguments = [records.printable(each) for each in self._arguments]
        return {**describe(), "arguments": arguments, "workers": self._workers, "date": now}

    def pytest_warning_recorded(self, warning_message: warnings.WarningMessage, nodeid: str) -> None:
        from parity.reports.recording.upstream import warning_facts

        warning = warning_facts(warning_message)
        earlier = self._warnings.setdefault(nodeid, [])
        if warning and warning not in earlier:
            earlier.append(warning)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> Generator[None, None, None]:
        """Keep the first failure of each cause in pytest's own lists, and print the largest causes after them."""
        lines = {nodeid: record(phases) for nodeid, phases in self._reports.items()}
        causes = causes_of(lines.values())
        first = {id(cause.lines[0]) for cause in causes}
        folded = {nodeid for nodeid, line in lines.items() if line["status"] in RED and id(line) not in first}
        stats = terminalreporter.stats
        own = {name: stats[name] for name in ("failed", "error") if name in stats}
        stats.update({name: [each for each in reports if each.nodeid not in folded] for name, reports in own.items()})
        try:
            yield
        finally:
            stats.update(own)
        if causes:
            checks = sum(len(cause.lines) for cause in causes)
            terminalreporter.section(f"{count_text(len(causes), 'cause')} of {count_text(checks, 'red check')}")
            for line in cause_lines(causes, rerun_command({"arguments": self._arguments})):
                terminalreporter.write_line(line)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        shard = self._stash.get(SHARD, None)
        if self._reports or shard:
            environment = {**self._environment(), "workers": self._workers or [usage()]}
            environment.update({"shard": shard} if shard else {})
            part = self._stash.get(PART, None)
            if part and (part["tests"] or part["left_out"]):
                # Paths count as a selection if they leave out a test of the matrix.
                options = {name: each for name, each in self._options.items() if name != "paths" or part["tests"]}
                environment[FIELD] = {**part, "options": options}
            lines = [record(phases, self._warnings.get(nodeid)) for nodeid, phases in self._reports.items()]
            keys = {(line["id"], line["check"]) for line in lines}
            earlier = [line for line in self._earlier if (line["id"], line["check"]) not in keys]
            records.write(self._path, environment, [*earlier, *lines])
            if self._stream is not None:
                self._stream.remove()


def _crash(report: pytest.TestReport) -> list[tuple[str, dict[str, Any]]]:
    """The properties that a report lacks because its worker died: the cell, found by its id, and the failure."""
    check, _, identity = report.nodeid.rpartition("::")[2].partition("[")
    known = (each for cell in cells() for each in ((cell, cell.emulation()) if cell.format == "neuron" else (cell,)))
    cell = next((cell for cell in known if cell.id == identity.removesuffix("]")), None)
    if cell is None:
        return []
    return [
        (_CELL, {**cell.as_json(), "check": check.removeprefix("test_")}),
        (_FAILURE, {"stage": records.CRASH, "error": str(report.longrepr)}),
    ]


def record(phases: Sequence[pytest.TestReport], warnings: Sequence[Mapping[str, str]] | None = None) -> dict[str, Any]:
    """One record from the reports of a check's phases (setup, call, teardown) and upstream's warnings in them."""
    deciding = next((report for report in phases if report.outcome != "passed"), None)
    deciding = deciding or next(report for report in phases if report.when in ("call", "setup"))
    properties = [pair for report in phases for pair in report.user_properties]
    cell, failure = dict(properties)[_CELL], dict(deciding.user_properties).get(_FAILURE, {})
    measurements: Mapping[str, Any] = next((value for name, value in properties if name == _MEASUREMENTS), {})
    status = _status(deciding)
    return {
        "kind": "check",
        **cell,
        "status": status,
        "stage": failure.get("stage") if status not in ("passed", "skipped") else None,
        "error": records.printable(_reason(deciding, failure)) if status != "passed" else None,
        "outputs": {
            name: {"ratio": values["ratio"], "worst": values["worst"]}
            for name, values in measurements.get("outputs", {}).items()
        },
        "verdicts": measurements.get("verdicts", []),
        "sizes": measurements.get("validated_at", []),
        "seconds": round(sum(report.duration for report in phases), 4),
        **{name: value for name, value in properties if name == _PEAK},
        **{name: value for name, value in measurements.items() if name == "neuron"},
        **({"cause": failure["cause"]} if status in RED and "cause" in failure else {}),
        **({"warnings": warnings} if warnings else {}),
    }


def _status(report: pytest.TestReport) -> str:
    if hasattr(report, "wasxfail"):
        return "xfailed" if report.skipped else "xpassed"
    if report.failed and report.when != "call":
        return "error"
    if report.failed and "[XPASS(strict)]" in str(report.longrepr):
        return "xpassed"
    return report.outcome


def _reason(report: pytest.TestReport, failure: Mapping[str, str]) -> str:
    if hasattr(report, "wasxfail"):
        return report.wasxfail
    if report.skipped and isinstance(report.longrepr, tuple):
        return report.longrepr[2]
    return failure.get("error") or str(report.longrepr)[-2000:]
