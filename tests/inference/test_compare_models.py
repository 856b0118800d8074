"""Several models on the same pictures: what they tell, cost, agree on; what fails is a cell."""

import json
import shutil
import tarfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from page_reader import Page

from gazetell.data.records import Dataset
from gazetell.errors import ModelError, UsageError
from gazetell.files import read_json, write_json
from gazetell.inference import report
from gazetell.inference.compare import agreement, compare
from gazetell.inference.predict import Answerer, Captioner
from gazetell.inference.report import write_comparison
from gazetell.metrics import score_answers, score_captions, split
from gazetell.models.folder import save_model

HOW = {"device": "cpu", "precision": "fp32"}
A, B, ASK, OTHER = "models/a", "models/b", "models/ask", "models/other"


@pytest.fixture(scope="module")
def folder(untrained, untrained_answerer, scenes_folder, tmp_path_factory):
    """Two captioners, two answerers and a dataset of scenes; not to be written to."""
    folder = tmp_path_factory.mktemp("compare")
    save_model(folder / A, untrained(seed=2))
    near = untrained(seed=2)
    for parameter in near.captioner.parameters():
        parameter.data += 0.1 * parameter.std() * torch.randn_like(parameter)
    save_model(folder / B, near)
    save_model(folder / ASK, untrained_answerer(seed=2))
    save_model(folder / OTHER, untrained_answerer(architecture="bow-mlp"))
    shutil.copytree(scenes_folder, folder / "data")
    shutil.copytree(scenes_folder / "images", folder / "images")
    return folder


@pytest.fixture(autouse=True)
def there(folder, monkeypatch):
    monkeypatch.chdir(folder)


def both(models, pictures, **more):
    return compare(models, pictures, how=HOW, alone=False, **more)


def naive_agreement(first, second):
    """ROUGE-L by the textbook's table, the mean of both directions."""

    def rouge(candidate, reference):
        table = np.zeros((len(candidate) + 1, len(reference) + 1))
        for i, a in enumerate(candidate, 1):
            for j, b in enumerate(reference, 1):
                longer = max(table[i - 1, j], table[i, j - 1])
                table[i, j] = table[i - 1, j - 1] + 1 if a == b else longer
        if not (common := table[-1, -1]):
            return 0.0
        p, r = common / len(candidate), common / len(reference)
        return (1 + 1.2**2) * p * r / (r + 1.2**2 * p)

    one, other = split(first), split(second)
    return (rouge(one, other) + rouge(other, one)) / 2


def test_captions_costs_and_agreement():
    found = both([A, B], ["images"])
    pictures = sorted(path.name for path in Path("images").iterdir())
    assert [row[0] for row in found.rows] == pictures
    for column in found.columns:
        model = Captioner.load(column.model, **HOW)
        alone = model.captions([f"images/{name}" for name in pictures])
        assert [one.text for one in column.told] == [one.text for one in alone]
        assert all(one.image is None for one in column.told)
        assert column.cpu_ms > 0
        assert column.ms > 0
        assert column.peak is None
    texts = [[one.text for one in column.told] for column in found.columns]
    values = [naive_agreement(*pair) for pair in zip(*texts, strict=True)]
    (one,) = found.agreements
    assert 0 < one.value < 1
    assert one.value == pytest.approx(np.mean(values))
    assert one.equal == np.mean([split(a) == split(b) for a, b in zip(*texts, strict=True)])
    assert found.apart == pytest.approx([1 - value for value in values])
    assert not found.failed
    assert found.figures()[0] == ["model", "CPU ms", "ms", "peak MB", "of the model", "failed"]


@pytest.mark.parametrize(
    ("first", "second", "value"),
    [("a red dog", "a red dog.", 1.0), ("dog", "cat", 0.0), ("", "a dog", 0.0), ("", "", 1.0)],
)
def test_agreement_of_captions_knows_words_alone(first, second, value):
    assert agreement(first, second, answers=False) == (value, value == 1)


def test_agreement_of_answers_is_that_of_the_evaluation():
    assert agreement("The Dog", "dog", answers=True) == (1.0, True)
    assert agreement("two", "2", answers=True) == (1.0, True)
    assert agreement("two dogs", "2", answers=True) == (0.0, False)


