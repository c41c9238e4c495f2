"""Generation with an encoder-decoder as two compiled models of fixed shapes: the same tokens as on the CPU.

The decoder keeps no cache: every step runs it on all tokens so far, padded to the compiled length.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from parity import loading
from parity.errors import UsageError
from parity.files import staging_directory
from parity.neuron import sdk
from parity.neuron.tracing import (
    EMULATION_NOTE,
    NeuronModel,
    compile_module,
    emulation_log,
    load,
    logger,
    neuron_model_of,
)
from parity.publication import Publication
from parity.torchscript.model import TracedModel, save
from parity.torchscript.untying import twin
from parity.traceable import evaluation_mode

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

ENCODER, DECODER = "encoder.pt", "decoder.pt"
_TEXT = {0: "batch", 1: "encoder_sequence"}
_DECODER_TEXT = {0: "batch", 1: "decoder_sequence"}
_ENCODER_INPUTS = {"input_ids": _TEXT, "attention_mask": _TEXT}
_DECODER_INPUTS = {
    "decoder_input_ids": _DECODER_TEXT,
    "encoder_hidden_states": _TEXT,
    "encoder_attention_mask": _TEXT,
}


class PaddedEncoder(torch.nn.Module):
    """Token ids and mask (batch, length) → hidden states (batch, length, width)."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self.training = False

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor]:
        outputs = self.model.get_encoder()(input_ids=input_ids, attention_mask=attention_mask, return_dict=True)
        return (outputs.last_hidden_state,)


