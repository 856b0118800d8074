"""Using a model: one picture or many, from wherever they come, with their gaze."""

import html
import io
import json
import math
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from PIL import Image

import gazetell
from gazetell.data.text import Tokenizer
from gazetell.errors import ImageError, ModelError, UsageError
from gazetell.inference.bulk import caption_many
from gazetell.inference.predict import Caption, Captioner, load
from gazetell.models.decoding import decode
from gazetell.models.folder import fetch, save_model
from gazetell.pictures import open_image


@pytest.fixture
def model(untrained):
    return Captioner(untrained(seed=2), device="cpu", precision="fp32")


@pytest.fixture
def pictures(scenes_dataset):
    return [scenes_dataset.path(record) for record in scenes_dataset.captions[:9]]


def same(one, other):
    assert (one.text, one.words, one.ended) == (other.text, other.words, other.ended)
    assert one.log_prob == pytest.approx(other.log_prob, abs=2e-3)
    assert np.allclose(one.attention, other.attention, atol=1e-3)
    return True


# -- one picture -----------------------------------------------------------------------------


def test_a_caption_and_its_evidence(model, pictures):
    caption = model.caption(pictures[0])
    assert caption.words
    assert caption.text == " ".join(caption.words)
    assert caption.attention.shape == (len(caption.words), 4, 4)
    assert np.allclose(caption.attention.sum((1, 2)), 1, atol=1e-5)
    assert caption.log_prob < 0
    assert max(caption.image.size) <= 640


def test_the_caption_is_what_decoding_says_of_the_squashed_picture(model, untrained, pictures):
    parts = untrained(seed=2)
    pixels = np.asarray(
        Image.open(pictures[0]).convert("RGB").resize((64, 64), Image.Resampling.BICUBIC)
    )
    x = torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None]
    with torch.inference_mode():
        grid = parts.encoder(x)
    (found,) = decode(parts.captioner, grid, parts.decoding, start=1, end=2, banned=(0, 3))
    caption = model.caption(Image.open(pictures[0]).convert("RGB").resize((64, 64), 3))
    assert caption.words == parts.tokenizer.words(found.tokens)
    assert caption.log_prob == pytest.approx(found.log_prob, abs=2e-3)
    assert np.allclose(caption.attention.reshape(-1, 16), found.attention, atol=1e-3)


def test_a_picture_may_be_a_path_bytes_or_an_image(model, pictures):
    path = pictures[1]
    first = model.caption(path)
    assert same(model.caption(str(path)), first)
    assert same(model.caption(path.read_bytes()), first)
    assert same(model.caption(Image.open(path)), first)


def test_several_at_once_are_the_same_as_one_by_one(model, pictures):
    together = model.captions(pictures[:4])
    for path, caption in zip(pictures[:4], together, strict=True):
        assert same(model.caption(path), caption)
    assert model.captions([]) == []


@pytest.mark.parametrize("bad", ["none.png", b"", b"GIF89a"])
def test_a_picture_that_cannot_be_opened(model, bad):
    with pytest.raises(ImageError):
        model.caption(bad)


def test_large_pictures_are_kept_small(model):
    picture = Image.new("RGB", (2000, 500), "red")
    caption = model.caption(picture)
    assert caption.image.size == (640, 160)
    assert picture.size == (2000, 500)


def test_options(model, pictures):
    assert model.options(beam=5).beam == 5
    assert model.options().max_length == model.decoding.max_length
    assert len(model.caption(pictures[0], max_length=2).words) <= 2
    assert len(model.caption(pictures[0], min_length=6, max_length=6).words) == 6
    draws = {model.caption(pictures[0], sample=True, seed=seed).text for seed in range(5)}
    assert len(draws) > 1
    assert model.options(sample=True).beam == 1
    again = [model.caption(pictures[0], sample=True, seed=3).text for _ in range(2)]
    assert again[0] == again[1]
    assert model.options(sample=True, seed=np.int64(3), temperature=2).seed == 3


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"beam": 0}, "beam 0"),
        ({"sample": True, "beam": 2}, "expected beam 1"),
        ({"sample": True, "top_p": 7}, "top_p 7"),
        ({"beem": 3}, "beem: is no option; expected beam, "),
        ({"beam": "3"}, "beam '3': expected a whole number"),
        ({"beam": 2.5}, "beam 2.5: expected a whole number"),
        ({"length_penalty": None}, "length_penalty None: expected a number"),
        ({"sample": "yes"}, "sample 'yes': expected True or False"),
        # What has no effect is refused.
        ({"temperature": 50}, "temperature: has no effect"),
        ({"seed": 0}, "seed: has no effect"),
        ({"sample": False, "top_k": 5}, "top_k: has no effect"),
        ({"beam": 1, "length_penalty": 1.0}, "length_penalty: has no effect"),
        ({"sample": True, "length_penalty": 1.0}, "length_penalty: has no effect"),
    ],
)
def test_a_wrong_option_is_one_sentence(model, pictures, bad, said):
    with pytest.raises(UsageError) as caught:
        model.caption(pictures[0], **bad)
    assert said in str(caught.value)


