"""Large models are calibrated into a file of their own, and stand beside ours in a comparison."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gazetell.errors import DataError, UsageError
from gazetell.files import read_json
from gazetell.inference.calibrate import calibrate_and_keep
from gazetell.inference.compare import compare
from gazetell.inference.evaluate import evaluate, evaluate_answers
from gazetell.inference.load import load, load_answerer, load_captioner
from gazetell.models.folder import save_model
from gazetell.models.large import calibration_file

HOW = {"device": "cpu", "precision": "fp32"}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # A dozen of scenes is enough to see that it is fitted.
    for module in ("inference.calibrate", "models.confidence"):
        monkeypatch.setattr(f"gazetell.{module}.ANSWERS", 6)
    monkeypatch.setattr("gazetell.models.confidence.LEAST", 2)


def test_answers_of_a_large_model(large, scenes_dataset):
    name = str(large("blip-vqa"))
    model = load_answerer(name, **HOW)
    short = replace(model.network.decoding, max_length=1)  # a token: not all as good as 0
    model.network.decoding = short
    before = [path.stat().st_mtime_ns for path in large("blip-vqa").iterdir()]
    said = evaluate_answers(model, scenes_dataset, split="val").results
    # Every second answer is right.
    asked = [r for r in scenes_dataset.questions if r.split == "val"]
    right = {r.id: n % 2 == 0 for n, r in enumerate(asked)}
    answers = dict(zip((r.id for r in asked), said, strict=True))

    def told(record):
        known = record.split == "val" and right[record.id]
        return replace(record, answers=(answers[record.id].text or "x",)) if known else record

    dataset = replace(scenes_dataset, questions=tuple(map(told, scenes_dataset.questions)))
    line = calibrate_and_keep(model, Path(), dataset)
    path = calibration_file(model.fingerprint)
    assert line == f"{path}: temperature, abstain_below fitted on 6 answers of val"
    kept = read_json(path)
    assert {*kept} == {"temperature", "abstain_below"}
    assert [path.stat().st_mtime_ns for path in large("blip-vqa").iterdir()] == before

    # The temperature that makes right and wrong likeliest, found by trying.
    p = np.array([one.confidence for one in said]).clip(1e-300, 1 - 1e-9)
    good = np.array([answers[r.id].text != "" and right[r.id] for r in asked], float)
    tried = np.geomspace(0.05, 20, 4001)
    q = 1 / (1 + np.exp(-np.log(p / (1 - p)) / tried[:, None]))
    q = q.clip(1e-12, 1 - 1e-12)
    loss = -(good * np.log(q) + (1 - good) * np.log(1 - q)).mean(1)
    assert 0.06 < kept["temperature"] < 19
    assert kept["temperature"] == pytest.approx(tried[loss.argmin()], rel=0.01)

    again = load_answerer(name, **HOW)
    again.network.decoding = short
    result = evaluate_answers(again, dataset, split="val")
    figures = result.figures
    assert figures["temperature"] == kept["temperature"]
    assert figures["selective"]["abstain_below"] == kept["abstain_below"]
    assert [one.text for one in result.results] == [one.text for one in said]
    assert [one.confidence for one in result.results] == pytest.approx(
        list(q[loss.argmin()]), abs=0.01
    )
    assert [one.abstained for one in result.results] == [
        one.confidence < kept["abstain_below"] for one in result.results
    ]


def test_captions_of_a_large_model(large, scenes_dataset):
    name = str(large("blip"))
    model = load_captioner(name, **HOW)
    with pytest.raises(DataError, match="no confidence can be fitted: 0 of 6"):
        calibrate_and_keep(model, Path(), scenes_dataset)
    assert not calibration_file(model.fingerprint).exists()
    said = evaluate(model, scenes_dataset, split="val").texts
    known = dict(list(said.items())[::2])

    def told(record):
        own = known.get(record.id) if record.split == "val" else None
        return replace(record, captions=(own, own)) if own else record

    dataset = replace(scenes_dataset, captions=tuple(map(told, scenes_dataset.captions)))
    line = calibrate_and_keep(model, Path(), dataset, limit=6)
    assert line.endswith(": confidence fitted on 6 captions of val")
    again = load(name, **HOW)
    assert again.confidence == model.confidence
    figures = evaluate(again, dataset, split="val").figures["confidence"]
    assert figures["threshold"] == model.confidence.threshold
    one = again.caption(str(dataset.path(dataset.split("val")[0])))
    assert one.sure == (one.confidence >= model.confidence.threshold)
    assert one.unfamiliar is None


def test_a_large_model_beside_ours(large, untrained, untrained_answerer, scenes_folder, tmp_path):
    save_model(tmp_path / "ours", untrained(seed=2))
    save_model(tmp_path / "asks", untrained_answerer(seed=2))
    names = [str(tmp_path / "ours"), str(large("blip"))]
    found = compare(names, [scenes_folder / "images"], limit=2, how=HOW, alone=False, max_length=5)
    other = load_captioner(names[1], **HOW)
    pictures = sorted((scenes_folder / "images").iterdir())[:2]
    told = [other.caption(str(path), max_length=5) for path in pictures]
    assert [one.text for one in found.columns[1].told] == [one.text for one in told]
    assert found.columns[1].told[0].attention.shape[1:] == (4, 4)
    assert not found.failed

    asks = [str(tmp_path / "asks"), str(large("blip-vqa"))]
    found = compare(asks, [scenes_folder], limit=3, split="val", how=HOW, alone=False)
    assert found.answers
    assert {*found.differences[tuple(asks)]} == {"accuracy"}
    # One that only captions says so in its cells, and the other goes on.
    found = compare([asks[0], names[1]], pictures, questions=["is it red?"], how=HOW, alone=False)
    assert found.columns[1].error.endswith("is a captioner; use it with: gazetell caption")
    assert found.columns[0].told[0].text
    json.dumps(found.to_dict())


def test_options_of_large_models_are_theirs_alone(
    large, untrained, untrained_answerer, scenes_folder, tmp_path, caplog
):
    save_model(tmp_path / "ours", untrained(seed=2))
    save_model(tmp_path / "asks", untrained_answerer(seed=2))
    ours, chat = str(tmp_path / "ours"), str(large("chat"))
    picture = next((scenes_folder / "images").iterdir())
    asked = {"how": HOW | {"prompt": "what is it?"}, "alone": False}
    found = compare([ours, chat], [picture], **asked, max_length=4)
    told = load_captioner(chat, **HOW, prompt="what is it?").caption(picture, max_length=4)
    assert found.columns[1].told[0].text == told.text
    assert not found.failed
    assert f"--prompt: has no effect on {ours}" in caplog.text
    with pytest.raises(UsageError, match=f"^prompt: has no effect on {ours}, .*blip$"):
        compare([ours, str(large("blip"))], [picture], **asked)

    asks = [str(tmp_path / "asks"), str(large("blip-vqa"))]
    listed = {"listed": ["red", "two dog"], "how": HOW, "alone": False}
    found = compare(asks, [picture], questions=["what is it?"], **listed)
    assert found.columns[1].told[0].text in listed["listed"]
    assert f"--answers: has no effect on {asks[0]}" in caplog.text
    with pytest.raises(UsageError, match=f"^answers: has no effect on {ours}, {chat}"):
        compare([ours, chat], [picture], **listed)
