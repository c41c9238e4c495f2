"""A file in half precision or integers and a model → three judgements: its weights, its graph, and the file itself."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from parity import validation
from parity.axes import Role, role_of
from parity.dependence import weights_of
from parity.errors import SessionError
from parity.judge import precision, roundings, undefined, weights
from parity.judge.branches import choose_branch
from parity.judge.clipping import Clipping, count_clipping
from parity.judge.findings import Finding
from parity.judge.pool import Pool, rms
from parity.judge.precision import Precision
from parity.judge.stored import StoredTensor
from parity.judge.twins import ROUNDOFF, Twin
from parity.onnx import proof
from parity.sessions import OnnxSession

if TYPE_CHECKING:
    from transformers import PreTrainedModel


_UNSUPPORTED = "NOT_IMPLEMENTED"


@dataclass(frozen=True)
class Verdict:
    """The verdict on one rounded file.

    Args:
        validation: of the graph; its findings include those on the weights and on the file itself.
        precision: of the file.
        notes: lines of the log on each judgement.
        drift: output → its relative drift, largest difference, cosine, and the share of equal decisions.
        graph: whether the graph was judged.
        weights: the number of rounded weights that were compared.
        max_drift: the largest relative drift that passes.
        clipping: the share of activations outside of their static ranges; see `Clipping`.
    """

    validation: validation.Validation
    precision: Precision
    notes: Sequence[str] = ()
    drift: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    graph: bool = True
    weights: int = 0
    max_drift: float = 0.0
    clipping: Mapping[str, float | str] = field(default_factory=dict)

    @property
    def rule(self) -> str:
        """The rules that decided."""
        steps = "weights within half a step" if self.weights else "no rounded weights compared"
        graph = f"the float twin's {self.validation.rule}" if self.graph else "the graph not judged"
        return f"{steps}, {graph}, drift at most {self.max_drift:g}"

    def as_json(self) -> dict[str, Any]:
        """The verdict's additions to the JSON object of the validation."""
        return {
            "precision": self.precision.name,
            "graph": "judged" if self.graph else "not judged",
            "drift": {name: dict(each) for name, each in self.drift.items()},
            **({"clipping": dict(self.clipping)} if self.clipping else {}),
            "notes": list(self.notes),
            "rule": self.rule,
        }


def judge_rounded(
    file: proof.Artifact,
    reference: proof.Reference,
    kind: Precision,
    *,
    criteria: validation.Criteria | None = None,
    max_drift: float | None = None,
    progress: Callable[[str], None] | None = None,
) -> Verdict:
    """Judge a file that does not compute in float32.

    Args:
        file: the file.
        reference: the model.
        kind: the precision of the file.
        criteria: see `proof.judge_file`.
        max_drift: the largest relative drift that passes; None takes that of the precision.
        progress: called with one line for each stage.
    """
    import onnx

    source, tell = reference.source, progress or (lambda line: None)
    findings = file.judge(source)
    model = onnx.load(str(file.path))
    if file.branch and file.branch.switch is not None:
        choose_branch(model, file.branch.switch)
    twin = Twin(model)
    state: dict[str, Any] = {}

    def account(model: PreTrainedModel) -> None:
        tell("looking for the weights in the file")
        own = weights_of(model, source.onnx_config, source.dummy)
        matches, unmatched = roundings.match_roundings(list(twin.rounded.values()), own)
        state.update(matches=matches, unmatched=unmatched)
        findings.extend(match.finding() for match in matches)
        account = _account(own, file.tensors(), matches, readable=not (kind.without_twin or twin.without))
        findings.extend(weights.judge_weights(account))
        known = {*account.found, *(match.weight for match in matches)}
        findings.extend(roundings.judge_lost(unmatched, twin.rounded, own, known))

    pool = reference.pool(list(file.derived_inputs), progress, account)
    notes = [f"precision: {kind}", _weights_note(state["matches"], state["unmatched"])]
    clipping = Clipping()
    why = _obstacle(twin, kind, state["unmatched"])
    try:
        result = (
            None
            if why
            else _judge_twin(_Twin(twin, state["matches"], clipping), file, reference, pool, (kind, criteria, findings))
        )
    except SessionError as error:
        # Integers that the file moves before it widens them, such as a transposed weight.
        result, why = None, f"ONNX Runtime does not load its float twin ({str(error).rpartition(': ')[2]})"
    judged = result is not None
    if result is not None:
        notes += ["graph: judged as its float twin", *_clipping_note(clipping.as_json())]
    else:
        shapes = {name: array.shape for name, array in pool.answers[0].eager.items()}
        result = validation.Validation(pool.samples, shapes, tuple(findings), source.axes)
        notes.append(f"graph: not judged, {why}")
    usual = precision.drift_limit(kind.name, max(pool.noise.values(), default=0.0), alone=not judged)
    limit = usual if max_drift is None else max_drift
    own_findings, drift = _judge_itself(file, source.onnx_config, pool, criteria or validation.Criteria(), limit)
    notes += [_drift_note(name, each, limit) for name, each in drift.items()]
    result = replace(result, findings=(*result.findings, *own_findings))
    return Verdict(result, kind, notes, drift, judged, len(state["matches"]), limit, clipping.as_json())


