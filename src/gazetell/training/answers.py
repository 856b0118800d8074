"""Training of answerers: what one step and one validation pass do.

Shapes: ``N`` questions, ``A`` answers.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.answers import AnswerVocabulary, modal_answer
from ..data.batches import QuestionBatch
from ..data.records import QuestionRecord
from ..metrics import answer_accuracy
from ..models.answerers import AnswerModel
from ..models.encoders import Encoder
from .options import TrainOptions
from .task import Task

__all__ = ["AnswerTask", "answer_loss"]


class AnswerTask(Task):
    """Classification over the answer vocabulary; validation by the accuracy of the best answer.

    Logs ``train_loss`` and ``val_loss`` (nats a question) and ``val_accuracy`` in [0, 1]: the
    official VQA accuracy where questions have several human answers, else exact match.
    """

    columns = ("val_accuracy",)

    def __init__(
        self,
        encoder: Encoder,
        answerer: AnswerModel,
        answers: AnswerVocabulary,
        options: TrainOptions,
        validation: Sequence[QuestionRecord],
    ) -> None:
        super().__init__(encoder, options)
        self.answerer, self.answers, self.validation = answerer, answers, validation
        self.scores: dict[tuple[int, int], float] = {}  # of (record, answer), found once
        # Where all questions have one answer, to say it always is right from the first epoch on.
        one = len({modal_answer(record.answers) for record in validation}) == 1
        self.unfit = "all its questions have the same answer" if one else None

    def logits(self, batch: QuestionBatch) -> Tensor:
        """Logits (N, A)."""
        grid = self.grid(batch.pictures)
        logits, _ = self.answerer(grid, batch.tokens, batch.lengths, batch.owner)
        return logits.float()

    def training_step(self, batch: QuestionBatch, index: int) -> Tensor:
        """One step."""
        options = self.options
        loss = answer_loss(
            self.logits(batch), batch.targets, options.targets, options.label_smoothing
        )
        self.log_loss(loss, len(batch.owner))
        return loss

    def validation_step(self, batch: QuestionBatch, index: int) -> None:
        """Loss and accuracy."""
        logits = self.logits(batch)
        count = len(batch.owner)
        loss = answer_loss(logits, batch.targets, self.options.targets)
        self.log("val_loss", loss, batch_size=count)
        pairs = zip(batch.records.tolist(), logits.argmax(1).tolist(), strict=True)
        accuracy = sum(self.score(record, answer) for record, answer in pairs) / count
        self.log("val_accuracy", accuracy, prog_bar=True, batch_size=count)

    def on_validation_epoch_end(self) -> None:
        """Say what the epoch is worth."""
        self.log_choice(float(self.trainer.callback_metrics["val_accuracy"]))

    def score(self, record: int, answer: int) -> float:
        """The accuracy, in [0, 1], of an answer to a validation question."""
        key = record, answer
        if key not in self.scores:
            self.scores[key] = answer_accuracy(
                self.validation[record].answers, self.answers.answers[answer]
            )
        return self.scores[key]


def answer_loss(logits: Tensor, targets: Tensor, kind: str, smoothing: float = 0.0) -> Tensor:
    """The loss a question, in nats::

        hard, votes   - sum_a t_a log softmax(logits)_a         t divided by its sum
        soft          - sum_a t_a log s_a + (1 - t_a) log (1 - s_a)       s = sigmoid(logits)

    Questions whose answers are all outside the vocabulary count only for ``soft``.

    Args:
        logits: (N, A).
        targets: (N, A), see ``AnswerVocabulary.target``.
        kind: ``hard``, ``soft`` or ``votes``.
        smoothing: share of the target of ``hard`` and ``votes`` spread over all answers.

    References:
        Teney et al. 2018, Tips and Tricks for Visual Question Answering (soft scores).
    """
    if kind == "soft":
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="sum") / len(logits)
    total = targets.sum(1, keepdim=True)
    known = (total > 0).squeeze(1)
    if not bool(known.any()):
        return logits.sum() * 0
    shares = (targets / total.clamp(min=torch.finfo(targets.dtype).tiny))[known]
    return F.cross_entropy(logits[known], shares, label_smoothing=smoothing)
