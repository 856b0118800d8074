"""A folder described: what is told, what a killed run leaves, what is never overwritten."""

import csv
import json
import math
import os
import re
import shutil
from pathlib import Path
from urllib.parse import unquote

import pytest
from page_reader import Page

from gazetell.errors import DataError, ImageError, UsageError, WriteError
from gazetell.inference.describe import Describer, Here, describe, identity
from gazetell.inference.outputs import Journal, sentence
from gazetell.inference.predict import Captioner

NAMES = ["a/1.png", "a/2.png", "b/c/x y.png", "m,n.png", "z.png"]


def load(untrained, *seeds, precision="fp32"):
    return Captioner(*(untrained(seed=s) for s in seeds), device="cpu", precision=precision)


@pytest.fixture
def model(untrained):
    return load(untrained, 2)


@pytest.fixture
def folder(scenes_dataset, tmp_path):
    """Five pictures, some in folders below; the test's own."""
    for name, record in zip(NAMES, scenes_dataset.captions, strict=False):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(scenes_dataset.path(record), path)
    return tmp_path / "pictures"


@pytest.fixture
def asked(monkeypatch):
    """The names of the pictures that were captioned."""
    names = []

    real = Describer.rows

    def spy(self, items):
        items = list(items)
        names.extend(Path(item.name).name for item in items)
        return real(self, items)

    monkeypatch.setattr(Describer, "rows", spy)
    return names


def table(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def pictures(path):
    return [row["picture"] for row in table(path)]


def sheet(path):
    """What a sheet holds for its script."""
    page = Page(path.read_text(encoding="utf-8"))
    return json.loads(next(d for tag, d in page.texts if tag == "script" and d.startswith("{")))


def names_on(path):
    return sorted(row["picture"] for row in sheet(path)["rows"])


# What is told


def test_all_three_forms_tell_every_picture(model, folder, tmp_path):
    done = describe(model, folder, tmp_path / "out.csv", batch=2)
    assert (done.pictures, done.captioned, done.failed) == (5, 5, [])
    rows = table(tmp_path / "out.csv")
    columns = ["picture", "caption", "alt_text", "confidence", "sure", "probability", "log_prob"]
    assert list(rows[0]) == [*columns, "ended", "unfamiliar", "model"]
    assert [row["picture"] for row in rows] == NAMES
    for row in rows:
        expected = model.caption(folder / row["picture"])
        assert row["caption"] == expected.text
        assert float(row["log_prob"]) == pytest.approx(expected.log_prob, abs=2e-3)
        assert float(row["probability"]) == pytest.approx(math.exp(expected.log_prob), rel=5e-3)
        assert row["ended"] == str(expected.ended).lower()
    for suffix in (".JSONL", ".html"):
        describe(model, folder, tmp_path / f"out{suffix}")
    lines = [json.loads(line) for line in (tmp_path / "out.JSONL").read_text().splitlines()]
    assert [{n: str(v) for n, v in line.items()} for line in lines] == [
        row
        | {"ended": row["ended"].title()}
        | dict.fromkeys(("confidence", "sure", "unfamiliar"), "None")
        for row in rows
    ]
    told = sheet(tmp_path / "out.html")["rows"]
    assert told == sorted(told, key=lambda row: row["log_prob"])  # least sure first
    assert {(r["picture"], r["caption"]) for r in told} == {
        (r["picture"], r["alt_text"]) for r in rows
    }
    assert all(row["thumb"].startswith("data:image/webp") for row in told)


def test_confidences_stand_in_the_table_and_order_the_sheet(
    untrained, confidence, folder, tmp_path
):
    model = Captioner(untrained(seed=2, confidence=confidence()), device="cpu", precision="fp32")
    describe(model, folder, tmp_path / "out.csv")
    for row in table(tmp_path / "out.csv"):
        expected = model.caption(folder / row["picture"]).confidence
        assert float(row["confidence"]) == pytest.approx(expected, abs=1e-3)
    describe(model, folder, tmp_path / "out.html")
    rows = sheet(tmp_path / "out.html")["rows"]
    assert rows == sorted(rows, key=lambda row: row["confidence"])
    assert all(row["sure"] is (row["confidence"] >= 0.5) for row in rows)
    # A confidence that was fitted in the meantime is another model's.
    model.confidence = confidence(bias=0.3)
    with pytest.raises(UsageError, match="another model"):
        describe(model, folder, tmp_path / "out.csv")


@pytest.mark.parametrize(
    ("caption", "ended", "expected"),
    [
        ("a dog on grass", True, "A dog on grass."),
        ("a dog on the", False, "A dog on the…"),
        ("is it a dog ?", True, "Is it a dog ?"),
        ("一 只 狗", True, "一 只 狗。"),
        ("개 한 마리", True, "개 한 마리."),
        ('a sign that says "Stop!"', True, 'A sign that says "Stop!"'),
        ("", True, ""),
    ],
)
def test_alt_text_is_a_sentence(caption, ended, expected):
    assert sentence(caption, ended) == expected


def test_what_a_spreadsheet_would_run_is_text(model, folder, tmp_path):
    shutil.copy(folder / "z.png", folder / "=cmd|' &A1.png")
    describe(model, folder, tmp_path / "out.csv")
    (name,) = [name for name in pictures(tmp_path / "out.csv") if "cmd" in name]
    assert name == "./=cmd|' &A1.png"
    assert (folder / name).is_file()
    describe(model, folder, tmp_path / "out.jsonl")
    first = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])
    assert first["picture"] == "=cmd|' &A1.png"


