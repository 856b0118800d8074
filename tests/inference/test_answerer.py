"""Asking: the same answer alone and in a batch; its confidence by hand; bad questions."""

import io
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import gazetell
from gazetell.errors import ImageError, ModelError, UsageError
from gazetell.inference.evaluate import evaluate_answers
from gazetell.inference.predict import Answer, Answerer, Captioner, load
from gazetell.models.answerers import ANSWERERS
from gazetell.models.folder import save_model

QUESTIONS = ["Is there a red circle?", "how many stars are there", "what colour is the square?"]


@pytest.fixture
def build(untrained_answerer):
    """A loaded model; options by name."""

    def make(**options):
        return Answerer(untrained_answerer(**{"seed": 2} | options), device="cpu", precision="fp32")

    return make


@pytest.fixture
def model(build):
    return build()


@pytest.fixture
def pictures(scenes_dataset):
    return [scenes_dataset.path(record) for record in scenes_dataset.captions[:4]]


def same(one, other):
    assert (one.question, one.text, one.unknown) == (other.question, other.text, other.unknown)
    assert one.confidence == pytest.approx(other.confidence, abs=1e-5)
    assert [text for text, _ in one.top] == [text for text, _ in other.top]
    assert [p for _, p in one.top] == pytest.approx([p for _, p in other.top], abs=1e-5)
    if one.attention is not None and other.attention is not None:
        assert np.allclose(one.attention, other.attention, atol=1e-5)
    return True


# -- one question ----------------------------------------------------------------------------


def test_an_answer_and_its_evidence(model, pictures):
    answer = model.ask(pictures[0], QUESTIONS[0])
    assert answer.question == QUESTIONS[0]
    assert answer.text in model.answers.answers
    assert answer.attention.shape == (3, 4, 4)
    assert np.allclose(answer.attention.sum((1, 2)), 1, atol=1e-5)
    assert model.attentive
    assert answer.passes == ["pass 1", "pass 2", "pass 3"]
    assert answer.top[0] == (answer.text, answer.confidence)
    assert len(answer.top) == len({text for text, _ in answer.top}) == 5
    assert [p for _, p in answer.top] == sorted((p for _, p in answer.top), reverse=True)
    assert not answer.abstained
    assert answer.without_picture is None
    assert max(answer.image.size) <= 640
    texts = {model.ask(path, text).text for path in pictures for text in QUESTIONS}
    assert len(texts) > 1  # else nothing below would show a mix-up


@pytest.mark.parametrize("architecture", ["bow-mlp", "lstm-vqa"])
def test_models_without_attention_answer_without(build, pictures, architecture, tmp_path):
    model = build(architecture=architecture)
    answer = model.ask(pictures[0], QUESTIONS[0])
    assert answer.attention is None
    assert not model.attentive
    assert answer.passes == []
    assert answer.to_dict()["attention"] is None
    with pytest.raises(UsageError, match="no attention"):
        answer.save_gaze(tmp_path / "gaze.png")
    assert "<img" in answer._repr_html_()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("sigmoid", [False, True])
def test_confidence_is_the_scaled_logit_by_hand(
    build, untrained_answerer, pictures, scenes_dataset, sigmoid
):
    """From the parts: squash the picture, look the words up, and do the sums in Python."""
    parts = untrained_answerer(seed=2)
    pixels = np.asarray(Image.open(pictures[0]).convert("RGB").resize((64, 64), 3))
    words = parts.tokenizer.encode("is there a red circle")[1:-1]
    with torch.inference_mode():
        grid = parts.encoder(torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None])
        logits, gaze = parts.answerer(grid, torch.tensor([words]), torch.tensor([len(words)]))
    scaled = [value / 1.7 for value in logits[0].tolist()]
    if sigmoid:
        chances = [1 / (1 + math.exp(-value)) for value in scaled]
    else:
        chances = [math.exp(v - max(scaled)) for v in scaled]
        chances = [value / sum(chances) for value in chances]
    order = sorted(range(len(chances)), key=lambda a: -chances[a])[:5]
    picture = Image.open(pictures[0]).convert("RGB").resize((64, 64), 3)
    answer = build(temperature=1.7, sigmoid=sigmoid).ask(picture, QUESTIONS[0])
    assert [text for text, _ in answer.top] == [parts.answers.answers[a] for a in order]
    assert [p for _, p in answer.top] == pytest.approx([chances[a] for a in order], abs=2e-3)
    assert np.allclose(answer.attention.reshape(3, 16), gaze[0], atol=2e-3)


