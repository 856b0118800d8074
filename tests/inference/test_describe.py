"""A folder described: what is told, what a killed run leaves, what is never overwritten."""

import csv
import json
import math
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import pytest
from page_reader import Page

from gazetell.errors import DataError, ImageError, ModelError, UsageError, WriteError
from gazetell.inference import describe as module
from gazetell.inference.bulk import caption_many
from gazetell.inference.describe import Journal, describe, identity
from gazetell.inference.predict import Captioner


@pytest.fixture
def model(untrained):
    return Captioner(untrained(seed=2), device="cpu", precision="fp32")


@pytest.fixture
def folder(scenes_dataset, tmp_path):
    """Five pictures, some in folders below; the test's own."""
    names = ["z.png", "a/1.png", "a/2.png", "b/c/x y.png", "m,n.png"]
    for name, record in zip(names, scenes_dataset.captions, strict=False):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(scenes_dataset.path(record), path)
    return tmp_path / "pictures"


@pytest.fixture
def asked(monkeypatch):
    """The names of the pictures that were captioned."""
    names = []

    def spy(model, items, **options):
        items = list(items)
        names.extend(path.name for path in items)
        return caption_many(model, items, **options)

    monkeypatch.setattr(module, "caption_many", spy)
    return names


def table(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def pictures(path):
    return [row["picture"] for row in table(path)]


def sheet(path):
    """The rows a sheet holds."""
    page = Page(path.read_text(encoding="utf-8"))
    (data,) = [data for tag, data in page.texts if tag == "script" and data.startswith("{")]
    return json.loads(data)["rows"]


NAMES = ["a/1.png", "a/2.png", "b/c/x y.png", "m,n.png", "z.png"]


def test_a_table_tells_every_picture(model, folder, tmp_path):
    done = describe(model, folder, tmp_path / "out.csv", batch=2)
    assert (done.pictures, done.captioned, done.failed) == (5, 5, [])
    rows = table(tmp_path / "out.csv")
    assert list(rows[0]) == [
        *("picture", "caption", "alt_text", "probability", "log_prob", "ended")
    ]
    assert [row["picture"] for row in rows] == NAMES
    for row in rows:
        expected = model.caption(folder / row["picture"])
        assert row["caption"] == expected.text
        assert float(row["log_prob"]) == pytest.approx(expected.log_prob, abs=2e-3)
        assert float(row["probability"]) == pytest.approx(math.exp(expected.log_prob), rel=5e-3)
        assert row["ended"] == str(expected.ended).lower()


def test_all_three_forms_tell_the_same(model, folder, tmp_path):
    for suffix in (".csv", ".JSONL", ".html"):
        describe(model, folder, tmp_path / f"out{suffix}", max_length=4)
    lines = [json.loads(line) for line in (tmp_path / "out.JSONL").read_text().splitlines()]
    plain = table(tmp_path / "out.csv")
    for line, row in zip(lines, plain, strict=True):
        assert {name: str(value) for name, value in line.items() if name != "ended"} == {
            name: value for name, value in row.items() if name != "ended"
        }
        assert str(line["ended"]).lower() == row["ended"]
    rows = sheet(tmp_path / "out.html")
    assert rows == sorted(rows, key=lambda row: row["log_prob"])  # least sure first
    assert {(row["picture"], row["caption"]) for row in rows} == {
        (row["picture"], row["alt_text"]) for row in plain
    }
    assert all(row["thumb"].startswith("data:image/") for row in rows)


def test_what_is_done_is_left_out(model, folder, tmp_path, asked):
    out = tmp_path / "out.csv"
    describe(model, folder, out)
    first = out.read_text()
    del asked[:]
    before = out.stat().st_mtime_ns
    assert describe(model, folder, out).captioned == 0
    assert asked == []
    assert out.stat().st_mtime_ns == before
    # One changed, one new, one gone.
    shutil.copy(folder / "z.png", folder / "a/2.png")
    shutil.copy(folder / "z.png", folder / "new.png")
    (folder / "m,n.png").unlink()
    assert describe(model, folder, out).captioned == 2
    assert sorted(asked) == ["2.png", "new.png"]
    assert pictures(out) == ["a/1.png", "a/2.png", "b/c/x y.png", "new.png", "z.png"]
    rows = {row["picture"]: row["caption"] for row in table(out)}
    assert rows["a/2.png"] == rows["new.png"] == rows["z.png"]
    # The missing one is back as it was: known still.
    del asked[:]
    out.unlink()
    describe(model, folder, out)
    assert asked == []
    assert first.splitlines()[0] == out.read_text().splitlines()[0]


@pytest.mark.parametrize("suffix", [".csv", ".html"])
def test_a_killed_run_goes_on(model, folder, tmp_path, asked, monkeypatch, suffix):
    whole, out = tmp_path / f"whole{suffix}", tmp_path / f"out{suffix}"
    describe(model, folder, whole, batch=1)
    journal = tmp_path / f"out{suffix}.done.jsonl"

    for number in range(4):
        del asked[:]
        with monkeypatch.context() as patch:
            real, count = Journal.append, iter(range(9))

            def append(self, line, real=real, count=count):
                if next(count) == 1:
                    raise KeyboardInterrupt
                real(self, line)

            patch.setattr(Journal, "append", append)
            with pytest.raises(KeyboardInterrupt):
                describe(model, folder, out, batch=1)
        assert len(asked) == 5 - number
        assert not out.exists()
        # As a kill in the middle of a write leaves it.
        with journal.open("ab") as file:
            file.write(b'{"picture": "a/1.p')
    assert describe(model, folder, out, batch=1).captioned == 1
    found, expected = (re.sub(r'"key": "\w+"', "", path.read_text()) for path in (out, whole))
    assert found == expected


def test_a_journal_cut_anywhere_loses_its_last_line_alone(tmp_path):
    path = tmp_path / "j.jsonl"
    lines = [{"format": 1}, {"picture": "é.png"}, {"picture": "b\n\u2028.png"}]
    Journal(path).begin(lines[:1])
    for line in lines[1:]:
        Journal(path).append(line)
    content = path.read_bytes()
    ends = [n + 1 for n, byte in enumerate(content) if byte == 10]
    for cut in range(len(content) + 1):
        path.write_bytes(content[:cut])
        journal = Journal(path)
        journal.resume()
        kept = sum(end <= cut for end in ends)
        assert journal.lines == lines[:kept]
        journal.append({"more": 1})
        again = Journal(path)
        again.resume()
        assert again.lines == [*lines[:kept], {"more": 1}]


def test_a_last_line_of_anything_is_cut_away_and_an_earlier_one_is_told(tmp_path):
    path = tmp_path / "j.jsonl"
    path.write_bytes(b'{"a": 1}\n\0\0\0\0\n')
    journal = Journal(path)
    journal.resume()
    assert journal.lines == [{"a": 1}]
    assert path.read_bytes() == b'{"a": 1}\n'
    path.write_bytes(b'{"a": 1}\n[2]\n{"a": 3}\n')
    with pytest.raises(DataError, match=r"j\.jsonl:2: is damaged"):
        Journal(path).resume()


def test_a_bad_picture_spoils_no_other_and_is_tried_again(model, folder, tmp_path, asked):
    good = (folder / "a/1.png").read_bytes()
    (folder / "a/1.png").write_bytes(good[:50])
    (folder / "lost.png").symlink_to(folder / "nowhere.png")
    out = tmp_path / "out.html"
    done = describe(model, folder, out)
    assert (done.pictures, done.captioned) == (6, 4)
    assert [type(error) for error in done.failed] == [ImageError, ImageError]
    assert "a/1.png" in str(done.failed[0])
    assert "lost.png" in str(done.failed[1])
    assert sorted(row["picture"] for row in sheet(out)) == NAMES[1:]
    assert "2 pictures are not on this sheet" in out.read_text()
    (folder / "a/1.png").write_bytes(good)
    (folder / "lost.png").unlink()
    del asked[:]
    assert describe(model, folder, out).failed == []
    assert asked == ["1.png"]
    assert sorted(row["picture"] for row in sheet(out)) == NAMES
    assert "not on this sheet" not in out.read_text()
    # A picture that was good and no longer is: its caption is not told of what nobody can see.
    (folder / "z.png").write_bytes(b"")
    assert len(describe(model, folder, out).failed) == 1
    assert sorted(row["picture"] for row in sheet(out)) == NAMES[:-1]


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX alone")
def test_a_name_that_no_file_can_hold_is_told(model, folder, tmp_path):
    try:
        shutil.copy(folder / "z.png", os.fsencode(folder) + b"/\xff.png")
    except OSError:
        pytest.skip("this file system refuses such names")
    done = describe(model, folder, tmp_path / "out.csv")
    assert pictures(tmp_path / "out.csv") == NAMES
    (error,) = done.failed
    assert "is not UTF-8" in str(error)
    str(error).encode()


def test_what_a_spreadsheet_would_run_is_text(model, folder, tmp_path):
    shutil.copy(folder / "z.png", folder / "=cmd|' &A1.png")
    describe(model, folder, tmp_path / "out.csv")
    assert pictures(tmp_path / "out.csv")[0] == "'=cmd|' &A1.png"
    describe(model, folder, tmp_path / "out.jsonl")
    first = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])
    assert first["picture"] == "=cmd|' &A1.png"