def test_an_interrupt_ends_the_engine_at_once(model, folder, tmp_path, monkeypatch):
    class Engine(Here):
        def __call__(self, *work):
            try:
                yield from super().__call__(*work)
            finally:
                ended.append(True)

    def interrupt(self, line):
        raise KeyboardInterrupt

    ended = []
    monkeypatch.setattr(Journal, "append", interrupt)
    with pytest.raises(KeyboardInterrupt) as kept:  # with all frames of the call
        describe(model, folder, tmp_path / "out.csv", engine=Engine(model))
    assert ended, kept


def test_for_a_web_site_texts_are_escaped_and_addresses_whole(
    untrained, confidence, folder, tmp_path, monkeypatch, caplog
):
    fitted = untrained(seed=2, confidence=confidence(threshold=0.99999))
    model = Captioner(fitted, device="cpu", precision="fp32")
    odd = ["says \"<b> & 'co'\"", "-2 degrees", "", "a, b", "a red ring"]
    real = Describer._row

    def said(self, name, *rest):
        return real(self, name, *rest) | {"caption": odd[NAMES.index(name)]}

    monkeypatch.setattr(Describer, "_row", said)
    texts = [sentence(caption, True) for caption in odd if caption]
    names = [name for name, caption in zip(NAMES, odd, strict=True) if caption]
    describe(model, folder, tmp_path / "alt.img.html", max_length=30)
    tags = Page((tmp_path / "alt.img.html").read_text(encoding="utf-8")).all("img")
    assert [tag["alt"] for tag in tags] == texts
    assert [unquote(tag["src"]) for tag in tags] == [f"pictures/{name}" for name in names]
    assert all((tmp_path / unquote(tag["src"])).is_file() for tag in tags)
    lines = (tmp_path / "alt.img.html").read_text(encoding="utf-8").splitlines()[3:]
    assert all(line.endswith("> <!-- not sure -->") for line in lines)
    assert "captions that the model is not sure of, read them first: 5" in caplog.text
    out, url = tmp_path / "alt.wordpress.csv", "https://x.org/wp-content/uploads/"
    describe(model, folder, out, url=url, max_length=30)
    with out.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["Image URL", "Alt Text"]
    assert [(unquote(a), b) for a, b in rows[1:]] == [
        (url + name, text) for name, text in zip(names, texts, strict=True)
    ]
    assert " " not in rows[3][0]


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX alone")
@pytest.mark.parametrize(
    ("name", "why"), [(b"\xff.png", "is not UTF-8"), (b"a\rb.png", "line break")]
)
def test_a_name_that_no_table_can_hold_is_told(model, folder, tmp_path, name, why):
    try:
        shutil.copy(folder / "z.png", os.fsencode(folder) + b"/" + name)
    except OSError:
        pytest.skip("this file system refuses such names")
    (error,) = describe(model, folder, tmp_path / "out.csv").failed
    assert why in str(error)
    str(error).encode()
    assert pictures(tmp_path / "out.csv") == NAMES