@pytest.mark.parametrize("call", [lambda m: m.captions("a.png"), lambda m: m.captions(b"x")])
def test_one_picture_is_no_list_of_pictures(model, call):
    with pytest.raises(UsageError, match="expected a list of pictures"):
        call(model)


def test_whether_there_is_attention_is_known_before(model):
    assert model.attentive


def test_special_words_are_never_said(untrained, pictures):
    parts = untrained(seed=2)
    parts.captioner.head[-1].bias.data[[0, 1, 3]] += 50  # <pad> <start> <unk>
    model = Captioner(parts, device="cpu", precision="fp32")
    for beam in (1, 3):
        caption = model.caption(pictures[0], beam=beam, max_length=5)
        assert caption.words
        assert not {"<pad>", "<start>", "<unk>", "<end>"} & set(caption.words)


@pytest.mark.parametrize("beam", [1, 3])
def test_an_empty_caption_has_an_empty_gaze(untrained, pictures, beam):
    parts = untrained(seed=2)
    parts.captioner.head[-1].bias.data[2] += 50  # <end> at once
    model = Captioner(parts, device="cpu", precision="fp32")
    caption = model.caption(pictures[0], min_length=0, beam=beam)
    assert caption.words == []
    assert caption.attention.shape == (0, 4, 4)
    assert caption.text == ""
    assert caption.to_dict()["attention"] == []
    assert "<img" in caption._repr_html_()


# -- what a caption can do -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "begins"),
    [("g.png", b"\x89PNG"), ("g.gif", b"GIF89a"), ("g.html", b"<!"), ("g.webp", b"RIFF")],
)
def test_the_gaze_is_saved(model, pictures, tmp_path, name, begins):
    caption = model.caption(pictures[2])
    caption.save_gaze(tmp_path / "new folder" / name)
    content = (tmp_path / "new folder" / name).read_bytes()
    assert content[: len(begins)].lower() == begins.lower()
    if name == "g.gif":
        assert Image.open(io.BytesIO(content)).n_frames == len(caption.words)
    if name == "g.html":
        assert all(html.escape(word) in content.decode() for word in caption.words)


def test_what_cannot_be_saved_is_told(model, pictures, tmp_path):
    caption = model.caption(pictures[2])
    with pytest.raises(UsageError, match=r"gaze\.pdf"):
        caption.save_gaze(tmp_path / "gaze.pdf")
    with pytest.raises(UsageError, match="no attention"):
        replace(caption, attention=None).save_gaze(tmp_path / "gaze.png")
    with pytest.raises(ModelError, match="no picture"):
        replace(caption, image=None).save_gaze(tmp_path / "gaze.png")
    assert not list(tmp_path.iterdir())


EVIL = Caption(
    '<script>alert("1")</script>',
    ["<script>alert('1')</script>"],
    np.full((1, 2, 2), 0.25),
    -1.0,
    image=Image.new("RGB", (8, 8)),
)


@pytest.mark.parametrize("lacks", [{}, {"attention": None}, {"image": None}])
def test_a_notebook_shows_it_escaped(lacks):
    shown = replace(EVIL, **lacks)._repr_html_()
    assert "<script>alert" not in shown
    assert "&lt;script&gt;alert" in shown
    assert ("data:image/" in shown) == ("image" not in lacks)


def test_a_caption_is_plain_json(model, pictures):
    caption = model.caption(pictures[3])
    values = json.loads(json.dumps(caption.to_dict(), allow_nan=False))
    assert values["caption"] == caption.text
    assert values["words"] == caption.words
    assert np.allclose(values["attention"], caption.attention, atol=1e-4)
    assert values["log_prob"] == pytest.approx(caption.log_prob, abs=1e-4)
    assert values["ended"] is caption.ended
    assert replace(caption, attention=None).to_dict()["attention"] is None


# -- many pictures ---------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 2, 4, 100])
def test_many_pictures_keep_their_order(model, pictures, batch):
    found = list(caption_many(model, iter(pictures), batch=batch))
    assert [item for item, _ in found] == pictures
    for path, caption in found:
        assert same(model.caption(path), caption)
        assert caption.image.size == open_image(path).size


