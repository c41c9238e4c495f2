"""A model as a function of flat named tensors, which tracers can follow and every runtime can be compared with."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from parity.errors import ExportError, NameMismatch
from parity.releases import PAST, arguments_of, outputs_of, parameters_of
from parity.turns import shared

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from parity.configs import OnnxConfig


@dataclass(frozen=True)
class Layout:
    """The place of each flat tensor in the nested arguments: (flat name, key, layer, index); no layer for a tensor."""

    slots: tuple[tuple[str, str, int | None, int | None], ...]

    @classmethod
    def from_inputs(cls, onnx_config: OnnxConfig, nested: Mapping[str, Any]) -> Layout:
        """The layout of `generate_dummy_inputs`' result, named by `flatten_output_collection_property`."""
        slots: list[tuple[str, str, int | None, int | None]] = []
        for key, value in nested.items():
            if not isinstance(value, (list, tuple)):
                slots.append((key, key, None, None))
                continue
            places = [tuple((key, i, j) for j in range(len(layer))) for i, layer in enumerate(value)]
            flat = onnx_config.flatten_output_collection_property(key, places)
            slots.extend((name, *place) for name, place in flat.items())
        return cls(tuple(slots))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(slot[0] for slot in self.slots)

    def select(self, order: Iterable[str]) -> Layout:
        """The slots that `order` names, in its order."""
        by_name = {slot[0]: slot for slot in self.slots}
        return Layout(tuple(by_name[name] for name in order if name in by_name))

    def flatten(self, nested: Mapping[str, Any]) -> dict[str, Any]:
        """Nested arguments → flat named tensors."""
        return {name: nested[key] if i is None else nested[key][i][j] for name, key, i, j in self.slots}

    def nest(self, flat: Mapping[str, Any]) -> dict[str, Any]:
        """Flat named tensors → nested arguments, with each layer's tensors in a tuple."""
        nested: dict[str, Any] = {}
        layers: dict[str, dict[tuple[int, int], Any]] = {}
        for name, key, i, j in self.slots:
            if i is None or j is None:
                nested[key] = flat[name]
            else:
                layers.setdefault(key, {})[i, j] = flat[name]
                nested[key] = None
        for key, tensors in layers.items():
            count = 1 + max(i for i, _ in tensors)
            nested[key] = [tuple(tensors[place] for place in sorted(tensors) if place[0] == i) for i in range(count)]
        return nested


def call(
    model: PreTrainedModel, onnx_config: OnnxConfig, nested: Mapping[str, Any], **extra: Any
) -> dict[str, torch.Tensor]:
    """Run the model on nested arguments; outputs have the names of the ONNX file, caches `present.…`.

    Args:
        model: the model.
        onnx_config: completes the arguments, and names the outputs.
        nested: the file's inputs, past key values nested as `generate_dummy_inputs` returns them.
        extra: further arguments of the model.
    """
    model_class: type = type(model)
    arguments = arguments_of(model_class, onnx_config.complete_inputs(nested, parameters_of(model_class)))
    with settings_restored(model):
        return flatten_outputs(onnx_config, model(**arguments, **extra, return_dict=True))


_SETTINGS = frozenset({bool, int, float, str, type(None)})


@contextlib.contextmanager
def settings_restored(model: torch.nn.Module) -> Iterator[None]:
    """Restore settings of its modules and its configurations that a call changes.

    So the next answer does not depend on this call, and the user's model stays as it was. Swin, given a small image,
    would make its windows smaller for good; BigBird, given a short text, would replace the modules that choose blocks;
    ModernBERT notes in its configuration whether it can be compiled.
    """
    # Copied whole, because a dictionary is copied faster than it is searched, and this runs with every call.
    modules = list(model.modules())
    # A part of a model can have a configuration of its own.
    configs = {id(each): vars(each) for each in (vars(module).get("config") for module in modules) if each is not None}
    places = [
        *configs.values(),
        *(values for module in modules for values in (module.__dict__, module._modules) if values),
    ]
    before = [(values, values.copy()) for values in places]
    try:
        yield
    finally:
        for values, own in before:
            for name, value in own.items():
                if values.get(name) is not value and (type(value) in _SETTINGS or isinstance(value, torch.nn.Module)):
                    values[name] = value