@pytest.mark.skipif(os.name != "posix", reason="no such names")
def test_a_name_that_breaks_a_table_is_told(model, folder, tmp_path):
    shutil.copy(folder / "z.png", folder / "a\rb.png")
    (error,) = describe(model, folder, tmp_path / "out.csv").failed
    assert "its name holds a line end" in str(error)
    assert pictures(tmp_path / "out.csv") == NAMES


@pytest.mark.parametrize(
    ("caption", "ended", "expected"),
    [
        ("a dog on grass", True, "A dog on grass."),
        ("a dog on the", False, "A dog on the\u2026"),
        ("is it a dog ?", True, "Is it a dog ?"),
        ("\u4e00 \u53ea \u72d7", True, "\u4e00 \u53ea \u72d7\u3002"),
        ("", True, ""),
    ],
)
def test_alt_text_is_a_sentence(caption, ended, expected):
    assert module.sentence(caption, ended) == expected


def test_what_was_cut_found_empty_or_gone_is_counted(model, folder, tmp_path, monkeypatch):
    out = tmp_path / "out.csv"
    texts = iter(["", "a", "b", "c", "d"])

    def some(*args, **options):
        for item, caption in caption_many(*args, **options):
            text = next(texts)
            yield item, replace(caption, text=text, ended=text not in "ab")

    monkeypatch.setattr(module, "caption_many", some)
    done = describe(model, folder, out)
    assert (done.cut, done.empty, done.gone) == (3, 1, 0)  # "" is in "ab"
    (folder / "z.png").unlink()
    (folder / "m,n.png").unlink()
    done = describe(model, folder, out)
    assert (done.pictures, done.captioned, done.gone) == (3, 0, 2)


