"""Batches: every caption of every picture, longest first, drawn by seed and epoch alone."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from gazetell import pictures as module
from gazetell.data.batches import CaptionData
from gazetell.data.records import CaptionRecord
from gazetell.data.text import Tokenizer
from gazetell.errors import ImageError
from gazetell.pictures import PixelSource, open_image

TEXTS = [
    ("a", "a b", "a b c d e", "b c", "c d e"),
    ("e d c b", "b"),
    ("c c c c c c c c", "a e", "d"),
    (),
    ("b a",),
]
RECORDS = [
    CaptionRecord(f"id{n}", f"{n}.png", tuple(texts), "train") for n, texts in enumerate(TEXTS)
]


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(["a b c d e"], min_frequency=1)


class Names:
    """A source whose pictures are the record's number, negative if mirrored."""

    def load(self, names, mirrored):
        numbers = [int(name.removesuffix(".png")) + 1 for name in names]
        return torch.tensor([-n if m else n for n, m in zip(numbers, mirrored, strict=True)])


def data(tokenizer, **options):
    return CaptionData(RECORDS, tokenizer, Names(), **options)


def said(batch, tokenizer):
    """(record, caption) of each row."""
    rows = zip(batch.owner.tolist(), batch.tokens.tolist(), strict=True)
    return [(int(batch.records[owner]), tokenizer.decode(ids)) for owner, ids in rows]


def test_a_batch_holds_every_caption_of_its_pictures(tokenizer):
    batch = data(tokenizer).__getitems__([2, 0, 4])
    assert batch.records.tolist() == [2, 0, 4]
    assert batch.pictures.tolist() == [3, 1, 5]
    expected = [(n, text) for n in (2, 0, 4) for text in TEXTS[n]]
    assert sorted(said(batch, tokenizer)) == sorted(expected)


def test_captions_are_sorted_by_falling_length(tokenizer):
    batch = data(tokenizer).__getitems__([0, 1, 2, 3, 4])
    lengths = batch.lengths.tolist()
    assert lengths == sorted(lengths, reverse=True)
    # Steps of a caption: its words and <end>.
    assert lengths == [len(text.split()) + 1 for _, text in said(batch, tokenizer)]
    assert batch.tokens.shape == (11, 8 + 2)
    for ids, length in zip(batch.tokens.tolist(), lengths, strict=True):
        assert ids[0] == tokenizer.start
        assert ids[length] == tokenizer.end
        assert set(ids[length + 1 :]) <= {tokenizer.pad}
        assert tokenizer.pad not in ids[: length + 1]
    assert batch.tokens.dtype == batch.owner.dtype == batch.lengths.dtype == torch.long


def test_captions_are_cut_and_still_end(tokenizer):
    batch = data(tokenizer, max_length=3).__getitems__([0, 2])
    assert batch.tokens.shape[1] == 3 + 2
    assert (2, "c c c") in said(batch, tokenizer)
    assert batch.lengths.max() == 4
    assert all(tokenizer.end in ids for ids in batch.tokens.tolist())


def test_a_picture_without_captions_is_only_looked_at(tokenizer):
    batch = data(tokenizer).__getitems__([3, 4])
    assert batch.pictures.tolist() == [4, 5]
    assert batch.owner.tolist() == [1]
    batch = data(tokenizer)[3]
    assert batch.pictures.tolist() == [4]
    assert batch.tokens.shape == (0, 2)
    assert batch.lengths.shape == batch.owner.shape == (0,)


def everything(dataset, order=range(5)):
    batch = dataset.__getitems__(list(order))
    return [part.tolist() for part in batch]


def test_draws_depend_on_seed_and_epoch_alone(tokenizer):
    options = {"per_image": 2, "flip": 0.5}
    first = everything(data(tokenizer, seed=3, epoch=4, **options))
    used = data(tokenizer, seed=3, epoch=0, **options)
    everything(used)
    used.epoch = 4
    assert everything(used) == first
    epochs = {str(everything(data(tokenizer, seed=3, epoch=n, **options))) for n in range(6)}
    assert len(epochs) > 3
    seeds = {str(everything(data(tokenizer, seed=n, epoch=4, **options))) for n in range(6)}
    assert len(seeds) > 3


