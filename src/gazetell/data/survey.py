"""What the texts of a dataset hold: words and lengths, and a survey of its questions.

The survey tells before any training what can be hoped for: how many answers there are, and the
ceiling that a vocabulary of the most frequent of them puts on the accuracy of each split.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import DataError
from ..metrics.vqa import normalise_answer
from .answers import coverage, modal_answer
from .records import SPLITS, QuestionRecord
from .text import word_counts

__all__ = ["FREQUENT", "QuestionSurvey", "length_line", "survey"]

FREQUENT = 5
SIZES = (10, 100, 1000, 3000)
_LENGTH_BINS = ((0, 5), (6, 10), (11, 15), (16, 20), (21, 30), (31, 50))
_TYPES = 8


@dataclass(frozen=True)
class QuestionSurvey:
    """What the questions of a dataset hold.

    Attributes:
        questions: in each of train, val and test.
        answer_types: how many questions have which type of answer, as the source tells, most
            frequent first; empty where it does not.
        question_types: likewise for the types of questions.
        words: different words in the questions of train, as the tokenizer sees them.
        frequent_words: those of them that occur at least five times.
        lengths: how many questions have how many words.
        answers_a_question: how many questions have how many answers.
        answers: different modal answers in train, after normalisation.
        never_in_test: those of them that nobody gives in test; None if test has no answers.
        ceiling: for each split with answers, from a number K of answers to the accuracy in [0, 1]
            that no model with the K most frequent answers of train can exceed.
        repeated: questions that another one about the same picture asks in the same words.
        without_answer: questions without an answer in each split.
        without_picture: questions whose picture is not on disk.
        pictures_in_two_splits: by their names.
    """

    questions: dict[str, int]
    answer_types: dict[str, int]
    question_types: dict[str, int]
    words: int
    frequent_words: int
    lengths: dict[int, int]
    answers_a_question: dict[int, int]
    answers: int
    never_in_test: int | None
    ceiling: dict[str, dict[int, float]]
    repeated: int
    without_answer: dict[str, int]
    without_picture: int
    pictures_in_two_splits: int

    def to_dict(self) -> dict[str, Any]:
        """The survey as a JSON object."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The survey as lines of plain text."""
        lines = [f"questions  {sum(self.questions.values()):,} ({_listed(self.questions)})"]
        for name, types in (("asked", self.question_types), ("types", self.answer_types)):
            if types:
                lines.append(f"{name:<10} {_shares(types)}")
        if self.words:
            lines.append(
                f"words      {self.words:,} in the questions of train, "
                f"{self.frequent_words:,} of them at least {FREQUENT} times"
            )
        lines.append(f"lengths    {length_line(self.lengths)}")
        numbers = sorted(number for number in self.answers_a_question if number)
        if numbers:
            several = f"{numbers[0]} to {numbers[-1]}" if len(numbers) > 1 else f"{numbers[0]}"
            line = f"answers    {several} a question"
            if self.answers:
                line += f"; {self.answers:,} different in train"
            if self.never_in_test:
                line += f", {self.never_in_test:,} of them never in test"
            lines.append(line)
        for split, ceiling in self.ceiling.items():
            sizes = ", ".join(f"{size:,}: {100 * best:.1f} %" for size, best in ceiling.items())
            lines.append(f"ceiling    of the most frequent answers, on {split}: {sizes}")
        if self.repeated:
            lines.append(f"repeated   {self.repeated:,} about the same picture in the same words")
        lacking = {split: n for split, n in self.without_answer.items() if n and split != "train"}
        if lacking:
            lines.append(f"unanswered {_listed(lacking)}")
        return lines

    def warnings(self) -> list[str]:
        """What the user should look into; pictures in two splits are for the caller to tell."""
        warnings = []
        if self.without_answer.get("train"):
            warnings.append(
                f"questions of train without an answer: {self.without_answer['train']:,}"
            )
        if self.without_picture:
            warnings.append(f"questions whose picture is missing: {self.without_picture:,}")
        if self.answers and self.never_in_test == self.answers:
            warnings.append("no answer of train ever occurs in test; expected answers in common")
        return warnings


def survey(records: Sequence[QuestionRecord], missing: Collection[str] = ()) -> QuestionSurvey:
    """Look through the questions of a dataset.

    Args:
        records: the questions of all splits.
        missing: the pictures that are not on disk.
    """
    train = [record for record in records if record.split == "train"]
    words, lengths = word_counts(record.question for record in train)
    lengths += word_counts(record.question for record in records if record.split != "train")[1]
    answers = {modal_answer(record.answers) for record in train} - {""}
    tested = {
        normalise_answer(answer)
        for answer in {one for r in records if r.split == "test" for one in r.answers}
    } - {""}
    asked = Counter((r.image, " ".join(r.question.lower().split())) for r in records)
    splits: dict[str, set[str]] = {}
    for record in records:
        splits.setdefault(record.image, set()).add(record.split)
    missing = set(missing)
    return QuestionSurvey(
        questions={split: sum(r.split == split for r in records) for split in SPLITS},
        answer_types=_types(record.answer_type for record in records),
        question_types=_types(record.question_type for record in records),
        words=len(words),
        frequent_words=sum(count >= FREQUENT for count in words.values()),
        lengths=dict(sorted(lengths.items())),
        answers_a_question=dict(sorted(Counter(len(r.answers) for r in records).items())),
        answers=len(answers),
        never_in_test=len(answers - tested) if tested else None,
        ceiling=_ceiling(records, train, len(answers)),
        repeated=sum(count - 1 for count in asked.values()),
        without_answer={
            split: sum(r.split == split and not any(r.answers) for r in records) for split in SPLITS
        },
        without_picture=sum(record.image in missing for record in records),
        pictures_in_two_splits=sum(len(of) > 1 for of in splits.values()),
    )


def _ceiling(
    records: Sequence[QuestionRecord], train: Sequence[QuestionRecord], answers: int
) -> dict[str, dict[int, float]]:
    """The ceilings of the splits that have answers."""
    if not answers:
        return {}
    sizes = [*(size for size in SIZES if size < answers), answers]
    ceiling = {}
    for split in SPLITS:
        try:
            asked = [record for record in records if record.split == split]
            ceiling[split] = coverage(asked, sizes, train=train)
        except DataError:  # no answers in this split
            continue
    return ceiling


def length_line(lengths: dict[int, int]) -> str:
    """A histogram of lengths in words in a few bins, and the longest."""
    longest = max(lengths)
    bins = [*_LENGTH_BINS, (_LENGTH_BINS[-1][1] + 1, longest)]
    parts = []
    for low, high in bins:
        count = sum(n for length, n in lengths.items() if low <= length <= high)
        if count:
            parts.append(f"{low}-{high}: {count:,}")
    return f"{', '.join(parts)} words (longest {longest:,})"


def _types(types: Iterable[str | None]) -> dict[str, int]:
    """How often each type occurs, most frequent first."""
    return dict(Counter(one for one in types if one).most_common())


def _shares(types: dict[str, int]) -> str:
    """The most frequent types with their shares."""
    total = sum(types.values())
    parts = [f"{name} {100 * n / total:.1f} %" for name, n in list(types.items())[:_TYPES]]
    more = [f"{len(types) - _TYPES:,} more"] if len(types) > _TYPES else []
    return ", ".join([*parts, *more])


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{split} {count:,}" for split, count in counts.items())