def test_a_temperature_changes_confidences_and_no_answer(build, pictures):
    plain, cool = build().ask(pictures[0], QUESTIONS[0]), build(temperature=0.5)
    cooler = cool.ask(pictures[0], QUESTIONS[0])
    assert cooler.text == plain.text
    assert cooler.confidence > plain.confidence


def test_a_picture_may_be_a_path_bytes_or_an_image(model, pictures):
    first = model.ask(pictures[1], QUESTIONS[1])
    for form in (str(pictures[1]), pictures[1].read_bytes(), Image.open(pictures[1])):
        assert same(model.ask(form, QUESTIONS[1]), first)


@pytest.mark.parametrize("bad", ["none.png", b"", b"GIF89a"])
def test_a_picture_that_cannot_be_opened(model, bad):
    with pytest.raises(ImageError):
        model.ask(bad, QUESTIONS[0])


# -- many questions --------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ANSWERERS)
def test_alone_together_and_in_a_batch_are_the_same(build, scenes_dataset, architecture):
    model = build(architecture=architecture)
    found = evaluate_answers(model, scenes_dataset, split="test", batch=4)
    assert len(found.records) == 6
    for record, answer in zip(found.records, found.results, strict=True):
        path = scenes_dataset.path(record)
        assert same(model.ask(path, record.question), answer)
        among = model.ask_all(path, [QUESTIONS[0], record.question, "why " * 9])
        assert same(among[1], answer)


def test_no_questions_need_no_picture(model):
    assert model.ask_all("none.png", []) == []
    with pytest.raises(UsageError, match="expected a list of questions"):
        model.ask_all("none.png", "is it red")  # not a question a letter


def test_one_look_serves_many_questions(model, pictures, monkeypatch):
    look = model.encode(pictures[0])
    expected = [model.ask(pictures[0], text) for text in QUESTIONS]
    monkeypatch.setattr(model, "grid", lambda images: pytest.fail("encoded again"))
    for text, answer in zip(QUESTIONS, expected, strict=True):
        assert same(model.ask(look, text), answer)
    assert all(map(same, model.ask_all(look, QUESTIONS), expected))


def test_captioner_and_answerer_of_one_encoder_share_a_look(
    model, untrained, pictures, monkeypatch
):
    captioner = Captioner(untrained(seed=2), device="cpu", precision="fp32")
    caption, answer = captioner.caption(pictures[0]), model.ask(pictures[0], QUESTIONS[0])
    for looker in (captioner, model):
        look = looker.encode(pictures[0])
        with monkeypatch.context() as patch:
            for one in (captioner, model):
                patch.setattr(one, "grid", lambda images: pytest.fail("encoded again"))
            assert captioner.caption(look).text == caption.text
            assert same(model.ask(look, QUESTIONS[0]), answer)
            assert captioner.captions([look, look])[1].text == caption.text


def test_a_look_of_another_encoder_is_refused(model, untrained, build, pictures):
    other = build(seed=3).encode(pictures[0])
    with pytest.raises(ModelError, match="another encoder"):
        model.ask(other, QUESTIONS[0])
    with pytest.raises(ModelError, match="another encoder"):
        Captioner(untrained(seed=2), device="cpu").captions([pictures[0], other])


