"""The file of a course: round trip of pixels and captions, unknown words, and damaged files."""

import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gazetell.data.readers.course import course
from gazetell.data.readers.rows import BadRows
from gazetell.data.text import Tokenizer
from gazetell.errors import DataError, UsageError, WriteError
from gazetell.metrics import score_captions

WORDS = ["<NULL>", "<START>", "<END>", "<UNK>", "a", "dog", "cat", "runs", "on", "grass"]
LENGTH = 8


def indices(text, length=LENGTH, end=True):
    """A caption as the course stores it."""
    row = ["<START>", *text.split(), *(["<END>"] if end else [])]
    assert len(row) <= length
    return [WORDS.index(word) for word in row] + [0] * (length - len(row))


def noise(count, seed=0, size=(5, 7)):
    values = np.random.default_rng(seed).integers(0, 256, (count, 3, *size), dtype=np.uint8)
    return torch.from_numpy(values)


def content(train, val=(), **changes):
    """What a file holds: captions by row, each row a picture of its own."""
    files = {"vocab": {"idx_to_token": WORDS, "token_to_idx": {w: n for n, w in enumerate(WORDS)}}}
    for seed, (split, texts) in enumerate((("train", train), ("val", val))):
        rows = torch.tensor([indices(text) for text in texts], dtype=torch.int64)
        files[f"{split}_images"] = noise(len(texts), seed=seed)
        files[f"{split}_captions"] = rows.reshape(-1, LENGTH)
    return files | changes


@pytest.fixture
def saved(tmp_path):
    def save(*args, legacy=False, **changes):
        path = tmp_path / "coco.pt"
        value = content(*args, **changes)
        torch.save(value, path, _use_new_zipfile_serialization=not legacy)
        return path

    return save


def captions(dataset, split):
    return [caption for r in dataset.captions if r.split == split for caption in r.captions]


@pytest.mark.parametrize("legacy", [False, True])
def test_pixels_and_captions_come_back(saved, tmp_path, legacy):
    train, val = ["a dog runs", "a cat"], ["a dog on grass", "grass"]
    path = saved(train, val, legacy=legacy)
    dataset = course(path, pictures=tmp_path / "out/images")
    assert (dataset.name, dataset.kind, dataset.root) == ("coco", "course", tmp_path / "out/images")
    assert [r.id[-8:] for r in dataset.captions] == ["n-000000", "n-000001", "l-000000", "l-000001"]
    assert captions(dataset, "train") == train
    assert sorted(captions(dataset, "val") + captions(dataset, "test")) == sorted(val)
    assert Counter(r.split for r in dataset.captions) == {"train": 2, "val": 1, "test": 1}
    data = torch.load(path, weights_only=True)
    for record in dataset.captions:
        split, row = record.id.split("-")
        expected = data[f"{split}_images"][int(row)].permute(1, 2, 0).numpy()
        with Image.open(dataset.path(record)) as image:
            assert image.mode == "RGB"
            np.testing.assert_array_equal(np.asarray(image), expected)


def test_rows_of_the_same_pixels_are_one_picture_and_captions_end_at_their_end(saved, tmp_path):
    images = noise(4)
    images[3] = images[1]
    cut = indices("a dog runs on grass a cat", end=False)
    dirty = indices("a dog")
    dirty[-1] = WORDS.index("grass")
    rows = torch.tensor([cut, dirty, indices("a cat"), indices("a dog runs")])
    path = saved(["a"] * 4, ["grass"], train_captions=rows, train_images=images,
                 val_images=images[:1])  # fmt: skip
    bad = BadRows()
    dataset = course(path, pictures=tmp_path / "images", bad=bad)
    assert [(r.id, r.captions) for r in dataset.captions if r.split == "train"] == [
        ("train-000000", ("a dog runs on grass a cat",)),
        ("train-000001", ("a dog", "a dog runs")),
        ("train-000002", ("a cat",)),
    ]
    assert len(list((tmp_path / "images").iterdir())) == 4
    assert bad.notes[0] == "pictures of train that are in val or test too: 1"


