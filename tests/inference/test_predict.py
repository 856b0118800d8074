"""Using models: one picture or many, alone or in a batch, from wherever they come, with gaze."""

import io
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import gazetell
from gazetell.data.text import Tokenizer
from gazetell.errors import ImageError, ModelError, UsageError
from gazetell.inference.evaluate import evaluate_answers
from gazetell.inference.load import load
from gazetell.inference.predict import Answer, Answerer, Caption, Captioner, caption_many
from gazetell.models.answerers import ANSWERERS
from gazetell.models.decoding import decode
from gazetell.models.folder import fetch, save_model
from gazetell.pictures import open_image

QUESTIONS = ["Is there a red circle?", "how many stars are there", "what colour is the square?"]
EXACT = {"device": "cpu", "precision": "fp32"}


@pytest.fixture
def pictures(scenes_dataset):
    return [scenes_dataset.path(record) for record in scenes_dataset.captions[:9]]


def same(one, other):
    """Whether two captions or two answers say the same."""
    if isinstance(one, Caption):
        assert (one.text, one.words, one.ended) == (other.text, other.words, other.ended)
        assert one.log_prob == pytest.approx(other.log_prob, abs=2e-3)
    else:
        assert (one.question, one.text, one.unknown) == (other.question, other.text, other.unknown)
        assert one.confidence == pytest.approx(other.confidence, abs=1e-5)
        assert [text for text, _ in one.top] == [text for text, _ in other.top]
        assert [p for _, p in one.top] == pytest.approx([p for _, p in other.top], abs=1e-5)
    if one.attention is not None and other.attention is not None:
        assert np.allclose(one.attention, other.attention, atol=1e-3)
    return True


# -- captions --------------------------------------------------------------------------------


def test_a_caption_and_its_evidence(captioner, pictures):
    caption = captioner.caption(pictures[0])
    assert caption.words
    assert caption.text == " ".join(caption.words)
    assert captioner.attentive
    assert caption.attention.shape == (len(caption.words), 4, 4)
    assert np.allclose(caption.attention.sum((1, 2)), 1, atol=1e-5)
    assert caption.log_prob < 0
    assert max(caption.image.size) <= 640
    values = json.loads(json.dumps(caption.to_dict(), allow_nan=False))
    assert (values["caption"], values["words"]) == (caption.text, caption.words)
    assert np.allclose(values["attention"], caption.attention, atol=1e-4)
    assert values["log_prob"] == pytest.approx(caption.log_prob, abs=1e-4)
    assert values["ended"] is caption.ended
    assert replace(caption, attention=None).to_dict()["attention"] is None


def test_a_caption_has_the_confidence_that_was_fitted(captioner, untrained, confidence, pictures):
    assert captioner.caption(pictures[0]).to_dict()["confidence"] is None
    parts = untrained(seed=2, confidence=confidence())
    model = Captioner(parts, **EXACT)
    encoding = model.encode(pictures[0])
    for several in ({"beam": 3}, {"sample": True}):
        captions = model.n_best(encoding, 3, **several)
        options = model.options(**several)
        far = model.confidence.distance(encoding.grid.pooled.expand(3, -1), None)
        expected = model.confidence(model.search(encoding.grid, options, 3)[0], far)
        assert [one.confidence for one in captions] == pytest.approx(expected.tolist())
        assert len(set(expected)) > 1
        assert expected.min() > 0
        assert expected.max() < 1
    one = captions[0]
    for bound, sure in ((one.confidence, True), (one.confidence + 1e-6, False)):
        model.confidence = confidence(threshold=bound)
        assert model.n_best(encoding, 3, sample=True)[0].sure is sure
    assert one.to_dict()["confidence"] == pytest.approx(one.confidence, abs=1e-5)
    # None was fitted to two that speak together.
    assert Captioner(parts, untrained(seed=2), **EXACT).caption(pictures[0]).confidence is None