def test_a_bad_picture_spoils_no_other(model, pictures, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    items = [
        pictures[0],
        tmp_path / "bad.png",
        pictures[1].read_bytes(),
        b"",
        tmp_path / "none.png",
    ]
    found = list(caption_many(model, items, batch=2))
    assert [item for item, _ in found] == items
    kinds = [type(result) for _, result in found]
    assert kinds == [Caption, ImageError, Caption, ImageError, ImageError]
    assert "bad.png" in str(found[1][1])
    assert "none.png" in str(found[4][1])
    assert same(found[2][1], model.caption(pictures[1]))
    ((_, error),) = caption_many(model, [tmp_path / "none.png"])
    assert error.exit_code == 4
    assert list(caption_many(model, [])) == []


def test_many_large_photographs_are_said_the_same_as_one(model, tmp_path):
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (30, 40, 3), np.uint8)
    Image.fromarray(coarse).resize((2400, 1800)).save(tmp_path / "large.jpg", quality=80)
    ((_, many),) = caption_many(model, [tmp_path / "large.jpg"])
    assert same(many, model.caption(tmp_path / "large.jpg"))


def test_many_pictures_are_read_as_the_work_goes_on(model, pictures):
    asked = []

    def items():
        for path in pictures:
            asked.append(path)
            yield path

    found = caption_many(model, items(), batch=2)
    next(found)
    assert len(asked) == 4  # this batch and the next
    found.close()


def test_options_of_many(model, pictures):
    for _, caption in caption_many(model, pictures[:3], max_length=2):
        assert len(caption.words) <= 2
    with pytest.raises(UsageError, match="beam 0"):
        list(caption_many(model, pictures, beam=0))
    with pytest.raises(UsageError, match="batch 0"):
        list(caption_many(model, pictures, batch=0))


# -- loading ---------------------------------------------------------------------------------


def test_a_folder_is_loaded(model_folder, untrained, pictures):
    loaded = gazetell.load(model_folder, device="cpu", precision="fp32")
    assert isinstance(loaded, gazetell.Captioner)
    direct = Captioner(untrained(), device="cpu", precision="fp32")
    assert same(loaded.caption(pictures[0]), direct.caption(pictures[0]))
    assert load(str(model_folder)).about == {"dataset": "scenes", "seed": 0}
    with pytest.raises(ModelError, match="none"):
        load(model_folder / "none")
    with pytest.raises(UsageError, match="model 7: expected a model folder"):
        load(7)
    with pytest.raises(UsageError, match="device 'tpu'"):
        load(model_folder, device="tpu")
    with pytest.raises(AttributeError, match="Painter"):
        gazetell.Painter  # noqa: B018


def test_sixteen_bits_say_much_the_same(untrained, pictures):
    exact = Captioner(untrained(seed=2), device="cpu", precision="fp32")
    rough = Captioner(untrained(seed=2), device="cpu", precision="bf16")
    caption = rough.caption(pictures[0], beam=1, max_length=4)
    assert caption.attention.dtype == np.float32
    assert math.isfinite(caption.log_prob)
    expected = exact.caption(pictures[0], beam=1, max_length=4)
    assert caption.log_prob == pytest.approx(expected.log_prob, abs=0.5)


def test_a_model_on_the_hub(model_folder, monkeypatch, pictures):
    asked = []

    def download(name, allow_patterns):
        asked.append((name, allow_patterns))
        return str(model_folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert load("hf://someone/captioner").caption(pictures[0]).text
    ((name, patterns),) = asked  # once
    assert name == "someone/captioner"
    assert not [pattern for pattern in patterns if "bin" in pattern or "pt" in pattern]


def test_a_hub_that_cannot_be_reached_is_told(monkeypatch):
    def fail(name, allow_patterns):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(ModelError) as caught:
        fetch("hf://someone/captioner")
    assert str(caught.value) == "hf://someone/captioner: cannot be fetched: no route to host"
    assert fetch("hf/someone") == Path("hf/someone")


def test_models_are_loaded_as_an_ensemble_with_one_cnn(untrained, pictures, tmp_path):
    for seed in (0, 1):
        save_model(tmp_path / str(seed), untrained(seed=seed))
    with pytest.raises(ModelError, match="model 2 of the ensemble has another encoder"):
        load(tmp_path / "0", tmp_path / "1")
    one, other = untrained(seed=0), untrained(seed=1)
    other.encoder.load_state_dict(one.encoder.state_dict())
    pair = Captioner(one, other, precision="fp32")
    assert pair.members == 2
    assert not any("trunk" in name for name in pair.decoder.state_dict())
    caption = pair.caption(pictures[0])
    assert caption.words
    assert caption.attention is not None


def test_another_vocabulary_is_refused(untrained):
    one, other = untrained(), untrained()
    other.tokenizer = Tokenizer.train(["other words"], min_frequency=1)
    with pytest.raises(ModelError, match="another vocabulary"):
        Captioner(one, other)


def test_drawn_captions_of_a_picture_differ_in_batches_of_any_size(model, pictures, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    items = [pictures[0], broken, *[pictures[0]] * 5]

    def texts(batch):
        told = caption_many(model, items, batch=batch, sample=True, max_length=8)
        return [caption.text for _, caption in told if isinstance(caption, Caption)]

    together = texts(7)
    assert len(set(together)) > 3
    assert texts(1) == texts(3) == together
