"""Evaluation: every figure counted again, from the saved predictions where there are."""

import json
from collections import Counter
from dataclasses import asdict, replace
from itertools import cycle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gazetell import metrics, scenes
from gazetell.data.answers import AnswerVocabulary
from gazetell.data.records import Box, CaptionRecord, Dataset, QuestionRecord
from gazetell.errors import DataError, UsageError
from gazetell.features import build_cache, cache_folder
from gazetell.inference.calibrate import calibrate
from gazetell.inference.evaluate import (
    caption_pointing,
    evaluate,
    evaluate_answers,
)
from gazetell.inference.figures import Pointing, bias
from gazetell.inference.predict import Answerer, Caption, Captioner
from gazetell.models.decoding import Decoded
from gazetell.pictures import Frame


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Scenes with several captions and questions each, and boxes."""
    return scenes.generate(
        tmp_path_factory.mktemp("scenes"),
        **{"train": 10, "val": 2, "test": 7, "captions_per_image": 3, "questions_per_image": 5},
        seed=3,
    )


def percent(hits, records):
    return pytest.approx(100 * hits / len(records), abs=0.006)


BESIDE = {"id", "caption", "log_prob", "cider", "references"}


def saved(result, folder):
    """Figures and rows as they are written."""
    result.save(folder)
    assert json.loads((folder / "metrics.json").read_text()) == result.figures
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


# -- pointing --------------------------------------------------------------------------------


def record(*boxes):
    return CaptionRecord("id", "id.png", (), "test", boxes)


def caption(words, maps):
    return Caption(" ".join(words), list(words), None if maps is None else np.array(maps), -1.0)


def at(row, column):
    """A map that peaks at one cell."""
    gaze = np.full((4, 4), 0.01)
    gaze[row, column] = 1
    return gaze


BALL = Box(("red", "ball"), 0.5, 0.0, 1.0, 0.5)  # the upper right quarter: 4 of 16 cells


@pytest.mark.parametrize(
    ("fit", "cell", "hit", "chance"),
    [
        ("crop", (1, 2), 1, 0.25),
        ("crop", (3, 0), 0, 0.25),
        ("pad", (1, 2), 1, 0.125),
        ("pad", (0, 3), 0, 0.125),  # in the padding
    ],
)
def test_a_word_points_by_what_was_seen_of_the_picture(fit, cell, hit, chance):
    """Of a picture twice as wide as high a box in the middle of its upper right."""
    box = Box(("ball",), 0.5, 0.0, 0.75, 0.5) if fit == "crop" else BALL
    told = replace(caption(["ball"], [at(*cell)]), view=Frame(64, fit).view((200, 100)))
    pointed = caption_pointing([record(box)], [told])
    assert pointed == Pointing(score=hit, chance=chance, words=1)


def test_there_is_no_score_without_boxes_or_gaze():
    for words, maps, boxes in (
        (["ball"], [at(0, 3)], []),
        (["cube"], [at(0, 3)], [BALL]),
        (["ball"], None, [BALL]),
        ([], np.zeros((0, 4, 4)), [BALL]),
    ):
        assert caption_pointing([record(*boxes)], [caption(words, maps)]) is None


fractions = st.integers(0, 24).map(lambda n: n / 24)
boxes = st.builds(
    lambda words, x, y: Box(tuple(words), min(x), min(y), max(x), max(y)),
    st.lists(st.sampled_from("abc"), min_size=1, max_size=2),
    st.tuples(fractions, fractions),
    st.tuples(fractions, fractions),
)
told = st.tuples(st.lists(boxes, max_size=3), st.lists(st.sampled_from("abcd"), max_size=4))


@settings(max_examples=60, deadline=None)
@given(
    pictures=st.lists(told, max_size=3),
    height=st.integers(1, 5),
    width=st.integers(1, 5),
    seed=st.integers(0, 10**6),
)
def test_pointing_equals_a_naive_count(pictures, height, width, seed):
    random = np.random.default_rng(seed)
    maps = [random.random((len(words), height, width)) for _, words in pictures]
    hits, chances = [], []
    for (own, words), gaze in zip(pictures, maps, strict=True):
        for word, one in zip(words, gaze, strict=True):
            if not (named := [box for box in own if word in box.words]):
                continue
            places = [
                ((c + 0.5) / width, (r + 0.5) / height) for r in range(height) for c in range(width)
            ]
            inside = [
                any(b.x0 <= x <= b.x1 and b.y0 <= y <= b.y1 for b in named) for x, y in places
            ]
            hits.append(inside[max(range(len(places)), key=one.flatten().tolist().__getitem__)])
            chances.append(sum(inside) / len(inside))
    captions = [caption(words, own) for (_, words), own in zip(pictures, maps, strict=True)]
    pointed = caption_pointing([record(*own) for own, _ in pictures], captions)
    if not hits:
        assert pointed is None
        return
    assert pointed.words == len(hits)
    assert pointed.score == pytest.approx(sum(hits) / len(hits))
    assert pointed.chance == pytest.approx(sum(chances) / len(chances))


# -- captions --------------------------------------------------------------------------------


def test_figures_of_a_split(captioner, dataset, tmp_path):
    result = evaluate(captioner, dataset, split="test", batch=4)
    records = dataset.split("test")
    assert list(result.records) == list(records)
    for one, own in zip(records, result.results, strict=True):
        alone = captioner.caption(dataset.path(one))
        assert own.text == alone.text
        assert np.allclose(own.attention, alone.attention, atol=1e-3)
        assert own.image is None
    texts = [own.text for own in result.results]
    references = {one.id: one.captions for one in records}
    predictions = {one.id: text for one, text in zip(records, texts, strict=True)}
    figures = result.figures
    assert figures["metrics"] == metrics.score_captions(references, predictions)
    assert (figures["dataset"], figures["split"], figures["pictures"]) == ("scenes", "test", 7)
    assert (figures["beam"], figures["members"]) == (3, 1)
    assert figures["distinct"] == len(set(texts)) / 7
    assert figures["vocabulary"] == len({word for text in texts for word in text.split()})
    assert figures["mean_length"] == pytest.approx(sum(len(t.split()) for t in texts) / 7)
    assert figures["decoding_pictures_per_second"] > 0
    assert figures["unseen"] == 1.0  # an untrained model repeats nobody
    per_caption = metrics.caption_scores(references, predictions)
    assert list(result.scores) == [per_caption[one.id] for one in records]
    truth = scenes.read_truth(dataset.folder)
    true = [scenes.judge(predictions[one.id], truth[one.id]).true for one in records]
    assert [verdict.true for verdict in result.verdicts] == true
    assert figures["truth"] == sum(true) / 7
    pointed = caption_pointing(result.records, result.results)
    assert figures["pointing"] == (None if pointed is None else asdict(pointed))
    json.dumps(figures, allow_nan=False)
    rows = saved(result, tmp_path / "out")
    assert [row["id"] for row in rows] == [one.id for one in result.records]
    assert [row["caption"] for row in rows] == texts
    assert set(rows[0]) == {*BESIDE, "true", "reason"}
    plain = saved(evaluate(captioner, replace(dataset, kind="table")), tmp_path / "plain")
    assert set(plain[0]) == BESIDE


def test_a_confidence_that_is_fitted_to_a_split_and_measured(captioner, tmp_path, monkeypatch):
    """A model that says a reference of the picture with much confidence, else of another."""
    sizes = {"train": 30, "val": 60, "test": 2, "captions_per_image": 4, "questions_per_image": 1}
    dataset = scenes.generate(tmp_path / "data", **sizes, seed=5)
    records, words = dataset.split("val"), captioner.tokenizer
    said = cycle(range(60))

    def decoded(n):
        random = np.random.default_rng(n)
        sure = random.random()
        told = records[n if random.random() < sure else n - 1].captions[0]
        ids = words.encode(told)[1:-1]
        return Decoded(ids, None, (sure - 2) * (len(ids) + 1), 0.0, True, sure - 2)

    monkeypatch.setattr(
        captioner, "search", lambda grid, *_: [[decoded(next(said))] for _ in grid.cells]
    )
    calibrate(captioner, dataset)
    result = evaluate(captioner, dataset, split="val")
    figures, sure = (
        result.figures["confidence"],
        np.array([one.confidence for one in result.results]),
    )
    references = {one.id: one.captions for one in records}
    level = metrics.person_level(references)
    good = [score > level for score in result.scores]
    assert list(result.right) == good
    assert figures["good"] == sum(good) / 60
    assert figures["auroc"] == metrics.auroc(sure, good) > 0.7
    assert figures["brier"] == metrics.brier(sure, good)
    best = sorted(range(60), key=lambda n: -sure[n])[:24]
    assert figures["cider_at_coverage"]["0.4"] == pytest.approx(
        np.mean([result.scores[n] for n in best])
    )
    kept = sure >= captioner.confidence.threshold
    assert (figures["sure"], figures["good_of_sure"]) == (kept.mean(), np.array(good)[kept].mean())
    strange = np.array([one.unfamiliar for one in result.results])
    assert strange.sum() == 1  # of 60 beyond 99 %
    assert [one.sure for one in result.results] == kept.tolist()
    rows = saved(result, tmp_path / "out")
    assert [row["confidence"] for row in rows] == sure.round(5).tolist()
    assert (tmp_path / "out/reliability.png").exists()
    # Noise is further from the training pictures than any of them.
    pictures = [Image.open(dataset.path(one)) for one in dataset.split("train")]
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    *_, other = told = captioner.captions([*pictures, Image.fromarray(noise)])
    assert other.unfamiliar
    assert sum(one.unfamiliar for one in told) < len(told) / 4


def test_what_cannot_be_fitted_is_an_error(captioner, untrained, dataset):
    with pytest.raises(DataError, match="no confidence can be fitted: 0 of 2"):
        calibrate(captioner, dataset)
    assert captioner.confidence is None
    figures = evaluate(captioner, dataset).figures
    assert figures["confidence"] is None
    assert "--calibrate" in figures["not_measured"]["confidence"]
    with pytest.raises(UsageError, match="no ensemble"):
        calibrate(Captioner(untrained(seed=2), untrained(seed=2), device="cpu"), dataset)
    blind = Captioner(untrained(blind=True), device="cpu")
    with pytest.raises(UsageError, match="blind captioner looks at no picture"):
        calibrate(blind, dataset)
    assert "blind" in evaluate(blind, dataset).figures["not_measured"]["confidence"]


def test_captions_that_are_known_and_true_count_as_such(captioner, dataset, monkeypatch):
    """A model that says each picture's first reference."""
    records = dataset.split("test")
    said = iter([one.captions[0] for one in records])

    def decode(grid, *options):
        texts = [next(said).split() for _ in range(len(grid.cells))]
        return [caption(words, np.full((len(words), 4, 4), 1 / 16)) for words in texts]

    monkeypatch.setattr(captioner, "decode", decode)
    # Two of the pictures are in the training split too.
    known = tuple(replace(one, split="train") for one in records[:2])
    figures = evaluate(captioner, replace(dataset, captions=records + known), batch=4).figures
    assert figures["truth"] == 1.0
    assert figures["metrics"]["bleu_4"] == pytest.approx(1.0)
    words = captioner.tokenizer  # leaves unknown words out
    seen = {words.decode(words.encode(text)) for one in known for text in one.captions}
    unseen = sum(one.captions[0] not in seen for one in records) / len(records)
    assert figures["unseen"] == pytest.approx(unseen)