def test_looks_and_pictures_may_be_mixed(untrained, pictures):
    captioner = Captioner(untrained(seed=2), device="cpu", precision="fp32")
    mixed = [pictures[0], captioner.encode(pictures[1]), pictures[2]]
    texts = [caption.text for caption in captioner.captions(mixed)]
    assert texts == [captioner.caption(path).text for path in pictures[:3]]


# -- what it does not know -------------------------------------------------------------------


def test_unknown_words_are_listed(model, scenes_dataset, pictures):
    answer = model.ask(pictures[0], "Is there a Zebra, a red zebra or a Qualle there? Zebra!")
    assert answer.unknown == ["Zebra", "zebra", "Qualle"]
    known = scenes_dataset.questions_of("train")[0].question
    assert model.ask(pictures[0], known).unknown == []


@pytest.mark.parametrize(
    "question",
    ["zebra qualle", "ist da ein Kreis?", "有红色的圆吗", "هل توجد دائرة", "🐕🐈", "x" * 10_000],
)
def test_strange_questions_are_answered(model, pictures, question):
    answer = model.ask(pictures[0], question)
    assert answer.unknown
    assert 0 < answer.confidence <= 1
    json.dumps(answer.to_dict(), allow_nan=False)


def test_a_long_question_is_cut(model, pictures):
    start = "is there a red circle " * 6  # 30 words
    cut = model.ask(pictures[0], start + "is there " * 1_000)
    whole = model.ask(pictures[0], start)
    assert same(replace(cut, question=start), whole)
    assert (cut.cut, cut.to_dict()["words_cut"], whole.cut) == (2_000, 2_000, 0)


@pytest.mark.parametrize("question", ["", " \t\n", "?!...", "\u200b\u200b"])
def test_a_question_without_words_is_refused(model, pictures, question):
    with pytest.raises(UsageError, match="has no words"):
        model.ask(pictures[0], question)
    with pytest.raises(UsageError, match="has no words"):
        model.ask_all(pictures[0], [QUESTIONS[0], question])


def test_a_lone_surrogate_is_no_crash(model, pictures):
    assert model.ask(pictures[0], "is there a \udcff circle").text


def test_abstaining(model, pictures):
    answer = model.ask(pictures[0], QUESTIONS[0])
    for bound, abstained in ((answer.confidence * 0.99, False), (answer.confidence * 1.01, True)):
        found = model.ask(pictures[0], QUESTIONS[0], abstain_below=min(bound, 1.0))
        assert found.abstained is abstained
        assert found.text == answer.text
    for bad in (-0.1, 1.1, math.nan, "0.5"):
        with pytest.raises(UsageError, match="--abstain-below"):
            model.ask(pictures[0], QUESTIONS[0], abstain_below=bad)


def test_without_the_picture_is_a_grey_one(model, pictures):
    grey = Image.new("RGB", (90, 40), (128, 128, 128))
    for text in QUESTIONS:
        answer = model.ask(pictures[0], text, evidence=True)
        asked = dict(model.ask(grey, text).top)
        assert len(asked) == 5
        if answer.text in asked:
            assert answer.without_picture == pytest.approx(asked[answer.text], abs=1e-5)
        else:
            assert answer.without_picture <= min(asked.values()) + 1e-6
    assert model.ask(grey, QUESTIONS[0], evidence=True).without_picture == pytest.approx(
        model.ask(grey, QUESTIONS[0]).confidence, abs=1e-6
    )
    together = model.ask_all(pictures[0], QUESTIONS, evidence=True)
    alone = [model.ask(pictures[0], text, evidence=True) for text in QUESTIONS]
    assert [a.without_picture for a in together] == pytest.approx(
        [a.without_picture for a in alone], abs=1e-5
    )


def test_a_blind_model_says_the_same_of_every_picture(build, pictures):
    blind = build(blind=True)
    found = [blind.ask(path, QUESTIONS[0], evidence=True) for path in pictures]
    assert len({answer.confidence for answer in found}) == 1
    assert found[0].without_picture == found[0].confidence