def _obstacle(twin: Twin, kind: Precision, unmatched: Sequence[str]) -> str:
    """The reason why a graph cannot be judged; empty if there is none."""
    if without := (*kind.without_twin, *twin.without):
        return f"{', '.join(without)} have no float twin"
    # Halves without a weight keep the values that the file has.
    lost = [name for name in unmatched if not twin.rounded[name].half]
    return "not every weight is found" if lost else ""


def _account(
    own: Sequence[weights.Weight],
    tensors: Sequence[StoredTensor],
    matches: Sequence[roundings.Match],
    *,
    readable: bool,
) -> weights.Account:
    """The account of the weights that the file holds, in float32 or rounded.

    If operators without a twin hold weights as well, then no absence says anything, as if the file had folded them.
    """
    full = [tensor for tensor in tensors if tensor.dtype == np.float32]
    rounded = {match.weight for match in matches}
    right = {match.weight for match in matches if match.passed}
    account = weights.account_weights([weight for weight in own if weight.name not in rounded], full)
    needed = tuple(weight.name for weight in own if weight.needed)
    found = {*account.found, *right}
    return replace(
        account,
        needed=needed,
        found=tuple(name for name in needed if name in found),
        unexplained=(),
        incidental=frozenset(weight.name for weight in own if weight.is_incidental),
        foldable=weights.foldable_names(own) if readable else frozenset(needed),
    )


def _weights_note(matches: Sequence[roundings.Match], unmatched: Sequence[str]) -> str:
    worst = max((match.error for match in matches), default=0.0)
    wrong = sum(not match.passed for match in matches)
    note = "weights: no rounded one was compared"
    if matches:
        note = (
            f"weights: {len(matches) - wrong} of {len(matches)} rounded ones are the roundings of the checkpoint's"
            f" (at most {worst:.6g} steps)"
        )
    if unmatched:
        note += f"; not found: {', '.join(unmatched[:4])}" + (
            f" and {len(unmatched) - 4} more" if len(unmatched) > 4 else ""
        )
    return note


def _clipping_note(clipping: Mapping[str, float | str]) -> list[str]:
    if not clipping:
        return []
    return [
        f"activations: {100 * float(clipping['share']):.2g} % of the values drawn are outside of their static range;"
        f" most in {clipping['tensor']}, {100 * float(clipping['most']):.2g} %"
    ]


@dataclass(frozen=True)
class _Twin:
    """A twin before it is built, the weights that it holds, and the counter of activations that clip."""

    twin: Twin
    matches: Sequence[roundings.Match]
    clipping: Clipping