def test_a_bad_picture_spoils_no_other_and_is_tried_again(model, folder, tmp_path, asked):
    good, out = (folder / "a/1.png").read_bytes(), tmp_path / "out.html"
    (folder / "a/1.png").write_bytes(good[:50])
    (folder / "lost.png").symlink_to(folder / "nowhere.png")
    done = describe(model, folder, out)
    assert (done.pictures, done.captioned) == (6, 4)
    assert all(name in str(e) for name, e in zip(("1.png", "lost"), done.failed, strict=True))
    assert names_on(out) == NAMES[1:]
    assert "2 pictures are not on this sheet" in out.read_text()
    (folder / "a/1.png").write_bytes(good)
    (folder / "lost.png").unlink()
    del asked[:]
    assert describe(model, folder, out).failed == []
    assert asked == ["1.png"]
    assert names_on(out) == NAMES
    assert "not on this sheet" not in out.read_text()
    # A picture that was good and no longer is: its caption is not told of what nobody can see.
    (folder / "z.png").write_bytes(b"")
    assert len(describe(model, folder, out).failed) == 1
    assert names_on(out) == NAMES[:-1]


@pytest.mark.parametrize("name", ["two  blanks", "a#b?c%20", "café"])
def test_a_sheet_links_to_its_pictures_whatever_the_folder_is_called(model, folder, tmp_path, name):
    folder, out = folder.rename(tmp_path / name), tmp_path / "sheets" / "out.html"
    describe(model, folder, out)
    assert unquote(sheet(out)["base"]) == f"../{name}"
    other = tmp_path / name.replace("  ", " ").replace("#", "").replace("é", "e")
    shutil.copytree(folder, other)
    with pytest.raises(UsageError, match="begun with the folder"):
        describe(model, other, out)


def test_a_list_of_pictures_is_taken_and_its_names_have_one_folder(model, folder, tmp_path, asked):
    out = tmp_path / "out.csv"
    describe(model, [folder / "a/2.png", str(folder / "b/c/x y.png")], out)
    assert pictures(out) == ["a/2.png", "b/c/x y.png"]
    assert describe(model, [folder / name for name in NAMES[:3]], out).captioned == 1
    assert asked == ["2.png", "x y.png", "1.png"]
    for wrong, said in (([], "or a list of"), ([b"x"], "b'x': expected the path"), (5, "5: expe")):
        with pytest.raises(UsageError, match=said):
            describe(model, wrong, out)
    with pytest.raises(UsageError, match="has no effect on a list"):
        describe(model, [folder / "z.png"], tmp_path / "out", column="x")


# What is done is not done again


def test_what_is_done_is_left_out(model, folder, tmp_path, asked):
    out = tmp_path / "out.csv"
    describe(model, folder, out)
    before = out.stat().st_mtime_ns
    del asked[:]
    assert describe(model, folder, out).captioned == 0
    assert asked == []
    assert out.stat().st_mtime_ns == before
    # One changed, one new, one gone.
    shutil.copy(folder / "z.png", folder / "a/2.png")
    shutil.copy(folder / "z.png", folder / "new.png")
    (folder / "m,n.png").unlink()
    done = describe(model, folder, out)
    assert (done.captioned, done.gone) == (2, 1)
    assert sorted(asked) == ["2.png", "new.png"]
    assert pictures(out) == ["a/1.png", "a/2.png", "b/c/x y.png", "new.png", "z.png"]
    rows = {row["picture"]: row["caption"] for row in table(out)}
    assert rows["a/2.png"] == rows["new.png"] == rows["z.png"]
    # All may be moved together.
    (tmp_path / "moved").mkdir()
    for path in (folder, out, tmp_path / "out.csv.done.jsonl"):
        shutil.move(path, tmp_path / "moved")
    del asked[:]
    describe(model, tmp_path / "moved/pictures", tmp_path / "moved/out.csv")
    assert asked == []


def test_what_was_cut_or_found_empty_is_counted(model, folder, tmp_path, monkeypatch):
    told = iter([("", True), ("a", False), ("b", False), ("c", True), ("d", True)])
    real = Describer.rows

    def some(self, items):
        for row in real(self, items):
            text, ended = next(told)
            yield row | {"caption": text, "ended": ended}

    monkeypatch.setattr(Describer, "rows", some)
    done = describe(model, folder, tmp_path / "out.csv")
    assert (done.cut, done.empty) == (2, 1)


