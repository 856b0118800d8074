"""The report of a run: valid, complete in itself, escaped, and true to the figures given."""

import dataclasses
import itertools
import math
import re

import numpy as np
import pytest
from page_reader import Page
from PIL import Image, ImageDraw

from gazetell.errors import ImageError, WriteError
from gazetell.inference.curves import Curve, chart, curve
from gazetell.inference.report import Example, write_report

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


def test_report_is_valid_and_complete_in_itself(tmp_path):
    text = report(tmp_path / "report.html")
    page = Page(text)
    assert text.startswith("<!doctype html>")
    assert page.all("html") == [{"lang": "en"}]
    assert page.all("meta")[0] == {"charset": "utf-8"}
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids)) > 10  # of two charts
    for target in re.findall(r"(?:url\(|href=\")#([^)\"]+)", text):
        assert target in ids
    assert re.findall(r"https?:|@import|//\w+\.", text) == []
    assert all(attrs["src"].startswith("data:image/") for attrs in page.all("img"))
    assert all(attrs["alt"] for attrs in page.all("img"))
    assert page.all("link") == []
    # Styles stand in the head alone.
    assert "<style" not in text[text.index("<body") :]


def test_headings_are_in_order(tmp_path):
    page = Page(report(tmp_path / "report.html"))
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    names = [data for tag, data in page.texts if tag == "h2"]
    assert names == [
        "How it learned",
        "Where it looked",
        "Its best",
        "Its worst",
        "Good to know",
        "Where to go from here",
    ]


def test_figures_are_written_as_a_person_would(tmp_path):
    figures = {
        "CIDEr": 0.8714,
        "METEOR": None,
        "pictures": 12345,
        "seconds": 61.25,
        "rate": 1e-4,
        "loss": math.nan,
        "split": "test",
        "numpy": np.float32(0.5),
    }
    page = Page(report(tmp_path / "report.html", figures=figures))
    shown = dict(
        zip(
            [data for tag, data in page.texts if tag == "dt"],
            [data for tag, data in page.texts if tag == "dd"],
            strict=True,
        )
    )
    assert shown == {
        "CIDEr": "0.871",
        "METEOR": "not computed",
        "pictures": "12,345",
        "seconds": "61.2",
        "rate": "1.0e-04",
        "loss": "undefined",
        "split": "test",
        "numpy": "0.500",
    }


def test_everything_is_escaped(tmp_path):
    evil = example(
        caption=EVIL, words=[EVIL, "&", '"'], references=[EVIL], verdict=EVIL + ' onload="x'
    )
    text = report(
        tmp_path / "report.html",
        title=EVIL,
        date=EVIL,
        command=EVIL,
        figures={EVIL: EVIL},
        examples=[evil, dataclasses.replace(evil, attention=None)],
        best=[],
        worst=[],
        commands=[EVIL, "# " + EVIL],
        notes=[EVIL],
    )
    assert "<script>alert" not in text
    assert text.count("&lt;script&gt;alert") >= 14
    page = Page(text)
    assert len(page.all("script")) == 2
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)


def test_each_example_shows_gaze_score_verdict_and_references(tmp_path):
    page = Page(report(tmp_path / "report.html"))
    assert len(page.all("article")) == 3
    assert len([a for a in page.all("button") if "data-where" in a]) == 9
    marks = [data for tag, data in page.texts if tag == "span" and data.strip()]
    assert marks.count("CIDEr 1.23") == 2
    assert marks.count("CIDEr 0.00") == 1
    classes = [attrs.get("class", "") for attrs in page.all("span")]
    assert classes.count("mark right") == 2
    assert classes.count("mark wrong") == 1
    assert [data for tag, data in page.texts if tag == "li"].count("one orange dot") == 3


def test_a_verdict_is_marked_as_it_is_given_not_by_its_words(tmp_path):
    unsure = example(verdict="not checked", right=None)
    page = Page(report(tmp_path / "report.html", examples=[unsure], best=[], worst=[]))
    assert "mark" in [attrs.get("class") for attrs in page.all("span")]
    assert ("span", "not checked") in page.texts


def test_epochs_without_finite_figures_are_counted(tmp_path):
    history = [*HISTORY, {"epoch": 10, "train_loss": math.nan, "val_loss": 1.0}]
    text = report(tmp_path / "report.html", history=history)
    assert "1 of 10 epochs have figures that are not finite; the curves leave them out." in text
    assert "not finite" not in report(tmp_path / "report.html")


def test_a_model_without_attention_still_has_a_report(tmp_path):
    plain = example(attention=None, words=(), score=None, verdict=None, references=())
    page = Page(report(tmp_path / "report.html", examples=[plain], best=[], worst=[]))
    assert [a for a in page.all("button") if "data-where" in a] == []
    assert page.all("img")[0]["alt"] == "an orange dot"
    assert ("figcaption", "an orange dot") in page.texts