def test_what_a_person_scores(captioner, dataset):
    records = dataset.split("test")
    human = evaluate(captioner, dataset).figures["human"]
    others = {one.id: list(one.captions[1:]) for one in records}
    person = metrics.score_captions(others, {one.id: one.captions[0] for one in records})
    texts = {one.id: captioner.caption(dataset.path(one)).text for one in records}
    own = metrics.score_captions(others, texts)
    expected = {"cider": person["cider"], "bleu_4": person["bleu_4"]}
    expected |= {"model_cider": own["cider"], "model_bleu_4": own["bleu_4"]}
    assert human == pytest.approx(expected)
    assert human["cider"] > human["model_cider"]
    single = (replace(records[0], captions=records[0].captions[:1]), *records[1:])
    figures = evaluate(captioner, replace(dataset, captions=single)).figures
    assert figures["human"] is None
    assert figures["not_measured"]["human"] == "each picture has only one reference"


def test_what_cannot_be_known_of_captions(captioner, dataset, tmp_path):
    result = evaluate(captioner, dataset, limit=1)
    figures = result.figures
    assert figures["metrics"]["cider"] is figures["metrics"]["cider_d"] is None
    assert figures["metrics"]["bleu_1"] is not None
    assert figures["distinct"] is None
    assert figures["human"]["cider"] is figures["human"]["model_cider"] is None
    assert figures["human"]["bleu_4"] is not None
    assert "0 by definition" in figures["not_measured"]["cider"]
    assert saved(result, tmp_path)[0]["cider"] is None
    # References that are alike tell nothing either; nor is anything unseen without training.
    first = dataset.split("test")[0].captions
    alike = tuple(replace(one, captions=first, boxes=()) for one in dataset.split("test"))
    figures = evaluate(captioner, replace(dataset, captions=alike)).figures
    assert figures["metrics"]["cider"] is figures["unseen"] is figures["pointing"] is None
    assert set(figures["not_measured"]) == {"cider", "confidence", "pointing", "unseen"}
    assert figures["not_measured"]["pointing"] == "the split has no boxes"
    assert set(evaluate(captioner, dataset).figures["not_measured"]) <= {"confidence", "pointing"}