def test_unknown_words_are_left_out_of_train_and_match_nothing_in_val(saved, tmp_path):
    images = noise(4)
    images[2] = images[0]
    path = saved(
        ["a <UNK> dog", "a <UNK>", "a cat", "a dog"],
        ["a <UNK> runs", "<UNK> on <UNK>"],
        train_images=images,
    )
    bad = BadRows()
    dataset = course(path, pictures=tmp_path / "images", test_from_val=0, bad=bad)
    assert captions(dataset, "train") == ["a cat", "a dog"]
    assert {path.name for path in (tmp_path / "images").iterdir()} == {
        *("train-000002.png", "train-000003.png"),
        *("val-000000.png", "val-000001.png"),
    }
    kept = "captions with <UNK> of val and test, kept, though no caption can match that word"
    assert bad.notes == [
        f"captions with <UNK> of train, left out: 2 (first: {path}: train_captions[0])",
        f"{kept}: 2 (first: {path}: val_captions[0])",
        "pictures of train left out with captions: 1",
    ]
    words = [word for text in captions(dataset, "val") for word in text.split()]
    unknown = [word for word in words if word not in WORDS]
    assert len(set(unknown)) == 3
    references = {r.id: r.captions for r in dataset.captions if r.split == "val"}
    for said in ("unk", "unknown", "<UNK>"):
        said_of_all = dict.fromkeys(references, said)
        assert score_captions(references, said_of_all)["rouge_l"] == 0
    # The tokenizer takes each for one word.
    tokenizer = Tokenizer.train(captions(dataset, "train"), min_frequency=1)
    assert [tokenizer.encode(word)[1:-1] for word in unknown] == [[tokenizer.unk]] * 3


def test_unknown_words_kept_in_train_become_the_tokenizers_unknown(saved, tmp_path):
    path = saved(["a <UNK> dog"] * 6 + ["<UNK> <UNK>"] * 2)
    bad = BadRows()
    dataset = course(path, pictures=tmp_path / "images", unknown="keep", bad=bad)
    texts = captions(dataset, "train")
    assert len(texts) == 8
    tokenizer = Tokenizer.train(texts, min_frequency=2)
    assert set(tokenizer.vocabulary[4:]) == {"a", "dog"}
    assert [tokenizer.encode(text)[2] for text in texts] == [tokenizer.unk] * 8
    kept = "captions with <UNK> of train, kept; train with a minimum frequency of at least 2"
    assert bad.notes == [f"{kept}: 8 (first: {path}: train_captions[0])"]


def test_the_test_split_is_drawn_from_val(saved, tmp_path):
    path = saved(["a"] * 3, ["a dog"] * 10)

    def splits(**options):
        dataset = course(path, pictures=tmp_path / "images", **options)
        return {r.id: r.split for r in dataset.captions}

    half = splits()
    assert Counter(half.values()) == {"train": 3, "val": 5, "test": 5}
    assert all(id.startswith("val") for id, split in half.items() if split != "train")
    assert half == splits(seed=0)
    assert half != splits(seed=1)
    assert Counter(splits(test_from_val=0.2).values()) == {"train": 3, "val": 8, "test": 2}
    assert Counter(splits(test_from_val=0).values()) == {"train": 3, "val": 10}
    for share in (10, -0.1, float("nan")):
        with pytest.raises(UsageError, match="test"):
            splits(test_from_val=share)


def test_it_can_be_repeated_but_never_writes_over_another_picture(saved, tmp_path):
    path, root = saved(["a"] * 60), tmp_path / "images"
    seen = []
    course(path, pictures=root, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(50, 60), (60, 60)]
    (root / "train-000005.png").unlink()
    course(path, pictures=root)
    assert len(list(root.iterdir())) == 60
    other = root / "train-000007.png"
    other.write_bytes(b"mine")
    with pytest.raises(DataError, match=r"train-000007\.png: is another picture"):
        course(path, pictures=root)
    assert other.read_bytes() == b"mine"
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match=r"train-000000\.png: cannot be written"):
        course(path, pictures=tmp_path / "file")