def test_references_give_metrics_and_the_paired_bootstrap():
    found = both([A, B], ["data"], split="train")
    records = Dataset.open("data").split("train")
    references = {record.id: record.captions for record in records}
    assert [row[2] for row in found.rows] == list(records)
    for column in found.columns:
        texts = {r.id: one.text for r, one in zip(records, column.told, strict=True)}
        assert column.metrics == score_captions(references, texts)
    one = found.differences[A, B]["rouge_l"]
    assert (one.first, one.second) == tuple(c.metrics["rouge_l"] for c in found.columns)
    # Drawn anew by hand, one picture's score at a time.
    each = [
        [score_captions({r.id: r.captions}, {r.id: x.text})["rouge_l"] for r, x in rows]
        for rows in (zip(records, column.told, strict=True) for column in found.columns)
    ]
    apart, rng = np.subtract(*each), np.random.default_rng(7)
    draws = [apart[rng.integers(0, len(apart), len(apart))].mean() for _ in range(4000)]
    low, high = np.quantile(draws, (0.025, 0.975))
    assert one.difference == pytest.approx(apart.mean())
    assert [one.low, one.high] == pytest.approx([low, high], abs=0.15 * (high - low))


def test_answers_to_a_question_and_to_a_dataset():
    questions = ["is there a circle?", "how many circles are there?"]
    asked = both([ASK, OTHER], ["images"], questions=questions, limit=2)
    assert [row[1] for row in asked.rows] == questions * 2
    answerer = Answerer.load(ASK, **HOW)
    for n, (picture, question, _) in enumerate(asked.rows):
        assert asked.columns[0].told[n].text == answerer.ask(f"images/{picture}", question).text
    texts = [[one.text for one in column.told] for column in asked.columns]
    equal = np.mean([a == b for a, b in zip(*texts, strict=True)])
    assert (asked.agreements[0].value, asked.agreements[0].equal) == (equal, equal)

    found = both([ASK, OTHER], ["data"])  # the dataset has captions too, but these only answer
    references = {r.id: r.answers for _, _, r in found.rows}
    for column in found.columns:
        told = {row[2].id: one.text for row, one in zip(found.rows, column.told, strict=True)}
        assert column.metrics == {"accuracy": score_answers(references, told)["accuracy"]}
    assert list(found.differences[ASK, OTHER]) == ["accuracy"]


@pytest.mark.parametrize(
    ("models", "more", "said"),
    [
        ([A], {}, "model: expected two models or more"),
        ([A, A], {}, f"model {A}: is named twice"),
        ([A, "models/../models/a/"], {}, f"model models/../models/a/: is the same as {A}"),
        ([A, ASK], {}, f"model {ASK}: cannot do this; expected a model that captions"),
        ([A, ASK], {"questions": ["is it red?"]}, f"model {A}: cannot do this; expected a model"),
        ([A, B], {"split": "val"}, "split val: has no effect on pictures"),
        ([A, B], {"limit": -1}, "limit -1: expected 0 or more"),
        ([A, B], {"bean": 3}, "bean: there is no such option"),
        ([ASK, OTHER], {"questions": ["is it red?"], "beam": 3}, "beam: has no effect on answers"),
        ([ASK, OTHER], {"questions": ["?"]}, "question"),
    ],
)
def test_what_cannot_be_compared_is_refused(models, more, said):
    with pytest.raises(UsageError) as error:
        both(models, ["images"], **more)
    assert str(error.value).startswith(said)


@pytest.mark.parametrize(
    ("more", "said"), [({"questions": ["is it?"]}, "question: "), ({"column": "image"}, "column: ")]
)
def test_a_dataset_has_its_own_questions(more, said):
    with pytest.raises(UsageError, match=f"^{said}has no effect on a prepared dataset"):
        both([A, B], ["data"], **more)
    with pytest.raises(UsageError, match="expected nothing beside it"):
        both([A, B], ["data", "images"])


