"""``gazetell vectors``: the file it writes, and one line for each mistake."""

import json

import pytest

from gazetell.data.text import Tokenizer
from gazetell.data.vectors import coverage, vectors_for


@pytest.fixture
def dataset(tmp_path):
    """A prepared folder of captions: two pictures of train, one of val."""

    def write(*train):
        folder = tmp_path / "data"
        folder.mkdir()
        about = {"format": 1, "name": "tiny", "kind": "table", "root": "."}
        (folder / "dataset.json").write_text(json.dumps(about))
        rows = [("0", train[::2], "train"), ("1", train[1::2], "train"), ("2", ["a bird"], "val")]
        with (folder / "captions.jsonl").open("w") as file:
            for name, captions, split in rows:
                row = {"id": name, "image": "x.png", "captions": captions, "split": split}
                file.write(json.dumps(row) + "\n")
        return folder

    return write


SMALL = ("--size", 8, "--epochs", 2)


def test_vectors_of_the_training_captions(run, dataset, tmp_path):
    captions = ["A dog runs.", "a dog sleeps", "the dog", "a cat"]
    data, out = dataset(*captions), tmp_path / "new" / "vectors.txt.gz"
    options = (*SMALL, "--min-frequency", 1, "--model", "cbow")
    _, printed, err = run("vectors", data, "--out", out, *options, status=0)
    assert printed == f"{out}\n"
    told, line = err.splitlines()
    assert told == "10 words of text are too few: the vectors stay close to random"
    assert line.startswith("cbow: 8 words of 8 numbers, from 10 running words in 4 texts, 2 epochs")
    # The vocabulary is that of training: nothing is missing, and val adds no word.
    tokenizer = Tokenizer.train(captions, min_frequency=1)
    vectors = vectors_for(out, tokenizer)
    assert "(100.0%) and 100.0% of the running words" in coverage(vectors, tokenizer, captions)
    assert vectors.total == len(vectors.found) == 8


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--size", 0, "--min-frequency", 1], 2, "size is 0; expected at least 1"),
        (["--model", "glove"], 2, "skipgram"),
        (["--min-frequency", 9], 3, "no word occurs 9 times in the training captions"),
    ],
)
def test_bad_options(mistake, dataset, tmp_path, options, status, message):
    data = dataset("a dog", "a cat")
    mistake(status, message, "vectors", data, "--out", tmp_path / "v.txt", *options)


def test_no_captions(mistake, dataset, tmp_path):
    told = "split 'train' has no captions and no questions"
    mistake(3, told, "vectors", dataset(), "--out", tmp_path / "v.txt")


def test_the_file_cannot_be_written(run, dataset, tmp_path):
    data = dataset("a dog", "a cat")
    status, printed, err = run("vectors", data, "--out", data, *SMALL, "--min-frequency", 1)
    assert (status, printed) == (6, "")
    assert err.splitlines()[-1].startswith(f"error: {data}: cannot be written")
