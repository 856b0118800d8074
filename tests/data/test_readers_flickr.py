"""Flickr8k and Flickr30k: the official form, the forms found on the web, and damaged ones."""

from collections import Counter
from pathlib import Path

import pytest

from gazetell.data.readers.captions import flickr8k, flickr30k
from gazetell.data.readers.rows import BadRows
from gazetell.errors import DataError, UsageError

LISTS = {
    "train": "Flickr_8k.trainImages.txt",
    "val": "Flickr_8k.devImages.txt",
    "test": "Flickr_8k.testImages.txt",
}


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def pictures(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"")


def official(folder: Path, *extra: str, images: str = "Flicker8k_Dataset") -> Path:
    rows = [f"{name}.jpg#{n}\tCaption {n} of {name} ." for name in "abcd" for n in range(2)]
    write(folder / "Flickr8k.token.txt", *rows, *extra)
    for name, split in zip("abc", ("train", "val", "test"), strict=True):
        write(folder / LISTS[split], f"{name}.jpg")
    pictures(folder / images, "a.jpg", "b.jpg", "c.jpg", "d.jpg")
    return folder


@pytest.mark.parametrize("images", ["Flicker8k_Dataset", "Flickr8k_Dataset/Flicker8k_Dataset"])
def test_the_official_form(tmp_path, images):
    bad = BadRows()
    folder = official(tmp_path / "texts", "2258277193_5869.jpg.1#0\tPeople .", images=images)
    dataset = flickr8k(folder, bad=bad)
    assert {r.id: r.split for r in dataset.captions} == {"a": "train", "b": "val", "c": "test"}
    assert dataset.captions[0].captions == ("Caption 0 of a .", "Caption 1 of a .")
    assert dataset.path(dataset.captions[0]) == folder / images / "a.jpg"
    assert dataset.kind == "flickr8k"
    assert bad.notes == ["pictures of no split, left out: 2"]
    # Texts in a folder of their own, and pictures elsewhere.
    dataset = flickr8k(tmp_path, images=folder / images)
    assert (len(dataset.captions), dataset.root) == (3, folder / images)


def test_all_pictures_in_one_split_from_a_file_of_another_name(tmp_path):
    folder = official(tmp_path)
    with pytest.raises(UsageError, match="split test: has no effect, since the split lists"):
        flickr8k(folder, split="test")
    for name in LISTS.values():
        (folder / name).unlink()
    other = (folder / "Flickr8k.token.txt").rename(folder / "Pascal1k.token.txt")
    dataset = flickr8k(folder, captions=other, split="test")
    assert (dataset.name, dataset.kind) == ("pascal1k", "flickr8k")
    assert [one.split for one in dataset.captions] == ["test"] * 4
    with pytest.raises(UsageError, match="val 1: has no effect, since every picture goes to"):
        flickr8k(folder, captions=other, split="test", val=1)


def test_lists_and_captions_may_spell_a_picture_in_two_ways(tmp_path):
    official(tmp_path)
    write(tmp_path / LISTS["test"], "C.JPG")
    assert flickr8k(tmp_path).split("test")[0].image == "c.jpg"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("a.jpg#2 no tab", "expected name.jpg#0<TAB>caption"),
        ("a.jpg\tno number", "expected name.jpg#0<TAB>caption"),
        ("a.jpg#x\tno number", "expected name.jpg#0<TAB>caption"),
        ("a.jpg#2\t  ", "caption is empty"),
        ("#2\tno name", "picture name is empty"),
    ],
)
def test_bad_rows(tmp_path, left_out, row, reason):
    official(tmp_path, row, "a.jpg#3\tהכלב רץ 😀")
    dataset, rows = left_out(rf"token\.txt:9: {reason}", flickr8k, tmp_path)
    assert dataset.captions[0].captions[-1] == "הכלב רץ 😀"
    assert len(dataset.captions[0].captions) == 3
    assert [one.row for one in rows] == [row]


def test_lists_that_do_not_fit(tmp_path, left_out):
    official(tmp_path)
    write(tmp_path / LISTS["val"], "b.jpg", "z.jpg")
    dataset, rows = left_out(r"token\.txt: has no caption of z\.jpg", flickr8k, tmp_path)
    assert (len(dataset.captions), len(rows)) == (3, 1)
    write(tmp_path / LISTS["val"], "b.jpg", "a.jpg")
    told = r"devImages\.txt:2: a\.jpg is also in the list of train"
    assert left_out(told, flickr8k, tmp_path)[0].captions[0].split == "train"


