"""Evaluation: the pointing score against a naive one, and figures that can be counted by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gazetell import metrics, scenes
from gazetell.data.records import Box, CaptionRecord, Dataset
from gazetell.errors import DataError, UsageError
from gazetell.features import build_cache
from gazetell.inference.evaluate import caption_pointing, evaluate
from gazetell.inference.figures import Pointing
from gazetell.inference.predict import Caption, Captioner

# -- pointing --------------------------------------------------------------------------------


def record(*boxes):
    return CaptionRecord("id", "id.png", (), "test", boxes)


def caption(words, maps):
    return Caption(" ".join(words), list(words), None if maps is None else np.array(maps), -1.0)


def at(row, column, height=4, width=4):
    """A map that peaks at one cell."""
    gaze = np.full((height, width), 0.01)
    gaze[row, column] = 1
    return gaze


BALL = Box(("red", "ball"), 0.5, 0.0, 1.0, 0.5)  # the upper right quarter: 4 of 16 cells


@pytest.mark.parametrize(
    ("cell", "hit"), [((0, 3), 1), ((1, 2), 1), ((2, 3), 0), ((0, 1), 0), ((3, 0), 0)]
)
def test_a_word_points_into_its_box_or_not(cell, hit):
    found = caption_pointing([record(BALL)], [caption(["a", "ball"], [at(0, 0), at(*cell)])])
    assert found == Pointing(score=hit, chance=0.25, words=1)


def test_a_word_may_name_several_boxes_and_words_that_name_none_do_not_count():
    other = Box(("ball",), 0.0, 0.5, 0.5, 1.0)
    captions = [caption(["two", "ball", "red", "red"], [at(0, 0), at(3, 0), at(3, 0), at(0, 3)])]
    found = caption_pointing([record(BALL, other)], captions)
    # ball may be in either quarter, red in the upper right one alone.
    assert found == Pointing(score=2 / 3, chance=pytest.approx((0.5 + 0.25 + 0.25) / 3), words=3)


def test_there_is_no_score_without_boxes_or_gaze():
    assert caption_pointing([record()], [caption(["ball"], [at(0, 3)])]) is None
    assert caption_pointing([record(BALL)], [caption(["cube"], [at(0, 3)])]) is None
    assert caption_pointing([record(BALL)], [caption(["ball"], None)]) is None
    assert caption_pointing([], []) is None


def test_an_empty_caption_is_passed_over():
    captions = [caption([], np.zeros((0, 4, 4))), caption(["ball"], [at(0, 3)])]
    assert caption_pointing([record(BALL)] * 2, captions) == Pointing(1.0, 0.25, 1)


fractions = st.integers(0, 24).map(lambda n: n / 24)
boxes = st.builds(
    lambda words, x, y: Box(tuple(words), min(x), min(y), max(x), max(y)),
    st.lists(st.sampled_from("abc"), min_size=1, max_size=2),
    st.tuples(fractions, fractions),
    st.tuples(fractions, fractions),
)


@settings(max_examples=60, deadline=None)
@given(
    pictures=st.lists(
        st.tuples(st.lists(boxes, max_size=3), st.lists(st.sampled_from("abcd"), max_size=4)),
        max_size=3,
    ),
    height=st.integers(1, 5),
    width=st.integers(1, 5),
    seed=st.integers(0, 10**6),
)
def test_pointing_equals_a_naive_count(pictures, height, width, seed):
    random = np.random.default_rng(seed)
    maps = [random.random((len(words), height, width)) for _, words in pictures]
    records = [record(*own) for own, _ in pictures]
    captions = [caption(words, own) for (_, words), own in zip(pictures, maps, strict=True)]

    hits, chances = [], []
    for (own, words), gaze in zip(pictures, maps, strict=True):
        for word, one in zip(words, gaze, strict=True):
            named = [box for box in own if word in box.words]
            if not named:
                continue
            peak, cells = None, []
            for row in range(height):
                for column in range(width):
                    x, y = (column + 0.5) / width, (row + 0.5) / height
                    inside = any(box.x0 <= x <= box.x1 and box.y0 <= y <= box.y1 for box in named)
                    cells.append(inside)
                    if peak is None or one[row, column] > one[peak]:
                        peak = (row, column)
            hits.append(cells[peak[0] * width + peak[1]])
            chances.append(sum(cells) / len(cells))
    found = caption_pointing(records, captions)
    if not hits:
        assert found is None
        return
    assert found.words == len(hits)
    assert found.score == pytest.approx(sum(hits) / len(hits))
    assert found.chance == pytest.approx(sum(chances) / len(chances))


def test_chance_is_what_a_gaze_at_random_gets():
    random = np.random.default_rng(0)
    box = Box(("ball",), 0.1, 0.2, 0.8, 0.6)
    captions = [caption(["ball"], random.random((1, 7, 7))) for _ in range(2000)]
    found = caption_pointing([record(box)] * 2000, captions)
    assert found.score == pytest.approx(found.chance, abs=0.04)


# -- a whole evaluation ----------------------------------------------------------------------


@pytest.fixture
def model(untrained):
    return Captioner(untrained(seed=2), device="cpu", precision="fp32")


@pytest.fixture
def dataset(scenes_dataset, tmp_path):
    """The scenes in a folder of the test's own, so that no cache of another test is found."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("scenes.jsonl", "recipe.json"):
        (folder / name).write_bytes((scenes_dataset.folder / name).read_bytes())
    return replace(scenes_dataset, folder=folder)


