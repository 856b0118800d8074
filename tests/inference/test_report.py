"""The report of a run: valid, complete in itself, escaped, and true to the figures given."""

import dataclasses
import itertools
import math
import re

import numpy as np
import pytest
from page_reader import Page
from PIL import Image, ImageDraw

from gazetell.errors import ImageError
from gazetell.inference.report import Example, chart, write_report

EVIL = "<script>alert('x')</script>"


def picture(size=(80, 60), colour="navy"):
    image = Image.new("RGB", size, colour)
    ImageDraw.Draw(image).ellipse((5, 5, 30, 30), fill="orange")
    return image


def example(**changes):
    attention = np.random.default_rng(0).random((3, 4, 5)).astype(np.float32)
    given = Example(
        image=picture(),
        caption="an orange dot",
        words=["an", "orange", "dot"],
        attention=attention / attention.sum((1, 2), keepdims=True),
        references=["a dot", "one orange dot"],
        score=1.2345,
        verdict="true: not northern",
        right=True,
    )
    return dataclasses.replace(given, **changes)


HISTORY = [
    {"epoch": n, "train_loss": 3.0 - 0.2 * n, "val_loss": abs(n - 6) / 4 + 1, "val_cider": n / 20}
    for n in range(1, 10)
]


def report(path, **changes):
    given = {
        "title": "A run",
        "command": "gazetell train scenes --out run",
        "figures": {"CIDEr": 0.8714, "METEOR": None, "pictures": 12345},
        "history": HISTORY,
        "examples": [example()],
        "best": [example()],
        "worst": [example(score=0.0, verdict="no red circle", right=False)],
        "commands": ["# Caption a picture", "gazetell caption photo.jpg --model run"],
        "notes": ["Java was not found."],
        "date": "3 March 2026",
    }
    write_report(path, **{**given, **changes})
    return path.read_text(encoding="utf-8")


def test_a_report_is_valid_and_complete_in_itself(tmp_path):
    text = report(tmp_path / "report.html")
    page = Page(text)
    assert text.startswith("<!doctype html>")
    assert page.all("html") == [{"lang": "en"}]
    assert re.findall(r"https?:|@import|\bid=", text) == []
    assert all(attrs["src"].startswith("data:image/") for attrs in page.all("img"))
    assert all(attrs["alt"] for attrs in page.all("img"))
    assert page.all("link") == []
    assert "<style" not in text[text.index("<body") :]  # styles stand in the head alone
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    titles = ["How it learned", "Where it looked", "Its best", "Its worst", "Good to know"]
    titles.append("Where to go from here")
    assert [data for tag, data in page.texts if tag == "h2"] == titles


def test_figures_are_written_as_a_person_would(tmp_path):
    expected = {
        "CIDEr": (0.8714, "0.871"),
        "METEOR": (None, "not computed"),
        "pictures": (12345, "12,345"),
        "seconds": (61.25, "61.2"),
        "rate": (1e-4, "1.0e-04"),
        "loss": (math.nan, "undefined"),
        "split": ("test", "test"),
        "numpy": (np.float32(0.5), "0.500"),
    }
    figures = {name: value for name, (value, _) in expected.items()}
    page = Page(report(tmp_path / "report.html", figures=figures))
    assert [data for tag, data in page.texts if tag == "dt"] == list(expected)
    assert [data for tag, data in page.texts if tag == "dd"] == [t for _, t in expected.values()]


def test_everything_is_escaped(tmp_path):
    evil = example(caption=EVIL, words=[EVIL, "&", '"'], references=[EVIL], verdict=EVIL)
    given = dict.fromkeys(("title", "date", "command"), EVIL) | {"figures": {EVIL: EVIL}}
    given |= {
        "history": [{"epoch": n, f"val_{EVIL}": n} for n in range(3)],
        "best": [],
        "worst": [],
    }
    given |= {"examples": [evil, dataclasses.replace(evil, attention=None)], "notes": [EVIL]}
    text = report(tmp_path / "report.html", **given, commands=[EVIL, "# " + EVIL])
    assert "<script>alert" not in text
    assert text.count("&lt;script&gt;alert") >= 16
    page = Page(text)
    assert len(page.all("script")) == 2
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)


def test_each_example_has_gaze_score_verdict_and_references(tmp_path):
    unsure = example(score=None, verdict="not checked", right=None)
    page = Page(report(tmp_path / "report.html", best=[unsure]))
    assert len(page.all("article")) == 3
    assert len([data for tag, data in page.texts if tag == "bdi"]) == 9
    marks = [attrs["class"] for attrs in page.all("span") if "mark" in attrs.get("class", "")]
    assert marks == ["mark", "mark right", "mark", "mark", "mark wrong"]
    told = [data for tag, data in page.texts if tag == "span" and data.strip()]
    assert [data for data in told if "CIDEr" in data] == ["CIDEr 123.4", "CIDEr 0.0"]
    assert {"true: not northern", "not checked", "no red circle"} <= set(told)
    assert [data for tag, data in page.texts if tag == "li"].count("one orange dot") == 3


