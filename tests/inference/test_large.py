"""Large models: what transformers gives by hand is the reference.

The models are tiny and know nothing (``large_models``).
"""

import json
import math
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import gazetell
from gazetell.errors import ImageError, ModelError, UsageError
from gazetell.inference.describe import describe
from gazetell.inference.evaluate import evaluate, evaluate_answers
from gazetell.inference.large import LargeAnswerer, LargeCaptioner
from gazetell.inference.load import Pair, load_answerer, load_captioner
from gazetell.models.large import PROMPT, Sight, calibration_file

EXACT = {"device": "cpu", "precision": "fp32"}
GAZING = ["blip", "git", "vit-gpt2"]


@pytest.fixture(scope="module")
def pictures():
    random = np.random.default_rng(0)
    sizes = ((40, 60), (33, 32), (90, 40))
    return [Image.fromarray(random.integers(0, 255, (*x, 3), dtype=np.uint8)) for x in sizes]


@pytest.fixture(scope="module")
def opened(large):
    """A function from a family to its loaded model, loaded once."""
    loaded = {}

    def get(family):
        if family not in loaded:
            loaded[family] = gazetell.load(large(family), **EXACT)
        return loaded[family]

    return get


def captioner(opened, family):
    model = opened(family)
    return model.captioner if isinstance(model, Pair) else model


def inputs_by_hand(network, pictures, text=""):
    """Inputs of generate, as the documentation of transformers makes them."""
    if network.family == "chat" and not network.images.chat_template:  # of BLIP-2's model card
        asked = [f"Question: {text} Answer:" if text else ""] * len(pictures)
        return network.images(text=asked, images=pictures, return_tensors="pt", padding=True)
    if network.family == "chat":
        content = [{"type": "image"}, {"type": "text", "text": text or PROMPT}]
        message = [{"role": "user", "content": content}]
        asked = network.images.apply_chat_template([message] * len(pictures), tokenize=False,
                                                   add_generation_prompt=True)  # fmt: skip
        images = [[picture] for picture in pictures]
        return network.images(text=asked, images=images, return_tensors="pt", padding=True)
    found = {"pixel_values": network.images(images=pictures, return_tensors="pt").pixel_values}
    if text:
        found |= network.words([text] * len(pictures), return_tensors="pt")
        del found["token_type_ids"]
    return found


@pytest.mark.parametrize("beam", [1, 3])
@pytest.mark.parametrize("family", [*GAZING, "chat", "blip-2"])
def test_captions_are_those_of_generate(opened, pictures, family, beam):
    model, how = captioner(opened, family), {"num_beams": beam}
    how |= {"length_penalty": 0.5} if beam > 1 else {}
    network = model.network
    ends = {"max_new_tokens": 13, "forced_eos_token_id": network.ends}
    inputs = inputs_by_hand(network, pictures)
    with torch.no_grad():
        rows = network.model.generate(**inputs, **ends, **how)
    rows = rows if family in GAZING else rows[:, inputs["input_ids"].shape[1] :]
    expected = network.words.batch_decode(rows, skip_special_tokens=True)
    options = {"beam": beam, "max_length": 12} | ({"length_penalty": 0.5} if beam > 1 else {})
    captions = model.caption(pictures, **options)
    assert [c.text for c in captions] == [" ".join(text.split()) for text in expected]
    assert len(set(expected)) > 1
    # One by one they are the same.
    for caption, picture in zip(captions, pictures, strict=True):
        same = model.caption(picture, **options)
        assert (same.text, same.ended) == (caption.text, caption.ended)
        assert same.log_prob == pytest.approx(caption.log_prob, abs=1e-4)
        assert same.words == [word for word in caption.words if word in caption.text]
        assert (same.attention is None) == (family not in GAZING)
        if same.attention is not None:
            assert same.attention.shape == (len(same.words), 4, 4)
            assert np.allclose(same.attention.sum((1, 2)), 1)
            assert np.allclose(same.attention, caption.attention, atol=1e-4)