@pytest.mark.parametrize("name", ["two  blanks", "a#b?c%20", "caf\u00e9"])
def test_a_sheet_links_to_its_pictures_whatever_the_folder_is_called(model, folder, tmp_path, name):
    (tmp_path / "sheets").mkdir()
    folder = folder.rename(tmp_path / name)
    describe(model, folder, tmp_path / "sheets" / "out.html")
    page = Page((tmp_path / "sheets" / "out.html").read_text(encoding="utf-8"))
    (data,) = [data for tag, data in page.texts if tag == "script" and data.startswith("{")]
    assert unquote(json.loads(data)["base"]) == f"../{name}"
    # The journal tells folders apart that differ in blanks alone.
    shutil.copytree(folder, tmp_path / "two blanks")
    if name == "two  blanks":
        with pytest.raises(UsageError, match="begun with the folder"):
            describe(model, tmp_path / "two blanks", tmp_path / "sheets" / "out.html")


def test_a_model_that_gives_no_probability_is_refused(model, folder, tmp_path):
    model.decoder.captioners[0].head[-1].bias.data[:] = math.nan
    with pytest.raises(ModelError, match="weights are damaged"):
        describe(model, folder, tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


def test_another_precision_is_told(model, untrained, folder, tmp_path, caplog):
    describe(model, folder, tmp_path / "out.csv")
    other = Captioner(untrained(seed=2), device="cpu", precision="bf16")
    (folder / "z.png").unlink()
    describe(other, folder, tmp_path / "out.csv")
    (line,) = caplog.messages
    assert "captions made before are in fp32, new ones in bf16" in line


def other_model(model, folder, out, untrained):
    return Captioner(untrained(seed=3), device="cpu", precision="fp32"), folder, out, {}


def other_options(model, folder, out, untrained):
    return model, folder, out, {"beam": 1, "max_length": 7}


def other_folder(model, folder, out, untrained):
    return model, folder / "a", out, {}


def foreign_output(model, folder, out, untrained):
    (out.parent / "mine.csv").write_text("mine")
    return model, folder, out.parent / "mine.csv", {}


def edited_output(model, folder, out, untrained):
    out.write_text(out.read_text().replace("a", "A"))
    return model, folder, out, {}


def damaged_journal(model, folder, out, untrained):
    journal = out.parent / "out.csv.done.jsonl"
    journal.write_text("{\n" + journal.read_text())
    return model, folder, out, {}


def line_without_caption(model, folder, out, untrained):
    journal = out.parent / "out.csv.done.jsonl"
    journal.write_text(journal.read_text().replace('"caption": ', '"other": '))
    return model, folder, out, {}


def other_version(model, folder, out, untrained):
    (out.parent / "out.csv.done.jsonl").write_text('{"format": 99}\n')
    return model, folder, out, {}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (other_model, r"out\.csv: was begun with another model; .*--again"),
        (other_options, r"begun with beam 3 \(now 1\), max_length 20 \(now 7\); .*--again"),
        (other_folder, r"begun with the folder pictures; .*--again"),
        (foreign_output, r"mine\.csv: is there, and not from gazetell describe .*--again"),
        (edited_output, r"was changed since gazetell wrote it; rename it .*--again"),
        (damaged_journal, r"out\.csv\.done\.jsonl:1: is damaged .*--again"),
        (line_without_caption, r"out\.csv\.done\.jsonl:2: is damaged .*--again"),
        (other_version, r"is no journal of this version; .*--again"),
    ],
)
def test_what_somebody_may_want_to_keep_is_not_overwritten(
    model, folder, tmp_path, untrained, change, said
):
    describe(model, folder, tmp_path / "out.csv")
    model, folder, out, options = change(model, folder, tmp_path / "out.csv", untrained)
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    with pytest.raises((UsageError, DataError), match=said):
        describe(model, folder, out, **options)
    assert before == {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    done = describe(model, folder, out, again=True, **options)
    assert done.captioned == done.pictures == len(pictures(out))
    # And from there on it is a run like any other.
    assert describe(model, folder, out, **options).captioned == 0


def test_a_run_begun_again_and_killed_goes_on_without_again(model, folder, tmp_path, monkeypatch):
    out = tmp_path / "out.csv"
    out.write_text("mine")

    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "caption_many", killed)
        with pytest.raises(KeyboardInterrupt):
            describe(model, folder, out, again=True)
    assert out.read_text() == "mine"
    describe(model, folder, out)
    assert pictures(out) == NAMES