def test_the_caption_is_what_decoding_says_of_the_squashed_picture(captioner, untrained, pictures):
    parts = untrained(seed=2)
    small = Image.open(pictures[0]).convert("RGB").resize((64, 64), Image.Resampling.BICUBIC)
    with torch.inference_mode():
        grid = parts.encoder(torch.from_numpy(np.asarray(small).transpose(2, 0, 1).copy())[None])
    (expected,) = decode(parts.captioner, grid, parts.decoding, start=1, end=2, banned=(0, 3))
    caption = captioner.caption(small)
    assert caption.words == parts.tokenizer.words(expected.tokens)
    assert caption.log_prob == pytest.approx(expected.log_prob, abs=2e-3)
    assert np.allclose(caption.attention.reshape(-1, 16), expected.attention, atol=1e-3)


@pytest.mark.parametrize("how", ["caption", "caption_many", "ask"])
def test_another_fit_is_told_and_used(
    untrained, untrained_answerer, captioner, pictures, caplog, how
):
    wide = Image.new("RGB", (128, 64))
    wide.paste(Image.open(pictures[0]).resize((64, 64)), (32, 0))
    data, middle = io.BytesIO(), wide.crop((32, 0, 96, 64))
    wide.save(data, "PNG")
    if how == "ask":
        model = Answerer(untrained_answerer(seed=2), **EXACT, fit="crop")
        found = model.ask(data.getvalue(), QUESTIONS[0])
        expected = Answerer(untrained_answerer(seed=2), **EXACT).ask(middle, QUESTIONS[0])
    else:
        model = Captioner(untrained(seed=2), **EXACT, fit="crop")
        ((_, many),) = caption_many(model, [data.getvalue()])
        found = many if how == "caption_many" else model.caption(wide)
        expected = captioner.caption(middle)
    assert same(found, expected)
    assert "pictures are fitted by crop; the model learned with pad" in caplog.text
    assert len(caplog.records) == 1
    assert found.view.seen == (0.25, 0, 0.75, 1)
    assert expected.view.seen == (0, 0, 1, 1)
    assert found.to_dict()["view"]["seen"] == [0.25, 0, 0.75, 1]
    assert model.fingerprint != captioner.fingerprint


def test_a_fit_that_does_not_exist_is_refused(untrained):
    with pytest.raises(UsageError, match="fit stretch: expected one of squash, crop, pad"):
        Captioner(untrained(), **EXACT, fit="stretch")


def test_a_result_is_printed_and_compared_without_its_maps(captioner, answerer, pictures):
    for say in (captioner.caption, lambda picture: answerer.ask(picture, "is there a star?")):
        one, again = say(pictures[0]), say(pictures[0])
        assert one == again
        assert one.text in repr(one)
        assert "array(" not in repr(one)


def test_several_at_once_are_the_same_as_one_by_one(captioner, pictures):
    together = captioner.captions(pictures[:4])
    for path, caption in zip(pictures[:4], together, strict=True):
        assert same(captioner.caption(path), caption)
    assert captioner.captions([]) == []
    mixed = [pictures[0], captioner.encode(pictures[1]), pictures[2]]
    assert all(map(same, captioner.captions(mixed), together[:3]))


def test_large_pictures_are_kept_small(captioner):
    picture = Image.new("RGB", (2000, 500), "red")
    assert captioner.caption(picture).image.size == (640, 160)
    assert picture.size == (2000, 500)


def test_options(captioner, pictures):
    assert captioner.options(beam=5).beam == 5
    assert captioner.options().max_length == captioner.decoding.max_length
    assert len(captioner.caption(pictures[0], max_length=2).words) <= 2
    assert len(captioner.caption(pictures[0], min_length=6, max_length=6).words) == 6
    draws = {captioner.caption(pictures[0], sample=True, seed=seed).text for seed in range(5)}
    assert len(draws) > 1
    again = [captioner.caption(pictures[0], sample=True, seed=3).text for _ in range(2)]
    assert again[0] == again[1]
    assert captioner.options(sample=True, seed=np.int64(3), temperature=2).beam == 1


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"beam": 0}, "beam 0"),
        ({"sample": True, "beam": 2}, "expected beam 1"),
        ({"beem": 3}, "beem: there is no such option; did you mean beam?"),
        ({"beam": "3"}, "beam '3': expected a whole number"),
        ({"length_penalty": None}, "length_penalty None: expected a number"),
        ({"sample": "yes"}, "sample 'yes': expected True or False"),
        # What has no effect is refused.
        ({"sample": False, "top_k": 5}, "top_k: has no effect"),
        ({"sample": True, "length_penalty": 1.0}, "length_penalty: has no effect"),
    ],
)
def test_a_wrong_option_is_one_sentence(captioner, pictures, bad, said):
    with pytest.raises(UsageError) as caught:
        captioner.caption(pictures[0], **bad)
    assert said in str(caught.value)