def found(model, pictures, count=1, **options):
    grid = model.see([SimpleNamespace(pixels=np.asarray(picture)) for picture in pictures])
    return model.search(grid, model.options(**options), count)


@pytest.mark.parametrize("beam", [1, 3])
@pytest.mark.parametrize("family", GAZING)
def test_log_probabilities_are_those_of_teacher_forcing(opened, pictures, family, beam):
    model, picture = captioner(opened, family), pictures[0]
    network = model.network
    best = found(model, [picture], beam, beam=beam, max_length=9)[0]
    assert len(best) == beam
    pixels = inputs_by_hand(network, [picture])["pixel_values"]
    first = network.words.convert_tokens_to_ids("[CLS]") if family != "vit-gpt2" else 0
    for one in best:
        tokens = torch.tensor([[first, *one.tokens, network.ends[0]]])
        ids = "decoder_input_ids" if family == "vit-gpt2" else "input_ids"
        if family == "blip":
            states = network.model.vision_model(pixel_values=pixels)[0]
            logits = network.model.text_decoder(tokens[:, :-1], encoder_hidden_states=states)
        else:
            logits = network.model(**{"pixel_values": pixels, ids: tokens[:, :-1]})
        chances = logits.logits[0, -(tokens.shape[1] - 1) :].log_softmax(-1)
        each = chances.detach().gather(1, tokens[0, 1:, None]).squeeze(1)
        assert one.log_prob == pytest.approx(float(each.sum()), abs=1e-3)
        assert one.weakest <= float(each.min()) + 1e-4
        cut = len(one.tokens) == 9
        assert one.ended == (not cut or int(chances[-1].argmax()) in network.ends)


@pytest.mark.parametrize("family", GAZING)
def test_attention_is_that_of_each_step_of_generate(opened, pictures, family):
    """generate itself gives it step by step: of the upper of two layers, without the class."""
    model = captioner(opened, family)
    network = model.network
    (one,) = found(model, pictures[:1], beam=1, max_length=6)[0]
    teller, inputs = network.teller, inputs_by_hand(network, pictures[:1])
    steps, how = [], {"max_new_tokens": 7, "num_beams": 1, "output_attentions": True}
    if family == "blip":  # its decoder's generate gives self-attention only: listen to the layer
        layer = teller.bert.encoder.layer[-1].crossattention.self
        hook = layer.register_forward_hook(lambda _, given, out: steps.append([out[1]]))
        network.model.generate(**inputs, max_new_tokens=7)
        hook.remove()
    else:
        out = teller.generate(**inputs, **how, return_dict_in_generate=True)
        steps = out.attentions if family == "git" else out.cross_attentions
    for t in range(len(one.tokens)):
        row = steps[t][-1][0, :, -1].mean(0)[1:17]
        assert torch.allclose(one.attention[t], row / row.sum(), atol=1e-5)


def test_the_gaze_of_a_word_is_the_mean_of_its_tokens(opened, pictures):
    model = captioner(opened, "vit-gpt2")
    (one,) = found(model, pictures[:1], beam=1, max_length=20)[0]
    caption = model.caption(pictures[0], beam=1, max_length=20)
    text, words, groups = model.network.worded(one.tokens, "")
    assert (caption.text, caption.words) == (text, words)
    assert max(map(len, groups)) > 1
    for gaze, group, word in zip(caption.attention, groups, words, strict=True):
        assert word in model.network.words.decode([one.tokens[n] for n in group])
        mean = one.attention[group].mean(0).numpy()
        assert np.allclose(gaze.ravel(), mean / mean.sum(), atol=1e-6)