def test_draws_of_a_picture_do_not_depend_on_its_batch(tokenizer):
    dataset = data(tokenizer, per_image=1, flip=0.5, seed=1, epoch=2)
    together = dataset.__getitems__([0, 1, 2, 4])
    for index in (4, 2, 1, 0):
        alone = dataset[index]
        assert alone.pictures.tolist() == [
            p for p in together.pictures.tolist() if abs(p) == index + 1
        ]
        assert said(alone, tokenizer)[0] in said(together, tokenizer)


@pytest.mark.parametrize("wanted", [1, 2, 3])
def test_captions_per_image(tokenizer, wanted):
    drawn = set()
    for epoch in range(40):
        batch = data(tokenizer, per_image=wanted, epoch=epoch).__getitems__([0, 1, 4])
        rows = said(batch, tokenizer)
        for n in (0, 1, 4):
            own = [text for record, text in rows if record == n]
            assert len(own) == min(wanted, len(TEXTS[n]))
            assert len(set(own)) == len(own)  # none twice
            drawn |= {(n, text) for text in own}
    assert drawn == {(n, text) for n in (0, 1, 4) for text in TEXTS[n]}  # all get their turn


@pytest.mark.parametrize(("flip", "share"), [(0.0, 0.0), (0.5, 0.5), (1.0, 1.0)])
def test_mirrored_pictures(tokenizer, flip, share):
    mirrored = [
        picture < 0
        for epoch in range(100)
        for picture in data(tokenizer, flip=flip, epoch=epoch).__getitems__(range(5)).pictures
    ]
    assert np.mean(mirrored) == pytest.approx(share, abs=0.08)


def test_torchs_loader_asks_for_whole_batches(tokenizer):
    loader = DataLoader(data(tokenizer), 2, collate_fn=lambda batch: batch)
    found = list(loader)
    assert [batch.records.tolist() for batch in found] == [[0, 1], [2, 3], [4]]
    assert len(data(tokenizer)) == 5


# -- pixels ----------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    for n in range(3):
        noise = np.random.default_rng(n).integers(0, 256, (6, 6, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{n}.png")
    return tmp_path


def pixels(picture):
    return np.asarray(picture, np.uint8).transpose(2, 0, 1)


NAMES = ["0.png", "1.png", "2.png"]


@pytest.mark.parametrize("memory", [1 << 20, 3 * 3 * 36 - 1])
def test_pixels_come_from_memory_or_from_the_disk(folder, monkeypatch, memory):
    monkeypatch.setattr(module, "KEEP_BYTES", memory)
    source = PixelSource(folder, NAMES, pixels, 6)
    assert set(source.kept) == (set(NAMES) if memory == 1 << 20 else set())
    found = source.load(["2.png", "0.png", "0.png"], np.array([False, True, False]))
    assert found.dtype == torch.uint8
    assert found.shape == (3, 3, 6, 6)
    two, zero = (pixels(open_image(folder / name)) for name in ("2.png", "0.png"))
    assert np.array_equal(found[0], two)
    assert np.array_equal(found[1], zero[:, :, ::-1])  # left and right change places
    assert np.array_equal(found[2], zero)
    assert np.array_equal(source.load(["0.png"], np.array([False]))[0], zero)


def test_kept_pictures_are_opened_once(folder):
    source = PixelSource(folder, NAMES, pixels, 6)
    for name in NAMES:
        (folder / name).unlink()
    assert source.load(NAMES, np.zeros(3, bool)).shape == (3, 3, 6, 6)


def test_an_unreadable_picture_is_named(folder):
    (folder / "1.png").write_bytes(b"")
    with pytest.raises(ImageError, match=r"1\.png"):
        PixelSource(folder, NAMES, pixels, 6)
    with pytest.raises(ImageError, match=r"7\.png"):
        PixelSource(folder, [], pixels, 6).load(["7.png"], np.array([False]))