@pytest.mark.parametrize("suffix", [".csv", ".html"])
def test_a_killed_run_goes_on(model, folder, tmp_path, asked, monkeypatch, suffix):
    whole, out = tmp_path / f"whole{suffix}", tmp_path / f"out{suffix}"
    describe(model, folder, whole, batch=1)
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
        with (tmp_path / f"out{suffix}.done.jsonl").open("ab") as file:
            file.write(b'{"picture": "a/1.p')
    assert describe(model, folder, out, batch=1).captioned == 1
    found, expected = (re.sub(r'"key": "\w+"', "", p.read_text()) for p in (out, whole))
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
        path.write_bytes(content[:cut] + b"\0\0\n" * (cut == len(content)))
        journal, again = Journal(path), Journal(path)
        journal.resume()
        kept = lines[: sum(end <= cut for end in ends)]
        assert journal.lines == kept
        journal.append({"more": 1})
        again.resume()
        assert again.lines == [*kept, {"more": 1}]


def test_a_run_begun_again_and_killed_goes_on_without_again(model, folder, tmp_path, monkeypatch):
    out = tmp_path / "out.csv"
    out.write_text("mine")

    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Describer, "rows", killed)
        with pytest.raises(KeyboardInterrupt):
            describe(model, folder, out, again=True)
    assert out.read_text() == "mine"
    describe(model, folder, out)
    assert pictures(out) == NAMES


def test_a_full_disk_costs_no_captions(model, folder, tmp_path, monkeypatch):
    out, real = tmp_path / "out.csv", os.replace

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


# What is never overwritten, or mixed without a word


def edit(path, old, new):
    path.write_text(path.read_text().replace(old, new))


DONE = r"out\.csv\.done\.jsonl"
CHANGES = {
    "model": (r"out\.csv: was begun with another model", None),
    "options": (r"begun with beam 3 \(now 1\), max_length 20 \(now 7\)", None),
    "folder": (r"begun with the folder pictures", None),
    "foreign": (
        r"already exists and is not from gazetell describe",
        lambda out, done: done.unlink(),
    ),
    "edited": (r"was changed since gazetell wrote it; rename", lambda out, _: edit(out, "a", "A")),
    "damaged": (DONE + ":1: is damaged", lambda _, done: edit(done, '{"format"', '{\n{"format"')),
    "line": (DONE + ":2: is damaged", lambda _, done: edit(done, '"caption": ', '"other": ')),
    "version": (r"is not a journal of this version", lambda _, done: edit(done, '": 1,', '": 99,')),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_somebody_may_want_to_keep_is_not_overwritten(
    model, folder, tmp_path, untrained, change
):
    out, (said, damage) = tmp_path / "out.csv", CHANGES[change]
    describe(model, folder, out)
    if damage:
        damage(out, tmp_path / "out.csv.done.jsonl")
    model = load(untrained, 3) if change == "model" else model
    folder = folder / "a" if change == "folder" else folder
    options = {"beam": 1, "max_length": 7} if change == "options" else {}
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    with pytest.raises((UsageError, DataError), match=f"{said}.*--again"):
        describe(model, folder, out, **options)
    assert before == {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    done = describe(model, folder, out, again=True, **options)
    assert done.captioned == done.pictures == len(pictures(out))
    # And from there on it is a run like any other.
    assert describe(model, folder, out, **options).captioned == 0


def test_another_precision_is_told(model, untrained, folder, tmp_path, caplog):
    describe(model, folder, tmp_path / "out.csv")
    other = load(untrained, 2, precision="bf16")
    describe(other, folder, tmp_path / "out.csv")
    assert "captions made before are in fp32, new ones in bf16" in "".join(caplog.messages)


@pytest.mark.parametrize(
    ("out", "where", "said"),
    [
        ("out.txt", ".", r"--out .*out\.txt: expected a name that ends in \.csv, \.jsonl, \.html"),
        ("dir.csv", ".", r"dir\.csv: is a folder"),
        ("out.csv", "nowhere", "nowhere: does not exist"),
        ("out.csv", "z.png", r"z\.png: is a file; for single pictures use gazetell caption"),
        ("out.csv", "none", "none: no pictures"),
    ],
)
def test_what_cannot_be_done_leaves_nothing(model, folder, tmp_path, out, where, said):
    (tmp_path / "dir.csv").mkdir()
    (folder / "none").mkdir()
    with pytest.raises((UsageError, ImageError), match=said):
        describe(model, folder / where, tmp_path / out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dir.csv", "pictures"]


def test_a_model_is_known_by_what_it_says(untrained):
    assert identity(load(untrained, 2)) == identity(load(untrained, 2))
    other = load(untrained, 2)
    other.captioner.head[-1].bias.data[3] += 1e-3
    assert identity(other) != identity(load(untrained, 2)) != identity(load(untrained, 2, 2))
