"""What a run begins with: encoder, network and tokenizer, new or of an earlier run."""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, NamedTuple

import torch

from ..data.answers import AnswerVocabulary
from ..data.text import Tokenizer
from ..data.vectors import coverage, embedding_matrix, vectors_for
from ..errors import UsageError
from ..models.answerers import ANSWERERS, AnswerModel, build_answerer
from ..models.captioners import CAPTIONERS, CaptionModel, build_captioner
from ..models.encoders import Encoder
from ..models.folder import AnswererFolder, CaptionerFolder, ModelFolder, load_kind, load_model
from ..models.options import Architectures
from .history import Report
from .options import TrainOptions

__all__ = ["AnswerPieces", "CaptionPieces", "answer_pieces", "caption_pieces"]


class CaptionPieces(NamedTuple):
    """An untrained or partly trained captioner."""

    encoder: Encoder
    captioner: CaptionModel
    tokenizer: Tokenizer


class AnswerPieces(NamedTuple):
    """An untrained or partly trained answerer."""

    encoder: Encoder
    answerer: AnswerModel
    tokenizer: Tokenizer
    answers: AnswerVocabulary


def caption_pieces(options: TrainOptions, texts: Sequence[str], report: Report) -> CaptionPieces:
    """The captioner that a run begins with.

    Args:
        options: of the run.
        texts: the training captions, for the vocabulary.
        report: takes lines of plain text.

    Raises:
        ModelError: no captioner in ``init_from``.
        UsageError: word vectors of another width, or beside ``init_from``.
        DataError: word vectors that cannot be read, or no frequent word.
    """
    if options.init_from:
        model = load_kind(options.init_from, CaptionerFolder)
        encoder, tokenizer = _earlier_encoder(model, options), model.tokenizer
        config = model.captioner.config
        changes = {"dropout": options.dropout, "grid_dropout": options.grid_dropout}
        captioner = build_captioner(**{**config, **changes})
        captioner.load_state_dict(model.captioner.state_dict())
    else:
        encoder, tokenizer = _new_encoder(options), _new_tokenizer(options, texts)
        captioner = build_captioner(
            options.architecture,
            channels=encoder.channels,
            vocabulary=tokenizer.vocab_size,
            **_own(options, CAPTIONERS),
        )
    _set_words(captioner, tokenizer, options, texts, report)
    return CaptionPieces(encoder, captioner, tokenizer)


def answer_pieces(
    options: TrainOptions, texts: Sequence[str], answers: AnswerVocabulary, report: Report
) -> AnswerPieces:
    """The answerer that a run begins with.

    Args:
        options: of the run.
        texts: the training questions, for the vocabulary.
        answers: what can be answered; with ``init_from`` that model's list is taken.
        report: takes lines of plain text.

    Raises:
        ModelError: no answerer in ``init_from``.
        UsageError: word vectors of another width, or beside ``init_from``.
        DataError: word vectors that cannot be read, or no frequent word.
    """
    if options.init_from:
        model = load_kind(options.init_from, AnswererFolder)
        encoder, tokenizer = _earlier_encoder(model, options), model.tokenizer
        answers = model.answers
        changes = {
            name: getattr(options, name)
            for name in ("dropout", "grid_dropout", "word_dropout", "blind")
        }
        answerer = build_answerer(**{**model.answerer.config, **changes})
        answerer.load_state_dict(model.answerer.state_dict())
    else:
        encoder, tokenizer = _new_encoder(options), _new_tokenizer(options, texts)
        answerer = build_answerer(
            options.architecture,
            channels=encoder.channels,
            vocabulary=tokenizer.vocab_size,
            answers=len(answers),
            **_own(options, ANSWERERS),
        )
    _set_words(answerer, tokenizer, options, texts, report)
    return AnswerPieces(encoder, answerer, tokenizer, answers)


def _own(options: TrainOptions, architectures: Architectures) -> dict[str, Any]:
    """The options that the chosen architecture has."""
    given = {**vars(options), "attention_kind": options.attention}
    return {x.name: given[x.name] for x in fields(architectures[options.architecture].Options)}


def _new_encoder(options: TrainOptions) -> Encoder:
    """An encoder with published weights, random ones, or those of ``encoder_from``."""
    if not options.encoder_from:
        return Encoder(options.encoder_config())
    encoder = Encoder(options.encoder_config(), pretrained=False)
    trunk = load_model(options.encoder_from).encoder.trunk
    encoder.trunk.load_state_dict(trunk.state_dict())
    return encoder


def _new_tokenizer(options: TrainOptions, texts: Sequence[str]) -> Tokenizer:
    return Tokenizer.train(
        texts, min_frequency=options.min_frequency, max_words=options.max_words or None
    )


def _earlier_encoder(model: ModelFolder, options: TrainOptions) -> Encoder:
    """The encoder of ``init_from``, with this run's trained stages."""
    config = replace(model.encoder.config, trainable=options.encoder_trainable)
    encoder = Encoder(config, pretrained=False)
    encoder.load_state_dict(model.encoder.state_dict())
    return encoder


def _set_words(
    network: CaptionModel | AnswerModel,
    tokenizer: Tokenizer,
    options: TrainOptions,
    texts: Sequence[str],
    report: Report,
) -> None:
    """Begin with pretrained word embeddings, and freeze them, where the options say so."""
    if options.freeze_words and not (options.word_vectors or options.init_from):
        raise UsageError(
            "--freeze-words: would freeze random word embeddings; expected --word-vectors or "
            "--init-from beside it"
        )
    if options.freeze_words:
        network.embed.requires_grad_(False)
    if not options.word_vectors:
        return
    if options.init_from:
        raise UsageError("--word-vectors beside --init-from: that model brings its embeddings")
    vectors = vectors_for(options.word_vectors, tokenizer)
    if vectors.size != options.embedding:
        raise UsageError(
            f"--word-vectors {options.word_vectors}: has {vectors.size} numbers a word; "
            f"expected --embedding {vectors.size}, not {options.embedding}"
        )
    matrix, _ = embedding_matrix(vectors, tokenizer, options.seed)
    with torch.no_grad():
        network.embed.weight.copy_(torch.from_numpy(matrix))
    report(coverage(vectors, tokenizer, texts))