def test_a_drawn_caption_depends_on_seed_and_place_only(opened, pictures):
    model, how = captioner(opened, "blip"), {"sample": True, "max_length": 8}
    several = [c.text for c in model.captions([pictures[0]] * 3, seed=5, **how)]
    assert len(set(several)) > 1
    torch.manual_seed(1)
    assert [c.text for c in model.captions([pictures[0]] * 3, seed=5, **how)] == several
    assert [c.text for c in model.captions([pictures[0]] * 3, seed=6, **how)] != several
    assert model.caption(pictures[0], seed=5, **how).text == several[0]
    assert len({c.text for c in model.n_best(pictures[0], 4, **how)}) > 1
    best = model.n_best(pictures[0], 3, beam=3, max_length=8, length_penalty=0.0)
    assert [c.log_prob for c in best] == sorted((c.log_prob for c in best), reverse=True)
    with pytest.raises(UsageError, match="has no groups of beams"):
        model.caption(pictures[0], beam=4, beam_groups=2)


@pytest.mark.parametrize("family", ["blip-vqa", "git", "chat", "blip-2"])
def test_answers_are_those_of_generate_with_their_probability(opened, pictures, family):
    model = opened(family)
    model = model.answerer if isinstance(model, Pair) else model
    network, question = model.network, "what color is the dog?"
    inputs = inputs_by_hand(network, pictures[:1], question)
    if family == "git":
        inputs = {name: x[:, :-1] if x.dim() == 2 else x for name, x in inputs.items()}
    limit = network.decoding.max_length
    ends = {"max_new_tokens": limit + 1, "forced_eos_token_id": network.ends}
    rows = network.model.generate(**inputs, **ends)
    first = inputs["input_ids"].shape[1] if family != "blip-vqa" else 0
    (expected,) = network.words.batch_decode(rows[:, first:], skip_special_tokens=True)
    answer = model.ask(pictures[0], question, evidence=True)
    assert answer.text == " ".join(expected.split())
    asked = [network.question.format(question)]
    (told,) = network.tell([np.asarray(pictures[0])], asked, limit, num_beams=1)[0]
    assert answer.confidence == pytest.approx(math.exp(told.log_prob), rel=1e-3)
    assert answer.top == [(answer.text, answer.confidence)]
    (grey,) = network.tell(model.blank.cells, asked, limit, 1, [[*told.tokens, *network.ends]])[0]
    assert grey.tokens == told.tokens
    assert answer.without_picture == pytest.approx(math.exp(grey.log_prob), rel=1e-3)
    # Several questions at once, and other pictures beside it, change nothing.
    others = model.ask_all(pictures[0], ["is it there?", question, "what color is the big cat?"])
    assert others[1].text == answer.text
    assert others[1].confidence == pytest.approx(answer.confidence, rel=1e-2)
    assert (answer.attention is None) == (network.family == "chat")
    if answer.attention is not None:
        assert answer.attention.shape == (1, 4, 4)
        assert answer.attention.sum() == pytest.approx(1, abs=1e-5)


def test_answers_of_a_list_are_ranked(large, pictures):
    model = load_answerer(large("blip-vqa"), **EXACT)
    listed = LargeAnswerer(model.network, ["red", "two dog", "yes"])
    answer, question = listed.ask(pictures[0], "what is it?", evidence=True), ["what is it?"]
    words, scores = model.network.words, {}
    for text in ("red", "two dog", "yes"):
        rows = [[*words(text, add_special_tokens=False).input_ids, 3]]
        scores[text] = model.network.tell([np.asarray(pictures[0])], question, 5, 1, rows)[0][0]
    total = sum(math.exp(one.log_prob) for one in scores.values())
    expected = {text: math.exp(one.log_prob) / total for text, one in scores.items()}
    assert dict(answer.top) == pytest.approx(expected, rel=1e-3)
    assert answer.text == max(expected, key=expected.get)
    assert 0 < answer.without_picture < 1
    several = LargeAnswerer(model.network, beam=3).ask(pictures, "what is it?")
    assert max(len(one.top) for one in several) > 1
    assert all(one.top[0] == (one.text, one.confidence) for one in several)


