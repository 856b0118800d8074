"""``gazetell vectors``."""

import time
from pathlib import Path

from ..data.records import Dataset
from ..data.text import Tokenizer
from ..data.vectors import Word2VecModel, train_word2vec, write_vectors
from ..errors import DataError
from .terminal import report


def vectors(
    data: Path,
    *,
    out: Path,
    model: Word2VecModel = "skipgram",
    size: int = 256,
    epochs: int = 20,
    window: int = 5,
    min_frequency: int = 5,
    seed: int = 0,
) -> None:
    """Pretrain word vectors on the training captions and questions of a dataset (word2vec).

    Args:
        data: A prepared dataset.
        out: The file to write, text in the format of word2vec; gzip'd if it ends in .gz.
        model: skipgram, or cbow, which is faster.
        size: Numbers a word; the embedding of the model that will start from them.
        epochs: Passes over the texts.
        window: Neighbours to each side that a word is learnt from, at most.
        min_frequency: A rarer word counts as unknown; give training the same.
        seed: Of everything random.
    """
    dataset = Dataset.open(data)
    texts = [text for r in dataset.captions if r.split == "train" for text in r.captions]
    texts += [record.question for record in dataset.questions if record.split == "train"]
    if not texts:
        raise DataError(f"{data}: split 'train' has no captions and no questions")
    tokenizer = Tokenizer.train(texts, min_frequency=min_frequency)
    began = time.perf_counter()
    words, matrix, running = train_word2vec(
        texts, tokenizer, model=model, size=size, epochs=epochs, window=window, seed=seed
    )
    seconds = time.perf_counter() - began
    write_vectors(out, words, matrix)
    report(
        f"{model}: {len(words)} words of {size} numbers, from {running} running words "
        f"in {len(texts)} texts, {epochs} epochs in {seconds:.1f} s"
    )
    print(out)