def test_limits_and_options(captioner, dataset, caplog):
    result = evaluate(captioner, dataset.folder, limit=2, beam=1, max_length=1, min_length=1)
    figures = result.figures
    assert (figures["pictures"], figures["beam"], figures["max_length"]) == (2, 1, 1)
    assert figures["length_penalty"] is None  # a beam of 1 has none
    assert figures["cut"] == 1
    assert list(result.records) == list(dataset.split("test")[:2])
    assert all(len(own.words) == 1 for own in result.results)
    first, *rest = dataset.captions
    some = replace(dataset, captions=(*rest, replace(first, captions=(), split="test")))
    evaluate(captioner, some, limit=1)
    assert "without captions or answers, left out: 1" in caplog.text
    silent = tuple(replace(one, captions=()) for one in dataset.split("test"))
    for data, options, error, said in (
        (dataset, {"limit": -1}, UsageError, "--limit -1"),
        (dataset, {"batch": 0}, UsageError, "batch 0"),
        (dataset, {"beam": 0}, UsageError, "beam 0"),
        (dataset, {"split": "extra"}, DataError, "split 'extra' has no pictures"),
        (replace(dataset, captions=silent), {}, DataError, "has no references to score against"),
        ("nowhere", {}, DataError, "nowhere: is not a prepared dataset"),
    ):
        with pytest.raises(error, match=said):
            evaluate(captioner, data, **options)