def test_figures_of_a_split(model, dataset):
    found = evaluate(model, dataset, split="test", batch=4)
    records = dataset.split("test")
    assert list(found.records) == list(records)
    for one, own in zip(records, found.results, strict=True):
        alone = model.caption(dataset.path(one))
        assert own.text == alone.text
        assert np.allclose(own.attention, alone.attention, atol=1e-3)
        assert own.image is None
    texts = [own.text for own in found.results]
    references = {one.id: one.captions for one in records}
    predictions = {one.id: text for one, text in zip(records, texts, strict=True)}
    figures = found.figures
    assert figures["metrics"] == metrics.score_captions(references, predictions)
    assert (figures["dataset"], figures["split"], figures["pictures"]) == ("scenes", "test", 6)
    assert figures["beam"] == 3
    assert figures["distinct"] == len(set(texts)) / 6
    assert figures["vocabulary"] == len({word for text in texts for word in text.split()})
    assert figures["mean_length"] == pytest.approx(sum(len(t.split()) for t in texts) / 6)
    assert figures["decoding_pictures_per_second"] > 0
    assert figures["unseen"] == 1.0  # an untrained model repeats nobody
    per_caption = metrics.caption_scores(references, predictions)
    assert list(found.scores) == [per_caption[one.id] for one in records]
    truth = scenes.read_truth(dataset.folder)
    true = [
        scenes.judge(text, truth[one.id]).true for one, text in zip(records, texts, strict=True)
    ]
    assert [verdict.true for verdict in found.verdicts] == true
    assert figures["truth"] == sum(true) / 6
    json.dumps(figures, allow_nan=False)


def test_captions_that_are_known_and_true_count_as_such(model, dataset, monkeypatch):
    """A model that says each picture's first reference."""
    records = dataset.split("test")
    said = iter([one.captions[0] for one in records])

    def decode(grid, options, positions):
        texts = [next(said) for _ in range(len(grid.cells))]
        return [
            Caption(text, text.split(), np.full((len(text.split()), 4, 4), 1 / 16), -1.0)
            for text in texts
        ]

    monkeypatch.setattr(model, "decode", decode)
    # Two of the pictures are in the training split too.
    known = tuple(replace(one, split="train") for one in records[:2])
    figures = evaluate(model, replace(dataset, captions=records + known), batch=4).figures
    assert figures["truth"] == 1.0
    assert figures["metrics"]["bleu_4"] == pytest.approx(1.0)
    seen = {text for one in known for text in one.captions}
    unseen = sum(one.captions[0] not in seen for one in records) / len(records)
    assert figures["unseen"] == pytest.approx(unseen)


def test_what_a_person_scores(model, dataset):
    records = dataset.split("test")
    found = evaluate(model, dataset).figures["human"]
    others = {one.id: list(one.captions[1:]) for one in records}
    person = metrics.score_captions(others, {one.id: one.captions[0] for one in records})
    texts = {one.id: model.caption(dataset.path(one)).text for one in records}
    own = metrics.score_captions(others, texts)
    assert found == {
        "cider": pytest.approx(person["cider"]),
        "bleu_4": pytest.approx(person["bleu_4"]),
        "model_cider": pytest.approx(own["cider"]),
        "model_bleu_4": pytest.approx(own["bleu_4"]),
    }
    assert found["cider"] > found["model_cider"]
    single = tuple(
        replace(one, captions=one.captions[: 1 if n == 3 else None])
        for n, one in enumerate(records)
    )
    assert evaluate(model, replace(dataset, captions=single)).figures["human"] is None