@pytest.mark.parametrize("kind", [Captioner, Answerer])
def test_a_wrong_option_of_loading_is_one_sentence(kind):
    with pytest.raises(UsageError, match=r"devise: there is no such option; did you mean device\?"):
        kind.load("nowhere", devise="cpu")


def test_special_words_are_never_said(untrained, pictures):
    parts = untrained(seed=2)
    parts.captioner.head[-1].bias.data[[0, 1, 3]] += 50  # <pad> <start> <unk>
    for beam in (1, 3):
        caption = Captioner(parts, **EXACT).caption(pictures[0], beam=beam, max_length=5)
        assert caption.words
        assert not {"<pad>", "<start>", "<unk>", "<end>"} & set(caption.words)


@pytest.mark.parametrize("beam", [1, 3])
def test_an_empty_caption_has_an_empty_gaze(untrained, pictures, beam):
    parts = untrained(seed=2)
    parts.captioner.head[-1].bias.data[2] += 50  # <end> at once
    caption = Captioner(parts, **EXACT).caption(pictures[0], min_length=0, beam=beam)
    assert (caption.text, caption.words) == ("", [])
    assert caption.attention.shape == (0, 4, 4)
    assert caption.to_dict()["attention"] == []
    assert "<img" in caption._repr_html_()


# -- answers ---------------------------------------------------------------------------------


def test_an_answer_and_its_evidence(answerer, pictures, scenes_dataset):
    question = scenes_dataset.questions_of("train")[0].question
    answer = answerer.ask(pictures[0], question)
    assert answer.question == question
    assert answer.text in answerer.answers.answers
    assert answerer.attentive
    assert answer.attention.shape == (3, 4, 4)
    assert np.allclose(answer.attention.sum((1, 2)), 1, atol=1e-5)
    assert answer.passes == ["pass 1", "pass 2", "pass 3"]
    assert answer.top[0] == (answer.text, answer.confidence)
    assert len(answer.top) == len({text for text, _ in answer.top}) == 5
    assert [p for _, p in answer.top] == sorted((p for _, p in answer.top), reverse=True)
    assert (answer.abstained, answer.without_picture) == (False, None)
    texts = {answerer.ask(path, text).text for path in pictures for text in QUESTIONS}
    assert len(texts) > 1  # else nothing below would show a mix-up


def test_an_answer_is_plain_json(answerer, pictures):
    answer = answerer.ask(pictures[0], "is there a zebra", abstain_below=1.0, evidence=True)
    values = json.loads(json.dumps(answer.to_dict(), allow_nan=False))
    assert values["question"] == "is there a zebra"
    assert values["answer"] == values["top"][0]["answer"] == answer.text
    assert values["confidence"] == pytest.approx(answer.confidence, abs=1e-5)
    chances = [one["confidence"] for one in values["top"]]
    assert chances == pytest.approx([p for _, p in answer.top], abs=1e-5)
    assert (values["unknown_words"], values["words_cut"]) == (["zebra"], 0)
    assert values["abstained"] is True
    assert values["without_picture"] == pytest.approx(answer.without_picture, abs=1e-5)
    assert np.allclose(values["attention"], answer.attention, atol=1e-4)