@pytest.mark.parametrize(
    ("out", "where", "said"),
    [
        ("out.txt", ".", r"--out .*out\.txt: expected a name that ends in \.csv, \.jsonl, \.html"),
        ("out", ".", "expected a name"),
        ("dir.csv", ".", r"dir\.csv: is a folder"),
        ("out.csv", "nowhere", "nowhere: is no folder"),
        ("out.csv", "z.png", r"z\.png: is no folder"),
        ("out.csv", "none", "none: no pictures"),
    ],
)
def test_what_cannot_be_done_leaves_nothing(model, folder, tmp_path, out, where, said):
    (tmp_path / "dir.csv").mkdir()
    (folder / "none").mkdir()
    with pytest.raises((UsageError, DataError), match=said):
        describe(model, folder / where, tmp_path / out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dir.csv", "pictures"]


def test_a_full_disk_costs_no_captions(model, folder, tmp_path, monkeypatch):
    out = tmp_path / "out.csv"
    real = os.replace

    def full(source, target):
        if Path(target) == out:
            raise OSError(28, "No space left on device")
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", full)
        with pytest.raises(WriteError, match=r"out\.csv: cannot be written: No space"):
            describe(model, folder, out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv.done.jsonl", "pictures"]
    assert describe(model, folder, out).captioned == 0
    assert pictures(out) == NAMES


def test_all_may_be_moved_together(model, folder, tmp_path, asked):
    home = tmp_path / "home"
    home.mkdir()
    shutil.move(folder, home / "pictures")
    describe(model, home / "pictures", home / "out.csv")
    shutil.move(home, tmp_path / "moved")
    del asked[:]
    describe(model, tmp_path / "moved/pictures", tmp_path / "moved/out.csv")
    assert asked == []


def test_a_model_is_known_by_what_it_says(untrained):
    def load(*seeds):
        return Captioner(*(untrained(seed=seed) for seed in seeds), device="cpu", precision="fp32")

    assert identity(load(2)) == identity(load(2))
    other = load(2)
    other.captioner.head[-1].bias.data[3] += 1e-3
    assert identity(other) != identity(load(2))
    members = [untrained(seed=2), untrained(seed=2)]
    assert identity(Captioner(*members, device="cpu")) != identity(load(2))