def outside(row, column, index):
    rows = torch.tensor([indices("a dog"), indices("a cat")])
    rows[row, column] = index
    return rows


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"train_captions": outside(1, 2, len(WORDS))}, r"train_captions\[1\]: index 10 is outs"),
        ({"train_captions": outside(0, 7, -1)}, r"train_captions\[0\]: index -1 is outside the"),
        ({"train_captions": outside(1, slice(1, 3), 2)}, r"train_captions\[1\]: caption is empty"),
    ],
)
def test_bad_rows(saved, tmp_path, left_out, changes, reason):
    path, out = saved(["a", "a"], **changes), tmp_path / "images"
    dataset, rows = left_out(rf"coco\.pt: {reason}", course, path, pictures=out)
    assert len(dataset.captions) == len(rows) == len(list(out.iterdir())) == 1


BAD_VOCABULARY = r"vocab: expected a dict with idx_to_token"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"train_images": noise(2).float()}, r"train_images is float32 \(2, 3, 5, 7\); expected"),
        ({"val_images": noise(2).mT[:, :2]}, r"val_images is uint8 \(2, 2, 7, 5\); expected uint8"),
        ({"train_images": noise(2)[:, :, :0]}, r"train_images is uint8 \(2, 3, 0, 7\)"),
        ({"train_images": [1, 2]}, "train_images is list; expected uint8"),
        ({"train_images": noise(2).to_sparse()}, "train_images is Tensor; expected uint8"),
        ({"train_captions": torch.zeros(2, 8).int()}, r"train_captions is int32 .* int64 \(N, T\)"),
        ({"train_images": noise(3)}, "train_images has 3 rows and train_captions 2"),
        ({"vocab": WORDS}, BAD_VOCABULARY),
        ({"vocab": {"token_to_idx": {}}}, BAD_VOCABULARY),
        ({"vocab": {"idx_to_token": [1]}}, "vocab: expected a dict with idx_to_token, a list"),
        ({"vocab": {"idx_to_token": ["<START>"]}}, "vocab: idx_to_token lacks <NULL>, <END>"),
        (
            {"train_captions": torch.tensor([indices("<UNK>")] * 2)},
            "train_captions: no row is left",
        ),
    ],
)
def test_content_of_another_form(saved, tmp_path, changes, reason):
    with pytest.raises(DataError, match=rf"coco\.pt: {reason}"):
        course(saved(["a", "a"], **changes), pictures=tmp_path / "images")
    assert not (tmp_path / "images").exists()


def test_what_is_no_such_file(saved, tmp_path):
    path, out = tmp_path / "coco.pt", tmp_path / "images"
    with pytest.raises(DataError, match=r"coco\.pt: no such file"):
        course(path, pictures=out)
    data = content(["a"])
    del data["val_captions"], data["vocab"]
    for value, told in (
        (data, "lacks val_captions, vocab; expected train_im"),
        ([1], "holds list; expected a dict of train_images"),
    ):
        torch.save(value, path)
        with pytest.raises(DataError, match=rf"coco\.pt: {told}"):
            course(path, pictures=out)
    texts = [b"no tensors", b"PK\x03\x04 nearly", b"\x80\x02}q\x00."]
    for legacy in (False, True):
        whole = saved(["a dog"] * 9, legacy=legacy).read_bytes()
        texts += [whole[: int(share * len(whole))] for share in (0, 0.02, 0.3, 0.9, 0.99)]
    for text in texts:
        path.write_bytes(text)
        with pytest.raises(DataError, match=r"coco\.pt: (cannot be read|lacks)"):
            course(path, pictures=out)


class Mischief:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.write_text, (self.path, "done")


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_code_in_a_file_does_not_run(tmp_path, form):
    done, path = tmp_path / "done", tmp_path / "coco.pt"
    data = content(["a"]) | {"vocab": Mischief(done)}
    if form == "pickle":
        path.write_bytes(pickle.dumps(data))
    else:
        torch.save(data, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(DataError, match=r"coco\.pt: cannot be read .*tensors and plain values"):
        course(path, pictures=tmp_path / "images")
    assert not done.exists()
    # The file is what it seems: a careless reader would have run it.
    if form != "pickle":
        torch.load(path, weights_only=False)
    else:
        pickle.loads(path.read_bytes())
    assert done.exists()