def test_pictures_may_be_paths(tmp_path):
    picture((700, 20)).save(tmp_path / "a.png")
    text = report(tmp_path / "r.html", examples=[example(image=tmp_path / "a.png")])
    assert "--ratio:35" in text
    with pytest.raises(ImageError, match="none"):
        report(tmp_path / "s.html", examples=[example(image=tmp_path / "none.png")])
    assert not (tmp_path / "s.html").exists()


def test_commands_can_be_copied(tmp_path):
    page = Page(report(tmp_path / "report.html"))
    assert [data for tag, data in page.texts if tag == "code"] == [
        "gazetell train scenes --out run",
        "gazetell caption photo.jpg --model run",
    ]
    assert len([a for a in page.all("button") if a.get("class") == "copy"]) == 2
    assert ("p", "Caption a picture") in page.texts


def test_an_empty_run_leaves_sections_out(tmp_path):
    text = report(
        tmp_path / "report.html",
        figures={},
        history=[],
        examples=[],
        best=[],
        worst=[],
        commands=[],
        notes=[],
        date=None,
    )
    page = Page(text)
    assert page.all("section") == []
    assert page.all("svg") == []
    assert [data for tag, data in page.texts if tag == "h1"] == ["A run"]


def test_a_dozen_noisy_pictures_stay_under_four_megabytes(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (600, 800, 3), dtype=np.uint8)
    # Even pure noise, which a JPEG cannot shrink.
    many = [example(image=Image.fromarray(noise)) for _ in range(12)]
    report(tmp_path / "report.html", examples=many, best=many[:4], worst=many[:4])
    assert (tmp_path / "report.html").stat().st_size < 4_000_000


def test_the_page_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(WriteError, match=r"report\.html"):
        report(path)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


# Curves


def test_curve_skips_what_is_no_number():
    rows = [
        {"epoch": 1, "x": 2},
        {"epoch": 2},
        {"epoch": 3, "x": math.nan},
        {"epoch": 4, "x": None},
        {"epoch": 5, "x": "7"},
        {"x": 1},
        {"epoch": 6, "x": 8.5},
    ]
    assert curve("X", rows, "x") == Curve("X", (1, 6), (2, 8.5))


def test_chart_draws_the_points_in_place():
    svg = chart("c", "Loss", [Curve("training", (1, 2, 3), (9, 6, 5)), curve("x", [], "y")])
    paths = re.findall(r'<path d="([^"]*)"[^>]*stroke: var\(--accent', svg)
    points = [tuple(map(float, pair)) for pair in re.findall(r"[ML] (\S+) (\S+)", paths[0])]
    (x1, y1), (x2, y2), (x3, y3) = points
    assert x2 - x1 == pytest.approx(x3 - x2, abs=0.01)
    assert (y2 - y1) / (y3 - y1) == pytest.approx(3 / 4, abs=0.01)
    assert y3 > y1  # lower on the page


def test_chart_says_and_marks_the_best_point():
    curves = [curve("training", HISTORY, "train_loss"), curve("validation", HISTORY, "val_loss")]
    svg = chart("loss", "Loss", curves, best="min")
    (label,) = re.findall('aria-label="([^"]*)"', svg)
    assert label == (
        "Loss by epoch: training from 2.8 to 1.2; validation from 2.25 to 1.75, "
        "best 1.000 at epoch 6"
    )
    assert ">1.000<" in svg
    assert "best 0.450 at epoch 9" in chart("s", "S", [curve("a", HISTORY, "val_cider")], "max")


def test_chart_of_one_epoch_and_of_none():
    assert "var(--accent" in chart("one", "Loss", [Curve("training", (1,), (2.5,))], best="min")
    assert chart("none", "Loss", [Curve("training", (), ())]) == ""


def test_chart_takes_its_colours_and_font_from_the_page():
    svg = chart("c", "Loss", [curve("training", HISTORY, "train_loss")])
    assert re.findall(r"#(?:0[1-4]){3}|#000000|DejaVu|<style|<metadata|http", svg) == []
    assert "currentColor" in svg
    Page(svg)


def test_scores_are_drawn_under_their_own_names(tmp_path):
    rows = [
        {"epoch": n, "val_loss": 1, "val_bleu_4": n, "val_accuracy": n, "val_cider": n, "lr": n}
        for n in range(3)
    ]
    page = Page(report(tmp_path / "report.html", history=rows))
    names = [data for tag, data in page.texts if tag == "h3"]
    assert names == ["Loss", "CIDEr, validation", "BLEU-4, validation", "accuracy, validation"]