# -- answers ---------------------------------------------------------------------------------


def flat(figures):
    """All numbers but that of the clock, by their place."""
    numbers = {}
    for key, value in enumerate(figures) if isinstance(figures, list) else figures.items():
        if isinstance(value, dict | list):
            numbers |= {f"{key} {inner}": number for inner, number in flat(value).items()}
        elif isinstance(value, int | float) and key != "answers_per_second":
            numbers[str(key)] = value
    return numbers


def test_accuracy_is_that_of_the_saved_predictions(answerer, dataset, tmp_path):
    result = evaluate_answers(answerer, dataset, batch=3)
    rows, figures = saved(result, tmp_path / "new"), result.figures
    questions = {one.id: one for one in dataset.questions_of("test")}
    assert [row["id"] for row in rows] == list(questions)
    official = metrics.score_answers(
        {key: one.answers for key, one in questions.items()},
        {row["id"]: row["answer"] for row in rows},
        question_types={key: one.question_type for key, one in questions.items()},
        answer_types={key: one.answer_type for key, one in questions.items()},
    )
    assert figures["metrics"]["accuracy"] == official["accuracy"]
    for key in ("measure", "per_answer_type", "per_question_type", "questions"):
        assert figures[key] == official[key]
    assert figures["per_answer_type"]
    assert (figures["measure"], figures["pictures"]) == ("exact match", 7)
    sure, right = [row["confidence"] for row in rows], [row["accuracy"] for row in rows]
    assert np.mean(right) * 100 == pytest.approx(official["accuracy"], abs=0.01)
    ece = metrics.expected_calibration_error(sure, right)
    assert figures["metrics"]["ece"] == pytest.approx(ece, abs=1e-4)
    area = metrics.risk_coverage(sure, right).area
    assert figures["metrics"]["risk_coverage_area"] == pytest.approx(area, abs=1e-4)
    for name in ("reliability.png", "risk-coverage.png"):
        assert Image.open(tmp_path / "new" / name).size[0] > 300
    assert len(list((tmp_path / "new").iterdir())) == 4
    odd = sum(bool(answerer.read_question(r.question).unknown) for r in result.records)
    assert figures["unknown_words"] == pytest.approx(odd / len(result.records))
    json.dumps(figures, allow_nan=False)


