"""Actions are verbs, values are nouns: no function, class, fixture or argument is named by a bare participle."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("architectures", "fixtures", "parity", "reports")
LINKS = [ROOT / "parity" / folder for folder in FOLDERS]

WORDS = re.compile(
    r"found|made|asked|told|judged|given|named|tried|wanted|drawn|of|done|chosen|said|answered|ran|kept", re.IGNORECASE
)
# (file, name) → why it stays.
EXCEPTIONS = {
    ("parity/neuron/tolerances.py", "made"): "a parameter of parity.neuron.validate, which users may give by its name",
}


def definitions(tree):
    """Line and name of every function, class, fixture and argument, including methods and lambdas; and `of`."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id == "of":
            # `of` is no name of any value, not even a short-lived one.
            yield node.lineno, node.id
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("fixture"):
            yield from ((node.lineno, ast.literal_eval(each.value)) for each in node.keywords if each.arg == "name")


def bad_names(text):
    """Line and name of each definition named by one of `WORDS`, in any case, without underscores."""
    return [(line, name) for line, name in definitions(ast.parse(text)) if WORDS.fullmatch(name.strip("_"))]


def sources():
    """Every file of the four folders once, without the links below parity and the outputs of runs."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if not any(path.is_relative_to(directory) for directory in (*LINKS, ROOT / "reports" / "out")):
                yield path


def test_no_participle_is_a_name():
    """Only names that users call are excepted, and each exception is still needed."""
    paths = list(sources())
    assert len(paths) > 250
    assert {path.relative_to(ROOT).parts[0] for path in paths} == set(FOLDERS)
    lines, names = [], set()
    for path in paths:
        file = path.relative_to(ROOT).as_posix()
        for line, name in bad_names(path.read_text(encoding="utf-8")):
            names.add((file, name))
            if (file, name) not in EXCEPTIONS:
                lines.append(f"{file}:{line}: {name}: is a participle, should be a verb for an action, else a noun")
    assert lines == []
    assert names == set(EXCEPTIONS), "an exception is no longer needed: take it out"


CONTROLS = {
    "function": ("def found(): pass", "found"),
    "coroutine": ("async def asked(): pass", "asked"),
    "inner function": ("def test_it():\n    def _told(): pass", "_told"),
    "method": ("class A:\n    def judged(self): pass", "judged"),
    "class": ("class Made: pass", "Made"),
    "fixture": ("@pytest.fixture(scope='module')\ndef kept(): pass", "kept"),
    "name of a fixture": ("@pytest.fixture(name='tried')\ndef f(): pass", "tried"),
    "argument": ("def f(given): pass", "given"),
    "keyword-only argument": ("def f(*, wanted=None): pass", "wanted"),
    "positional-only argument": ("def f(done, /): pass", "done"),
    "more arguments": ("def f(*said): pass", "said"),
    "more keywords": ("def f(**named): pass", "named"),
    "argument of a lambda": ("g = lambda of: of", "of"),
    "value": ("print([of for of in lines])", "of"),
}


@pytest.mark.parametrize("kind", CONTROLS)
def test_each_kind_of_definition_is_checked(kind):
    """The control: a function, a class, a fixture and an argument of every kind."""
    text, name = CONTROLS[kind]
    assert [each for _, each in bad_names(text)] == [name]


@pytest.mark.parametrize(
    "text",
    [
        "class Finding:\n    def judge(self, samples, *, limit=4, **options): pass",
        "def output_of(subject): pass",
        "result = f(made=1)",
        "found = [name for name in names]",
    ],
    ids=["nouns and verbs", "part of a name", "a keyword of a call", "a value"],
)
def test_other_names_pass(text):
    """Verbs, nouns, words inside a name, keywords of calls and local values are allowed."""
    assert bad_names(text) == []