@pytest.mark.parametrize("architecture", ["bow-mlp", "lstm-vqa"])
def test_models_without_attention_answer_without(build, pictures, architecture, tmp_path):
    model = build(architecture=architecture)
    answer = model.ask(pictures[0], QUESTIONS[0])
    assert not model.attentive
    assert (answer.attention, answer.passes) == (None, [])
    assert answer.to_dict()["attention"] is None
    with pytest.raises(UsageError, match="no attention"):
        answer.save_gaze(tmp_path / "gaze.png")
    assert "<img" in answer._repr_html_()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("sigmoid", [False, True])
def test_confidence_is_the_scaled_logit_by_hand(build, untrained_answerer, pictures, sigmoid):
    """From the parts: squash the picture, look the words up, and do the sums in Python."""
    parts = untrained_answerer(seed=2)
    small = Image.open(pictures[0]).convert("RGB").resize((64, 64), 3)
    words = parts.tokenizer.encode("is there a red circle")[1:-1]
    with torch.inference_mode():
        grid = parts.encoder(torch.from_numpy(np.asarray(small).transpose(2, 0, 1).copy())[None])
        logits, gaze = parts.answerer(grid, torch.tensor([words]), torch.tensor([len(words)]))
    scaled = [value / 1.7 for value in logits[0].tolist()]
    if sigmoid:
        chances = [1 / (1 + math.exp(-value)) for value in scaled]
    else:
        chances = [math.exp(v - max(scaled)) for v in scaled]
        chances = [value / sum(chances) for value in chances]
    order = sorted(range(len(chances)), key=lambda a: -chances[a])[:5]
    answer = build(temperature=1.7, sigmoid=sigmoid).ask(small, QUESTIONS[0])
    assert [text for text, _ in answer.top] == [parts.answers.answers[a] for a in order]
    assert [p for _, p in answer.top] == pytest.approx([chances[a] for a in order], abs=2e-3)
    assert np.allclose(answer.attention.reshape(3, 16), gaze[0], atol=2e-3)


def test_of_what_a_question_asks_with_an_unknown_word_it_is_never_sure(
    build, pictures, scenes_dataset
):
    model, plain = build(unknown_temperature=9.0, temperature=0.5), build(temperature=0.5)
    told = model.ask(pictures[0], "is there a cat?")
    assert told.with_confidence.startswith("not sure; at best")
    assert told.confidence < plain.ask(pictures[0], "is there a cat?").confidence
    assert plain.ask(pictures[0], "is there a cat?").abstained  # of an earlier version
    assert not model.ask(pictures[0], "is there a cat?", abstain_below=0.0).abstained
    known = scenes_dataset.questions_of("train")[0].question
    also = model.ask(pictures[0], f"please {known}")  # says nothing of what is asked
    assert (also.unknown, also.abstained) == (["please"], False)


@pytest.mark.parametrize("architecture", ANSWERERS)
def test_alone_together_and_in_a_batch_are_the_same(build, scenes_dataset, architecture):
    model = build(architecture=architecture)
    whole = evaluate_answers(model, scenes_dataset, split="test", batch=4)
    assert len(whole.records) == 6
    for record, answer in zip(whole.records, whole.results, strict=True):
        path = scenes_dataset.path(record)
        assert same(model.ask(path, record.question), answer)
        among = model.ask_all(path, [QUESTIONS[0], record.question, "why " * 9])
        assert same(among[1], answer)


@pytest.mark.parametrize(
    "question",
    ["ist da ein Kreis?", "有红色的圆吗", "هل توجد دائرة", "🐕🐈", "x" * 10_000, "a \udcff zebra"],
)
def test_strange_questions_are_answered(answerer, pictures, question):
    answer = answerer.ask(pictures[0], question)
    assert answer.unknown
    assert 0 < answer.confidence <= 1
    json.dumps(answer.to_dict(), allow_nan=False)


def test_a_long_question_is_cut(answerer, pictures):
    start = "is there a red circle " * 6  # 30 words
    whole, cut = (answerer.ask(pictures[0], start + more) for more in ("", "is there " * 1_000))
    assert same(replace(cut, question=start), whole)
    assert (cut.cut, cut.to_dict()["words_cut"], whole.cut) == (2_000, 2_000, 0)


