"""Large models through the command line and the service."""

import base64
import json
import time

import pytest
from fastapi.testclient import TestClient

EXACT = "--device cpu --precision fp32"


@pytest.fixture
def home(large, tmp_path, monkeypatch, scenes_folder):
    """A folder with links to tiny repositories and to scenes."""
    for family in ("blip", "blip-vqa", "chat"):
        (tmp_path / family).symlink_to(large(family))
    (tmp_path / "data").symlink_to(scenes_folder)
    pictures = sorted((scenes_folder / "images").glob("*.png"))[:2]
    (tmp_path / "pictures").mkdir()
    for picture in pictures:
        (tmp_path / "pictures" / picture.name).write_bytes(picture.read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_caption_and_ask(run, home):
    command = f"caption pictures --model blip {EXACT} --max-length 6 --beam 2 --n-best 2"
    _, out, err = run(command, "--json", "--gaze", "gazes", status=0)
    rows = [json.loads(line) for line in out.splitlines()]
    assert len({row["picture"] for row in rows}) == 2
    assert all(len(row["words"]) == len(row["attention"]) for row in rows)
    assert len(list((home / "gazes").iterdir())) == len(rows)
    assert "cut at 6 tokens" in err or all(row["ended"] for row in rows)
    picture = next((home / "pictures").iterdir())
    asked = f"ask {picture} --model blip-vqa {EXACT}"
    _, out, _ = run(asked, "what is it?", "--top", "3", "--gaze", "a.png", status=0)
    assert 1 < out.count("%") <= 3
    assert (home / "a.png").exists()
    (home / "list.txt").write_text("red\nblue\n\n")
    _, out, _ = run(asked, "what is it?", "--answers", "list.txt", "--json", status=0)
    assert sum(one["confidence"] for one in json.loads(out)["top"]) == pytest.approx(1, abs=1e-3)
    _, _, err = run(f"ask {picture} --model photo --answers list.txt what?", status=2)
    assert "--answers: photo has a list of its own" in err


def test_the_prompt_is_yours(run, home):
    command = f"caption pictures --model chat {EXACT} --max-length 6"
    _, plain, _ = run(command, status=0)
    _, other, _ = run(command, "--prompt", "What colour is it?", status=0)
    assert plain != other
    _, _, err = run("caption pictures --model blip --prompt x", status=2)
    assert "takes no prompt" in err
    _, _, err = run("caption pictures --model photo --prompt x", status=2)
    assert "--prompt 'x': only models of transformers take one" in err


def test_describe_evaluate_and_score(run, home):
    described = f"describe pictures --out t.csv --model chat {EXACT} --max-length 4"
    run(described, "--question", "what is it?", status=0)
    header, *rows = (home / "t.csv").read_text().splitlines()
    assert "what is it?" in header
    assert len(rows) == 2
    _, _, err = run(described, "--question", "what is it?", status=0)
    assert "0 captioned now, 2 before" in err
    evaluated = f"evaluate blip --data data --out figures {EXACT}"
    _, out, _ = run(evaluated, "--max-length", "5", status=0)
    assert "CIDEr" in out
    assert not (home / "blip" / "evaluation").exists()
    scored = "score --references data/captions.jsonl --split test"
    _, again, _ = run(scored, "--predictions", "figures/predictions.jsonl", status=0)
    assert again.split()[:2] == out.split()[:2]
    _, out, err = run(f"evaluate blip-vqa --data data {EXACT} --evidence --limit 3", status=0)
    assert "grey picture" in out
    assert "predictions are not kept: blip-vqa is not a model folder of yours" in err
    _, _, err = run("export blip --onnx out", status=5)
    assert "is a model of transformers" in err


def test_serve(home, scenes_folder):
    from gazetell.serve.api import create_app
    from gazetell.serve.guard import ServeOptions
    from gazetell.serve.server import check_effects, load_models

    models = load_models(["blip", "ask=blip-vqa", "chat"], device="cpu", precision="fp32")
    assert list(models) == ["blip", "ask", "chat/captioner", "chat/answerer"]
    check_effects(list(models.values()), ServeOptions())
    picture = sorted((scenes_folder / "images").glob("*.png"))[0].read_bytes()
    image = base64.b64encode(picture).decode()
    with TestClient(create_app(models, ServeOptions())) as client:
        until = time.monotonic() + 60
        while client.get("/readyz").status_code != 200 and time.monotonic() < until:
            time.sleep(0.05)
        items = {item["name"]: item for item in client.get("/v1/models").json()["models"]}
        assert [item["kind"] for item in items.values()] == ["captioner", "answerer"] * 2
        assert [item["attention"] for item in items.values()] == [True, True, False, False]
        assert items["blip"]["architecture"] == "BlipForConditionalGeneration"
        for name in ("blip", "chat/captioner"):
            body = {"image": image, "model": name, "max_length": 5, "beam": 2, "captions": 2}
            reply = client.post("/v1/caption", json=body)
            assert reply.status_code == 200, reply.text
            told = models[name].n_best(picture, 2, beam=2, max_length=5)
            assert [x["text"] for x in reply.json()["captions"]] == [x.text for x in told]
        look = client.post("/v1/look", json={"image": image}).json()["look"]
        for name in ("ask", "chat/answerer"):
            body = {"look": look, "questions": ["what is it?"], "model": name, "evidence": True}
            reply = client.post("/v1/answer", json=body)
            assert reply.status_code == 200, reply.text
            answer = models[name].ask(picture, "what is it?")
            assert reply.json()["answers"][0]["answer"] == answer.text