def test_missing_empty_and_foreign_files(tmp_path):
    with pytest.raises(DataError, match=r"no file Flickr8k\.token\.txt or Flickr8k\.token or c"):
        flickr8k(tmp_path)
    token = write(tmp_path / "captions.txt", "")
    with pytest.raises(DataError, match="no folder of pictures; expected one of Flicker8k"):
        flickr8k(tmp_path)
    pictures(tmp_path / "Images", "a.jpg")
    with pytest.raises(DataError, match=r"captions\.txt:1: is empty"):
        flickr8k(tmp_path)
    write(token, "<html>not found</html>")
    with pytest.raises(DataError, match=r"captions\.txt:1: expected 'name\.jpg#0<TAB>caption'"):
        flickr8k(tmp_path)
    token.write_bytes(b"image,caption\na.jpg,caf\xe9\n")
    with pytest.raises(DataError, match=r"captions\.txt:2: is not UTF-8"):
        flickr8k(tmp_path)
    write(token, "image,caption")
    with pytest.raises(DataError, match="has no picture with a caption"):
        flickr8k(tmp_path)
    official(tmp_path)
    (tmp_path / LISTS["val"]).unlink()
    with pytest.raises(DataError, match=r"has split lists, but not Flickr_8k\.devImages\.txt"):
        flickr8k(tmp_path)
    for name in LISTS.values():
        write(tmp_path / name, "")
    with pytest.raises(DataError, match="the split lists name no pictures"):
        flickr8k(tmp_path)


def comma_table(folder: Path, *extra: str) -> Path:
    rows = [f"p{n}.jpg,A dog runs ." for n in range(20)]
    pictures(folder / "Images", "p0.jpg")
    return write(folder / "captions.txt", "image,caption", *rows, *extra)


def test_the_comma_form_with_a_seeded_split(tmp_path):
    comma_table(tmp_path, 'p0.jpg,"A ""big"" dog, and a cat ."')
    bad = BadRows()
    one = flickr8k(tmp_path, val=3, test=0.1, seed=1, bad=bad)
    assert bad.notes == [f"no split lists in {tmp_path}: the splits are not those of papers"]
    assert Counter(r.split for r in one.captions) == {"train": 15, "val": 3, "test": 2}
    assert one.captions[0].captions == ("A dog runs .", 'A "big" dog, and a cat .')
    assert one == flickr8k(tmp_path, val=3, test=0.1, seed=1)
    assert one != flickr8k(tmp_path, val=3, test=0.1, seed=2)
    with pytest.raises(UsageError, match=r"test 1000: only 20 pictures .* a share such as 0\.1"):
        flickr8k(tmp_path)


def test_the_comma_form_with_split_lists(tmp_path):
    comma_table(tmp_path)
    for place, split in enumerate(LISTS):
        write(tmp_path / LISTS[split], f"p{place}.jpg")
    bad = BadRows()
    dataset = flickr8k(tmp_path, bad=bad)
    assert [record.split for record in dataset.captions] == ["train", "val", "test"]
    assert bad.notes == ["pictures of no split, left out: 17"]
    with pytest.raises(UsageError, match=r"val 0\.2: has no effect, since the split lists tell"):
        flickr8k(tmp_path, val=0.2)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("p0.jpg,a dog, unquoted", "expected 2 fields, found 3"),
        ("p0.jpg", "expected 2 fields, found 1"),
        ('p0.jpg,"open quote', "is not a row of CSV"),
        ("p0.jpg,", "caption is empty"),
    ],
)
def test_bad_rows_of_the_comma_form(tmp_path, left_out, row, reason):
    comma_table(tmp_path, row, "p0.jpg,last")
    told = rf"captions\.txt:22: {reason}"
    dataset, rows = left_out(told, flickr8k, tmp_path, val=1, test=1)
    assert dataset.captions[0].captions == ("A dog runs .", "last")
    assert len(rows) == 1


def test_flickr30k_token_file(tmp_path):
    rows = [f"{n}.jpg#{k}\tTwo men ." for n in range(10) for k in range(5)]
    write(tmp_path / "results_20130124.token", *rows)
    pictures(tmp_path / "flickr30k-images", "0.jpg")
    dataset = flickr30k(tmp_path, val=2, test=3)
    assert Counter(r.split for r in dataset.captions) == {"train": 5, "val": 2, "test": 3}
    assert {len(record.captions) for record in dataset.captions} == {5}


def test_flickr30k_bar_form_and_its_fused_row(tmp_path, left_out):
    folder = tmp_path / "flickr30k_images"
    rows = ["image_name| comment_number| comment"]
    rows += [f"{n}.jpg| {k}| Two | men ." for n in range(10) for k in range(2)]
    rows.insert(3, "0.jpg| 4   A dog runs across the grass .")
    table = write(folder / "results.csv", *rows)
    pictures(folder / "flickr30k_images", "0.jpg")
    told = rf"{table}:4: expected image_name\| comment_number"
    dataset, rows = left_out(told, flickr30k, tmp_path, val=1, test=1)
    assert dataset.root == folder / "flickr30k_images"
    assert dataset.captions[0].captions == ("Two | men .", "Two | men .")
    assert len(rows) == 1
