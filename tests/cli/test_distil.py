"""Teacher and pupil: a model's captions and answers become a dataset, and train a small model."""

import csv
import json
import shutil

import pytest
from safetensors.torch import load_file, save_file

from gazetell.data.records import Dataset
from gazetell.inference.describe import Describer
from gazetell.models.folder import load_model, save_pair

TINY = """--embedding 12 --hidden 16 --min-frequency 1 --encoder small-cnn --encoder-size 32
--epochs 1 --encoder-weights none --encoder-trainable all --batch 8 --device cpu --precision fp32"""
ASKED = "how many circles are there?"


@pytest.fixture
def table(run, world, untrained, untrained_answerer, monkeypatch):
    """``table.csv``: what a pair says of 21 pictures, unsure or cut off of three of them."""
    save_pair(world / "runs/both", untrained(seed=2), untrained_answerer(seed=2))
    real, names = Describer._row, []

    def told(self, name, *rest):
        row, number = real(self, name, *rest), len(names)
        names.append(name)
        row["answers"][0][2] = number != 5
        if number == 4:
            row["caption"] = "-5 red rings"
        return row | {"sure": number not in (0, 1), "ended": number != 2}

    monkeypatch.setattr(Describer, "_row", told)
    how = ("--device cpu --precision fp32 --question", ASKED)
    run("describe data/images --model runs/both --out table.csv", *how[0].split(), how[1], status=0)
    monkeypatch.undo()
    monkeypatch.chdir(world)
    return names


def test_a_pupil_learns_from_a_table_as_it_is(run, world, table):
    _, out, err = run("data table table.csv --images data/images --out told", status=0)
    assert "texts      machine-made, by both\n" in out
    for line in (
        "the texts are machine-made, by both",
        "captions that the model was not sure of, left out: 2 (first: table.csv:2)",
        "captions that were cut off, left out: 1 (first: table.csv:4)",
        "answers that the model was not sure of, left out: 1 (first: table.csv:7)",
    ):
        assert f"table.csv: {line}\n" in err
    told = Dataset.open("told")
    assert told.machine_made == ("both",)
    assert json.loads((world / "told/dataset.json").read_text())["machine_made"] == ["both"]
    assert {record.image for record in told.captions} == set(table) - set(table[:3])
    assert "-5 red rings" in [record.captions[0] for record in told.captions]  # no apostrophe
    assert {r.image for r in told.questions} == set(table) - {table[5]}
    assert {r.question for r in told.questions} == {ASKED}
    # A merged dataset says it still.
    (world / "human.csv").write_text(f"image,caption\n{table[0]},a red ring\n")
    run("data table human.csv --images data/images --out human", status=0)
    run("data merge told human --out merged", status=0)
    assert [Dataset.open(name).machine_made for name in ("human", "merged")] == [(), ("both",)]
    _, _, err = run(f"train told --out pupil {TINY}", status=0)
    assert load_model("pupil").about["machine_made"] == "both"
    said = "The texts that it learned from are machine-made, by both: it learned the mistakes"
    assert said in (world / "pupil/README.md").read_text()
    _, out, err = run("evaluate pupil --data told --device cpu --precision fp32", status=0)
    assert "told: its references are machine-made, by both: the figures measure agreement" in err
    assert "against machine-made references:" in (world / "pupil/README.md").read_text()
    metrics = json.loads((world / "pupil/metrics.json").read_text())
    assert metrics["machine_made"] == ["both"]
    (said,) = (world / "pupil/evaluation").glob("*/predictions.jsonl")
    scored = "score --references told/captions.jsonl --split test --predictions"
    _, _, err = run(scored, said, status=0)
    assert "told: its references are machine-made, by both" in err
    about = json.loads((world / "told/dataset.json").read_text()) | {"machine_made": "x"}
    (world / "told/dataset.json").write_text(json.dumps(about))
    _, _, err = run("data show told", status=3)
    assert 'expected "machine_made", a list of names of models' in err