def test_a_calibration_is_read(large, pictures, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    plain = load_answerer(large("blip-vqa"), **EXACT)
    file = calibration_file(plain.network.fingerprint)
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"temperature": 2.0, "abstain_below": 0.9}))
    model = load_answerer(large("blip-vqa"), **EXACT)
    assert str(file) in caplog.text
    before, now = (m.ask(pictures[0], "what is it?") for m in (plain, model))
    p = before.confidence
    assert now.confidence == pytest.approx(1 / (1 + math.sqrt((1 - p) / p)), rel=1e-3)
    assert (before.abstained, now.abstained) == (False, True)


def test_the_gaze_lies_where_the_processor_looks(opened):
    """BLIP squashes, GIT shows the middle; where it is less plain nothing is shown."""
    squashed = captioner(opened, "blip").encoder.view((100, 50))
    assert squashed.seen == squashed.cells == (0, 0, 1, 1)
    middle = captioner(opened, "git").encoder.view((100, 50))
    assert middle.seen == middle.cells == pytest.approx((0.25, 0, 0.75, 1))


@pytest.mark.parametrize(
    ("processor", "patches"),
    [
        ({"size": {"height": 32, "width": 32}}, 4),
        ({"size": {"height": 30, "width": 30}}, 0),  # patches leave a rest
        ({"size": {"height": 32, "width": 64}}, 0),
        ({"size": {"height": 32, "width": 32}, "do_pad": True}, 0),
        ({"size": {"shortest_edge": 32}}, 0),
        ({"size": {"longest_edge": 64}}, 0),
        ({"size": {"shortest_edge": 32}, "do_center_crop": 32}, 4),
        ({"size": {"shortest_edge": 40}, "do_center_crop": 32}, 0),
        ({"size": {"height": 40, "width": 40}, "do_center_crop": 32}, 0),
    ],
)
def test_there_is_a_gaze_where_the_input_is_the_picture_or_its_middle(processor, patches):
    if side := processor.get("do_center_crop"):
        processor = processor | {"crop_size": {"height": side, "width": side}}
    vision = SimpleNamespace(patch_size=8, model_type="vit")
    sight = Sight.of(SimpleNamespace(**processor), vision)
    assert (sight.patches, sight.plain) == (patches, patches > 0 or processor["size"] == {"height": 30, "width": 30})  # fmt: skip # noqa: E501
    assert Sight.of(SimpleNamespace(**processor), None).patches == 0


@pytest.mark.parametrize("size", [(1, 1), (4000, 2), (2, 4000), (3, 3)])
@pytest.mark.parametrize("family", ["blip", "git", "chat"])
def test_odd_pictures_are_told_of_too(opened, family, size):
    caption = captioner(opened, family).caption(Image.new("RGB", size, "red"), max_length=4)
    assert caption.sure is False
    assert math.isfinite(caption.log_prob)


def test_a_repeated_prompt_is_cut_off(opened):
    network = captioner(opened, "chat").network
    tokens = network.words.encode(f"{PROMPT} two green stars")
    text, words, groups = network.worded(tokens, PROMPT)
    assert (text, words) == ("two green stars", ["two", "green", "stars"])
    assert len(groups) == 3
    assert network.worded([], PROMPT) == ("", [], [])


def test_a_picture_that_memory_does_not_hold_is_an_error_of_its_own(
    opened, pictures, tmp_path, monkeypatch
):
    for n, picture in enumerate(pictures):
        picture.save(tmp_path / f"{n}.png")
    model, tell = captioner(opened, "blip"), type(opened("blip").network).tell

    def full(network, given, *args, **how):
        if any(x.shape[0] == 90 for x in given):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return tell(network, given, *args, **how)

    monkeypatch.setattr(type(model.network), "tell", full)
    done = describe(model, tmp_path, tmp_path / "t.csv", max_length=4)
    assert (done.captioned, [str(x) for x in done.failed]) == (
        2,
        ["2.png: no memory is left for it"],
    )


