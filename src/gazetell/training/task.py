"""What learning captions and learning answers share: records, vocabulary, encoder, first weights.

A task knows losses, figures and the model folder, and nothing of the Trainer, which ``fit`` does.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from ..data.batches import Source
from ..data.records import Dataset
from ..data.text import SPECIAL, Tokenizer
from ..data.vectors import WordVectors, coverage, embedding_matrix, vectors_for
from ..errors import DataError, GazetellError, UsageError
from ..models.answerers import ANSWERERS
from ..models.captioners import CAPTIONERS
from ..models.confidence import SAMPLE, Novelty, fit_novelty
from ..models.encoders import Encoder, Grid
from ..models.folder import KINDS, ModelFolder, load_model
from ..models.options import Network, flag
from .options import TrainOptions

Report = Callable[[str], None]
# The terms of a loss: each a mean, and over how many words, captions or questions.
Terms = list[tuple[Tensor, int]]


class Task(ABC):
    """What is learned from a dataset, and the model that learns it.

    Args:
        dataset: with records in ``train`` and ``val``.
        options: of the run.
        report: takes lines of plain text.

    Attributes:
        kind: of the model: ``captioner`` or ``answerer``.
        records: what one is called in a line: ``pictures`` or ``questions``.
        learns: the field of a record that must not be empty: ``captions`` or ``answers``.
        reads: the field of a record with its text or texts: ``captions`` or ``question``.
        cut_by: the option with the most words of a text.
        columns: the figures of a validation pass; the first chooses the best epoch.
        chosen_by: what that is called in a line.
        build: makes the network.
        batches: the class of the data.
        unfit: why the first figure cannot tell a good model from a bad one here, if so.
        said: of each validation record, the caption or how right the answer is.

    Raises:
        DataError: a split that holds nothing to learn from, or no frequent word.
        UsageError: word vectors of another width.
    """

    kind: ClassVar[str]
    records: ClassVar[str]
    learns: ClassVar[str]
    reads: ClassVar[str]
    cut_by: ClassVar[str]
    columns: ClassVar[tuple[str, ...]]
    chosen_by: ClassVar[str]
    build: ClassVar[Callable[..., Any]]
    batches: ClassVar[Callable[..., Any]]

    unfit: str | None

    def __init__(self, dataset: Dataset, options: TrainOptions, report: Report) -> None:
        self.options: Any = options
        self.said: dict[int, Any] = {}
        self.training, self.validation = self._splits(dataset, report)
        earlier: Any = load_model(options.init_from) if options.init_from else None
        seen = None if earlier and earlier.network.options.blind else earlier
        self.encoder = self._encoder(seen)
        # Whether somebody trained the encoder.
        self.begun = bool(seen or options.encoder_from or options.encoder_weights != "none")
        texts = self.texts()
        if earlier:
            self.tokenizer = earlier.tokenizer
        else:
            least, most = options.min_frequency, options.max_words or None
            self.tokenizer = Tokenizer.train(
                texts, min_frequency=least, max_words=most, keep=options.keep
            )
        sizes = {"channels": self.encoder.channels, "vocabulary": self.tokenizer.vocab_size}
        sizes |= self.sizes(earlier)
        self.network = self._built(sizes)
        if seen:
            self.network.load_state_dict(seen.network.state_dict())
        elif earlier:
            self._take_language(earlier.network)
            if not options.blind:
                report(f"--init-from {options.init_from} is blind: what sees is random")
        self._set_words(texts, report)
        self.training = self.learnable(report)
        self._tell_words(report)

    def _built(self, sizes: dict[str, int]) -> Any:
        """The network; one of somebody's own only after it has read a word of a picture."""
        name = self.options.architecture
        try:
            network = type(self).build(name, **sizes, **self.options.model())
            if ":" in name:
                self._try(network.eval(), sizes.get("answers", sizes["vocabulary"]))
        except Exception as error:  # what runs there may raise anything
            if ":" not in name or isinstance(error, GazetellError):
                raise
            why = f"cannot read a picture and a word: {type(error).__name__}: {error}"
            raise UsageError(f"--architecture {name}: {why}") from error
        return network.train()

    @torch.no_grad()
    def _try(self, network: Any, outputs: int) -> None:
        height, width = self.encoder.height, self.encoder.width
        grid = Grid.of(torch.zeros(2, height * width, self.encoder.channels), height, width)
        tokens, lengths = torch.full((2, 1), self.tokenizer.unk), torch.ones(2).long()
        logits, attention = network(grid, tokens, lengths)
        if logits.shape[-1] != outputs:
            raise ValueError(f"logits {tuple(logits.shape)}; expected (..., {outputs})")
        if attention is None:
            return
        if attention.shape[-1] != height * width:
            shape = tuple(attention.shape)
            raise ValueError(f"attention {shape}; expected (..., {height * width})")
        if attention.min() < 0 or (attention.sum(-1) - 1).abs().max() > 0.01:
            raise ValueError("attention: expected shares of the regions, which sum to 1")

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Itself: whoever copies the weights to average them needs no second set of records."""
        return self

    def sizes(self, earlier: Any) -> dict[str, int]:
        """Sizes of the network besides channels and vocabulary, ``earlier`` being its start."""
        return {}

    def learnable(self, report: Report) -> Sequence[Any]:
        """The training records that teach something to this vocabulary."""
        return self.training

    def reading(self) -> dict[str, Any]:
        """What ``batches`` needs besides records, tokenizer and source."""
        return {self.cut_by: getattr(self.options, self.cut_by)}

    @abstractmethod
    def step(self, grid: Grid, batch: Any, epoch: int) -> tuple[Terms, dict[str, float]]:
        """The loss of a training step, the first term being what is learned, and what to log."""

    @abstractmethod
    def validate(self, grid: Grid, batch: Any) -> tuple[Tensor, int]:
        """The loss of a validation batch, and over how much it is a mean; ``said`` grows."""

    @abstractmethod
    def figures(self, said: dict[int, Any]) -> dict[str, float]:
        """The figures, by ``columns``, of what was said of all validation records."""

    @abstractmethod
    def settings(
        self, validation: Iterable[Any], pictures: Iterable[Tensor], report: Report
    ) -> dict[str, Any]:
        """What the model folder holds besides.

        ``validation`` are batches on the device, ``pictures`` those of some training records.
        """

    def novelty(
        self, validation: Sequence[Tensor], pictures: Iterable[Tensor], report: Report
    ) -> Novelty | None:
        """How far pictures are from the training pictures, of some of them.

        ``validation`` are pooled grids (B, C), before any projection. Why there is none is said.
        """
        training = torch.cat([self.trunk_grid(some).pooled.float().cpu() for some in pictures])
        found = fit_novelty(training, torch.cat(list(validation)))
        if isinstance(found, str):
            report(f"unfamiliar pictures will not be marked: {found}")
        return None if isinstance(found, str) else found

    def folder(
        self,
        about: dict[str, Any],
        validation: Iterable[Any],
        pictures: Iterable[Tensor],
        report: Report,
    ) -> Any:
        """The trained model; ``about`` is what is known of its making, the rest as above."""
        about |= {"pictures": len({record.image for record in self.training})}
        about |= {f"{self.reads.removesuffix('s')}s": len(self.texts())}
        more = self.settings(validation, pictures, report)
        more |= {self.kind: self.network.cpu().eval(), "encoder": self.encoder.cpu().eval()}
        return KINDS[self.kind](tokenizer=self.tokenizer, about=about, **more)

    def texts(self) -> list[str]:
        """The training captions or questions."""
        each = (getattr(record, self.reads) for record in self.training)
        return [text for texts in each for text in ([texts] if isinstance(texts, str) else texts)]

    def pictures(self) -> list[str]:
        """The names of all pictures of training and validation, each once."""
        return list(dict.fromkeys(r.image for r in (*self.training, *self.validation)))

    def data(self, source: Source) -> tuple[Any, Any]:
        """Training and validation data."""
        options = self.options
        made = partial(self.batches, tokenizer=self.tokenizer, source=source, **self.reading())
        draws = {"per_image": options.captions_per_image, "seed": options.seed}
        draws |= {"flip": 0.5 if options.flip else 0.0, "crop": options.random_crop}
        return made(self.training, **draws), made(self.validation)

    def sample(self, data: Any, device: torch.device) -> Iterator[Tensor]:
        """The pictures of training data, at most SAMPLE spread over the split, as batches."""
        names = data.images[:: -(-len(data) // SAMPLE)]
        for n in range(0, len(names), 64):
            plain = np.zeros(len(names[n : n + 64]), bool)
            yield data.source.load(names[n : n + 64], plain).to(device)

    def grid(self, pictures: Tensor, by: Encoder | None = None) -> Grid:
        """The grid of uint8 images (B, 3, S, S), or of cached cells (B, R, C)."""
        encoder = by or self.encoder
        return encoder.project_grid(self.trunk_grid(pictures, encoder))

    def trunk_grid(self, pictures: Tensor, by: Encoder | None = None) -> Grid:
        """The same before any projection."""
        encoder = by or self.encoder
        if pictures.dtype == torch.uint8:
            return encoder.encode(pictures)
        cells = pictures.float().expand(-1, -1, encoder.trunk_channels)
        return Grid.of(cells, encoder.height, encoder.width)

    def _splits(self, dataset: Dataset, report: Report) -> tuple[Sequence[Any], Sequence[Any]]:
        """Training and validation records; those of the first pictures where a limit is set."""
        options, learns, where = self.options, self.learns, dataset.folder or dataset.name
        every: Any = dataset.captions if self.kind == "captioner" else dataset.questions
        if not every:
            fitting = ", ".join(ANSWERERS if self.kind == "captioner" else CAPTIONERS)
            raise DataError(
                f"{where}: has no {self.records} with {learns}, which --architecture "
                f"{options.architecture} learns from; expected another dataset or one of {fitting}"
            )
        splits: dict[str, list[Any]] = {"train": [], "val": []}
        for record in every:
            if getattr(record, learns):
                splits.setdefault(record.split, []).append(record)
        for split in ("train",) if options.overfit else ("train", "val"):
            if not splits[split]:
                have = ", ".join(sorted(name for name, some in splits.items() if some)) or "none"
                said = f"split {split!r} has no {learns}; splits with {learns}: {have}"
                raise DataError(f"{where}: {said}")
        whole = sum(record.split in ("train", "val") for record in every)
        if lost := whole - len(splits["train"]) - len(splits["val"]):
            report(f"{lost} of {whole} {self.records} left out: they have no {learns}")
        if others := splits.keys() - {"train", "val", "test"}:
            report(f"splits that training does not use: {', '.join(sorted(others))}")
        few = options.overfit or options.limit
        training, validation = (_first(splits[name], few) for name in ("train", "val"))
        if options.overfit:
            report(f"--overfit {few}: trained and validated on the same pictures, without dropout")
            return training, training
        if few:
            report(f"--limit {few}: only the first {few} pictures of each split")
        return training, validation

    def _encoder(self, earlier: ModelFolder | None) -> Encoder:
        """That of ``init_from``, else ``first_encoder``."""
        if not earlier:
            return first_encoder(self.options)
        config = replace(earlier.encoder.config, trainable=self.options.encoder_trainable)
        encoder = Encoder(config, pretrained=False)
        encoder.load_state_dict(earlier.encoder.state_dict())
        return encoder

    @torch.no_grad()
    def _take_language(self, earlier: Network) -> None:
        """Take the weights of a blind model, but those that multiply the picture's channels.

        Those are told by their size, which the number of channels changes; where a weight
        multiplies more than the picture, the picture's columns are the first.
        """
        sizes = {name: getattr(earlier, name) for name in earlier.size_names}
        with torch.device("meta"):
            wider = type(earlier)(earlier.options, **sizes | {"channels": earlier.channels + 1})
        shapes = {name: each.shape for name, each in wider.state_dict().items()}
        own = self.network.state_dict()
        for name, weight in earlier.state_dict().items():
            if weight.shape == shapes[name]:
                own[name].copy_(weight)
            else:
                own[name][..., self.network.channels :] = weight[..., earlier.channels :]

    def _set_words(self, texts: Sequence[str], report: Report) -> None:
        """Begin with pretrained word embeddings, and freeze them, where the options say so."""
        options, embed = self.options, self.network.embed
        embed.requires_grad_(not options.freeze_words)
        if not options.word_vectors:
            return
        if (Path(options.word_vectors) / "config.json").is_file():
            lender = load_model(options.word_vectors)
            rows = lender.network.embed.weight.detach().numpy()
            found = dict(zip(lender.tokenizer.vocabulary, rows, strict=True))
            vectors = WordVectors(Path(options.word_vectors), rows.shape[1], found, len(found))
        else:
            vectors = vectors_for(options.word_vectors, self.tokenizer)
        if vectors.size != options.embedding:
            raise UsageError(
                f"--word-vectors {options.word_vectors}: has {vectors.size} numbers per word; "
                f"expected --embedding {vectors.size}, not {options.embedding}"
            )
        matrix, known = embedding_matrix(vectors, self.tokenizer, options.seed)
        if not known[len(SPECIAL) :].any():  # of a model; of a file it was found before
            raise DataError(f"{vectors.path}: its model has none of the words of the vocabulary")
        with torch.no_grad():
            embed.weight.copy_(torch.from_numpy(matrix))
        for line in coverage(vectors, self.tokenizer, texts).splitlines():
            report(line)

    def _tell_words(self, report: Report) -> None:
        """Count the training texts that are cut, and the words that the vocabulary lacks."""
        rows = [ids[1:-1] for ids in self.tokenizer.encode_batch(self.texts())]
        longest = getattr(self.options, self.cut_by)
        if cut := sum(len(ids) > longest for ids in rows):
            report(f"training texts cut to {flag(self.cut_by)} {longest}: {cut} of {len(rows)}")
        words = sum(map(len, rows))
        if unknown := sum(ids.count(self.tokenizer.unk) for ids in rows):
            share = f"{unknown} of {words} words of the training texts ({unknown / words:.1%})"
            report(f"{share} are not in the vocabulary (--min-frequency, --max-words)")


def first_encoder(options: TrainOptions) -> Encoder:
    """The encoder that a run begins with: of published weights, random, or ``encoder_from``'s."""
    encoder = Encoder(options.encoder_config(), pretrained=not options.encoder_from)
    if options.encoder_from:
        lent = load_model(options.encoder_from).encoder
        encoder.trunk.load_state_dict(lent.trunk.state_dict())
    return encoder


def _first(records: list[Any], pictures: int) -> list[Any]:
    """The records of the first so many pictures; all for 0."""
    if not pictures:
        return records
    chosen = set(list(dict.fromkeys(record.image for record in records))[:pictures])
    return [record for record in records if record.image in chosen]