def test_a_large_model_is_a_teacher_like_any(run, world, large):
    shutil.copytree(large("git"), world / "git")
    weights = load_file("git/model.safetensors")
    weights["output.bias"][3] += 4.0  # most captions end
    save_file(weights, "git/model.safetensors", {"format": "pt"})
    words = "describe data/images --device cpu --precision fp32 --max-length 9 --model git"
    run(words, "--question", ASKED, "--out", "table.csv", status=0)
    with open("table.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["model"] for row in rows} == {"git"}
    _, out, _ = run("data table table.csv --images data/images --out told", status=0)
    assert "texts      machine-made, by git\n" in out
    told = Dataset.open("told")
    whole = {row["picture"] for row in rows if row["ended"] == "true" and row["caption"]}
    assert {record.image for record in told.captions} == whole
    assert 0 < len(whole) < len(rows)
    assert len(told.questions) == sum(bool(row[ASKED]) for row in rows)


REVIEW = """\ufeffpicture,caption,alt_text,approved,model\r
a b.png,"A ring, ""red"".","A ring, ""red"".",yes,hf://a/b\r
./=1.png,'-2 degrees.,'-2 degrees.,yes,hf://a/b\r
c.png,A dog.,,no,hf://a/b\r
d/e.png,,,yes,hf://a/b\r
"""


def test_what_a_person_approved_is_published_and_learned(run, mistake, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shop.csv").write_text(REVIEW, encoding="utf-8", newline="")
    url = "https://x.org/uploads/"
    _, _, err = run("describe shop.csv --out alt.wordpress.csv --url", url, status=0)
    assert err == "alt.wordpress.csv: 3 approved texts, 1 not approved, left out\n"
    with open("alt.wordpress.csv", newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [
            ["Image URL", "Alt Text"],
            [url + "a%20b.png", 'A ring, "red".'],
            [url + "%3D1.png", "-2 degrees."],
            [url + "d/e.png", ""],
        ]
    run("describe shop.csv --out sub/alt.img.html", status=0)
    page = (tmp_path / "sub/alt.img.html").read_text()
    assert '<img src="../a%20b.png" alt="A ring, &quot;red&quot;.">\n' in page
    for words, status, said in (
        ("--out alt.wordpress.csv --url https://x.org", 2, "alt.wordpress.csv: already exists"),
        ("--out b.csv", 2, "expected a name in .img.html or .wordpress.csv for shop.csv"),
        ("--out b.img.html --beam 2", 2, "--beam: has no effect on shop.csv, which needs no model"),
        ("--out b.img.html --model photo", 2, "--model: has no effect on shop.csv"),
        ("--out b.img.html --device cpu", 2, "--device: has no effect on shop.csv"),
    ):
        mistake(status, said, f"describe shop.csv {words}")
    (tmp_path / "other.csv").write_text("picture,caption\na.png,x\n")
    other = "describe other.csv --out b.img.html"
    mistake(3, "other.csv: has no column alt_text; expected the", other)
    (tmp_path / "other.csv").write_text("picture,alt_text,approved\na.png,x,maybe\n")
    mistake(3, "other.csv:2: approved is 'maybe'; expected yes or no, true", other)
    (tmp_path / "other.csv").write_text("picture,alt_text,approved\na.png,x,TRUE\nb.png,y,0\n")
    _, _, err = run(other, status=0)
    assert err == "b.img.html: 1 approved texts, 1 not approved, left out\n"
    _, out, err = run("data table shop.csv --check none --out told --val 0 --test 0", status=0)
    assert "machine-made, by hf://a/b, approved by a person\n" in out
    assert "shop.csv: captions that nobody approved, left out: 1 (first: shop.csv:4)" in err
    assert "pictures for which the model found no words, left out: 1" in err
    captions = [record.captions for record in Dataset.open("told").captions]
    assert captions == [('A ring, "red".',), ("-2 degrees.",)]
