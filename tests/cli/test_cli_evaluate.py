"""``evaluate`` as a user has it: figures, folders, the model's card, several settings at once."""

import json
import shutil

import huggingface_hub
import pytest

from gazetell.data.records import Dataset
from gazetell.inference.load import load


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def card(folder):
    return json.loads((folder / "metrics.json").read_text())


def test_captions(run, world):
    _, out, err = run("evaluate tell --data data --beam 2 --json", status=0)
    figures = json.loads(out)
    assert {"bleu_1", "bleu_4", "rouge_l", "cider", "cider_d", "meteor"} <= set(figures["metrics"])
    assert figures["metrics"]["meteor"] is None
    assert 0 <= figures["truth"] <= 1
    assert names(world / "tell/evaluation/test-beam2") == [
        *("metrics.json", "of.json", "predictions.jsonl")
    ]
    assert "tell/evaluation/test-beam2" in err
    assert card(world / "tell") == figures
    _, lines, _ = run("evaluate tell --data data --beam 2 --out other", status=0)
    assert f"CIDEr        {100 * figures['metrics']['cider']:.1f}" in lines.splitlines()
    assert names(world / "other") == ["metrics.json", "predictions.jsonl"]
    _, text, _ = run("models tell")
    assert "| CIDEr |" in text
    assert "beam 2" in text


def test_what_cannot_be_calibrated_is_an_error(run, world):
    before = (world / "tell/config.json").read_text()
    for more, said in (
        ("", "no confidence can be fitted: "),
        ("--split val", "--calibrate: expected one model folder"),
    ):
        status, _, err = run(f"evaluate tell --data data --calibrate {more}")
        assert (status > 0, said in err) == (True, True)
    assert (world / "tell/config.json").read_text() == before
    before = (world / "ask/config.json").read_text()
    status, _, err = run("evaluate ask --data data --calibrate")
    said = "no bound can be fitted: 12 validation answers; expected 30 or more\n"
    assert (status, err.endswith(said)) == (3, True)
    assert (world / "ask/config.json").read_text() == before


def test_the_verb_calibrates_as_the_option_does(run, world, monkeypatch):
    for module in ("inference.calibrate", "models.confidence"):
        monkeypatch.setattr(f"gazetell.{module}.ANSWERS", 12)
    shutil.copytree("ask", "again")
    _, out, err = run("calibrate ask data", status=0)
    assert out == ""
    said = "ask: abstain_below, unknown_temperature, novelty fitted on 12 answers of val\n"
    assert err.endswith(said)
    run("calibrate again --data data", status=0)
    assert json.loads((world / "again/config.json").read_text())["unknown_temperature"] is not None
    run("evaluate again --data data --calibrate", status=0)
    fitted, same = (json.loads((world / x / "config.json").read_text()) for x in ("ask", "again"))
    assert fitted == same
    assert fitted["unknown_temperature"] is not None


@pytest.mark.parametrize(
    ("status", "line", "said"),
    [
        (2, "photo data", "photo: is not a model folder of yours"),
        (2, "tell questions", "questions: has no captions to fit tell to"),
        (2, "ask data --limit -1", "--limit -1: expected 0 or more"),
        (3, "tell data --limit 2", "data: no confidence can be fitted: "),
        (5, "data data", "data: is not a model folder (no config.json)"),
    ],
)
def test_what_the_verb_cannot_calibrate(mistake, world, photo, status, line, said):
    shutil.copytree("data", "questions")
    (world / "questions/captions.jsonl").unlink()
    mistake(status, said, f"calibrate {line}")


def test_answers(run, world):
    command = "evaluate ask --data data --evidence --abstain-below 0.2 --question-only blind"
    _, out, err = run(command, status=0)
    assert [line[:17].strip() for line in out.splitlines()] == [
        *("accuracy", "answer type", "question type", "most frequent", "by first words"),
        *("question only", "ceiling", "grey picture", "other picture", "answering only"),
        *("abstaining", "pointing", "answers/s", "not measured: ece"),
    ]
    assert "exact match, 15 questions about 5 pictures" in out
    where = world / "ask/evaluation/test"
    assert "ask/evaluation/test" in err
    assert names(where) == [
        *("metrics.json", "of.json", "predictions.jsonl"),
        *("reliability.png", "risk-coverage.png"),
    ]
    figures = card(where)
    assert out.splitlines()[0].split()[1] == f"{figures['metrics']['accuracy']:.2f}"
    # They stand in the model folder and on its card, and the model still loads.
    assert card(world / "ask") == figures
    _, text, _ = run("models ask")
    assert "On test (15 questions):" in text
    assert "| accuracy |" in text
    assert run("ask a.png --model ask", "is it")[0] == 0


