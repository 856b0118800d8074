"""Training of answerers: classification over the answer vocabulary, and honest confidences.

Shapes: ``N`` questions, ``A`` answers.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.answers import AnswerVocabulary, modal_answer
from ..data.batches import QuestionBatch, QuestionData
from ..data.records import Dataset
from ..errors import DataError
from ..metrics import answer_accuracy
from ..models.answerers import AnswerModel, build_answerer
from ..models.confidence import fit_abstaining, fit_temperature, hide_a_word, likeliest
from ..models.encoders import Grid
from .options import TrainOptions
from .task import Report, Task, Terms


class Answers(Task):
    """Training of an answerer; validation by the accuracy of the best answer.

    Losses are nats a question. The accuracy, in [0, 1], is the official VQA accuracy where
    questions have several human answers, else exact match.
    """

    kind, records = "answerer", "questions"
    learns, reads, cut_by = "answers", "question", "max_question"
    columns, chosen_by = ("val_accuracy",), "accuracy"
    build, batches = staticmethod(build_answerer), QuestionData

    network: AnswerModel
    answers: AnswerVocabulary

    def __init__(self, dataset: Dataset, options: TrainOptions, report: Report) -> None:
        super().__init__(dataset, options, report)
        self.known: dict[tuple[int, int], float] = {}  # scores of (record, answer)
        # To say the one answer always is right from the first epoch on.
        one = len({modal_answer(record.answers) for record in self.validation}) == 1
        self.unfit = "all its questions have the same answer" if one else None

    def sizes(self, earlier: Any) -> dict[str, int]:
        """The answers, of the training questions or of the earlier model."""
        most = self.options.answers
        self.answers = earlier.answers if earlier else AnswerVocabulary.train(self.training, most)
        return {"answers": len(self.answers)}

    def learnable(self, report: Report) -> Sequence[Any]:
        """Leave out what teaches nothing: no answer of the question is in the vocabulary."""
        targets = self.options.targets
        kept = [r for r in self.training if self.answers.target(r.answers, targets)]
        if not kept:
            raise DataError("no training question has an answer of the vocabulary")
        if left := len(self.training) - len(kept):
            report(f"{left} training questions left out: their answers are not among the frequent")
        asked = [record.answers for record in self.validation]
        lost = sum(all(self.answers.index(answer) is None for answer in given) for given in asked)
        if lost == len(asked):
            raise DataError("no validation question has an answer of the vocabulary")
        if lost:
            report(
                f"{lost} of {len(asked)} validation questions cannot be answered right: none of "
                "their answers is in the vocabulary"
            )
        return kept

    def reading(self) -> dict[str, Any]:
        """Also the answers and the kind of target."""
        return super().reading() | {"answers": self.answers, "targets": self.options.targets}

    def logits(self, grid: Grid, batch: QuestionBatch) -> Tensor:
        """Logits (N, A)."""
        return self.network(grid, batch.tokens, batch.lengths, batch.owner)[0].float()

    def step(self, grid: Grid, batch: QuestionBatch, epoch: int) -> tuple[Terms, dict[str, float]]:
        """See ``answer_loss``; every training question has a known answer."""
        targets, smoothing = self.options.targets, self.options.label_smoothing
        loss = answer_loss(self.logits(grid, batch), batch.targets, targets, smoothing)
        return [(loss, len(batch.owner))], {}

    def validate(self, grid: Grid, batch: QuestionBatch) -> tuple[Tensor, int]:
        """The loss, and whether the likeliest answers are right."""
        logits = self.logits(grid, batch)
        scores = self.score(logits, batch)
        self.said.update(zip(batch.records.tolist(), scores, strict=True))
        known = batch.targets.any(1) | (self.options.targets == "soft")
        return answer_loss(logits, batch.targets, self.options.targets), int(known.sum())

    def score(self, logits: Tensor, batch: QuestionBatch) -> list[float]:
        """The accuracy, in [0, 1], of the likeliest answer to each validation question."""
        pairs = list(zip(batch.records.tolist(), logits.argmax(1).tolist(), strict=True))
        for record, answer in pairs:
            if (record, answer) not in self.known:
                given, said = self.validation[record].answers, self.answers.answers[answer]
                self.known[record, answer] = answer_accuracy(given, said)
        return [self.known[pair] for pair in pairs]

    def figures(self, said: dict[int, float]) -> dict[str, float]:
        """The accuracy of all validation questions."""
        return {"val_accuracy": sum(said.values()) / len(said)}

    @torch.inference_mode()
    def settings(
        self, validation: Iterable[QuestionBatch], pictures: Iterable[Tensor], report: Report
    ) -> dict[str, Any]:
        """The answers, how sure to be of them, and what pictures it knows."""
        read, masked, pooled = list[Tensor](), list[Tensor](), list[Tensor]()
        right, right_masked = list[float](), list[float]()
        for batch in validation:
            seen = self.trunk_grid(batch.pictures)
            pooled.append(seen.pooled.float().cpu())
            grid = self.encoder.project_grid(seen)
            words = [hide_a_word(row, self.tokenizer.unk) for row in batch.tokens.tolist()]
            hidden = batch._replace(tokens=torch.tensor(words, device=batch.tokens.device))
            for each, logits, scores in ((batch, read, right), (hidden, masked, right_masked)):
                logits.append(self.logits(grid, each).cpu())
                scores += self.score(logits[-1], each)
        if len(set(right)) == 1:
            report("confidences are not calibrated: all validation questions are answered alike")
        sigmoid, options = self.options.targets == "soft", self.options
        temperature = fit_temperature(torch.cat(read), right, sigmoid=sigmoid)
        sure = likeliest(torch.cat(read), temperature, sigmoid)
        made = {"answers": self.answers, "temperature": temperature, "sigmoid": sigmoid}
        made["unknown_temperature"] = max(
            temperature, fit_temperature(torch.cat(masked), right_masked, sigmoid=sigmoid)
        )
        made["abstain_below"] = fit_abstaining(sure.tolist(), right, report)
        if not (options.blind or options.overfit):
            made["novelty"] = self.novelty(pooled, pictures, report)
        return made | {"max_question": options.max_question}


def answer_loss(logits: Tensor, targets: Tensor, learned: str, smoothing: float = 0.0) -> Tensor:
    """The loss a question, in nats::

        hard, votes   - sum_a t_a log softmax(logits)_a         t divided by its sum
        soft          - sum_a t_a log s_a + (1 - t_a) log (1 - s_a)       s = sigmoid(logits)

    Questions whose answers are all outside the vocabulary count only for ``soft``.

    Args:
        logits: (N, A).
        targets: (N, A), see ``AnswerVocabulary.target``.
        learned: ``hard``, ``soft`` or ``votes``.
        smoothing: share of the target of ``hard`` and ``votes`` spread over all answers.

    References:
        Teney et al. 2018, Tips and Tricks for Visual Question Answering (soft scores).
    """
    if learned == "soft":
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="sum") / len(logits)
    total = targets.sum(1, keepdim=True)
    known = (total > 0).squeeze(1)
    shares = targets / total.clamp(min=torch.finfo(targets.dtype).tiny)
    nats = F.cross_entropy(logits, shares, reduction="none", label_smoothing=smoothing)
    return (nats * known).sum() / known.sum().clamp(min=1)