# -- what an answer can do -------------------------------------------------------------------


@pytest.mark.parametrize(("name", "begins"), [("g.png", b"\x89PNG"), ("g.gif", b"GIF89a")])
def test_the_gaze_of_each_pass_is_saved(model, pictures, tmp_path, name, begins):
    model.ask(pictures[2], QUESTIONS[0]).save_gaze(tmp_path / "new" / name)
    content = (tmp_path / "new" / name).read_bytes()
    assert content.startswith(begins)
    if name == "g.gif":
        assert Image.open(io.BytesIO(content)).n_frames == 3


def test_the_page_names_each_pass(model, pictures, tmp_path):
    answer = model.ask(pictures[2], QUESTIONS[0])
    answer.save_gaze(tmp_path / "g.html")
    assert all(name in (tmp_path / "g.html").read_text() for name in answer.passes)
    with pytest.raises(UsageError, match=r"gaze\.pdf"):
        answer.save_gaze(tmp_path / "gaze.pdf")
    with pytest.raises(ModelError, match="no picture"):
        replace(answer, image=None).save_gaze(tmp_path / "gaze.png")


EVIL = Answer(
    "<script>alert('question')</script>",
    "<script>alert('answer')</script>",
    0.5,
    [("<script>alert('top')</script>", 0.5)],
    np.full((2, 2, 2), 0.25),
    image=Image.new("RGB", (8, 8)),
)


@pytest.mark.parametrize("lacks", [{}, {"attention": None}, {"image": None}])
def test_a_notebook_shows_it_escaped(lacks):
    shown = replace(EVIL, **lacks)._repr_html_()
    assert "<script>alert" not in shown
    for part in ("question", "answer", "top"):
        assert f"&lt;script&gt;alert(&#x27;{part}" in shown
    assert ("data:image/" in shown) == ("image" not in lacks)


def test_an_answer_is_plain_json(model, pictures):
    answer = model.ask(pictures[0], "is there a zebra", abstain_below=1.0, evidence=True)
    values = json.loads(json.dumps(answer.to_dict(), allow_nan=False))
    assert values["question"] == "is there a zebra"
    assert values["answer"] == values["top"][0]["answer"] == answer.text
    assert values["confidence"] == pytest.approx(answer.confidence, abs=1e-5)
    assert [one["confidence"] for one in values["top"]] == pytest.approx(
        [p for _, p in answer.top], abs=1e-5
    )
    assert values["unknown_words"] == ["zebra"]
    assert values["abstained"] is True
    assert values["without_picture"] == pytest.approx(answer.without_picture, abs=1e-5)
    assert np.allclose(values["attention"], answer.attention, atol=1e-4)


# -- loading ---------------------------------------------------------------------------------


def test_a_model_is_loaded_by_what_it_is(untrained, untrained_answerer, pictures, tmp_path):
    save_model(tmp_path / "captions", untrained(seed=2))
    save_model(tmp_path / "answers", untrained_answerer(seed=2, temperature=2.0))
    model = gazetell.load(tmp_path / "answers", precision="fp32")
    assert isinstance(model, gazetell.Answerer)
    assert isinstance(load(tmp_path / "captions"), gazetell.Captioner)
    assert model.temperature == 2.0
    look = load(tmp_path / "captions", precision="fp32").encode(pictures[0])
    assert same(model.ask(look, QUESTIONS[0]), model.ask(pictures[0], QUESTIONS[0]))
    with pytest.raises(ModelError, match=r"is a captioner; use it with: gazetell caption"):
        Answerer.load(tmp_path / "captions")
    with pytest.raises(ModelError, match=r"is an answerer; use it with: gazetell ask"):
        Captioner.load(tmp_path / "answers")
    with pytest.raises(ModelError, match=r"an ensemble is of captioners"):
        load(tmp_path / "answers", tmp_path / "answers")
    with pytest.raises(ModelError, match=r"is an answerer"):
        load(tmp_path / "captions", tmp_path / "answers")
