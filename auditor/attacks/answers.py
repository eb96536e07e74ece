"""Changed answers: the thief serves the model and sharpens, flattens, rounds or cuts its probabilities."""

from dataclasses import dataclass
from typing import ClassVar

from auditor.attacks.base import Attack
from auditor.attacks.settings import Presets
from auditor.datasets import Part
from auditor.models import LoadedModel
from auditor.records import Progress
from auditor.transforms import AnswerChange, AnswerKind
from auditor.wrapped import Wrapping, wrap


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeAnswers(Attack):
    """Change every answer on its way out; labels and weights stay as they are."""

    name: ClassVar[str] = "answers"
    needs_labels: ClassVar[bool] = False
    presets: ClassVar[Presets] = {
        "sharpen": {"kind": "temperature", "value": 0.5},
        "flatten": {"kind": "temperature", "value": 4.0},
        "smooth": {"kind": "smooth", "value": 0.2},
        "round": {"kind": "round", "value": 1},
        "top-3": {"kind": "top-k", "value": 3},
        "label": {"kind": "label"},
    }

    kind: AnswerKind
    value: float = 0.0
    """Temperature, weight of the uniform answer, decimals, or number of labels kept; 0 for ``label``."""

    def __post_init__(self) -> None:
        self._change()

    def _change(self) -> AnswerChange:
        return AnswerChange(kind=self.kind, value=self.value)

    def _apply(self, victim: LoadedModel, own: Part, progress: Progress) -> LoadedModel:
        return wrap([victim], Wrapping(answers=(self._change(),)))
