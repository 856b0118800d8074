"""Many pictures, wherever they lie, into parts: each once, whatever happens on the way."""

import io
import json
import shutil
import tarfile

import pytest
import torch

from gazetell.errors import DataError, ImageError, UsageError, WriteError
from gazetell.inference import describe as module
from gazetell.inference import sources
from gazetell.inference.describe import Describer, describe
from gazetell.inference.outputs import Parts
from gazetell.inference.predict import Captioner
from gazetell.inference.sources import open_source

arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra cluster)")
parquet = pytest.importorskip("pyarrow.parquet")

NAMES = ["a/1.png", "a/2.png", "b/c/x y.png", "m,n.png", "z.png"]
ASKED = ["what is it ?", "how many ?"]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(sources, "SMALLEST", 2)


@pytest.fixture
def model(untrained, confidence):
    fitted = untrained(seed=2, confidence=confidence())
    return Captioner(fitted, device="cpu", precision="fp32")


@pytest.fixture
def home(scenes_dataset, tmp_path, monkeypatch):
    """Five pictures, and the same as Parquet and as tars; the test's own."""
    for name, record in zip(NAMES, scenes_dataset.captions, strict=False):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(scenes_dataset.path(record), path)
    contents = [(tmp_path / "pictures" / name).read_bytes() for name in NAMES]
    # As Hugging Face writes them; one whose bytes lie beside, and none that a name tells apart.
    structs = [{"bytes": content, "path": "same.png"} for content in contents]
    structs[1] = {"bytes": None, "path": f"../pictures/{NAMES[1]}"}
    paths = [f"../pictures/{name}" for name in NAMES]
    (tmp_path / "tables").mkdir()
    columns = {"bytes": contents, "image": structs, "path": paths, "number": range(5)}
    table = arrow.table({name: list(column) for name, column in columns.items()})
    for number, part in enumerate((table.slice(0, 3), table.slice(3))):
        parquet.write_table(part, tmp_path / f"tables/{number}.parquet", row_group_size=2)
    (tmp_path / "tables/_SUCCESS").write_text("")
    (tmp_path / "shards").mkdir()
    for number, some in enumerate((range(3), range(3, 5))):
        with tarfile.open(tmp_path / f"shards/{number}.tar", "w") as tar:
            for n in some:
                for name, content in ((f"{n}.png", contents[n]), (f"{n}.txt", b"a caption")):
                    about = tarfile.TarInfo(name)
                    about.size = len(content)
                    tar.addfile(about, io.BytesIO(content))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows_in(folder):
    """The rows of all parts, in order."""
    rows = []
    for path in sorted(folder.glob("part-*")):
        if path.suffix == ".jsonl":
            rows += [json.loads(line) for line in path.read_text().splitlines()]
        else:
            rows += parquet.read_table(path).to_pylist()
    return rows


