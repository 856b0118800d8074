"""What is particular to a run on captions, or on questions; all else is in ``fit``.

Both: records -> pieces (encoder, network, vocabulary) -> task and data -> model folder.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch

from ..data.answers import AnswerVocabulary
from ..data.batches import CaptionData, QuestionData, Source
from ..data.records import CaptionRecord, Dataset, QuestionRecord
from ..data.text import Tokenizer
from ..errors import DataError, UsageError
from ..metrics import cider_problem
from ..models.answerers import ANSWERERS
from ..models.captioners import CAPTIONERS
from ..models.decoding import DecodingOptions
from ..models.encoders import Encoder
from ..models.folder import AnswererFolder, CaptionerFolder, ModelFolder
from .answers import AnswerTask
from .calibrate import fit_temperature
from .captions import CaptionTask
from .history import Report
from .options import TrainOptions
from .pieces import answer_pieces, caption_pieces
from .reward import RewardTask
from .task import Task

__all__ = ["AnswerJob", "CaptionJob", "Job", "job_of"]

Record = TypeVar("Record", CaptionRecord, QuestionRecord)


class Job(ABC):
    """A run's records, pieces and task.

    Attributes:
        task: what is trained; its ``columns[0]`` chooses the best epoch.
        encoder: of the task.
        pictures: names of all pictures of training and validation.
        summary: words of the vocabulary, records: for the first line of the report.
        chosen_by: what ``columns[0]`` is called in the report.
    """

    task: Task
    encoder: Encoder
    pictures: list[str]
    summary: str
    chosen_by: str

    @abstractmethod
    def data(self, source: Source) -> tuple[Any, Any]:
        """Training and validation data."""

    @abstractmethod
    def about(self) -> dict[str, Any]:
        """What the model folder says of the training data."""

    @abstractmethod
    def folder(self, about: dict[str, Any], validation: Iterable[Any]) -> ModelFolder:
        """The trained model; ``validation`` are batches on the task's device."""


class CaptionJob(Job):
    """Training a captioner."""

    chosen_by = "CIDEr"

    def __init__(self, dataset: Dataset, options: TrainOptions, report: Report) -> None:
        captioned = [record for record in dataset.captions if record.captions]
        _tell_left_out(dataset.captions, captioned, "pictures", "have no captions", report)
        self.training, self.validation = _splits(dataset, captioned, options, "captions", report)
        texts = [caption for record in self.training for caption in record.captions]
        why = cider_problem({record.id: record.captions for record in self.training})
        if options.reward != "none" and why:
            raise DataError(f"{dataset.folder}: --reward {options.reward}: {why}")
        pieces = caption_pieces(options, texts, report)
        self.encoder, self.captioner, self.tokenizer = pieces
        _tell_words(self.tokenizer, texts, "captions", "--max-length", options.max_length, report)
        self.options, self.captions = options, len(texts)
        self.pictures = [record.image for record in (*self.training, *self.validation)]
        self.task = (
            CaptionTask(*pieces, options, self.validation)
            if options.reward == "none"
            else RewardTask(*pieces, options, self.validation, training=self.training)
        )
        self.summary = (
            f"{self.tokenizer.vocab_size} words; {len(self.training)} training and "
            f"{len(self.validation)} validation pictures"
        )

    def data(self, source: Source) -> tuple[CaptionData, CaptionData]:
        """See ``Job.data``."""
        options = self.options
        training = CaptionData(
            self.training,
            self.tokenizer,
            source,
            max_length=options.max_length,
            per_image=options.captions_per_image,
            flip=0.5 if options.flip else 0.0,
            seed=options.seed,
        )
        longest = options.max_length
        return training, CaptionData(self.validation, self.tokenizer, source, max_length=longest)

    def about(self) -> dict[str, Any]:
        """See ``Job.about``."""
        return {"pictures": len(self.training), "captions": self.captions}

    def folder(self, about: dict[str, Any], validation: Iterable[Any]) -> CaptionerFolder:
        """See ``Job.folder``."""
        options = self.options
        return CaptionerFolder(
            captioner=self.captioner.cpu().eval(),
            encoder=self.encoder.cpu().eval(),
            tokenizer=self.tokenizer,
            decoding=DecodingOptions(
                max_length=options.max_length, length_penalty=options.length_penalty
            ),
            about=about,
        )


