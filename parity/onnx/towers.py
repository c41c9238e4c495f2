"""The two encoders of a model that compares texts with images, each in a file of its own, as in transformers.js."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from parity.judge.pool import Arrays

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from parity.configs import OnnxConfig

# Tower → its inputs in the whole model, and its output there.
_SIDES = {
    "text": (("input_ids", "attention_mask"), "text_embeds"),
    "vision": (("pixel_values",), "image_embeds"),
}


def has_towers(base: OnnxConfig) -> bool:
    """Whether the model of a configuration compares texts with images."""
    return {"text_embeds", "image_embeds"} <= {*base.outputs}


class Tower(torch.nn.Module):
    """One encoder with its projection; outputs the state at each token or patch, the pooled state, and the embedding.

    Args:
        model: has `text_model` and `vision_model`, and `text_projection` and `visual_projection` if it projects.
        side: `text` or `vision`.
    """

    def __init__(self, model: PreTrainedModel, side: str) -> None:
        super().__init__()
        self.encoder = getattr(model, f"{side}_model")
        self.projection = getattr(model, {"text": "text_projection", "vision": "visual_projection"}[side], None)
        self.config, self.side = model.config, side

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        return_dict: bool = True,
    ) -> dict[str, torch.Tensor]:
        if self.side == "text":
            answer = self.encoder(input_ids=input_ids, attention_mask=attention_mask, return_dict=True)
        else:
            answer = self.encoder(pixel_values=pixel_values, return_dict=True)
        outputs = {"last_hidden_state": answer.last_hidden_state, "pooler_output": answer.pooler_output}
        if self.projection is not None:
            outputs[_SIDES[self.side][1]] = self.projection(answer.pooler_output)
        return outputs


def similarities(model: PreTrainedModel) -> Callable[[Arrays, Arrays], np.ndarray]:
    """A function of both towers' answers → each image compared with each text, (images, texts) in float64.

    The scale is a parameter of the whole model, and in no tower's file.
    """
    scale = float(model.logit_scale.detach().double().exp())
    bias = getattr(model, "logit_bias", None)
    offset = 0.0 if bias is None else float(bias.detach())

    def compare(text: Arrays, vision: Arrays) -> np.ndarray:
        texts, images = (_directions(answer, side) for side, answer in (("text", text), ("vision", vision)))
        return images @ texts.T * scale + offset

    return compare


def _directions(answer: Arrays, side: str) -> np.ndarray:
    own = _SIDES[side][1]
    vectors = answer[own if own in answer else "pooler_output"].astype(np.float64)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _tower(side: str) -> Callable[[type[OnnxConfig]], type[OnnxConfig]]:
    names, embedding = _SIDES[side]

    def build(base: type[OnnxConfig]) -> type[OnnxConfig]:
        class Own(base):  # type: ignore[valid-type, misc]  # known at run time only
            part = side

            @property
            def inputs(self) -> OrderedDict[str, Mapping[int, str]]:
                return OrderedDict((name, axes) for name, axes in super().inputs.items() if name in names)

            @property
            def outputs(self) -> OrderedDict[str, Mapping[int, str]]:
                rows = super().outputs[embedding]
                tokens = {**rows, **({1: "sequence"} if side == "text" else {})}
                return OrderedDict({"last_hidden_state": tokens, "pooler_output": rows, embedding: rows})

            @property
            def pooled_tokens(self) -> Mapping[str, int]:
                whole = super().pooled_tokens
                return dict.fromkeys(("pooler_output", embedding), whole[embedding]) if embedding in whole else {}

            def generate_dummy_inputs(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
                whole = super().generate_dummy_inputs(*args, **kwargs)
                return {name: whole[name] for name in self.inputs}

        return Own

    return build


CLASSES: Mapping[str, Callable[[type[OnnxConfig]], type[OnnxConfig]]] = {side: _tower(side) for side in _SIDES}
