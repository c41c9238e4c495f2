"""The tasks: their outputs, Auto classes and other names. A new task needs one entry."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

_TOKENS = {0: "batch", 1: "sequence"}
_BATCH = {0: "batch"}


@dataclass(frozen=True)
class Task:
    """A use of a model.

    Args:
        outputs: the outputs with their dynamic axes, in order.
        auto_classes: names of classes of transformers; later names are for releases that dropped the earlier.
    """

    outputs: Mapping[str, Mapping[int, str]]
    auto_classes: tuple[str, ...] = field(default=())


TASKS: dict[str, Task] = {
    "default": Task({"last_hidden_state": _TOKENS}, ("AutoModel",)),
    "masked-lm": Task({"logits": _TOKENS}, ("AutoModelForMaskedLM",)),
    "causal-lm": Task({"logits": _TOKENS}, ("AutoModelForCausalLM",)),
    "seq2seq-lm": Task({"logits": {0: "batch", 1: "decoder_sequence"}}, ("AutoModelForSeq2SeqLM",)),
    "sequence-classification": Task({"logits": _BATCH}, ("AutoModelForSequenceClassification",)),
    "token-classification": Task({"logits": _TOKENS}, ("AutoModelForTokenClassification",)),
    "multiple-choice": Task({"logits": {0: "batch", 1: "choice"}}, ("AutoModelForMultipleChoice",)),
    "object-detection": Task({"logits": _TOKENS, "pred_boxes": _TOKENS}, ("AutoModelForObjectDetection",)),
    "question-answering": Task({"start_logits": _TOKENS, "end_logits": _TOKENS}, ("AutoModelForQuestionAnswering",)),
    "image-classification": Task({"logits": _BATCH}, ("AutoModelForImageClassification",)),
    "image-segmentation": Task(
        {"logits": _TOKENS, "pred_boxes": _TOKENS, "pred_masks": _TOKENS},
        ("AutoModelForImageSegmentation", "AutoModelForUniversalSegmentation"),
    ),
    "masked-im": Task({"logits": _TOKENS}, ("AutoModelForMaskedImageModeling",)),
    "semantic-segmentation": Task(
        {"logits": {0: "batch", 1: "num_labels", 2: "height", 3: "width"}}, ("AutoModelForSemanticSegmentation",)
    ),
    "vision2seq-lm": Task({"logits": _TOKENS}, ("AutoModelForVision2Seq", "AutoModelForImageTextToText")),
    "speech2seq-lm": Task({"logits": _TOKENS}, ("AutoModelForSpeechSeq2Seq",)),
}

# Names of optimum's tasks and of pipelines → ours, if they differ.
ALIASES: dict[str, str] = {
    "feature-extraction": "default",
    "image-feature-extraction": "default",
    "fill-mask": "masked-lm",
    "text-generation": "causal-lm",
    "text2text-generation": "seq2seq-lm",
    "summarization": "seq2seq-lm",
    "translation": "seq2seq-lm",
    "text-classification": "sequence-classification",
    "sentiment-analysis": "sequence-classification",
    "zero-shot-classification": "sequence-classification",
    "ner": "token-classification",
    "document-question-answering": "question-answering",
    "automatic-speech-recognition": "speech2seq-lm",
    "image-to-text": "vision2seq-lm",
}
# Name of an adapter's task in peft → the feature.
ADAPTER_TASKS: dict[str, str] = {
    "SEQ_CLS": "sequence-classification",
    "TOKEN_CLS": "token-classification",
    "QUESTION_ANS": "question-answering",
    "CAUSAL_LM": "causal-lm",
    "SEQ_2_SEQ_LM": "seq2seq-lm",
    "FEATURE_EXTRACTION": "default",
}
# Chooses the feature by the class that the checkpoint was saved as.
AUTO = "auto"
_PAST = "-with-past"


class CommonOutputs(Mapping[str, OrderedDict[str, Mapping[int, str]]]):
    """Task → its outputs, as the OrderedDict that subclasses of the old package's OnnxConfig read."""

    def __getitem__(self, task: str) -> OrderedDict[str, Mapping[int, str]]:
        return OrderedDict(TASKS[task].outputs)

    def __iter__(self) -> Iterator[str]:
        return iter(TASKS)

    def __len__(self) -> int:
        return len(TASKS)


def task_of(feature: str) -> str:
    """The task of a feature: the feature without `-with-past`."""
    return feature.removesuffix(_PAST)


def feature_by_name(name: str, features: Collection[str]) -> str:
    """The feature with this name, or with this name in optimum or a pipeline; the name itself if there is none.

    Args:
        name: such as `causal-lm-with-past` or `text-generation-with-past`.
        features: those of the architecture.
    """
    if name in features:
        return name
    task = task_of(name)
    feature = ALIASES.get(task, task) + name[len(task) :]
    return feature if feature in features else name


def keeping_past(feature: str, features: Collection[str]) -> list[str]:
    """The features with past key values if this feature has them, else those without; all of them if none is left."""
    alike = [each for each in features if each.endswith(_PAST) == feature.endswith(_PAST)]
    return alike or list(features)