def test_ten_answers_are_scored_officially(answerer, dataset):
    said = evaluate_answers(answerer, dataset).results
    # Whatever the model says, three of ten people said it too: by the official rules 0.9.
    others = [f"thing {n}" for n in range(7)]
    voted = tuple(
        replace(r, answers=(*[a.text] * 3, *others))
        for r, a in zip(dataset.questions_of("test"), said, strict=True)
    )
    result = evaluate_answers(answerer, replace(dataset, questions=voted))
    assert result.figures["measure"] == "official VQA accuracy"
    assert result.figures["metrics"]["accuracy"] == 90.0
    assert result.scores == pytest.approx([0.9] * len(said))


@pytest.mark.parametrize("batch", [1, 2, 64])
def test_the_size_of_a_batch_and_the_order_change_nothing(answerer, dataset, batch):
    whole = evaluate_answers(answerer, dataset, batch=5, evidence=True)
    result = evaluate_answers(answerer, dataset, batch=batch, evidence=True)
    assert [a.text for a in result.results] == [a.text for a in whole.results]
    assert flat(result.figures) == pytest.approx(flat(whole.figures), abs=1e-4)
    shuffled = list(dataset.questions)
    np.random.default_rng(0).shuffle(shuffled)
    mixed = evaluate_answers(answerer, replace(dataset, questions=tuple(shuffled)), batch=batch)
    texts = {r.id: a.text for r, a in zip(mixed.records, mixed.results, strict=True)}
    assert texts == {r.id: a.text for r, a in zip(whole.records, whole.results, strict=True)}


def test_limits_of_answers(answerer, dataset, caplog):
    first, *rest = dataset.questions_of("test")
    result = evaluate_answers(answerer, dataset, limit=2)
    images = list(dict.fromkeys(r.image for r in dataset.questions_of("test")))[:2]
    expected = [r.id for r in dataset.questions_of("test") if r.image in images]
    assert [r.id for r in result.records] == expected
    assert result.figures["pictures"] == 2
    some = replace(dataset, questions=(replace(first, answers=()), *rest))
    figures = evaluate_answers(answerer, some).figures
    assert figures["questions"] == len(rest)
    assert "without captions or answers, left out: 1" in caplog.text
    one = replace(dataset, questions=(first,))
    assert evaluate_answers(answerer, one).figures["questions"] == 1
    bare = replace(dataset, questions=tuple(replace(r, answers=()) for r in dataset.questions))
    for data, options, error, said in (
        (dataset, {"limit": -1}, UsageError, "--limit"),
        (dataset, {"abstain_below": 2}, UsageError, "--abstain-below"),
        (dataset, {"split": "dev"}, DataError, "'dev' has no questions"),
        (bare, {}, DataError, "'test' has no references to score against"),
        (one, {"question_only": answerer}, DataError, "one answered question"),
    ):
        with pytest.raises(error, match=said):
            evaluate_answers(answerer, data, **options)