def flatten_outputs(onnx_config: OnnxConfig, outputs: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """A ModelOutput → flat named tensors; collections are named by the configuration."""
    flat = {}
    for name, value in outputs_of(outputs):
        if isinstance(value, (list, tuple)):
            flat.update(onnx_config.flatten_output_collection_property(name, value))
        elif value is not None:
            flat[name] = value
    return flat


class Traceable(torch.nn.Module):
    """The model as a function from flat positional tensors, in the layout's order, to a tuple of tensors.

    Its own `training` flag is false, because `torch.onnx.export` restores the flag that it finds, recursively.

    Attributes:
        dtypes: the types of the outputs of the last call, by name; empty before any.
    """

    def __init__(self, model: PreTrainedModel, onnx_config: OnnxConfig, layout: Layout, outputs: Iterable[str]) -> None:
        super().__init__()
        self.model = model
        self.onnx_config = onnx_config
        self.layout = layout
        self._outputs = tuple(outputs)
        self.dtypes: dict[str, torch.dtype] = {}
        self.training = False

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        nested = self.layout.nest(dict(zip(self.layout.names, tensors, strict=True)))
        results = call(self.model, self.onnx_config, nested, **self._blank_encoder_outputs(nested))
        missing = [name for name in self._outputs if name not in results]
        if missing:
            raise NameMismatch(
                f"outputs: {', '.join(missing)} are declared, but the model returns {', '.join(results)};"
                " correct `outputs` of the configuration"
            )
        self.dtypes = {name: results[name].dtype for name in self._outputs}
        return tuple(results[name] for name in self._outputs)

    def _blank_encoder_outputs(self, nested: Mapping[str, Any]) -> dict[str, Any]:
        """With a cross-attention cache the encoder's output is never read: a blank keeps it out of the graph."""
        past = nested.get(PAST)
        model_class: type = type(self.model)
        if not past or len(past[0]) != 4 or "encoder_outputs" not in parameters_of(model_class):
            return {}
        from transformers.modeling_outputs import BaseModelOutput

        key = past[0][2]
        width = getattr(self.model.config, "d_model", None) or self.model.config.hidden_size
        blank = key[:, 0, :, :1].expand(-1, -1, width)
        return {"encoder_outputs": BaseModelOutput(last_hidden_state=blank)}


@contextlib.contextmanager
def evaluation_mode(
    model: PreTrainedModel, overrides: Mapping[str, Any] | None = None, attention: str | None = None
) -> Iterator[None]:
    """The model in eval mode, without gradients, its configuration overridden; everything is restored afterwards.

    Args:
        model: the model.
        overrides: configuration item → its value inside.
        attention: attention implementation to use inside; None for the model's own.

    Raises:
        ExportError: this transformers cannot change the attention implementation of a loaded model.
    """
    training = [module for module in model.modules() if module.training]
    names = getattr(model.config, "attribute_map", {})
    values = {names.get(name, name): value for name, value in {"return_dict": True, **(overrides or {})}.items()}
    before = {name: model.config.__dict__.get(name, _ABSENT) for name in values}
    configs, classes = [], []
    if attention is not None and attention_of(model) != attention:
        if not hasattr(model, "set_attn_implementation"):
            raise ExportError(
                f"{type(model).__name__}: its attention implementation is {attention_of(model)}, should be {attention};"
                f" load it with from_pretrained(…, attn_implementation={attention!r})"
            )
        every = {id(m.config): m.config for m in model.modules() if hasattr(m, "config")}
        configs = [(c, c._attn_implementation_internal) for c in every.values() if hasattr(c, "_attn_implementation")]
        classes = [(m, type(m)) for m in model.modules() if attention == "eager" and "Sdpa" in type(m).__name__]
    try:
        model.eval()
        for name, value in values.items():
            setattr(model.config, name, value)
        for config, _ in configs:
            config._attn_implementation_internal = attention
        for module, own in classes:
            # Some models (data2vec-vision) choose a class when they are built, a subclass of that of eager attention.
            module.__class__ = next(each for each in own.__mro__ if "Sdpa" not in each.__name__)
        with torch.no_grad():
            yield
    finally:
        for config, implementation in configs:
            config._attn_implementation_internal = implementation
        for module, own in classes:
            module.__class__ = own
        for name, value in before.items():
            if value is _ABSENT:
                model.config.__dict__.pop(name, None)
            else:
                model.config.__dict__[name] = value
        for module in training:
            module.training = True


_ABSENT = object()


@shared
def triangles_of_comparisons() -> Iterator[None]:
    """Inside, `triu` and `tril` are made of operators that every opset has; their own operator, Trilu, needs 14."""

    def off(matrix: torch.Tensor) -> torch.Tensor:
        rows = torch.arange(matrix.shape[-2], device=matrix.device).unsqueeze(1)
        return torch.arange(matrix.shape[-1], device=matrix.device) - rows

    def triu(matrix: torch.Tensor, diagonal: int = 0) -> torch.Tensor:
        return matrix.masked_fill(off(matrix) < diagonal, 0)

    def tril(matrix: torch.Tensor, diagonal: int = 0) -> torch.Tensor:
        return matrix.masked_fill(off(matrix) > diagonal, 0)

    own = {name: getattr(torch, name) for name in ("triu", "tril")}
    substitutes = {"triu": triu, "tril": tril}
    try:
        for name, function in substitutes.items():
            setattr(torch.Tensor, name, function)
            setattr(torch, name, function)
        yield
    finally:
        for name, function in own.items():
            # A tensor inherits its own.
            delattr(torch.Tensor, name)
            setattr(torch, name, function)


def attention_of(model: PreTrainedModel) -> str:
    """The model's attention implementation, `eager` or `sdpa`; `eager` if the model has no choice."""
    return getattr(model.config, "_attn_implementation", None) or "eager"


_Attend = Callable[..., torch.Tensor]


def _with_attention(change: Callable[[_Attend], _Attend]) -> Iterator[None]:
    """The body of a context in which scaled_dot_product_attention is what `change` makes of it."""
    functional = torch.nn.functional
    attend = functional.scaled_dot_product_attention
    functional.scaled_dot_product_attention = change(attend)
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = attend


def _blank_unseen(answer: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """An answer of attention with 0 in each row that the boolean mask lets see nothing."""
    return answer.masked_fill(~seen.any(-1, keepdim=True), 0.0)


@shared
def zeros_where_nothing_is_seen() -> Iterator[None]:
    """Inside, exported scaled_dot_product_attention returns 0 for a fully masked row, as in torch.

    Before torch 2.9 the file's softmax returns NaN there if the mask is boolean: pytorch/pytorch#159973.
    """

    def change(attend: _Attend) -> _Attend:
        def attend_or_zero(
            query: torch.Tensor,
            key: torch.Tensor,
            value: torch.Tensor,
            attn_mask: torch.Tensor | None = None,
            *args: Any,
            **options: Any,
        ) -> torch.Tensor:
            answer = attend(query, key, value, attn_mask, *args, **options)
            return (
                answer if attn_mask is None or attn_mask.dtype is not torch.bool else _blank_unseen(answer, attn_mask)
            )

        return attend_or_zero

    yield from _with_attention(change)


@shared
def masks_in_the_type_of_queries() -> Iterator[None]:
    """Inside, exported scaled_dot_product_attention adds its mask to the scores in the type of the queries.

    torch's exporter makes a causal or boolean mask of float32 numbers, whatever the type of the model: after the first
    attention the file of a float16 model computes in float32, or runtimes refuse it.
    """

    def change(attend: _Attend) -> _Attend:
        def attend_in_one_type(
            query: torch.Tensor,
            key: torch.Tensor,
            value: torch.Tensor,
            attn_mask: torch.Tensor | None = None,
            dropout_p: float = 0.0,
            is_causal: bool = False,
            **options: Any,
        ) -> torch.Tensor:
            if is_causal:
                rows = torch.arange(query.shape[-2], device=query.device).unsqueeze(1)
                attn_mask = torch.arange(key.shape[-2], device=query.device) <= rows
            if attn_mask is None or attn_mask.dtype is not torch.bool:
                return attend(query, key, value, attn_mask, dropout_p, **options)
            blank = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill(~attn_mask, -torch.inf)
            return _blank_unseen(attend(query, key, value, blank, dropout_p, **options), attn_mask)

        return attend_in_one_type

    yield from _with_attention(change)


@contextlib.contextmanager
def heads_that_share(model: torch.nn.Module) -> Iterator[None]:
    """Inside, heads that share an embedding's weight multiply matrices: then an exporter writes that weight once.

    For inputs that are not matrices it writes the transposed weight, and the file holds both.
    """
    linear = [module for module in model.modules() if type(module) is torch.nn.Linear]
    others = {id(each) for each in model.modules()} - {id(each) for each in linear}
    tables = {
        id(module.weight): module.weight
        for module in model.modules()
        if id(module) in others and isinstance(getattr(module, "weight", None), torch.nn.Parameter)
    }
    # A head with a forward of its own does something else as well.
    heads = [head for head in linear if id(head.weight) in tables and "forward" not in vars(head)]
    places = {table.data_ptr(): table.shape for table in tables.values() if table.dim() == 2}

    def rows_times(rows: torch.Tensor, columns: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        # Without a bias an exporter would transpose here too.
        adds, bias = (1, bias) if bias is not None else (0, rows.new_zeros(1))
        return torch.addmm(bias, rows, columns, beta=adds)

    def multiply_rows(head: torch.nn.Linear, states: torch.Tensor) -> torch.Tensor:
        logits = rows_times(states.flatten(0, -2), head.weight.t(), head.bias)
        return logits.reshape(*states.shape[:-1], head.out_features)

    own = torch.matmul

    def matmul(first: torch.Tensor, second: torch.Tensor, **options: Any) -> torch.Tensor:
        """Some models multiply by the table itself, and have no head."""
        is_table = first.dim() == second.dim() == 2 and places.get(second.data_ptr()) == second.shape[::-1]
        return rows_times(first, second) if is_table and not options else own(first, second, **options)

    try:
        torch.matmul = matmul
        for head in heads:
            head.forward = functools.partial(multiply_rows, head)
        yield
    finally:
        torch.matmul = own
        for head in heads:
            del head.forward