def _judge_twin(
    own: _Twin,
    file: proof.Artifact,
    reference: proof.Reference,
    pool: Pool,
    about: tuple[Precision, validation.Criteria | None, list[Finding]],
) -> validation.Validation:
    """The validation of the float twin, with the earlier findings."""
    import onnx

    kind, criteria, findings = about
    source = reference.source
    ranges = own.twin.ranges
    model = own.twin.build(roundings.by_tensor(own.matches))
    count_clipping(model, ranges)
    with tempfile.TemporaryDirectory(prefix="parity-twin-") as directory:
        path = Path(directory) / "twin.onnx"
        large = model.ByteSize() >= 2**31 - 2**20
        onnx.save(model, str(path), save_as_external_data=large, location="twin.data")
        session = OnnxSession(path)
        claims = reference.claims(pool, file.derived_inputs)
        return validation.compare(
            file.widened.adapt(own.clipping.count(session.run)),
            source.onnx_config,
            # A constant of the graph, such as √d, is rounded to halves as well.
            replace(pool, roundoff=ROUNDOFF.get(kind.half, 0.0)),
            replace(criteria or validation.Criteria(), claims=claims),
            first=findings,
        )


def _judge_itself(
    file: proof.Artifact, onnx_config: Any, pool: Pool, criteria: validation.Criteria, limit: float
) -> tuple[list[Finding], dict[str, dict[str, float]]]:
    """Findings on the file itself: finite, and not too far from the unquantised model at real tokens."""
    try:
        run = proof.load_artifact(file)
        answers = [run(inputs) for inputs in pool.inputs]
    except SessionError as error:
        return [Finding("load", "session", False, _refusal(str(error)))], {}
    findings: list[Finding] = []
    pairs: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    axes = onnx_config.inputs, onnx_config.outputs, onnx_config.pooled_tokens
    for index, answer in enumerate(answers):
        exact = pool.exact[index]
        places = undefined.places(pool.inputs[index], axes[0], pool.answers[index].eager, *axes[1:])
        for name in pool.floating:
            if name not in answer:
                continue
            actual, sizes = answer[name].astype(np.float64), pool.sizes[index]
            wrong = ~np.isfinite(actual) & np.isfinite(exact[name]) if actual.shape == exact[name].shape else None
            if wrong is None:
                message = f"{name}: shape {actual.shape}, should be {exact[name].shape}"
                findings.append(Finding("shape", name, False, message, sizes))
                continue
            if wrong.any():
                message = f"{name}: {int(wrong.sum())} of {wrong.size} values of the file are not finite, should all be"
                findings.append(Finding("nonfinite", name, False, message, sizes))
                continue
            real = ~places[name] & np.isfinite(exact[name])
            pairs.setdefault(name, []).append((np.where(real, actual, 0.0), np.where(real, exact[name], 0.0)))
    drift = {name: _drift(name, each) for name, each in pairs.items()}
    for name, each in drift.items():
        message = (
            f"{name}: the file drifts by {each['relative']:.3g} from the unquantised model, should be at most {limit:g}"
            f" (--max-drift); largest difference {each['largest']:.3g}, cosine {each['cosine']:.4f}"
        )
        passed = each["relative"] <= limit
        findings.append(Finding("drift", name, passed, "" if passed else message, measurements=dict(each)))
    return findings, drift


def _drift(name: str, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    actual = np.concatenate([pair[0].reshape(-1) for pair in pairs])
    exact = np.concatenate([pair[1].reshape(-1) for pair in pairs])
    lengths = float(np.linalg.norm(actual) * np.linalg.norm(exact))
    drift = {
        "relative": rms(actual - exact) / (rms(exact) or 1.0),
        "largest": float(np.abs(actual - exact).max(initial=0.0)),
        "cosine": float(actual @ exact) / lengths if lengths else 1.0,
    }
    if role_of(name) is Role.LOGITS:
        same = [(a.argmax(-1) == e.argmax(-1)).reshape(-1) for a, e in pairs]
        drift["decisions"] = float(np.concatenate(same).mean())
    return drift


def _drift_note(name: str, drift: Mapping[str, float], limit: float) -> str:
    decisions = f", {100 * drift['decisions']:.1f} % of the decisions equal" if "decisions" in drift else ""
    return (
        f"file: {name} drifts by {drift['relative']:.3g} (at most {limit:g}); largest difference"
        f" {drift['largest']:.3g}, cosine {drift['cosine']:.4f}{decisions}"
    )


def _refusal(error: str) -> str:
    if "bfloat16" in error.lower() and (_UNSUPPORTED in error or "Could not find an implementation" in error):
        return f"{error}; ONNX Runtime has no bfloat16 arithmetic on the CPU (microsoft/onnxruntime#28768): not judged"
    return error
