"""What a run begins with: encoder, captioner and tokenizer, new or of an earlier run."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch

from ..data.records import CaptionRecord
from ..data.text import Tokenizer
from ..data.vectors import coverage, embedding_matrix, vectors_for
from ..errors import UsageError
from ..models.captioners import CaptionerConfig, CaptionModel, build_captioner
from ..models.checkpoint import load_model
from ..models.encoders import Encoder
from .history import Report
from .options import TrainOptions

__all__ = ["Pieces", "build_pieces"]


class Pieces(NamedTuple):
    """An untrained or partly trained model."""

    encoder: Encoder
    captioner: CaptionModel
    tokenizer: Tokenizer


def build_pieces(
    options: TrainOptions, training: Sequence[CaptionRecord], report: Report
) -> Pieces:
    """The model that a run begins with.

    Args:
        options: of the run.
        training: the training records, for the vocabulary.
        report: takes lines of plain text.

    Raises:
        ModelError: no model in ``init_from``.
        UsageError: word vectors of another width, or beside ``init_from``.
        DataError: word vectors that cannot be read, or no frequent word.
    """
    pieces = _earlier(options) if options.init_from else _new(options, training)
    if options.word_vectors:
        _set_words(pieces, options, training, report)
    if options.freeze_words:
        pieces.captioner.embed.requires_grad_(False)
    return pieces


def _new(options: TrainOptions, training: Sequence[CaptionRecord]) -> Pieces:
    encoder = Encoder(options.encoder_config())
    tokenizer = Tokenizer.train(
        (caption for record in training for caption in record.captions),
        min_frequency=options.min_frequency,
        max_words=options.max_words or None,
    )
    config = CaptionerConfig(
        architecture=options.architecture,
        channels=encoder.channels,
        vocabulary=tokenizer.vocab_size,
        embedding=options.embedding,
        hidden=options.hidden,
        attention=options.attention,
        dropout=options.dropout,
        grid_dropout=options.grid_dropout,
    )
    return Pieces(encoder, build_captioner(config), tokenizer)


def _earlier(options: TrainOptions) -> Pieces:
    """The model of ``init_from``, with this run's dropout and trained stages of the encoder."""
    model = load_model(options.init_from or "")
    encoder = Encoder(
        replace(model.encoder.config, trainable=options.encoder_trainable), pretrained=False
    )
    encoder.load_state_dict(model.encoder.state_dict())
    config = replace(
        model.captioner.config, dropout=options.dropout, grid_dropout=options.grid_dropout
    )
    captioner = build_captioner(config)
    captioner.load_state_dict(model.captioner.state_dict())
    return Pieces(encoder, captioner, model.tokenizer)


def _set_words(
    pieces: Pieces, options: TrainOptions, training: Sequence[CaptionRecord], report: Report
) -> None:
    """Begin with pretrained word embeddings."""
    if options.init_from:
        raise UsageError("--word-vectors beside --init-from: that model brings its embeddings")
    vectors = vectors_for(options.word_vectors or "", pieces.tokenizer)
    if vectors.size != options.embedding:
        raise UsageError(
            f"--word-vectors {options.word_vectors}: has {vectors.size} numbers a word; "
            f"expected --embedding {vectors.size}, not {options.embedding}"
        )
    matrix, _ = embedding_matrix(vectors, pieces.tokenizer, options.seed)
    with torch.no_grad():
        pieces.captioner.embed.weight.copy_(torch.from_numpy(matrix))
    captions = [caption for record in training for caption in record.captions]
    report(coverage(vectors, pieces.tokenizer, captions).text)