@pytest.mark.parametrize("question", ["", " \t\n", "?!...", "\u200b\u200b", 7])
def test_a_question_without_words_is_refused(answerer, pictures, question):
    with pytest.raises(UsageError, match=r"has no words|expected text"):
        answerer.ask_all(pictures[0], [QUESTIONS[0], question])


def test_damaged_weights_answer_nothing(untrained_answerer, pictures):
    parts = untrained_answerer(seed=2)
    for parameter in parts.answerer.parameters():
        parameter.data[:] = math.nan
    with pytest.raises(ModelError, match="weights are damaged"):
        Answerer(parts, **EXACT).ask(pictures[0], QUESTIONS[0])


def test_the_bound_to_abstain_below_is_the_models(untrained_answerer, pictures, scenes_dataset):
    known = scenes_dataset.questions_of("train")[0].question
    for bound in (0.0, 1.0):
        model = Answerer(untrained_answerer(seed=2, abstain_below=bound), **EXACT)
        assert model.ask(pictures[0], known).abstained is (bound == 1)
        assert model.ask(pictures[0], known, abstain_below=1 - bound).abstained is (bound == 0)


def test_abstaining(answerer, pictures):
    answer = answerer.ask(pictures[0], QUESTIONS[0])
    for bound, abstained in ((answer.confidence * 0.99, False), (answer.confidence * 1.01, True)):
        judged = answerer.ask(pictures[0], QUESTIONS[0], abstain_below=min(bound, 1.0))
        assert (judged.abstained, judged.text) == (abstained, answer.text)
    for bad in (-0.1, 1.1, math.nan, "0.5"):
        with pytest.raises(UsageError, match="--abstain-below"):
            answerer.ask(pictures[0], QUESTIONS[0], abstain_below=bad)


def test_without_the_picture_is_a_grey_one(answerer, build, pictures):
    grey = Image.new("RGB", (90, 40), (128, 128, 128))
    together = answerer.ask_all(pictures[0], QUESTIONS, evidence=True)
    for text, answer in zip(QUESTIONS, together, strict=True):
        asked = dict(answerer.ask(grey, text).top)
        if answer.text in asked:
            assert answer.without_picture == pytest.approx(asked[answer.text], abs=1e-5)
        else:
            assert answer.without_picture <= min(asked.values()) + 1e-6
        alone = answerer.ask(pictures[0], text, evidence=True)
        assert alone.without_picture == pytest.approx(answer.without_picture, abs=1e-5)
    # A blind model says the same of every picture.
    blind = build(blind=True)
    answers = [blind.ask(path, QUESTIONS[0], evidence=True) for path in pictures]
    assert {a.confidence for a in answers} == {a.without_picture for a in answers}
    assert len({a.confidence for a in answers}) == 1


# -- what both do ----------------------------------------------------------------------------

CALLS = [lambda c, _, picture: c.caption(picture), lambda _, a, picture: a.ask(picture, "is it?")]


@pytest.mark.parametrize("call", CALLS)
def test_a_picture_may_be_a_path_bytes_or_an_image(captioner, answerer, pictures, call):
    path = pictures[1]
    first = call(captioner, answerer, path)
    for form in (str(path), path.read_bytes(), Image.open(path), answerer.encode(path)):
        assert same(call(captioner, answerer, form), first)
    for bad in ("none.png", b"", b"GIF89a", 7):
        with pytest.raises(ImageError):
            call(captioner, answerer, bad)


def test_a_picture_is_encoded_once(captioner, answerer, build, untrained, pictures, monkeypatch):
    """Models of one encoder share what it makes; that of another is refused."""
    caption = captioner.caption(pictures[0])
    answers = [answerer.ask(pictures[0], text) for text in QUESTIONS]
    encodings = [model.encode(pictures[0]) for model in (captioner, answerer)]
    for model in (captioner, answerer):
        monkeypatch.setattr(model, "grid", lambda images: pytest.fail("encoded again"))
    for encoding in encodings:
        assert captioner.captions([encoding, encoding])[1].text == caption.text
        assert all(map(same, answerer.ask_all(encoding, QUESTIONS), answers))
    other = build(seed=3).encode(pictures[0])
    for refuse in (lambda: answerer.ask(other, "is it"), lambda: captioner.caption(other)):
        with pytest.raises(ModelError, match="another encoder"):
            refuse()