def test_a_model_without_attention_still_has_a_report(tmp_path):
    plain = example(attention=None, words=(), score=None, verdict=None, references=())
    page = Page(report(tmp_path / "report.html", examples=[plain], best=[], worst=[]))
    assert page.all("canvas") == []
    assert page.all("img")[0]["alt"] == "an orange dot"
    assert ("figcaption", "an orange dot") in page.texts


def test_pictures_may_be_paths(tmp_path):
    picture((700, 20)).save(tmp_path / "a.png")
    text = report(tmp_path / "r.html", examples=[example(image=tmp_path / "a.png")])
    assert "--ratio:35" in text
    with pytest.raises(ImageError, match="none"):
        report(tmp_path / "s.html", examples=[example(image=tmp_path / "none.png")])
    assert not (tmp_path / "s.html").exists()


def test_an_empty_run_leaves_sections_out(tmp_path):
    lists = ("history", "examples", "best", "worst", "commands", "notes")
    nothing = {name: [] for name in lists}
    page = Page(report(tmp_path / "report.html", figures={}, date=None, **nothing))
    assert page.all("section") == page.all("svg") == []
    assert [data for tag, data in page.texts if tag == "h1"] == ["A run"]


def test_a_dozen_noisy_pictures_stay_under_four_megabytes(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (600, 800, 3), dtype=np.uint8)
    # Even pure noise, which a JPEG cannot shrink.
    many = [example(image=Image.fromarray(noise)) for _ in range(12)]
    report(tmp_path / "report.html", examples=many, best=many[:4], worst=many[:4])
    assert (tmp_path / "report.html").stat().st_size < 4_000_000


def points(svg, kind):
    """Where the drawn points of each curve of a class lie."""
    paths = re.findall(rf'<path class="{kind}" d="M([\d. L]+)"', svg)
    return [[tuple(map(float, pair.split())) for pair in path.split("L")] for path in paths]


def test_a_chart_draws_the_points_in_place():
    rows = [{"epoch": 1, "x": 9, "y": 7}, {"epoch": 2}, {"epoch": 3, "x": math.nan, "y": None}]
    rows += [{"epoch": 4, "x": "7"}, {"x": 1}, {"epoch": 5, "x": 6.0}, {"epoch": 9, "x": 5, "y": 8}]
    svg = chart("Loss", rows, {"y": "training", "x": "validation"})
    ((x1, y1), (x2, y2), (x3, y3)) = points(svg, "line loud")[0]
    assert (x2 - x1) == pytest.approx(x3 - x2, abs=0.2)
    assert (y2 - y1) / (y3 - y1) == pytest.approx(3 / 4, abs=0.01)
    assert y3 > y1  # lower on the page
    (quiet,) = points(svg, "line")
    assert [x for x, _ in quiet] == [x1, x3]
    ticks = dict(re.findall(r'<text class="y" x="[\d.]+" y="([\d.]+)">([\d.]+)<', svg))
    assert len(ticks) > 2
    for place, number in ticks.items():
        share = (float(number) - 9) / (5 - 9)
        assert float(place) == pytest.approx(y1 + share * (y3 - y1), abs=0.2)
    Page(svg)


def test_a_chart_says_and_marks_the_best_point():
    svg = chart("Loss", HISTORY, {"train_loss": "training", "val_loss": "validation"}, best=min)
    assert re.findall('aria-label="([^"]*)"', svg) == [
        "Loss by epoch: training 2.8 to 1.2; validation 2.25 to 1.75; best 1.000 at epoch 6"
    ]
    assert ">1.000<" in svg
    assert "best 0.450 at epoch 9" in chart("S", HISTORY, {"val_cider": "a"}, best=max)


@pytest.mark.parametrize("value", [2.5, 0, -1e-9, 1e12])
def test_a_chart_of_one_epoch_and_of_none(value):
    svg = chart("Loss", [{"epoch": 1, "loss": value}], {"loss": "training"}, best=min)
    assert f"training {value:.3g}; best {value:.{3 if value < 10 else 1}f} at epoch 1" in svg
    Page(svg)
    assert chart("Loss", [{"epoch": 1}], {"loss": "training"}) == ""


def test_scores_are_drawn_under_their_own_names_and_broken_figures_counted(tmp_path):
    rows = [
        {"epoch": n, "val_loss": 1, "val_bleu_4": n, "val_accuracy": n, "val_cider": n, "lr": n}
        for n in range(3)
    ]
    text = report(tmp_path / "report.html", history=rows)
    names = [data for tag, data in Page(text).texts if tag == "h3"]
    assert names == ["Loss", "CIDEr, validation", "BLEU-4, validation", "accuracy, validation"]
    assert "not finite" not in text
    assert text.count("best 200.0 at epoch 2") == 3  # from 0 to 100, as everywhere
    rows[1] |= {"val_loss": math.nan, "train_loss": math.inf}
    text = report(tmp_path / "report.html", history=rows)
    assert "Figures that are not finite (2 in 3 epochs) are left out of the curves." in text