def test_answers_that_never_occur_in_training(answerer, dataset):
    never = [replace(r, answers=("xylophone",)) for r in dataset.questions_of("test")]
    strange = (*dataset.questions_of("train"), *never)
    figures = evaluate_answers(answerer, replace(dataset, questions=strange)).figures
    assert figures["metrics"]["accuracy"] == 0
    assert figures["bias"]["ceiling"] == figures["bias"]["most_frequent"] == 0
    assert figures["metrics"]["risk_coverage_area"] == 1


def test_abstaining_by_a_naive_sort(answerer, dataset):
    result = evaluate_answers(answerer, dataset, abstain_below=0.3)
    selective, sure = result.figures["selective"], [a.confidence for a in result.results]
    order = sorted(zip(sure, result.scores, strict=True), reverse=True)
    assert len(set(sure)) == len(set(order))  # ties are no matter
    for share, accuracy in selective["accuracy_at_coverage"].items():
        first = [score for _, score in order[: round(float(share) * len(order))]]
        assert accuracy == percent(sum(first), first)
    assert selective["accuracy_at_coverage"]["1.0"] == result.figures["metrics"]["accuracy"]
    kept = [score for confidence, score in order if confidence >= 0.3]
    assert 0 < len(kept) < len(order)
    assert selective["coverage"] == pytest.approx(len(kept) / len(order))
    assert selective["accuracy"] == percent(sum(kept), kept)
    assert [a.abstained for a in result.results] == [p < 0.3 for p in sure]
    nothing = evaluate_answers(answerer, dataset, abstain_below=1.0).figures["selective"]
    assert (nothing["coverage"], nothing["accuracy"]) == (0, None)


@pytest.mark.parametrize("batch", [1, 64])
def test_evidence_is_asked_again_one_by_one(answerer, dataset, batch):
    result = evaluate_answers(answerer, dataset, batch=batch, evidence=True)
    images = list(dict.fromkeys(r.image for r in result.records))
    grey = Image.new("RGB", (64, 64), (128, 128, 128))
    # The other picture is the one before in the split; the first has the last.
    before = {image: dataset.root / images[n - 1] for n, image in enumerate(images)}
    for name in ("blank", "other_picture"):
        pairs = [(grey if name == "blank" else before[r.image], r) for r in result.records]
        texts = [answerer.ask(picture, r.question).text for picture, r in pairs]
        hits = sum(text == r.answers[0] for text, r in zip(texts, result.records, strict=True))
        changed = sum(a.text != text for a, text in zip(result.results, texts, strict=True))
        figures = result.figures["evidence"][name]
        assert figures["accuracy"] == percent(hits, texts)
        assert figures["changed"] == pytest.approx(changed / len(texts))
        assert changed > 0
        lost = result.figures["metrics"]["accuracy"] - figures["accuracy"]
        assert figures["lost"] == pytest.approx(lost, abs=0.006)
    assert evaluate_answers(answerer, dataset).figures["evidence"] is None


def test_what_cannot_be_known_of_answers(answerer, build, dataset):
    first, second, *_ = dataset.questions_of("test")
    assert first.image == second.image
    alone = replace(dataset, questions=(first, replace(second, boxes=())))
    figures = evaluate_answers(answerer, alone, evidence=True).figures
    assert figures["evidence"]["other_picture"] is figures["metrics"]["ece"] is None
    assert figures["bias"]["most_frequent"] is None
    assert figures["bias"]["ceiling"] is not None
    assert figures["evidence"]["blank"] is not None
    assert figures["selective"]["accuracy_at_coverage"]["0.25"] is None
    reasons = figures["not_measured"]
    assert {"other picture", "ece", "most frequent"} <= set(reasons)
    assert reasons["other picture"] == "the questions are about one picture"
    assert evaluate_answers(answerer, dataset, evidence=True).figures["not_measured"] == {}
    figures = evaluate_answers(build(architecture="bow-mlp"), dataset).figures
    assert figures["pointing"] is None
    assert figures["not_measured"] == {"pointing": "the model has no attention"}
    bare = replace(dataset, questions=tuple(replace(r, boxes=()) for r in dataset.questions))
    assert evaluate_answers(answerer, bare).figures["pointing"] is None


