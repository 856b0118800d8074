"""Datasets made of prepared ones: merged, split, and without the pictures of another."""

import pytest

from gazetell.data.prepare import prepare
from gazetell.data.readers.prepared import merge
from gazetell.data.readers.rows import BadRows
from gazetell.data.records import CaptionRecord, Dataset, QuestionRecord, open_part, picture_keys
from gazetell.errors import DataError, UsageError


def captioned(id: str, split: str = "train", *captions: str) -> CaptionRecord:
    return CaptionRecord(id, f"train/{id}.jpg", captions or (f"caption of {id}",), split)


def asked(id: str, image: str, text: str = "Is it?", split: str = "train") -> QuestionRecord:
    return QuestionRecord(id, f"train/{image}.jpg", text, ("yes",), split, "is it")


@pytest.fixture
def saved(tmp_path):
    """Save records as a prepared dataset; the pictures lie in ``root``."""

    def save(name: str, *records, root: str = "pictures") -> str:
        captions = tuple(one for one in records if isinstance(one, CaptionRecord))
        questions = tuple(one for one in records if isinstance(one, QuestionRecord))
        dataset = Dataset("one", "table", tmp_path / root, captions, questions)
        for record in records:
            dataset.path(record).parent.mkdir(parents=True, exist_ok=True)
            dataset.path(record).touch()
        dataset.save(tmp_path / name)
        return str(tmp_path / name)

    return save


def test_captions_come_together_and_questions_keep_their_ids(saved):
    first = saved("a", captioned("1"), captioned("2", "val"), asked("q", "1"), asked("r", "1"))
    second = saved("b", captioned("1", "train", "another"), asked("q", "1", "Was it?"))
    third = saved("c", asked("r", "1"))
    bad = BadRows()
    both = merge(first, second, third, bad=bad)
    told = [one.captions for one in both.captions]
    assert told == [("caption of 1", "another"), ("caption of 2",)]
    assert [(one.id, one.question) for one in both.questions] == [
        ("q", "Is it?"),
        ("r", "Is it?"),
        ("b/q", "Was it?"),
    ]
    assert {one.question_type for one in both.questions} == {"is it"}
    assert (both.kind, both.root.name) == ("merged", "pictures")
    assert bad.notes == [
        "question ids that two datasets have, renamed: 1 (first: q)",
        "questions that two datasets have, kept once: 1 (first: r)",
    ]


def test_pictures_of_two_folders(saved, tmp_path):
    first, second = saved("a", captioned("1")), saved("b", captioned("2"), root="others/deep")
    both = merge(first, second)
    images = [one.image for one in both.captions]
    assert images == ["pictures/train/1.jpg", "others/deep/train/2.jpg"]
    assert both.root == tmp_path
    assert all(both.path(one).is_file() for one in both.captions)


def test_a_picture_in_two_splits_is_refused(saved):
    first = saved("a", captioned("1", "val"), captioned("2"))
    second = saved("b", asked("q", "1"), asked("r", "3"))
    with pytest.raises(DataError, match=r"1.jpg is in val of .*a and in train of .*b; .*merge"):
        merge(first, second)
    assert len(merge(f"{first}:train", second).records) == 3
    with pytest.raises(DataError, match="split 'test' is empty"):
        merge(f"{first}:test", second)
    with pytest.raises(DataError, match=r"merge \S+b --without \S+a:val --out FOLDER makes"):
        merge(f"{first}:val", second)
    with pytest.raises(UsageError, match="expected prepared datasets"):
        merge()


@pytest.mark.parametrize("again", ["", ":val", "/../a"])
def test_a_split_given_twice_is_refused(saved, again):
    first = saved("a", captioned("1", "val"), captioned("2"))
    with pytest.raises(UsageError, match=r"a: its split '\w+' is given 2 times"):
        merge(first, first + again)
    assert len(merge(f"{first}:val", f"{first}:train").captions) == 2


@pytest.mark.parametrize("root", ["pictures", "elsewhere"])
def test_pictures_of_another_dataset_are_left_out(saved, tmp_path, root):
    mine = Dataset.open(
        saved("a", captioned("1"), captioned("2"), asked("q", "1"), asked("r", "2"))
    )
    others = saved("b", captioned("1", "test"), captioned("2", "val"), root=root)
    bad = BadRows()
    prepare(mine, tmp_path / "out", without=[open_part(f"{others}:test")], bad=bad)
    kept = Dataset.open(tmp_path / "out")
    assert [one.id for one in kept.records] == ["2", "r"]
    assert bad.notes == [f"pictures left out, since {others} has them: 1"]
    with pytest.raises(DataError, match="no picture is left"):
        prepare(mine, tmp_path / "out", without=[open_part(others)])


def test_file_names_that_several_folders_have_tell_nothing(tmp_path):
    images = ["train/0.png", "test/0.png"]
    records = tuple(QuestionRecord(one, one, "Is it?", (), "train") for one in images)
    small = Dataset("easy", "easy-vqa", tmp_path / "a", questions=records)
    assert picture_keys([small, small])[0] == {one: one for one in images}
    other = Dataset("b", "table", tmp_path / "b", questions=records[:1])
    with pytest.raises(DataError, match=r"has train/0\.png and test/0\.png; expected"):
        picture_keys([small, other])