@pytest.mark.parametrize(
    ("model", "name"), [("tell --beam 2", "test-beam2-crop"), ("ask", "test-crop")]
)
def test_another_fit_is_told_and_measured_apart(run, world, model, name):
    status, out, err = run(f"evaluate {model} --data data --fit crop --json")
    assert status == 0
    assert "pictures are fitted by crop; the model learned with pad\n" in err
    assert "not on the model's card: measured with a --fit that is not its own\n" in err
    figures, folder = json.loads(out), model.split()[0]
    assert figures["fit"] == "crop"
    assert card(world / folder / "evaluation" / name) == figures
    assert card(world / folder) == {}
    assert "fit" not in run(f"evaluate {model} --data data --fit pad")[2]
    assert card(world / folder)["fit"] == "pad"


def test_evaluate_json_and_score_agree(run, world):
    _, out, _ = run("evaluate plain --data data --json --out new", status=0)
    figures = json.loads(out)
    assert figures == card(world / "new")
    assert not (world / "plain/evaluation").exists()
    # The predictions are a file that gazetell score reads.
    lines = (world / "data/questions.jsonl").read_text().splitlines(keepends=True)
    test = [line for line in lines if json.loads(line)["split"] == "test"]
    (world / "test.jsonl").write_text("".join(test))
    command = "score --references test.jsonl --predictions new/predictions.jsonl --json"
    _, out, _ = run(command, status=0)
    assert json.loads(out)["accuracy"] == figures["metrics"]["accuracy"]


