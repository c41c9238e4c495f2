"""A wrong exporter is detected, the configuration that shows it is shrunk, and a command judges it again."""

import shlex

import pytest

from parity.errors import ExportError, UsageError, ValueMismatch
from parity.fixtures import configurations, profiles, subjects
from parity.registry import architecture

CELL = ("bert", "default", 17)


@pytest.fixture
def many(monkeypatch):
    """As many configurations as in the nightly profile, the same on every run."""
    monkeypatch.setattr(profiles, "configurations", lambda: 14)


def ignoring(item):
    """An exporter that replaces an item by its declared value."""
    own = subjects.artifact

    def artifact(subject, opset, path, *args, **options):
        if subject.changes.get(item) is not None:
            others = {name: value for name, value in subject.changes.items() if name != item}
            subject = subjects.fresh_subject(subject.architecture, subject.feature, changes=others)
        return own(subject, opset, path, *args, **options)

    return artifact


def test_an_exporter_that_ignores_a_value_is_found_and_shrunk(many, monkeypatch):
    """The message has only that item, with the simplest value that shows it, and a command that fails too."""
    monkeypatch.setattr(subjects, "artifact", ignoring("hidden_act"))
    with pytest.raises(ValueMismatch, match="bert default with hidden_act='relu': ValueMismatch: ") as caught:
        configurations.judge_drawn(*CELL)
    (command,) = [line for line in str(caught.value).splitlines() if line.startswith("reproduce it with: ")]
    program, option, code = shlex.split(command.removeprefix("reproduce it with: "))
    assert (program, option) == ("python", "-c")
    with pytest.raises(ValueMismatch, match="error ratio"):
        exec(code, {})
    monkeypatch.undo()
    exec(code, {})


def test_what_is_right_passes(many):
    """The control: nothing is detected, and the configurations differ from each other."""
    verdicts = configurations.judge_drawn(*CELL)
    assert len(verdicts) >= 12
    assert all(verdict.passed for _, verdict in verdicts)
    assert len({str(changes) for changes, _ in verdicts}) == len(verdicts)


def test_the_default_profile_judges_one_with_each_feature(monkeypatch):
    """Not the declared one, not the same with every feature, and the same on every run."""
    monkeypatch.setattr(configurations, "judge", lambda architecture, feature, changes, opset: None)
    drawn, again = (
        [configurations.judge_drawn("bert", feature, 17) for feature in architecture("bert").features] for _ in range(2)
    )
    assert [len(verdicts) for verdicts in drawn] == [1] * len(architecture("bert").features)
    assert len({str(verdicts) for verdicts in drawn}) > 1
    assert drawn == again


def test_the_nightly_profile_draws_three_thousand(monkeypatch):
    """Over all architectures and features, without the declared configuration."""
    from parity.registry import architectures

    monkeypatch.setenv(profiles.VARIABLE, profiles.NIGHTLY)
    assert sum(len(each.features) for each in architectures()) * (profiles.configurations() - 1) >= 3_000


@pytest.mark.parametrize(
    ("stage", "error"), [("artifact", ExportError), ("trace", ValueMismatch), ("artifact", KeyError)], ids=str
)
def test_any_failure_names_the_configuration(monkeypatch, stage, error):
    """Of the export and of the trace; an exception that is not parity's becomes an AssertionError."""

    def fail(*args, **options):
        raise error("broken")

    monkeypatch.setattr(subjects, stage, fail)
    expected = AssertionError if error is KeyError else error
    with pytest.raises(expected, match=rf"bert default with \w+=.*: {error.__name__}: .*broken"):
        configurations.judge_drawn(*CELL)


def test_a_refusal_that_nobody_declared_is_a_failure(monkeypatch):
    """A refusal without a declaration fails."""

    def refuse(*args, **options):
        raise UsageError("bert: hidden_act is relu: no")

    monkeypatch.setattr(subjects, "artifact", refuse)
    with pytest.raises(UsageError, match="bert default with "):
        configurations.judge_drawn(*CELL)


@pytest.mark.parametrize("refusal", [(each.name, item) for each in [architecture("ibert")] for item in each.refusals])
def test_a_declared_refusal_is_asked_for(monkeypatch, refusal):
    """It is refused with its sentence; an export, or another sentence, is a failure."""
    name, item = refusal
    changes = {item.item: item.value}
    assert configurations.judge(name, "default", changes, 17) is None
    monkeypatch.setattr("parity.checkpoint.require_exportable", lambda config: None)
    with pytest.raises(AssertionError, match="got an export, should be refused: ibert: quant_mode is true"):
        configurations.judge(name, "default", changes, 17)

    def refuse(*args):
        raise UsageError("another sentence")

    monkeypatch.setattr("parity.checkpoint.require_exportable", refuse)
    with pytest.raises(AssertionError, match="got another sentence, should be refused"):
        configurations.judge(name, "default", changes, 17)
