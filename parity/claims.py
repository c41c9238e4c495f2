"""What a file must do beyond answering right: keep its model's relations, and let every input have its say.

Both are judged on the file alone, in units of the noise that the error ratio is measured in. Only where it fails is the
float64 model asked: what that does not do either is no fault of the file.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import numpy as np

from parity.errors import SessionError
from parity.judge import relations, vacuity
from parity.judge.relations import Arrays, Form, Run
from parity.judge.rows import Row, failures


def form_of(onnx_config, preprocessor, also: Mapping[str, Mapping[int, str]] | None = None) -> Form:
    """The named axes of inputs and outputs, and the token that padding is made of.

    Args:
        also: further inputs of the file, with their axes.
    """
    pad = getattr(getattr(preprocessor, "tokenizer", preprocessor), "pad_token_id", None)
    return Form({**onnx_config.inputs, **(also or {})}, onnx_config.outputs, pad or 0)


@dataclass(frozen=True)
class Claims:
    """What is claimed of one file.

    Args:
        form: its axes.
        exactly: gives the float64 model as a backend; it is loaded when it is asked for, which it rarely is.
        relations: the relations on record; see `relations.RELATIONS`.
        dead: the inputs that are declared dead.
        place: which input of the pool is changed to see what has an effect; None leaves that out.
        others: gives inputs as large as that one, whose tensors take its tensors' places.
        longest: the longest sequence that the model takes, in tokens.
        allowed: the sizes that an axis takes, where these are not all from 1 up.
    """

    form: Form
    exactly: Callable[[], AbstractContextManager[Run]]
    relations: Sequence[str] = ()
    dead: Collection[str] = ()
    place: int | None = None
    others: Callable[[], Sequence[Arrays]] = tuple
    longest: int | None = None
    allowed: Mapping[str, range] = field(default_factory=dict)

    def rows(
        self,
        run: Run,
        inputs: Sequence[Arrays],
        actual: Sequence[Arrays],
        exact: Sequence[Arrays],
        noise: Mapping[str, float],
        samples: Sequence,
    ) -> list[Row]:
        """The verdicts on all claims, relations first.

        Args:
            run: the file.
            inputs, actual, exact: the pool, and what the file and the float64 model answer to it.
            noise: of each floating output, as `ratio.noise` has it.
            samples: the Sample of each input.
        """
        with contextlib.ExitStack() as stack:
            model = _Lazy(self.exactly, stack)
            found = []
            for relation in self.relations:
                if relations.applies(relation, self.form):
                    room = [self._has_room(relation, *each) for each in zip(inputs, samples, strict=True)]
                    found += _related(self.form, relation, run, model, inputs, actual, exact, noise, room)
            if self.place is not None and not failures(found):
                first, changed = inputs[self.place], each_changed(inputs[self.place], self.others())
                found += _effects(run, model, first, changed, actual[self.place], exact[self.place], noise, self.dead)
            return found

    def _has_room(self, relation, inputs, sample):
        """Whether the relation can be asked of an input: a padding of one without any, if the model takes it longer."""
        if not relation.startswith("padding"):
            return True
        if sample.padding:
            return False
        sizes = {
            axis: inputs[name].shape[index]
            for name, axes in self.form.inputs.items()
            for index, axis in axes.items()
            if name in inputs
        }
        longer = {axis: sizes[axis] + relations.PADDING for axis in self.form.padded(relation.removeprefix("padding-"))}
        fits = all(size in self.allowed.get(axis, (size,)) for axis, size in longer.items())
        return fits and (self.longest is None or sample.tokens + relations.PADDING <= self.longest)


class _Lazy:
    """A backend that is made at its first run."""

    def __init__(self, make, stack):
        self._make, self._stack, self._run = make, stack, None

    def __call__(self, inputs):
        if self._run is None:
            self._run = self._stack.enter_context(self._make())
        return self._run(inputs)


def asked(
    form: Form, relation: str, run: Run, inputs: Sequence[Arrays], first: Sequence[Arrays], room: Sequence[bool] = ()
) -> list[Arrays]:
    """A backend's answers to the pool, asked in the relation's way.

    Args:
        first: its answers to the pool asked directly.
        room: of which inputs it can be asked; of the others the direct answer stands. Empty means all.
    """
    ask = relations.RELATIONS[relation]
    room = room or [True] * len(inputs)
    return [
        ask(run, one, form, answer) if fits else answer for one, answer, fits in zip(inputs, first, room, strict=True)
    ]


def _related(form, relation, run, model, inputs, actual, exact, noise, room):
    """Rows of one relation; an output fails only where the float64 model has the relation."""
    try:
        second = asked(form, relation, run, inputs, actual, room)
    except SessionError as error:
        refused = Row("run", "session", False, f"{relation}: {error}")
        return [] if _raises(lambda: asked(form, relation, model, inputs, exact, room)) else [refused]
    found = relations.rows(relation, actual, second, exact=exact, noise=noise)
    if not failures(found):
        return found
    of_model = asked(form, relation, model, inputs, exact, room)
    had = relations.rows(relation, exact, of_model, exact=exact, noise=noise, limit=relations.EXACT_LIMIT)
    lacking = {row.subject for row in failures(had)}
    return [row for row in found if row.passed or row.subject not in lacking]


def _raises(ask):
    try:
        ask()
    except (IndexError, RuntimeError, ValueError):
        return True
    return False


def each_changed(first: Arrays, others: Sequence[Arrays]) -> dict[str, dict[str, np.ndarray]]:
    """For each tensor of an input the same input with that one changed.

    A mask loses its second place, that of an image two thirds of its width, all else takes the values of the first of
    `others` that has different ones; where none has, the tensor is left out.
    """
    changed = {}
    for name, array in first.items():
        if "mask" in name:
            tensor, width = array.copy(), array.shape[-1]
            lost = slice(width // 3, None) if name == "pixel_mask" else min(1, width - 1)
            tensor[..., lost] = 0
        else:
            different = (other[name] for other in others if not np.array_equal(other[name], array))
            tensor = next(different, None)
        if tensor is not None:
            changed[name] = {**first, name: tensor}
    return changed


def _effects(run, model, first, changed, actual, exact, noise, dead):
    """Rows on inputs that move nothing in the file though they do in the model, and on outputs that nothing moves."""
    try:
        moved = {name: run(inputs) for name, inputs in changed.items()}
    except SessionError as error:
        return [Row("run", "session", False, f"with one input changed: {error}")]
    if not vacuity.doubtful(exact, actual, moved, noise=noise, dead=dead):
        return [Row("vacuity", name, True) for name in (*changed, *noise)]
    in_model = {name: model(inputs) for name, inputs in changed.items()}
    return vacuity.effects(model(first), in_model, actual, moved, noise=noise, dead=dead, every=False)