@pytest.mark.parametrize(
    ("first", "second", "metric", "title", "scale"),
    [("tell", "lstm", "bleu_1", "BLEU-1", 100), ("ask", "plain", "accuracy", "accuracy", 1)],
)
def test_two_models_are_compared_and_predictions_used_again(
    run, world, first, second, metric, title, scale
):
    command = f"evaluate {first} --data data --against {second}"
    _, out, err = run(f"{command} --json", status=0)
    found = json.loads(out)["against"]
    (kept,) = (world / second / "evaluation").iterdir()
    assert f"--against: predictions and figures in {second}/evaluation/{kept.name}\n" in err
    assert card(world / second) == {}  # nobody asked for that one's card
    assert "against" not in card(world / first)
    own = world / first / "evaluation" / kept.name
    said = f"--predictions {own}/predictions.jsonl --against {kept}/predictions.jsonl"
    name = "questions" if metric == "accuracy" else "captions"
    score = f"score --references data/{name}.jsonl --split test {said} --json"
    head = next(line for line in run(command)[1].splitlines() if "difference  95" in line)
    assert head.split()[:2] == [first, second]
    assert json.loads(run(score, status=0)[1])["metrics"] == found["metrics"]
    assert found["model"] == second

    rows = [json.loads(line) for line in (kept / "predictions.jsonl").read_text().splitlines()]
    key = "answer" if metric == "accuracy" else "caption"
    for row in rows:
        row[key] = "a sentence that no model says"
    (kept / "predictions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    _, out, err = run(command, status=0)
    assert f"predictions of {second}/evaluation/{kept.name} are used again\n" in err
    (line,) = [line for line in out.splitlines()[-6:] if line.startswith(title)]
    now = json.loads(run(score, status=0)[1])["metrics"][metric]
    assert now != found["metrics"][metric]
    assert float(line.split()[2]) == pytest.approx(scale * now["second"], abs=0.006)
    (kept / "of.json").write_text(
        json.dumps(json.loads((kept / "of.json").read_text()) | {"data": ""})
    )
    assert "used again" not in run(command, status=0)[2]


def test_references_stand_beside_predictions(run, world):
    for model, name, texts in (("tell", "captions", "captions"), ("ask", "questions", "answers")):
        run(f"evaluate {model} --data data --out {model}-out", status=0)
        kept = (world / f"{model}-out/predictions.jsonl").read_text().splitlines()
        people = (world / f"data/{name}.jsonl").read_text().splitlines()
        expected = {row["id"]: row[texts] for row in map(json.loads, people)}
        assert all(row["references"] == expected[row["id"]] for row in map(json.loads, kept))


def test_test_pictures_that_were_trained_on_are_told(run, world):
    made = {"data": "data", "sha256": Dataset.open("data").fingerprint()}
    (world / "tell/training.json").write_text(json.dumps(made))
    told = "tell: was trained on pictures of split"
    assert told not in run("evaluate tell --data data", status=0)[2]
    shutil.copytree(world / "data", world / "other")
    rows = [json.loads(line) for line in (world / "data/captions.jsonl").read_text().splitlines()]
    for row in rows[:2]:
        row["split"] = "test"
    (world / "other/captions.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    about = json.loads((world / "other/dataset.json").read_text())
    about["root"] = str(world / "data")
    (world / "other/dataset.json").write_text(json.dumps(about))
    assert f"{told} 'test': 2 of 7" in run("evaluate tell --data other", status=0)[2]
    (world / "data/captions.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    assert "data: has changed since tell was" in run("evaluate tell --data data", status=0)[2]


def test_limits_of_words_are_measured_apart(run, world):
    more = "--beam 4 --no-repeat-ngram 1 --min-length 2 --beam-groups 2 --diversity 2"
    _, _, err = run(f"evaluate tell --data data {more}", status=0)
    (folder,) = (world / "tell/evaluation").iterdir()
    assert folder.name == "test-beam4-least2-ngram1-groups2-diversity2.0"
    assert "not on the model's card: measured with a --min-length that is not its own" in err
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    words = [row["caption"].split() for row in rows]
    assert all(len(set(each)) == len(each) >= 2 for each in words)
    run("evaluate tell --data data --split val --no-repeat-ngram 1 --keep-best", status=0)
    assert load(world / "tell").decoding.no_repeat_ngram == 1


@pytest.mark.parametrize("model", ["tell", "ask"])
def test_a_limited_evaluation_stays_off_the_card(run, world, model):
    _, out, _ = run(f"evaluate {model} --data data --limit 2", status=0)
    assert "2" in out
    assert card(world / model) == {}
    folder = "test-beam3-first2" if model == "tell" else "test-first2"
    assert names(world / model / "evaluation") == [folder]


SETTINGS = "--beam 1 --beam 2 --length-penalty 0 --length-penalty 2"


def test_a_row_a_setting_and_the_best_is_kept(run, world):
    command = f"evaluate tell --data data --split val {SETTINGS}"
    lines = (world / "data/captions.jsonl").read_text().splitlines()
    (bare,) = [json.loads(line) for line in lines if '"val"' in line][:1]
    bare |= {"id": "bare", "captions": []}
    (world / "data/captions.jsonl").write_text("\n".join([*lines, json.dumps(bare)]))
    _, out, err = run(command, "--json", status=0)
    assert err.count("without captions or answers, left out: 1") == 1  # not once a setting
    rows = json.loads(out)
    # Of beam 1 once: a length penalty has no effect on it.
    settings = [(row["beam"], row["length_penalty"]) for row in rows]
    assert settings == [(1, None), (2, 0.0), (2, 2.0)]
    folders = ["val-beam1", "val-beam2-penalty0.0", "val-beam2-penalty2.0"]
    assert names(world / "tell/evaluation") == folders
    before = load(world / "tell").decoding
    assert not card(world / "tell")  # none of them is the model's own

    _, out, err = run(command, "--keep-best", status=0)
    best = max(row["metrics"]["cider"] for row in rows)
    assert sum("best CIDEr" in line for line in out.splitlines()) >= 1
    kept = load(world / "tell").decoding
    own = before.length_penalty
    assert (kept.beam, kept.length_penalty) in [
        (row["beam"], own if row["beam"] == 1 else row["length_penalty"])
        for row in rows
        if row["metrics"]["cider"] == best
    ]
    assert kept.max_length == before.max_length
    assert "kept: beam" in err
    assert card(world / "tell")["metrics"]["cider"] == best


def test_what_was_measured_is_what_is_kept(run, world):
    """The greatest length too: else the card would tell of captions that the model never gives."""
    command = "evaluate tell --data data --split val --max-length 4"
    _, _, err = run(command, status=0)
    assert "not on the model's card" in err
    assert not card(world / "tell")
    assert run(command, "--keep-best")[0] == 0
    assert load(world / "tell").decoding.max_length == 4
    assert card(world / "tell")["max_length"] == 4
    assert names(world / "tell/evaluation") == ["val-beam3-words4"]


def test_several_models_are_one(run, world):
    shutil.copytree(world / "tell", world / "again")
    _, alone, _ = run("evaluate tell --data data --beam 2 --json")
    _, out, _ = run("evaluate tell again --data data --beam 2 --json", status=0)
    assert json.loads(out)["members"] == 2
    assert json.loads(out)["metrics"] == json.loads(alone)["metrics"]  # twice the same
    assert (world / "tell/evaluation/test-beam2-ensemble2/predictions.jsonl").is_file()
    assert card(world / "tell")["members"] == 1
    single = run("caption a.png --model tell")
    assert run("caption a.png --model tell --model again") == single


def test_a_model_of_the_hub_is_measured_and_its_folder_left_alone(run, world, monkeypatch):
    fetched = {"someone/tell": world / "tell", "someone/ask": world / "ask"}
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **_: fetched[name])
    before = {path: path.read_bytes() for path in (world / "tell").rglob("*")}
    status, out, err = run("evaluate hf://someone/tell --data data --beam 2")
    assert (status, out) == (0, run("evaluate tell --data data --beam 2 --out here")[1])
    assert (
        "predictions are not kept: hf://someone/tell is not a model folder of yours; --out keeps"
        in err
    )
    assert {path: path.read_bytes() for path in (world / "tell").rglob("*")} == before
    status, *_ = run("evaluate hf://someone/ask --data data --out o --question-only blind")
    assert (status, (world / "o/predictions.jsonl").is_file()) == (0, True)
    told = run("evaluate hf://someone/tell --data data --split val --beam 2 --keep-best")
    assert told == (
        2,
        "",
        "error: --keep-best: hf://someone/tell is not a model folder of yours\n",
    )


@pytest.mark.parametrize(
    ("command", "status", "said"),
    [
        ("--data data", 2, "expected a model folder"),
        ("tell --data nowhere", 3, "nowhere: is not a prepared dataset"),
        ("tell --data data --split dev", 3, "test, train, val"),
        ("ask --data data --split dev", 3, "splits with questions: test, train"),
        ("ask --data data --abstain-below 7", 2, "--abstain-below 7"),
        ("ask ask --data data", 5, "an ensemble takes only captioners"),
        ("ask --data data --question-only tell", 5, "is a captioner"),
        ("ask --data data --question-only plain", 2, "trained with --blind"),
        # Of the other kind of model.
        (
            "ask --data data --beam 1 --beam 2",
            2,
            "--beam: has no effect, since ask answers questions",
        ),
        (
            "ask --data data --no-repeat-ngram 0",
            2,
            "--no-repeat-ngram: has no effect, since ask answers questions",
        ),
        (
            "tell --data data --split val --beam 4 --beam-groups 2 --keep-best",
            2,
            "--keep-best: has",
        ),
        ("ask --data data --java", 2, "--java: "),
        ("ask --data data --max-length 5", 2, "--max-length: "),
        ("ask --data data --length-penalty 1", 2, "--length-penalty: "),
        ("ask --data data --split val --beam 1 --keep-best", 2, "--beam: "),
        ("tell --data data --evidence", 2, "--evidence: "),
        ("tell --data data --abstain-below 0.5", 2, "--abstain-below: "),
        ("tell --data data --question-only ask", 2, "--question-only: "),
        # Without effect, or with one that nobody wants.
        ("tell --data data --split val --keep-best", 2, "to keep"),
        ("tell --data data --beam 1 --keep-best", 2, "test must not choose options"),
        ("tell --data data --split val --limit 1 --beam 1 --keep-best", 2, "CIDEr of one picture"),
        (f"tell --data data --out o {SETTINGS}", 2, "--out: "),
        (f"tell --data data --split val --against lstm {SETTINGS}", 2, "--against: expected one"),
        ("tell --data data --against tell", 2, "--against tell: is the model itself"),
        ("tell --data data --against ask", 2, "--against ask: answers questions; expected a model"),
        ("ask --data data --against photo/captioner", 2, "captions; expected a model that answers"),
        ("tell --data data --out a.png", 2, "--out a.png: is a file"),
        ("tell --data data --out -", 2, "--out -: standard input"),
    ],
)
def test_a_mistake_is_one_line_and_changes_nothing(mistake, world, command, status, said):
    mistake(status, said, f"evaluate {command}")