def test_what_weakens_the_figures_is_said(build, dataset, caplog):
    figures = evaluate_answers(build(max_question=3), dataset).figures
    asked = dataset.questions_of("test")
    long = sum(len(r.question.split()) > 3 for r in asked)
    assert figures["cut_questions"] == long / len(asked) > 0
    assert f"questions cut at 3 words: {long} of " in caplog.text
    evaluate_answers(build(temperature=2.0), dataset, split="val")
    assert "fitted on val" in caplog.text


def test_the_question_only_twin(answerer, build, dataset):
    blind = build(blind=True)
    figures = evaluate_answers(answerer, dataset, question_only=blind).figures
    twin = evaluate_answers(blind, dataset, batch=3, evidence=True).figures
    for one in twin["evidence"].values():  # a blind model loses nothing
        assert (one["lost"], one["changed"]) == (0, 0)
    compared = figures["question_only"]
    assert compared["accuracy"] == twin["metrics"]["accuracy"] == round(compared["second"], 2)
    difference = figures["metrics"]["accuracy"] - twin["metrics"]["accuracy"]
    assert compared["difference"] == pytest.approx(difference, abs=0.011)
    assert compared["low"] <= compared["difference"] <= compared["high"]
    same = evaluate_answers(answerer, dataset, question_only=answerer).figures["question_only"]
    assert (same["difference"], same["significant"]) == (0, False)


def test_pointing_of_each_pass_by_a_naive_count(answerer, dataset):
    result = evaluate_answers(answerer, dataset, batch=3)
    hits, chances = {0: [], 1: [], 2: []}, []
    places = [((x + 0.5) / 4, (y + 0.5) / 4) for y in range(4) for x in range(4)]
    for asked in (r for r in result.records if r.boxes):
        inside = [
            any(b.x0 <= x <= b.x1 and b.y0 <= y <= b.y1 for b in asked.boxes) for x, y in places
        ]
        chances.append(sum(inside) / 16)
        for number, gaze in enumerate(answerer.ask(dataset.path(asked), asked.question).attention):
            peak = max(range(16), key=gaze.flatten().tolist().__getitem__)
            hits[number].append(inside[peak])
    assert 0 < len(chances) < len(result.records)  # some questions are about no thing
    assert len(result.figures["pointing"]) == 3
    for number, one in enumerate(result.figures["pointing"]):
        assert one["words"] == len(chances)
        assert one["score"] == pytest.approx(np.mean(hits[number]))
        assert one["chance"] == pytest.approx(np.mean(chances))
    assert len({one["score"] for one in result.figures["pointing"]}) > 1


def test_daquar_reports_wups(answerer, dataset):
    questions = tuple(
        QuestionRecord(r.id, r.image, r.question, ("chair",), r.split) for r in dataset.questions
    )
    daquar = Dataset("daquar", "daquar", dataset.root, questions=questions)
    figures = evaluate_answers(answerer, daquar, limit=1).figures["wups"]
    assert {"0.9", "0.0", "reason"} == set(figures)
    if figures["reason"]:
        assert figures["0.9"] is figures["0.0"] is None
    else:
        assert figures["0.9"] <= figures["0.0"]
    assert evaluate_answers(answerer, dataset, limit=1).figures["wups"] is None


# -- what can be answered without looking ----------------------------------------------------


def asked(question, *answers):
    return QuestionRecord("0", "a.png", question, answers, "train")


TRAINING = [
    asked("What colour is the ball?", "red"),
    asked("what colour is the sky", "blue"),
    asked("What colour is the tie", "blue"),
    asked("What is it", "dog"),
    asked("Is it raining", "no"),
    asked("Is it a dog", "no"),
    asked("is it red", "no"),
    asked("How many dogs", "2"),
]