def test_what_cannot_be_known_is_not_reported(model, dataset, tmp_path):
    found = evaluate(model, dataset, limit=1)
    figures = found.figures
    assert figures["metrics"]["cider"] is figures["metrics"]["cider_d"] is None
    assert figures["metrics"]["bleu_1"] is not None
    assert figures["distinct"] is None
    assert figures["human"]["cider"] is figures["human"]["model_cider"] is None
    assert figures["human"]["bleu_4"] is not None
    assert "0 by definition" in figures["not_measured"]["cider"]
    found.save(tmp_path)
    assert json.loads((tmp_path / "predictions.jsonl").read_text())["cider"] is None
    # References that are alike tell nothing either; nor is anything unseen without training.
    first = dataset.split("test")[0].captions
    alike = tuple(replace(one, captions=first, boxes=()) for one in dataset.split("test"))
    figures = evaluate(model, replace(dataset, captions=alike)).figures
    assert figures["metrics"]["cider"] is figures["unseen"] is None
    assert set(figures["not_measured"]) == {"cider", "pointing", "unseen"}
    assert figures["not_measured"]["pointing"] == "the split has no boxes"
    whole = evaluate(model, dataset).figures["not_measured"]
    assert set(whole) <= {"pointing"}


def test_what_is_cut_or_left_out_is_said(model, dataset, caplog):
    first, *rest = dataset.captions
    some = replace(dataset, captions=(*rest, replace(first, captions=(), split="test")))
    figures = evaluate(model, some, beam=1, max_length=1, min_length=1).figures
    assert figures["cut"] > 0
    assert figures["max_length"] == 1
    assert figures["length_penalty"] is None  # a beam of 1 has none
    assert "1 pictures without captions are left out" in caplog.text


def test_the_gaze_is_scored_where_there_are_boxes(model, dataset):
    found = evaluate(model, dataset, split="val")
    expected = caption_pointing(found.records, found.results)
    assert found.figures["pointing"] == (None if expected is None else vars(expected))
    bare = tuple(replace(one, boxes=()) for one in dataset.captions)
    assert evaluate(model, replace(dataset, captions=bare)).figures["pointing"] is None


def test_truth_is_known_of_scenes_alone(model, dataset):
    found = evaluate(model, replace(dataset, kind="table"))
    assert found.figures["truth"] is None
    assert found.verdicts is None


def test_limits_and_options(model, dataset):
    found = evaluate(model, dataset, limit=2, beam=1, max_length=3)
    assert found.figures["pictures"] == 2
    assert found.figures["beam"] == 1
    assert list(found.records) == list(dataset.split("test")[:2])
    assert all(len(own.words) <= 3 for own in found.results)
    with pytest.raises(UsageError, match="--limit -1"):
        evaluate(model, dataset, limit=-1)
    with pytest.raises(UsageError, match="beam 0"):
        evaluate(model, dataset, beam=0)


def test_a_split_that_cannot_be_scored_is_named(model, dataset):
    with pytest.raises(DataError, match="split 'extra' has no pictures"):
        evaluate(model, dataset, split="extra")
    silent = tuple(replace(one, captions=()) for one in dataset.split("test"))
    with pytest.raises(DataError, match="split 'test' has no reference captions"):
        evaluate(model, replace(dataset, captions=silent))


def test_the_results_are_written(model, dataset, tmp_path):
    found = evaluate(model, dataset)
    found.save(tmp_path / "out")
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == found.figures
    lines = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["id"] for row in rows] == [one.id for one in found.records]
    assert [row["caption"] for row in rows] == [own.text for own in found.results]
    assert {tuple(row) for row in rows} == {
        ("id", "caption", "log_prob", "cider", "true", "reason")
    }
    plain = replace(found, verdicts=None)
    plain.save(tmp_path / "plain")
    row = json.loads((tmp_path / "plain" / "predictions.jsonl").read_text().splitlines()[0])
    assert set(row) == {"id", "caption", "log_prob", "cider"}


# -- cached features -------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_cache_is_used_and_says_the_same(untrained, dataset, monkeypatch, precision):
    model = Captioner(untrained(seed=2), device="cpu", precision=precision)
    direct = evaluate(model, dataset)
    build_cache(dataset, model.encoder, model.device, model.precision, workers=0)
    monkeypatch.setattr(model, "grid", lambda images: pytest.fail("encoded a picture"))
    cached = evaluate(model, dataset)
    for one, other in zip(cached.results, direct.results, strict=True):
        assert one.text == other.text
        assert np.allclose(one.attention, other.attention, atol=0.02)  # float16 in the cache


def test_a_dataset_without_a_folder_is_encoded(model, scenes_dataset):
    loose = Dataset("d", "table", scenes_dataset.root, scenes_dataset.split("test")[:3])
    found = evaluate(model, loose)
    assert len(found.results) == 3
    assert found.figures["truth"] is None