def test_one_is_no_list_of_several(captioner, answerer):
    """The letters of a text would be taken for paths, or for questions."""
    assert answerer.ask_all("none.png", []) == []
    for call in (lambda: captioner.captions("a.png"), lambda: captioner.captions(b"x")):
        with pytest.raises(UsageError, match="expected a list of pictures"):
            call()
    with pytest.raises(UsageError, match="expected a list of questions"):
        answerer.ask_all("none.png", "is it red")


@pytest.mark.parametrize("call", CALLS)
def test_the_gaze_is_saved(captioner, answerer, pictures, call, tmp_path):
    result = call(captioner, answerer, pictures[2])
    labels = result.words if isinstance(result, Caption) else result.passes
    result.save_gaze(tmp_path / "new folder" / "g.gif")
    assert Image.open(tmp_path / "new folder" / "g.gif").n_frames == len(labels)
    result.save_gaze(tmp_path / "g.html")
    assert all(label in (tmp_path / "g.html").read_text() for label in labels)
    for bad, error, said in (
        (result, UsageError, r"gaze\.pdf"),
        (replace(result, attention=None), UsageError, "no attention"),
        (replace(result, image=None), ModelError, "has no picture"),
    ):
        with pytest.raises(error, match=said):
            bad.save_gaze(tmp_path / ("gaze.pdf" if bad is result else "gaze.png"))
    assert not list(tmp_path.glob("gaze*"))


EVIL = "<script>alert('{}')</script>"
TELL = Caption(EVIL.format(1), [EVIL.format(1)], np.full((1, 2, 2), 0.25), -1.0)
ASKED = Answer(
    EVIL.format("question"), EVIL.format("answer"), 0.5, [(EVIL.format("top"), 0.5)], TELL.attention
)


@pytest.mark.parametrize(("result", "parts"), [(TELL, "1"), (ASKED, "question answer top")])
@pytest.mark.parametrize("lacks", [{}, {"attention": None}, {"image": None}])
def test_a_notebook_shows_it_escaped(result, parts, lacks):
    shown = replace(result, **{"image": Image.new("RGB", (8, 8))} | lacks)._repr_html_()
    assert "<script>alert" not in shown
    for part in parts.split():
        assert f"&lt;script&gt;alert(&#x27;{part}" in shown
    assert ("data:image/" in shown) == ("image" not in lacks)


# -- many pictures ---------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 2, 4, 100])
def test_many_pictures_keep_their_order(captioner, pictures, batch):
    told = list(caption_many(captioner, iter(pictures), batch=batch))
    assert [item for item, _ in told] == pictures
    for path, caption in told:
        assert same(captioner.caption(path), caption)
        assert caption.image.size == open_image(path).size