def test_one_repository_may_do_both_and_pictures_are_opened_once(large, pictures):
    both = gazetell.load(large("chat"), **EXACT)
    assert isinstance(both, Pair)
    assert both.captioner.network is both.answerer.network
    picture = both.encode(pictures[0])
    assert both.caption(picture).text == both.captioner.caption(pictures[0]).text
    assert both.ask(picture, "what is it?").text
    with pytest.raises(UsageError, match="leave out <image>, a mark of the model"):
        both.ask(picture, "what is <image>?")
    with pytest.raises(UsageError, match="has no words"):
        both.ask(picture, "?")
    kinds = {family: type(gazetell.load(large(family), **EXACT)) for family in ("blip", "blip-vqa")}
    assert kinds == {"blip": LargeCaptioner, "blip-vqa": LargeAnswerer}


def test_captions_of_a_split_are_measured(opened, scenes_dataset):
    result = evaluate(captioner(opened, "blip"), scenes_dataset, max_length=6)
    figures = result.figures
    assert figures["pictures"] == len(result.results) == 6
    assert figures["truth"] == 0
    assert figures["metrics"]["bleu_4"] is not None
    pointing = figures["pointing"] or figures["not_measured"]["pointing"]
    assert pointing
    unsure = evaluate(captioner(opened, "chat"), scenes_dataset, max_length=4).figures
    assert unsure["not_measured"]["pointing"] == "the model has no attention"
    assert unsure["not_measured"]["confidence"] == "none was fitted to the model; see gazetell calibrate"  # fmt: skip # noqa: E501


def test_answers_to_a_split_are_measured(opened, scenes_dataset):
    result = evaluate_answers(opened("blip-vqa"), scenes_dataset, evidence=True)
    figures = result.figures
    assert figures["evidence"]["blank"].keys() == {"accuracy", "lost", "changed"}
    assert figures["evidence"]["other_picture"]["changed"] > 0
    assert figures["bias"]["ceiling"] is None
    assert figures["not_measured"]["ceiling"] == "the model writes its answers"
    assert figures["selective"]["accuracy_at_coverage"]["1.0"] is not None


def broken(folder, tmp_path, **changes):
    """A copy of a repository with other entries in its config.json."""
    shutil.copytree(folder, tmp_path / "broken")
    path = tmp_path / "broken" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return tmp_path / "broken"


@pytest.mark.parametrize(
    ("family", "change", "said"),
    [
        ("blip", {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}, "tells nothing of"),
        ("blip", {"architectures": ["BlipForImageTextRetrieval"]}, "tells nothing of pictures"),
        ("blip", {"model_type": "own", "auto_map": {"AutoModelForCausalLM": "m.M"}}, "--trust"),
        ("blip", {"model_type": "nobody-knows"}, "tells nothing of pictures"),
        ("blip", "processor_config.json", "cannot be opened"),
        ("blip", "model.safetensors", "cannot be opened"),
        ("chat", "chat_template.jinja", "has no chat template"),
    ],
)
def test_what_cannot_be_opened_is_said_in_a_line(large, tmp_path, family, change, said):
    folder = broken(large(family), tmp_path, **change if isinstance(change, dict) else {})
    if isinstance(change, str):
        (folder / change).unlink()
    with pytest.raises(ModelError, match=said) as raised:
        gazetell.load(folder, **EXACT)
    assert len(str(raised.value)) < 500


def test_in_bfloat16_it_says_almost_the_same(large, opened, pictures):
    model, exact = gazetell.load(large("blip"), device="cpu", precision="bf16"), opened("blip")
    assert model.network.model.dtype == torch.bfloat16
    told = found(model, pictures[:1], beam=1, max_length=8)[0][0]
    caption = model.caption(pictures[0], beam=1, max_length=8)
    assert (caption.log_prob, caption.attention.dtype) == (told.log_prob, np.float32)
    given, rows = [np.asarray(pictures[0])], [[*told.tokens, *model.network.ends]]
    ((same,),) = exact.network.tell(given, [""], 8, 1, rows)
    assert told.log_prob == pytest.approx(same.log_prob, rel=0.05)
    assert np.allclose(told.attention, same.attention, atol=0.02)