class AnswerJob(Job):
    """Training an answerer."""

    task: AnswerTask
    chosen_by = "accuracy"

    def __init__(self, dataset: Dataset, options: TrainOptions, report: Report) -> None:
        answered = [record for record in dataset.questions if record.answers]
        _tell_left_out(dataset.questions, answered, "questions", "have no answers", report)
        training, self.validation = _splits(dataset, answered, options, "answers", report)
        pieces = answer_pieces(
            options,
            [record.question for record in training],
            AnswerVocabulary.train(training, options.answers),
            report,
        )
        self.encoder, self.answerer, self.tokenizer, self.answers = pieces
        self.options = options
        self.training = self._answerable(training, report)
        texts = [record.question for record in self.training]
        longest = options.max_question
        _tell_words(self.tokenizer, texts, "questions", "--max-question", longest, report)
        self.pictures = [record.image for record in (*self.training, *self.validation)]
        self.task = AnswerTask(self.encoder, self.answerer, self.answers, options, self.validation)
        self.summary = (
            f"{self.tokenizer.vocab_size} words, {len(self.answers)} answers; "
            f"{len(self.training)} training and {len(self.validation)} validation questions"
        )

    def _answerable(
        self, records: Sequence[QuestionRecord], report: Report
    ) -> Sequence[QuestionRecord]:
        """Leave out what teaches nothing: no answer of the question is in the vocabulary."""
        kept = [
            record
            for record in records
            if self.answers.target(record.answers, self.options.targets)
        ]
        if not kept:
            raise DataError("no training question has an answer of the vocabulary")
        if len(kept) < len(records):
            left = len(records) - len(kept)
            report(f"{left} training questions left out: their answers are not among the frequent")
        asked = [r.answers for r in self.validation]
        beyond = sum(not any(self.answers.index(a) is not None for a in given) for given in asked)
        if beyond == len(asked):
            raise DataError("no validation question has an answer of the vocabulary")
        if beyond:
            report(
                f"{beyond} of {len(asked)} validation questions cannot be answered right: none of "
                "their answers is in the vocabulary"
            )
        return kept

    def data(self, source: Source) -> tuple[QuestionData, QuestionData]:
        """See ``Job.data``."""
        options = self.options
        common: dict[str, Any] = {"targets": options.targets, "max_question": options.max_question}
        training = QuestionData(
            self.training,
            self.tokenizer,
            self.answers,
            source,
            per_image=options.captions_per_image,
            flip=0.5 if options.flip else 0.0,
            seed=options.seed,
            **common,
        )
        return training, QuestionData(
            self.validation, self.tokenizer, self.answers, source, **common
        )

    def about(self) -> dict[str, Any]:
        """See ``Job.about``."""
        pictures = len({record.image for record in self.training})
        return {"pictures": pictures, "questions": len(self.training)}

    def folder(self, about: dict[str, Any], validation: Iterable[Any]) -> AnswererFolder:
        """See ``Job.folder``: the temperature is fitted here."""
        found, scores = [], []
        with torch.inference_mode():
            for batch in validation:
                logits = self.task.logits(batch).cpu()
                found.append(logits)
                pairs = zip(batch.records.tolist(), logits.argmax(1).tolist(), strict=True)
                scores += [self.task.score(record, answer) for record, answer in pairs]
        sigmoid = self.options.targets == "soft"
        return AnswererFolder(
            answerer=self.answerer.cpu().eval(),
            encoder=self.encoder.cpu().eval(),
            tokenizer=self.tokenizer,
            answers=self.answers,
            temperature=fit_temperature(torch.cat(found), np.array(scores), sigmoid=sigmoid),
            sigmoid=sigmoid,
            max_question=self.options.max_question,
            about=about,
        )