def test_a_bad_picture_spoils_no_other(captioner, pictures, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    good, missing = pictures[1].read_bytes(), tmp_path / "none.png"
    items = [pictures[0], tmp_path / "bad.png", good, b"", missing]
    told = list(caption_many(captioner, items, batch=2))
    assert [item for item, _ in told] == items
    kinds = [type(result) for _, result in told]
    assert kinds == [Caption, ImageError, Caption, ImageError, ImageError]
    assert "bad.png" in str(told[1][1])
    assert "none.png" in str(told[4][1])
    assert same(told[2][1], captioner.caption(pictures[1]))
    assert list(caption_many(captioner, [])) == []


def test_many_large_photographs_are_said_the_same_as_one(captioner, tmp_path):
    coarse = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    Image.fromarray(coarse).resize((2400, 1800)).save(tmp_path / "large.jpg", quality=80)
    ((_, many),) = caption_many(captioner, [tmp_path / "large.jpg"])
    assert same(many, captioner.caption(tmp_path / "large.jpg"))


def test_many_pictures_are_read_as_the_work_goes_on(captioner, pictures):
    asked = []
    told = caption_many(captioner, (asked.append(p) or p for p in pictures), batch=2)
    next(told)
    assert len(asked) == 4  # this batch and the next
    told.close()


def test_options_of_many(captioner, pictures):
    for _, caption in caption_many(captioner, pictures[:3], max_length=2):
        assert len(caption.words) <= 2
    for bad, said in (({"beam": 0}, "beam 0"), ({"batch": 0}, "batch 0")):
        with pytest.raises(UsageError, match=said):
            list(caption_many(captioner, pictures, **bad))


def test_drawn_captions_of_a_picture_differ_in_batches_of_any_size(captioner, pictures, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    items = [pictures[0], tmp_path / "broken.png", *[pictures[0]] * 5]

    def texts(batch):
        told = caption_many(captioner, items, batch=batch, sample=True, max_length=8)
        return [caption.text for _, caption in told if isinstance(caption, Caption)]

    together = texts(7)
    assert len(set(together)) > 3
    assert texts(1) == texts(3) == together


# -- loading ---------------------------------------------------------------------------------


def test_a_model_is_loaded_by_what_it_is(untrained, untrained_answerer, pictures, tmp_path):
    tell, ask = tmp_path / "captions", tmp_path / "answers"
    save_model(tell, untrained(about={"seed": 0}))
    save_model(ask, untrained_answerer(temperature=2.0))
    model = gazetell.load(str(tell), **EXACT)
    assert isinstance(model, gazetell.Captioner)
    assert same(model.caption(pictures[0]), Captioner(untrained(), **EXACT).caption(pictures[0]))
    assert model.about == {"seed": 0}
    model = load(ask, precision="fp32")
    assert isinstance(model, gazetell.Answerer)
    assert model.temperature == 2.0
    for call, error, said in (
        (lambda: load(tell / "none"), ModelError, "none"),
        (lambda: load(7), UsageError, "model 7: expected a model folder"),
        (lambda: load(tell, device="tpu"), UsageError, "device 'tpu'"),
        (lambda: Answerer.load(tell), ModelError, "is a captioner; use it with: gazetell caption"),
        (lambda: Captioner.load(ask), ModelError, "is an answerer; use it with: gazetell ask"),
        (lambda: load(ask, ask), ModelError, "an ensemble takes only captioners"),
        (lambda: load(tell, ask), ModelError, "is an answerer"),
    ):
        with pytest.raises(error, match=said):
            call()


def test_a_pair_tells_and_answers_about_a_picture_that_is_encoded_once(photo, pictures, caplog):
    model = gazetell.load(**EXACT)
    assert isinstance(model, gazetell.Pair)
    assert "no model was named: photo is used" in caplog.text
    caplog.clear()
    picture = model.encode(pictures[0])
    tell, ask = Captioner.load(photo, **EXACT), Answerer.load("photo", **EXACT)
    assert same(model.caption(picture), tell.caption(pictures[0]))
    asked = model.ask(picture, "is there a star?"), ask.ask(pictures[0], "is there a star?")
    assert asked[0].to_dict() == asked[1].to_dict()
    assert same(load("photo/captioner", **EXACT).caption(picture), model.caption(picture))
    assert "no model was named" not in caplog.text
    assert isinstance(load(photo / "answerer", **EXACT), Answerer)


def test_a_pair_has_one_encoder(untrained, untrained_answerer):
    models = Captioner(untrained(seed=0), **EXACT), Answerer(untrained_answerer(seed=1), **EXACT)
    with pytest.raises(ModelError, match="different encoders"):
        gazetell.Pair(*models)


def test_a_folder_named_photo_is_ones_own(photo, model_folder, monkeypatch, caplog, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo").mkdir()
    assert fetch("photo") == photo
    assert "photo: that of gazetell is used; the folder here has no model" in caplog.text
    model_folder.rename(tmp_path / "photo" / "captioner")
    assert fetch("photo/captioner") == Path("photo/captioner")
    assert "the model in this folder is used" in caplog.text
    assert fetch("photo") == photo  # half a pair is none
    assert load(**EXACT).caption  # without a name never the folder here


def test_a_missing_model_is_told_in_a_line(monkeypatch, tmp_path):
    monkeypatch.setattr("gazetell.models.folder.PRETRAINED", tmp_path)
    for call in (load, Captioner.load, Answerer.load, lambda: load("photo")):
        with pytest.raises(ModelError, match="photo: this installation of gazetell has no such"):
            call()


@pytest.mark.parametrize("architecture", ["attention-lstm", "show-attend-tell", "lstm"])
def test_weights_that_were_converted_once_say_the_same(untrained, pictures, architecture):
    """To the bit what autocast makes of float32 weights in each step."""
    model = Captioner(untrained(architecture=architecture), device="cpu", precision="bf16")
    assert model.captioner.embed.weight.dtype == torch.float32  # the model keeps its own
    said = [model.caption(pictures[0], beam=beam) for beam in (1, 3)]
    model.converted = model.decoder
    for beam, caption in zip((1, 3), said, strict=True):
        assert model.caption(pictures[0], beam=beam).to_dict() == caption.to_dict()


@pytest.mark.parametrize("architecture", ["bow-mlp", "lstm-vqa", "dmn-plus"])
def test_converted_answerers_answer_the_same(untrained_answerer, pictures, architecture):
    folder = untrained_answerer(architecture=architecture)
    model = Answerer(folder, device="cpu", precision="bf16")
    said = model.ask(pictures[0], "is there a star?")
    assert model.answerer.head is not model.converted.head
    model.converted = model.answerer
    plain = model.ask(pictures[0], "is there a star?")
    # The first pass of dmn-plus adds halves of its weights, which it then does in bfloat16.
    assert said.confidence == pytest.approx(plain.confidence, rel=0.05)
    assert said.text == plain.text


def test_public_names():
    names = {"Answer", "Answerer", "Caption", "Captioner", "Dataset", "Evaluation", "Pair"}
    names |= {"GazetellError", "__version__", "describe", "evaluate", "load", "metrics", "prepare"}
    names |= {"resume", "scenes", "train"}
    assert set(dir(gazetell)) == names
    assert all(getattr(gazetell, name) for name in names)
    with pytest.raises(AttributeError, match="Painter"):
        gazetell.Painter  # noqa: B018


def test_an_ensemble_has_one_cnn_and_one_vocabulary(untrained, pictures, tmp_path):
    for seed in (0, 1):
        save_model(tmp_path / str(seed), untrained(seed=seed))
    with pytest.raises(ModelError, match="model 2 of the ensemble has another encoder"):
        load(tmp_path / "0", tmp_path / "1")
    one, other = untrained(seed=0), untrained(seed=1)
    other.encoder.load_state_dict(one.encoder.state_dict())
    pair = Captioner(one, other, precision="fp32")
    assert pair.members == 2
    assert not any("trunk" in name for name in pair.decoder.state_dict())
    assert pair.caption(pictures[0]).attention is not None
    other.tokenizer = Tokenizer.train(["other words"], min_frequency=1)
    with pytest.raises(ModelError, match="another vocabulary"):
        Captioner(one, other)


def test_lists_of_pictures_of_all_kinds(captioner, answerer, pictures):
    image = Image.open(pictures[0]).convert("RGB")
    array = np.asarray(image)
    kinds = [
        pictures[0],
        image,
        array,
        torch.from_numpy(array.copy()).permute(2, 0, 1),
        array / 255,
    ]
    for caption in captioner.caption(kinds):
        same(caption, captioner.caption(pictures[0]))
    first = answerer.ask(pictures[0], "is there a circle?")
    for answer in answerer.ask(tuple(kinds), "is there a circle?"):
        same(answer, first)
    assert [x.encoder for x in captioner.encode(kinds)] == [captioner.fingerprint] * len(kinds)
    assert captioner.caption([]) == []