def test_a_picture_or_a_model_that_fails_is_a_cell(monkeypatch, tmp_path):
    (tmp_path / "torn.png").write_bytes(b"no picture")
    good = sorted(Path("images").iterdir())[:2]
    told = Captioner.captions

    def captions(self, images, **options):
        if self.about.get("odd") and str(images[0]) == str(good[1]):
            raise RuntimeError("a model of\nany make")
        return told(self, images, **options)

    monkeypatch.setattr(Captioner, "captions", captions)
    shutil.copytree(B, tmp_path / "odd")
    config = read_json(tmp_path / "odd/config.json")
    write_json(tmp_path / "odd/config.json", config | {"about": {"odd": True}})
    names = [A, str(tmp_path / "odd")]
    found = both(names, [*good, tmp_path / "torn.png"])
    assert [[isinstance(x, str) for x in c.told] for c in found.columns] == [
        [False, False, True],
        [False, True, True],
    ]
    assert found.agreements[0].rows == 1
    odd, torn = found.failed[::-1] if "torn" in found.failed[0] else found.failed
    assert odd == f"{names[1]}: {good[1]}: RuntimeError: a model of any make"
    assert "torn.png: is not a picture" in torn
    assert not torn.startswith("models")  # of the picture, not of a model
    write_comparison(tmp_path / "page.html", found, "gazetell compare")
    page = Page((tmp_path / "page.html").read_text())
    assert len(page.all("article")) == 4  # the torn one cannot be shown
    assert any("RuntimeError" in data for _, data in page.texts)

    monkeypatch.setattr("gazetell.inference.compare.load_captioner", lambda *a, **k: 1 / 0)
    with pytest.raises(ModelError, match="models/a: ZeroDivisionError: division by zero"):
        both([A, B], ["images"])


def test_the_page_is_complete_in_itself(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(report, "SHOWN", 3)
    found = both([A, B], ["data"])
    write_comparison(tmp_path / "page.html", found, "gazetell compare data <script>")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    page = Page(text)
    assert "https:" not in text
    assert "data &lt;script&gt;" in text
    assert len(page.all("article")) == 6
    assert "shows the 3 captions that differ most, of 6" in caplog.text
    order = [data for tag, data in page.texts if tag == "h3" and data in {r[0] for r in found.rows}]
    apart = dict(zip((row[0] for row in found.rows), found.apart, strict=True))
    assert len(order) == 3
    assert all(apart[a] >= apart[b] for a, b in pairwise(order))
    assert apart[order[0]] == max(found.apart)
    levels = [int(tag[1]) for tag, _ in page.tags if tag in ("h1", "h2", "h3", "h4")]
    assert all(after - before <= 1 for before, after in pairwise(levels))
    heads = [data for tag, data in page.texts if tag == "th"]
    assert {"CPU ms", "peak MB", "BLEU-4", "CIDEr", "difference"} <= {*heads}
    json.dumps(found.to_dict())


def test_pictures_of_a_tar(tmp_path, folder):
    with tarfile.open(tmp_path / "some.tar", "w") as tar:
        for picture in sorted((folder / "images").iterdir())[:2]:
            tar.add(picture, picture.name)
    found = both([A, B], [tmp_path / "some.tar"])
    assert [row[0].split("/")[0] for row in found.rows] == ["some.tar", "some.tar"]
    write_comparison(tmp_path / "page.html", found, "gazetell compare")
    assert len(Page((tmp_path / "page.html").read_text()).all("article")) == 4


def test_a_model_that_dies_takes_no_other_with_it(tmp_path, monkeypatch):
    """Each in a process of its own, whose memory is measured."""
    (tmp_path / "deadly.py").write_text("import os\nos.kill(os.getpid(), 9)\n")
    monkeypatch.syspath_prepend(tmp_path)
    shutil.copytree(B, tmp_path / "dies")
    config = read_json(tmp_path / "dies/config.json")
    config["captioner"]["architecture"] = "deadly:Model"
    write_json(tmp_path / "dies/config.json", config)
    names = [A, str(tmp_path / "dies")]
    found = compare(names, ["images"], limit=2, how=HOW | {"trust": True})
    good, dead = found.columns
    assert len(good.told) == 2
    assert good.peak > good.own > 0
    assert dead.error == "its process was killed by signal 9, mostly for want of memory"
    assert found.failed == [f"{names[1]}: {dead.error}"]
    with pytest.raises(UsageError, match="bean"):
        compare([A, B], ["images"], how=HOW, bean=3)