def job_of(dataset: Dataset, options: TrainOptions, report: Report) -> Job:
    """The job for an architecture.

    Raises:
        DataError: the dataset has nothing of what the architecture learns from.
        UsageError: a captioner that is not to see, or an answerer with a reward of captions.
    """
    answers = options.architecture in ANSWERERS
    if options.blind and not answers:
        raise UsageError(
            f"--blind: --architecture {options.architecture} captions; expected one that answers "
            f"questions: {', '.join(ANSWERERS)}"
        )
    if answers and options.reward != "none":
        raise UsageError(
            f"--reward {options.reward}: is for captions; --architecture {options.architecture} "
            "answers questions"
        )
    if answers and not dataset.questions and dataset.captions:
        raise DataError(
            f"{dataset.folder}: holds captions and no questions; --architecture "
            f"{options.architecture} answers questions, those that caption: {', '.join(CAPTIONERS)}"
        )
    if not answers and not dataset.captions and dataset.questions:
        raise DataError(
            f"{dataset.folder}: holds questions and no captions; --architecture "
            f"{options.architecture} captions, those that answer: {', '.join(ANSWERERS)}"
        )
    return (AnswerJob if answers else CaptionJob)(dataset, options, report)


def _splits(
    dataset: Dataset,
    records: Sequence[Record],
    options: TrainOptions,
    what: str,
    report: Report,
) -> tuple[list[Record], list[Record]]:
    """Training and validation records; those of the first pictures where a limit is set."""
    found: dict[str, list[Record]] = {"train": [], "val": []}
    for record in records:
        if record.split in found:
            found[record.split].append(record)
    for split in ("train",) if options.overfit else ("train", "val"):
        if not found[split]:
            have = ", ".join(sorted({record.split for record in records})) or "none"
            raise DataError(
                f"{dataset.folder}: split {split!r} has no {what}; splits with {what}: {have}"
            )
    other = sorted({record.split for record in records} - {"train", "val", "test"})
    if other:
        count = sum(record.split in other for record in records)
        report(f"left out: {count} records of {', '.join(other)}; training reads train and val")
    few = options.overfit or options.limit
    chosen = [_first(found["train"], few), _first(found["val"], few)]
    if options.overfit:
        chosen[1] = chosen[0]
        report(
            f"--overfit {few}: training and validation on the same pictures, without dropout, "
            "--flip and --label-smoothing"
        )
    elif few:
        every, some = (
            [str(len({record.image for record in part})) for part in parts]
            for parts in (found.values(), chosen)
        )
        report(
            f"--limit {few}: {some[0]} of {every[0]} training pictures, "
            f"{some[1]} of {every[1]} validation pictures"
        )
    return chosen[0], chosen[1]


def _tell_left_out(
    records: Sequence[Record], kept: Sequence[Record], what: str, why: str, report: Report
) -> None:
    """Count what of the two splits cannot be learned from."""
    whole, rest = (sum(r.split in ("train", "val") for r in part) for part in (records, kept))
    if rest < whole:
        report(f"{whole - rest} of {whole} {what} of train and val left out: they {why}")


def _tell_words(
    tokenizer: Tokenizer, texts: Sequence[str], what: str, option: str, longest: int, report: Report
) -> None:
    """Count the training texts that are cut and the words that the vocabulary lacks."""
    rows = [ids[1:-1] for ids in tokenizer.encode_batch(texts)]
    if cut := sum(len(ids) > longest for ids in rows):
        report(f"{cut} of {len(rows)} training {what} are cut to {option} {longest} words")
    words = sum(map(len, rows))
    if unknown := sum(ids.count(tokenizer.unk) for ids in rows):
        report(
            f"{unknown} of {words} words of the training {what} ({unknown / words:.1%}) are not in "
            "the vocabulary (--min-frequency, --max-words)"
        )


def _first(records: list[Record], pictures: int) -> list[Record]:
    """The records of the first so many pictures; all for 0."""
    if not pictures:
        return records
    chosen = set(list(dict.fromkeys(record.image for record in records))[:pictures])
    return [record for record in records if record.image in chosen]