def test_bias_by_hand():
    posed = [asked("Is it snowing", "no"), asked("What colour is it", "red")]
    posed += [asked("what colour is he", "blue"), asked("how many cats", "7")]
    vocabulary = AnswerVocabulary(["no", "blue", "2"])
    expected = {"most_frequent_answer": "no", "most_frequent": 25.0, "prefix": 50.0}
    assert bias(TRAINING, posed, vocabulary) == expected | {"ceiling": 50.0}
    assert bias([], posed, vocabulary) == dict.fromkeys(expected) | {"ceiling": 50.0}
    ten = asked("what is it", *["dog"] * 5, *["puppy"] * 3, "cat", "pet")
    # The best of people's answers: puppy is (7 * 1 + 3 * 2/3) / 10, cat 9 * 1/3 / 10.
    for words, ceiling in ((["cat", "puppy"], 90.0), (["cat"], 30.0), (["bus"], 0.0)):
        assert bias([], [ten], AnswerVocabulary(words))["ceiling"] == ceiling


begins = st.sampled_from(["is it", "is it so", "what is", "how", "what"])
rows = st.lists(st.tuples(begins, st.sampled_from("xyz")), min_size=1, max_size=12)


@settings(max_examples=40, deadline=None)
@given(rows, rows)
def test_bias_equals_a_naive_count(training, posed):
    hits = Counter()
    for question, answer in posed:
        words = question.split()[:2]
        for length in (*range(len(words), 0, -1), 0):
            alike = [a for q, a in training if q.split()[:length] == words[:length]]
            if alike:
                best = max(sorted(set(alike)), key=alike.count)
                hits["prefix"] += best == answer
                break
        everything = [a for _, a in training]
        hits["most_frequent"] += max(sorted(set(everything)), key=everything.count) == answer
    known, judged = ([asked(*row) for row in some] for some in (training, posed))
    figures = bias(known, judged, AnswerVocabulary(["x", "y", "z"]))
    for key in ("prefix", "most_frequent"):
        assert figures[key] == percent(hits[key], posed)
    assert figures["ceiling"] == 100


# -- cached features -------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_cache_is_used_and_says_the_same(
    untrained, untrained_answerer, dataset, monkeypatch, tmp_path, precision
):
    """One cache for a captioner and an answerer of the same encoder."""
    for name in ("scenes.jsonl", "recipe.json"):
        (tmp_path / name).write_bytes((dataset.folder / name).read_bytes())
    dataset = replace(dataset, folder=tmp_path)
    captioner = Captioner(untrained(seed=2), device="cpu", precision=precision)
    answerer = Answerer(untrained_answerer(seed=2), device="cpu", precision=precision)
    direct = evaluate(captioner, dataset)
    plain = evaluate_answers(answerer, dataset, batch=3, evidence=True)
    asked = [(dataset, model.encoder, model.precision) for model in (captioner, answerer)]
    folders = {cache_folder(*each, flip=False) for each in asked}
    assert len(folders) == 1
    build_cache(dataset, answerer.encoder, answerer.device, answerer.precision, workers=0)
    assert answerer.blank.height  # the grey picture is in no cache
    for model in (captioner, answerer):
        monkeypatch.setattr(model, "grid", lambda images: pytest.fail("encoded a picture"))
    for one, other in zip(evaluate(captioner, dataset).results, direct.results, strict=True):
        assert one.text == other.text
        assert np.allclose(one.attention, other.attention, atol=0.02)  # float16 in the cache
    cached = evaluate_answers(answerer, dataset, batch=3, evidence=True)
    assert [a.text for a in cached.results] == [a.text for a in plain.results]
    sure = [a.confidence for a in plain.results]
    assert [a.confidence for a in cached.results] == pytest.approx(sure, abs=0.01)
    assert cached.figures["evidence"] == plain.figures["evidence"]


def test_a_dataset_without_a_folder_is_encoded(captioner, dataset):
    loose = Dataset("d", "table", dataset.root, dataset.split("test")[:3])
    result = evaluate(captioner, loose)
    assert len(result.results) == 3
    assert result.figures["truth"] is result.verdicts is None