class Deed:
    """What a pickle runs when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_of_weights_in_a_pickle_only_tensors_are_read(large, opened, pictures, tmp_path, caplog):
    from safetensors.torch import load_file

    folder = broken(large("blip"), tmp_path)
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    model, how = gazetell.load(folder, **EXACT), {"beam": 1, "max_length": 8}
    assert "its weights are a pickle; nothing but tensors is read from it" in caplog.text
    told, same = (x.caption(pictures[0], **how) for x in (model, opened("blip")))
    assert (told.text, told.log_prob) == (same.text, pytest.approx(same.log_prob, abs=1e-4))
    torch.save(state | {"deed": Deed(tmp_path / "done")}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="cannot be opened"):
        gazetell.load(folder, **EXACT)
    assert not (tmp_path / "done").exists()


OWN = """
from transformers import Idefics3Config, Idefics3ForConditionalGeneration

class OwnConfig(Idefics3Config):
    model_type = "own"

class OwnModel(Idefics3ForConditionalGeneration):
    config_class = OwnConfig
"""


@pytest.mark.parametrize("kind", ["AutoModelForImageTextToText", "AutoModelForCausalLM"])
def test_code_of_a_repository_runs_with_trust_alone(
    large, opened, pictures, tmp_path, monkeypatch, kind
):
    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(tmp_path / "modules")
    classes = {"AutoConfig": "own.OwnConfig", kind: "own.OwnModel"}
    folder = broken(large("chat"), tmp_path, model_type="own", auto_map=classes)
    (folder / "own.py").write_text(OWN)
    with pytest.raises(ModelError, match="is code of its own"):
        gazetell.load(folder, **EXACT)
    assert not (tmp_path / "modules").exists()
    model, how = gazetell.load(folder, trust=True, **EXACT), {"beam": 1, "max_length": 6}
    assert type(model.captioner.network.model).__name__ == "OwnModel"
    told = captioner(opened, "chat").caption(pictures[0], **how)
    assert model.caption(pictures[0], **how).text == told.text


def test_weights_that_do_not_fit_are_refused(large, tmp_path):
    folder = broken(large("blip"), tmp_path)
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "model.safetensors")
    del state["vision_model.post_layernorm.weight"]
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        ModelError, match=r"missing or of another shape: 1, first vision_model.post_layernorm"
    ):
        gazetell.load(folder, **EXACT)
    (folder / "model.safetensors").write_bytes(b"half")
    with pytest.raises(ModelError, match="cannot be opened"):
        gazetell.load(folder, **EXACT)


def test_what_large_models_do_not_do_is_refused(large, monkeypatch, untrained, tmp_path):
    with pytest.raises(UsageError, match="--fit pad"):
        gazetell.load(large("blip"), fit="pad", **EXACT)
    with pytest.raises(UsageError, match="an ensemble takes only models of gazetell"):
        gazetell.load(large("blip"), large("git"), **EXACT)
    with pytest.raises(ModelError, match="is an answerer; use it with: gazetell ask"):
        load_captioner(large("blip-vqa"), **EXACT)
    with pytest.raises(ModelError, match="is a captioner; use it with: gazetell caption"):
        load_answerer(large("blip"), **EXACT)
    with pytest.raises(ModelError, match="is a model of transformers"):
        gazetell.Captioner.load(large("blip"), **EXACT)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModelError, match=r"the extra \[large\]"):
        gazetell.load(large("blip"), **EXACT)


def test_a_picture_that_a_processor_refuses_is_no_defect(opened, pictures, monkeypatch):
    model = captioner(opened, "blip")

    def refuse(self, *_):
        raise ValueError("too long")

    monkeypatch.setattr(type(model.network), "_prepare", refuse)
    with pytest.raises(ImageError, match="too long"):
        model.caption(pictures[0])