class PaddedDecoder(torch.nn.Module):
    """Decoder ids (rows, length), hidden states and mask of the encoder → logits (rows, length, vocabulary).

    Padding is on the right, where the causal mask hides it from every real token.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self.training = False

    def forward(
        self,
        decoder_input_ids: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        encoder_attention_mask: torch.Tensor,
    ) -> tuple[torch.Tensor]:
        from transformers.modeling_outputs import BaseModelOutput

        outputs = self.model(
            decoder_input_ids=decoder_input_ids,
            encoder_outputs=BaseModelOutput(last_hidden_state=encoder_hidden_states),
            attention_mask=encoder_attention_mask,
            use_cache=False,
            return_dict=True,
        )
        return (outputs.logits,)


class Generator:
    """Text generation through a compiled encoder and a compiled decoder.

    Args:
        model: an encoder-decoder of transformers; it is not run, only its generation code is used.
        encoder, decoder: from `compile_generator`.
    """

    def __init__(self, model: PreTrainedModel, encoder: NeuronModel, decoder: NeuronModel) -> None:
        self.encoder, self.decoder = encoder, decoder
        self._pad = model.config.pad_token_id
        self._model = twin(model).eval()
        self._model.forward = self._decode
        self._model.get_encoder().forward = self._encode

    @classmethod
    def load(cls, model: PreTrainedModel, directory: str | os.PathLike) -> Generator:
        """Load the two files that `compile_generator` has written.

        Args:
            model: see `Generator`.
            directory: of the files.
        """
        return cls(model, load(Path(directory) / ENCODER), load(Path(directory) / DECODER))

    def __call__(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **options: Any) -> torch.Tensor:
        """The generated ids (batch, length), as `model.generate` returns them.

        Args:
            input_ids, attention_mask: (batch, length).
            options: of `generate`, such as max_length and num_beams.

        Raises:
            UsageError: more rows, beams or tokens than were compiled.
        """
        with torch.no_grad(), loading.quiet_transformers():
            return self._model.generate(
                input_ids=input_ids, attention_mask=attention_mask, use_cache=False, do_sample=False, **options
            )

    def _encode(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **_: Any) -> BaseModelOutput:
        from transformers.modeling_outputs import BaseModelOutput

        rows, length = input_ids.shape
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        shape = self.encoder.example["input_ids"].shape
        ids = _grow("input_ids", input_ids, shape, self._pad)
        (hidden,) = self.encoder(ids, _grow("attention_mask", attention_mask, shape, 0))
        return BaseModelOutput(last_hidden_state=hidden[:rows, :length])

    def _decode(
        self,
        decoder_input_ids: torch.Tensor,
        encoder_outputs: BaseModelOutput | tuple[torch.Tensor, ...],
        attention_mask: torch.Tensor,
        **_: Any,
    ) -> Seq2SeqLMOutput:
        from transformers.modeling_outputs import Seq2SeqLMOutput

        rows, length = decoder_input_ids.shape
        hidden = encoder_outputs[0]
        shapes = {name: self.decoder.example[name].shape for name in _DECODER_INPUTS}
        (logits,) = self.decoder(
            _grow("decoder_input_ids", decoder_input_ids, shapes["decoder_input_ids"], self._pad),
            _grow("encoder_hidden_states", hidden, shapes["encoder_hidden_states"], 0),
            _grow("encoder_attention_mask", attention_mask, shapes["encoder_attention_mask"], 0),
        )
        return Seq2SeqLMOutput(logits=logits[:rows, :length])


def compile_generator(  # noqa: PLR0913 - the signature that users call
    model: PreTrainedModel,
    output: str | os.PathLike | None = None,
    *,
    batch: int = 1,
    beams: int = 1,
    length: int = 32,
    decoder_length: int = 32,
    package: str | None = None,
    emulate: bool = False,
    allow_fallback: bool = False,
    say: Callable[[str], None] | None = None,
    **options: Any,
) -> Generator:
    """Compile an encoder-decoder of transformers, such as MarianMT, for generation.

    Args:
        model: the encoder-decoder.
        output: a directory for encoder.pt and decoder.pt; None only compiles, in memory.
        batch, beams: the most rows of a request, and the most beams; the decoder has batch × beams rows.
        length, decoder_length: the most tokens of a request and of an answer.
        package, emulate, allow_fallback, say, options: as in `parity.neuron.trace`.

    Raises:
        EnvironmentGap, ExportError, UsageError: see `parity.neuron.trace`.
    """
    say = say or logger.info
    tracer = sdk.tracer(package, emulate=emulate)
    tracer.check(options)
    if emulate:
        say = emulation_log(say)
        say(EMULATION_NOTE)
    if not getattr(model.config, "is_encoder_decoder", False):
        raise UsageError(f"model: {type(model).__name__} is no encoder-decoder; compile it with parity.neuron.trace")
    ids, mask = torch.zeros(batch, length, dtype=torch.long), torch.ones(batch, length, dtype=torch.long)
    decoder_ids = torch.zeros(batch * beams, decoder_length, dtype=torch.long)
    own = twin(model).eval()
    with evaluation_mode(own), loading.quiet_transformers():
        hidden = PaddedEncoder(own)(ids, mask)[0].repeat_interleave(beams, 0)
    parts = (
        (ENCODER, PaddedEncoder(own), _ENCODER_INPUTS, (ids, mask), {"last_hidden_state": _TEXT}),
        (
            DECODER,
            PaddedDecoder(own),
            _DECODER_INPUTS,
            (decoder_ids, hidden, mask.repeat_interleave(beams, 0)),
            {"logits": _DECODER_TEXT},
        ),
    )
    with contextlib.ExitStack() as stack:
        directory = Path(output) if output is not None else None
        stage = stack.enter_context(staging_directory(directory / ENCODER)) if directory is not None else None
        neuron_models = []
        for file, module, inputs, tensors, outputs in parts:
            with loading.quiet_transformers():
                script = compile_module(module, tensors, tracer, allow_fallback=allow_fallback, say=say, **options)
            trace = TracedModel(
                module=script,
                inputs=inputs,
                outputs=outputs,
                example=dict(zip(inputs, tensors, strict=True)),
                model_type=model.config.model_type,
                feature="seq2seq-lm",
                attention="eager",
                pad=model.config.pad_token_id or 0,
            )
            part = neuron_model_of(trace, tracer)
            if stage is not None:
                save(part, stage / file)
                part = load(stage / file)
            neuron_models.append(part)
        if stage is not None and directory is not None:
            publication = Publication(stage, directory)
            for file in (ENCODER, DECODER):
                publication.add_entry(stage / file, file)
            publication.commit()
    return Generator(model, *neuron_models)


def _grow(name: str, tensor: torch.Tensor, shape: Sequence[int], value: int) -> torch.Tensor:
    """The tensor grown to the shape: rows repeat the last one, the length is filled with `value` on the right.

    Args:
        name: of the input, for the message.
        tensor: (rows, length, …).
        shape: the compiled shape.
        value: of the padding.

    Raises:
        UsageError: the tensor is larger than the shape.
    """
    rows, length = shape[:2]
    if tensor.shape[0] > rows or tensor.shape[1] > length:
        raise UsageError(
            f"{name}: has {tensor.shape[0]} rows of {tensor.shape[1]} tokens, compiled for {rows} of {length}; compile"
            " it for larger requests"
        )
    if tensor.shape[1] < length:
        filling = tensor.new_full((tensor.shape[0], length - tensor.shape[1], *tensor.shape[2:]), value)
        tensor = torch.cat([tensor, filling], 1)
    if tensor.shape[0] < rows:
        tensor = torch.cat([tensor, tensor[-1:].expand(rows - tensor.shape[0], *tensor.shape[1:])])
    return tensor.contiguous()