TARS = ["0.tar/0.png", "0.tar/1.png", "0.tar/2.png", "1.tar/3.png", "1.tar/4.png"]
ROWS = [f"{file}.parquet#{row}" for file in (0, 1) for row in range(3 - file)]
SOURCES = {
    "folder": ("pictures", None, NAMES),
    "pattern": ("pictures/**/*.png", None, NAMES),
    "address": ("file://{}/pictures", None, NAMES),
    "bytes": ("tables", "bytes", ROWS),
    "struct": ("tables/*.parquet", "image", ROWS),
    "paths": ("tables", "path", [f"../pictures/{name}" for name in NAMES]),
    "tars": ("shards/*.tar", None, TARS),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_every_source_gives_a_row_a_picture(model, home, kind):
    source, column, names = SOURCES[kind]
    done = describe(model, source.format(home), "out", column=column, batch=2)
    assert (done.pictures, done.captioned, done.failed) == (5, 5, [])
    rows = rows_in(home / "out")
    assert [row["picture"] for row in rows] == names
    for name, row in zip(NAMES, rows, strict=True):
        expected = model.caption(home / "pictures" / name)
        assert row["caption"] == expected.text
        assert row["log_prob"] == pytest.approx(expected.log_prob, abs=2e-3)
        assert row["confidence"] == pytest.approx(expected.confidence, abs=1e-3)
        assert (row["sure"], row["ended"]) == (expected.sure, expected.ended)
        assert row["error"] is None
    # What is done is not done again, also where an earlier version did not know an option.
    manifest = home / "out/_gazetell.json"
    manifest.write_text(manifest.read_text().replace('"beam_groups": 1,', ""))
    again = describe(model, source.format(home), "out", column=column)
    assert (again.pictures, again.captioned) == (5, 0)
    assert rows_in(home / "out") == rows
    # Nor does it get other columns than it began with.
    begun = json.loads(manifest.read_text())
    assert begun.pop("columns") == list(rows[0])
    manifest.write_text(json.dumps(begun))
    next((home / "out").glob("part-00000.*")).unlink()
    describe(model, source.format(home), "out", column=column)
    assert list(rows_in(home / "out")[0]) == [name for name in rows[0] if name != "model"]


def test_addresses_are_read_through_their_file_system(model, home, monkeypatch):
    """As of s3://, pictures are fetched as bytes; a table may be made of them, a sheet not."""
    from pyarrow import fs

    inside = fs.SubTreeFileSystem(str(home), fs.LocalFileSystem())
    monkeypatch.setattr(
        sources, "file_system", lambda address: (inside, address.removeprefix("s3://"))
    )
    describe(model, "s3://pictures", home / "out.jsonl")
    rows = [json.loads(line) for line in (home / "out.jsonl").read_text().splitlines()]
    assert [row["picture"] for row in rows] == NAMES
    assert [row["caption"] for row in rows] == [
        model.caption(home / "pictures" / name).text for name in NAMES
    ]
    assert len(open_source("s3://pictures/*/?.png").entries) == 2
    with pytest.raises(UsageError, match="a sheet takes pictures on this machine"):
        describe(model, "s3://pictures", home / "out.html")
    with pytest.raises(DataError, match="s3://nothing: does not exist"):
        open_source("s3://nothing")
    with pytest.raises(ImageError, match="nothing there that ends in"):
        open_source("s3://shards")


def test_both_formats_have_one_schema_answers_and_errors(model, build, home):
    (home / "pictures/a/2.png").write_bytes(b"no picture")
    how = {"answerer": build(), "questions": ASKED, "batch": 2}
    for out in ("out.parquet", "lines.jsonl/"):
        done = describe(model, "pictures", out, **how)
        assert (done.pictures, done.captioned, len(done.failed)) == (5, 4, 1)
    rows = rows_in(home / "out.parquet")
    assert rows == rows_in(home / "lines.jsonl")
    names = ["picture", "caption", "confidence", "sure", "log_prob", "ended", "unfamiliar", "model"]
    for question in ASKED:
        names += [question, f"{question} (confidence)", f"{question} (sure)"]
    assert list(rows[0]) == [*names, "error"]
    schemas = {parquet.read_schema(path) for path in (home / "out.parquet").glob("part-*")}
    assert len(schemas) == 1
    (failed,) = [dict(row) for row in rows if row["error"]]
    assert (failed.pop("picture"), failed.pop("caption")) == ("a/2.png", "")
    assert "2.png: is not a picture" in failed.pop("error")
    assert set(failed.values()) == {None}
    for row in (row for row in rows if not row["error"]):
        for answer in build().ask_all(home / "pictures" / row["picture"], ASKED):
            assert row[answer.question] == answer.text
            sure = row[f"{answer.question} (confidence)"]
            assert sure == pytest.approx(answer.confidence, abs=1e-3)
            assert row[f"{answer.question} (sure)"] is not answer.abstained
    # A table has the same answers.
    describe(model, "pictures", "out.jsonl", **how)
    told = [json.loads(line) for line in (home / "out.jsonl").read_text().splitlines()]
    assert [row[ASKED[1]] for row in told] == [r[ASKED[1]] for r in rows if not r["error"]]


def test_bytes_that_are_no_picture_are_told_by_name(model, home):
    content = (home / "pictures/z.png").read_bytes()
    column = [content, None, content[:60], b""]
    parquet.write_table(arrow.table({"x": column}), home / "bad.parquet")
    assert len(describe(model, "bad.parquet", "out", column="x").failed) == 3
    errors = [row["error"] for row in rows_in(home / "out")]
    assert errors[0] is None
    again = describe(model, "bad.parquet", "out", column="x")
    assert (again.captioned, [str(error) for error in again.failed]) == (0, errors[1:])
    for number, why in ((1, "the column x is empty"), (2, "damaged"), (3, "is empty")):
        assert errors[number].startswith(f"bad.parquet#{number}: ")
        assert why in errors[number]


def test_a_truncated_tar_costs_what_is_lost_alone(model, home):
    path = home / "shards/0.tar"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    done = describe(model, "shards/*.tar", "out")
    rows = rows_in(home / "out")
    assert len(done.failed) == 1
    assert "0.tar" in str(done.failed[0])
    assert [row["picture"] for row in rows if not row["error"]][-2:] == TARS[-2:]


def test_members_of_a_tar_that_are_links_or_have_one_name(model, home):
    with tarfile.open(home / "shards/0.tar", "a") as tar:
        for name in ("link.png", "1.png"):
            tar.add(home / "pictures/z.png", name)
        about = tarfile.TarInfo("hard.png")
        about.type, about.linkname = tarfile.LNKTYPE, "0.png"
        tar.addfile(about)
        tar.add(home / "pictures/z.png", "last.png")
    done = describe(model, "shards/0.tar", "out")
    rows = {row["picture"]: row["error"] for row in rows_in(home / "out")}
    assert [name[6:] for name in rows][3:] == ["link.png", "1.png#2", "hard.png", "last.png"]
    assert [name for name, error in rows.items() if error] == ["0.tar/hard.png"]
    assert "is a link to 0.png in the tar" in str(done.failed[0])


def test_paths_of_a_column_that_are_none(model, home):
    paths = ["pictures/z.png", "pictures/a\0.png", "pictures/none.png"]
    column = arrow.array(paths).dictionary_encode()
    parquet.write_table(arrow.table({"x": column, "id": ["i0", "i1", "i2"]}), home / "p.parquet")
    assert describe(model, "p.parquet", "out", column="x").captioned == 1
    errors = [row["error"] for row in rows_in(home / "out")]
    assert [bool(error) for error in errors] == [False, True, True]
    assert "there is no file" in errors[2]
    with pytest.raises(
        DataError, match="column 'id': none of the files of the first 3 rows exists"
    ):
        describe(model, "p.parquet", "other", column="id")


class Killed(BaseException):
    pass


@pytest.mark.parametrize("out", ["out.parquet", "out.jsonl/"])
@pytest.mark.parametrize("kind", ["folder", "bytes", "tars"])
def test_a_killed_run_loses_nothing_and_does_nothing_twice(model, home, monkeypatch, out, kind):
    source, column, names = SOURCES[kind]
    asked, real, write = [], Describer.rows, Parts.write

    def rows(self, items):
        for row in real(self, items):
            asked.append(row["picture"])
            yield row

    monkeypatch.setattr(Describer, "rows", rows)
    with monkeypatch.context() as patch:
        kept = []

        def stops(self, number, rows):
            if kept:
                self.files.open_output_stream(f"{self.path}/.{self._name(number)}.tmp").close()
                raise Killed
            kept.extend(rows)
            write(self, number, rows)

        patch.setattr(Parts, "write", stops)
        with pytest.raises(Killed):
            describe(model, source, out, column=column)
    before = rows_in(home / out.rstrip("/"))
    assert 0 < len(before) == len(kept) < 5
    del asked[:]
    done = describe(model, source, out, column=column)
    assert (done.pictures, done.captioned) == (5, 5 - len(before))
    assert asked == names[len(before) :]
    assert [row["picture"] for row in rows_in(home / out.rstrip("/"))] == names
    assert not [*(home / out.rstrip("/")).glob(".part*")]


CHANGES = {
    "new": (DataError, r"pictures: has changed since out was begun \(pictures: 5, now 6\)"),
    "changed": (DataError, r"pictures: has changed since out was begun;"),
    "options": (UsageError, r"--out out: was begun with beam 3 \(now 1\)"),
    "model": (UsageError, r"was begun with another model"),
    "source": (UsageError, r"was begun with pictures, not with pictures/a;"),
    "damaged": (DataError, r"out/_gazetell\.json: is damaged"),
    "foreign": (UsageError, r"contains something that is not from gazetell"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_parts_of_something_else_are_not_mixed(model, home, untrained, change):
    describe(model, "pictures", "out")
    if change in ("new", "changed"):
        target = "new.png" if change == "new" else "z.png"
        shutil.copy(home / "pictures/a/1.png", home / "pictures" / target)
    if change == "model":
        model = Captioner(untrained(seed=3), device="cpu", precision="fp32")
    manifest = home / "out/_gazetell.json"
    if change == "damaged":
        manifest.write_text("{")
    if change == "foreign":
        manifest.unlink()
    options = {"beam": 1} if change == "options" else {}
    source = "pictures/a" if change == "source" else "pictures"
    before = {path: path.read_bytes() for path in (home / "out").iterdir()}
    error, said = CHANGES[change]
    with pytest.raises(error, match=said):
        describe(model, source, "out", **options)
    assert before == {path: path.read_bytes() for path in (home / "out").iterdir()}
    if change != "foreign":
        (home / "out/.part-00009.parquet.tmp").touch()  # of a run that was killed
        done = describe(model, source, "out", again=True, **options)
        assert not [*(home / "out").glob(".part*")]
        assert done.captioned == len(rows_in(home / "out")) == done.pictures


def test_a_full_disk_is_one_line_and_keeps_what_is_done(model, home, monkeypatch):
    write = Parts._put

    def full(self, name, content):
        if name.startswith("part-00001"):
            raise WriteError(f"{self.out}/{name}: cannot be written: No space left on device")
        write(self, name, content)

    with monkeypatch.context() as patch:
        patch.setattr(Parts, "_put", full)
        with pytest.raises(WriteError, match="No space left"):
            describe(model, "pictures", "out")
    assert len(rows_in(home / "out")) == 2
    assert describe(model, "pictures", "out").captioned == 3
    (home / "file").write_text("")
    with pytest.raises(WriteError, match="file/out"):
        describe(model, "pictures", "file/out")


MISTAKES = {
    "no column": ("tables/0.parquet", "out", {}, r"expected --column"),
    "other": ("tables", "out", {"column": "x"}, r"has no column 'x'; expected one of bytes, image"),
    "type": ("tables", "out", {"column": "number"}, r"column 'number' is int64; expected bytes"),
    "tar column": ("shards/0.tar", "out", {"column": "x"}, r"--column x: has no effect on tars"),
    "no pictures": ("texts.tgz", "out", {}, r"texts\.tgz: no pictures there"),
    "no rows": ("empty.parquet", "out", {"column": "x"}, r"empty\.parquet: has no rows"),
    "nothing": ("shards/x*.tar", "out", {}, r"nothing there that ends in \.tar"),
    "not Parquet": ("fake.parquet", "out", {"column": "x"}, r"is not a Parquet file"),
    "table": ("shards/0.tar", "out.csv", {}, r"tables and sheets take only picture files"),
    "suffix": ("pictures", "out.pdf", {}, r"expected a name that ends in \.csv"),
    "slash": ("pictures", "out.csv/", {}, r"expected a name that ends in"),
    "file": ("pictures", "fake.parquet", {}, r"--out fake\.parquet: is a file"),
    "question": ("pictures", "out", {"questions": ["why ?"]}, r"--question: .*no answerer"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_leaves_nothing(model, home, mistake):
    (home / "fake.parquet").write_text("PAR1")
    parquet.write_table(arrow.table({"x": arrow.array([], arrow.binary())}), "empty.parquet")
    with tarfile.open(home / "texts.tgz", "w:gz") as tar:
        tar.add(home / "fake.parquet", "a.txt")
    before = sorted(home.rglob("*"))
    source, out, how, said = MISTAKES[mistake]
    with pytest.raises((UsageError, DataError, ImageError), match=said):
        describe(model, source, out, **how)
    assert sorted(home.rglob("*")) == before


@pytest.mark.parametrize("asked", [["a ?", "a ?"], ["caption"], [""]])
def test_questions_that_have_no_column_of_their_own(model, build, home, asked):
    with pytest.raises(UsageError):
        describe(model, "pictures", "out", answerer=build(), questions=asked)


def test_a_missing_extra_is_told_with_its_command(model, home, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.fs", None)
    with pytest.raises(UsageError, match=r"pip install .*\(extra cluster\)"):
        describe(model, "pictures", "out")
    assert describe(model, "pictures", "out.csv").captioned == 5


def test_an_address_that_never_answers_is_given_up(monkeypatch):
    monkeypatch.setattr(sources, "PATIENCE", 0.1)
    with pytest.raises(DataError, match=r"s3://b: cannot be read: no answer within 0\.1 s"):
        sources._answer("s3://b", lambda: __import__("time").sleep(2))


def test_a_device_without_memory_gets_fewer_pictures(model, home, monkeypatch, caplog):
    real, sizes = model.grid, []

    def grid(images):
        sizes.append(len(images))
        if len(images) > 2:
            raise torch.OutOfMemoryError("full")
        return real(images)

    monkeypatch.setattr(sources, "SMALLEST", 16)
    monkeypatch.setattr(model, "grid", grid)
    assert describe(model, "pictures", "out").captioned == 5
    assert sizes == [5, 2, 3, 1, 2]
    assert [row["picture"] for row in rows_in(home / "out")] == NAMES
    assert "no memory for 5 pictures at once" in caplog.text
    assert module.Task().batch == 16
