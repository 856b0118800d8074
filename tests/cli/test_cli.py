"""The command line as a user has it: output, exit status, one line for each mistake."""

import csv
import io
import json
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from PIL import Image

from gazetell import cli, scenes
from gazetell.models.folder import save_model
from gazetell.training.fit import train
from gazetell.training.options import train_options


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A scenes dataset and a model trained on it for an instant."""
    folder = tmp_path_factory.mktemp("world")
    scenes.generate(folder / "data", train=16, val=4, test=6, questions_per_image=0)
    options = train_options(
        encoder="small-cnn",
        encoder_weights="none",
        encoder_trainable="all",
        encoder_size=64,
        embedding=16,
        hidden=32,
        min_frequency=1,
        epochs=1,
        precision="fp32",
    )
    train(folder / "data", folder / "run", options, report=lambda line: None)
    return folder


def picture(world):
    return sorted((world / "data/images").iterdir())[0]


def test_help_does_not_import_torch():
    code = (
        "import sys; sys.argv = ['gazetell', '--help']\n"
        "from gazetell.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "sys.exit('torch' in sys.modules or 'lightning' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for verb in cli.VERBS:
        assert verb in done.stdout


@pytest.mark.parametrize("verb", [*cli.VERBS])
def test_each_verb_has_help(run, verb):
    status, out, _ = run(verb, "--help")
    assert status == 0
    assert f"gazetell {verb}" in out


def test_an_unknown_option_gets_a_suggestion(run):
    status, out, err = run("caption", "a.png", "--model", "m", "--beem", "3")
    assert status == 2
    assert out == ""
    assert "--beam" in err
    assert len(err.strip().splitlines()) == 1


def test_an_unknown_verb_gets_a_suggestion(run):
    status, _, err = run("captoin")
    assert status == 2
    assert "caption" in err


def test_caption_prints_the_caption_alone(run, world):
    status, out, err = run("caption", picture(world), "--model", world / "run")
    assert status == 0
    assert len(out.splitlines()) == 1
    assert err == ""


def test_caption_json(run, world):
    status, out, _ = run("caption", picture(world), "--model", world / "run", "--json", "--beam", 2)
    assert status == 0
    row = json.loads(out)
    assert row["caption"].split() == row["words"]
    assert len(row["attention"]) == len(row["words"])
    assert sum(map(sum, row["attention"][0])) == pytest.approx(1, abs=0.01)
    assert row["log_prob"] < 0


def test_caption_csv_of_a_folder(run, world):
    status, out, _ = run("caption", world / "data/images", "--model", world / "run", "--csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert status == 0
    assert len(rows) == 26
    assert rows[0]["picture"] < rows[1]["picture"]
    assert all(row["caption"] and float(row["log_prob"]) < 0 for row in rows)


def test_one_bad_picture_spoils_no_other(run, world, tmp_path):
    Image.new("RGB", (40, 30), "red").save(tmp_path / "a.png")
    (tmp_path / "b.jpg").write_text("no picture")
    (tmp_path / "c.png").write_bytes(b"")
    Image.new("L", (1, 1)).save(tmp_path / "d.png")
    status, out, err = run("caption", tmp_path, "--model", world / "run")
    assert status == 1
    assert [line.split("\t")[0].rsplit("/", 1)[1] for line in out.splitlines()] == [
        "a.png",
        "d.png",
    ]
    assert "b.jpg" in err
    assert "c.png" in err
    assert "2 of 4 pictures failed" in err


def test_caption_from_standard_input(world):
    done = subprocess.run(
        [sys.executable, "-m", "gazetell", "caption", "-", "--model", str(world / "run")],
        input=picture(world).read_bytes(),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0
    assert done.stdout.strip()


@pytest.mark.parametrize("suffix", [".png", ".html", ".gif"])
def test_caption_saves_the_gaze(run, world, tmp_path, suffix):
    where = tmp_path / f"gaze{suffix}"
    status, _, _ = run("caption", picture(world), "--model", world / "run", "--gaze", where)
    assert status == 0
    assert where.stat().st_size > 500


def test_caption_saves_the_gaze_of_several(run, world, tmp_path):
    chosen = sorted((world / "data/images").iterdir())[:3]
    status, _, _ = run("caption", *chosen, "--model", world / "run", "--gaze", tmp_path / "out")
    assert status == 0
    assert len(list((tmp_path / "out").glob("*.png"))) == 3


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["caption", "--model", "RUN"], 2, "expected pictures"),
        (["caption", "nothing.png", "--model", "RUN"], 3, "nothing.png"),
        (["caption", "PIC", "--model", "nowhere"], 5, "nowhere: is no model folder"),
        (["caption", "PIC", "--model", "RUN", "--beam", "0"], 2, "beam 0"),
        (["caption", "PIC", "--model", "RUN", "--json", "--csv"], 2, "--json and --csv"),
        (["caption", "PIC", "--model", "RUN", "--gaze", "a.bmp"], 2, ".bmp"),
        (["caption", "PIC", "--model", "RUN", "--device", "toaster"], 2, "toaster"),
        (["evaluate", "RUN", "--data", "nowhere"], 3, "nowhere: is no prepared dataset"),
        (["evaluate", "RUN", "--data", "DATA", "--split", "dev"], 3, "test, train, val"),
        (["train", "DATA"], 2, "--out"),
        (["train", "DATA", "--out", "RUN"], 2, "--resume"),
        (["train", "--resume", "DATA"], 5, "no run to resume"),
        (["train", "--resume", "RUN", "--epochs", "9"], 2, "--resume takes the run folder alone"),
        (
            ["train", "DATA", "--out", "n", "--architecture", "lstm", "--passes", "9"],
            2,
            "--passes 9",
        ),
        (["train", "DATA", "--out", "n", "--targets", "soft"], 2, "--targets soft: attention-lstm"),
        (["train", "DATA", "--out", "n", "--recipe", "scenes", "--freeze-words"], 2, "--freeze-w"),
        (["train", "DATA", "--out", "new", "--recipe", "nosuch"], 2, "--recipe nosuch"),
        (["train", "DATA", "--out", "new", "--encoder", "resnet9000"], 2, "resnet9000"),
        (["features", "DATA", "--encoder", "resnet18", "--encoder-weights", "a.pth"], 5, "a.pth"),
        (["score", "--references", "r", "--predictions", "p"], 3, "r: "),
        (["data", "flickr8k", "nowhere", "--out", "new"], 3, "nowhere"),
        (["data", "table", "nowhere.csv", "--out", "new"], 3, "nowhere.csv"),
        (["models", "nowhere"], 5, "nowhere"),
    ],
)
def test_a_mistake_is_one_line(run, world, tmp_path, monkeypatch, arguments, status, said):
    monkeypatch.chdir(tmp_path)
    names = {"RUN": world / "run", "DATA": world / "data", "PIC": picture(world)}
    found, out, err = run(*(names.get(argument, argument) for argument in arguments))
    assert (found, out) == (status, "")
    assert said in err
    assert len(err.strip().splitlines()) == 1
    assert err.startswith("error: ")


def test_evaluate_json(run, world, tmp_path):
    status, out, _ = run(
        "evaluate",
        world / "run",
        "--data",
        world / "data",
        "--beam",
        2,
        "--json",
        "--out",
        tmp_path,
    )
    assert status == 0
    figures = json.loads(out)
    keys = {
        "bleu_1",
        "bleu_2",
        "bleu_3",
        "bleu_4",
        "rouge_l",
        "cider",
        "cider_d",
        "meteor",
        "spice",
    }
    assert set(figures["metrics"]) == keys
    assert figures["metrics"]["meteor"] is None
    assert "pointing" in figures  # None where so raw a model names no box
    assert 0 <= figures["truth"] <= 1
    assert (
        len((tmp_path / "predictions.jsonl").read_text().splitlines()) == figures["pictures"] == 6
    )


def test_evaluated_figures_stand_in_the_model_card(run, world):
    status, out, _ = run("evaluate", world / "run", "--data", world / "data", "--beam", 1)
    assert status == 0
    assert "cider" in out
    _, card, _ = run("models", world / "run")
    assert "| cider |" in card
    assert "beam 1" in card


def test_score(run, tmp_path):
    references, predictions = tmp_path / "r.jsonl", tmp_path / "p.jsonl"
    references.write_text(
        '{"id": 1, "captions": ["a dog runs", "the dog runs fast"]}\n'
        '{"id": 2, "captions": ["two cats sleep on a bed"]}\n'
    )
    predictions.write_text('{"id": "1", "caption": "A dog runs."}\n{"id": 2, "caption": "cats"}\n')
    status, out, _ = run(
        "score", "--references", references, "--predictions", predictions, "--json"
    )
    assert status == 0
    scores = json.loads(out)
    assert 0 < scores["bleu_1"] <= 1
    assert scores["spice"] is None


def test_data_table_to_model_and_back(run, world, tmp_path):
    """What a user with a table does, with one bad row."""
    table = tmp_path / "mine.csv"
    rows = [
        f"{p.name},a picture of number {n}\n"
        for n, p in enumerate(sorted((world / "data/images").iterdir()))
    ]
    table.write_text("image,caption\n" + "".join(rows) + "lost.png,\n")
    images, out = world / "data/images", tmp_path / "mine"
    status, _, err = run("data", "table", table, "--images", images, "--out", out)
    assert status == 3
    assert f"mine.csv:{len(rows) + 2}" in err
    status, text, _ = run(
        "data", "table", table, "--images", images, "--out", out, "--skip-bad", "--json"
    )
    assert status == 0
    assert json.loads(text)["bad_rows"] == 1
    assert (out / "quarantine.jsonl").is_file()
    status, text, _ = run("data", "show", out)
    assert status == 0
    assert "26" in text
    status, _, err = run(
        "train",
        out,
        "--out",
        tmp_path / "run",
        "--encoder",
        "small-cnn",
        "--encoder-weights",
        "none",
        "--encoder-trainable",
        "all",
        "--encoder-size",
        32,
        "--hidden",
        16,
        "--embedding",
        8,
        "--epochs",
        1,
        "--min-frequency",
        1,
        "--eval-every",
        1,
    )
    assert status == 0, err
    assert "epoch 1/1" in err
    status, text, _ = run("caption", picture(world), "--model", tmp_path / "run")
    assert status == 0
    assert text.strip()


def test_a_flag_wins_over_the_recipe(run, world, tmp_path):
    status, _, _ = run(
        "train",
        world / "data",
        "--out",
        tmp_path / "run",
        "--recipe",
        "scenes",
        "--epochs",
        1,
        "--eval-every",
        1,
        "--hidden",
        16,
        "--encoder-size",
        32,
    )
    assert status == 0
    options = json.loads((tmp_path / "run/training.json").read_text())["options"]
    assert options["hidden"] == 16  # given
    assert options["embedding"] == 128  # the recipe's
    assert options["clip"] == 5.0  # the default


def test_features_prints_the_folder(run, world):
    status, out, _ = run(
        "features",
        world / "data",
        "--encoder",
        "squeezenet1_1",
        "--encoder-weights",
        "none",
        "--encoder-size",
        64,
    )
    assert status == 0
    assert Path(out.strip()).parent == world / "data/features"


def test_features_that_nobody_can_use_are_refused(run, world):
    told = run("features", world / "data", "--recipe", "scenes")
    expected = "error: --recipe scenes: trains its encoder, whose features change\n"
    assert told == (2, "", expected)
    status, _, err = run("features", world / "data", "--batch", 0)
    assert (status, err) == (2, "error: --batch 0: expected 1 or more\n")


def test_models_lists(run):
    status, out, _ = run("models", "--json")
    lists = json.loads(out)
    assert status == 0
    assert "attention-lstm" in lists["captioners"]
    assert {"regnet_x_400mf", "resnet152", "vgg16", "mobilenet_v2", "small-cnn"} <= set(
        lists["encoders"]
    )


def test_doctor(run, monkeypatch):
    """No host is asked unless the user says so."""
    asked = []

    def refuse(request, timeout):
        asked.append(request.host)
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    status, out, _ = run("doctor", "--json")
    found = json.loads(out)
    assert status == 0
    assert found["precision"].split(":")[0] in ("bf16", "fp32")
    assert found["published weights"] == "not asked; --online asks download.pytorch.org"
    assert not asked
    _, out, _ = run("doctor", "--json", "--online")
    assert "no network" in json.loads(out)["published weights"]
    assert asked == ["download.pytorch.org"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["caption", "PIC", "--model", "RUN", "--temperature", "50"], "temperature: has no effect"),
        (["caption", "PIC", "--model", "RUN", "--seed", "0"], "seed: has no effect"),
        (
            ["caption", "PIC", "--model", "RUN", "--beam", "1", "--length-penalty", "1"],
            "length_penalty: has no effect",
        ),
        (["caption", "-", "--model", "RUN", "--batch", "4"], "--batch: has no effect"),
        (["caption", "PIC", "--model", "PLAIN", "--gaze", "g.png"], "has no attention"),
        (["caption", "PIC", "--model", "RUN", "--gaze", "-"], "--gaze -: standard input"),
        (["evaluate", "RUN", "--data", "DATA", "--out", "-"], "--out -: standard input"),
        (["reproduce", "--split", "val"], "--split: has no effect"),
        (["features", "DATA", "--seed", "3"], "--seed: has no effect"),
    ],
)
def test_an_option_without_effect_is_refused(
    run, world, untrained, tmp_path, monkeypatch, arguments, said
):
    monkeypatch.chdir(tmp_path)
    if "PLAIN" in arguments:
        save_model(tmp_path / "plain", untrained(architecture="lstm"))
    names = {
        "RUN": world / "run",
        "DATA": world / "data",
        "PIC": picture(world),
        "PLAIN": tmp_path / "plain",
    }
    status, out, err = run(*(names.get(argument, argument) for argument in arguments))
    assert (status, out) == (2, "")
    assert said in err
    assert len(err.strip().splitlines()) == 1
    assert not [path for path in tmp_path.iterdir() if path.name != "plain"]


def test_a_picture_named_twice_is_told_once(run, world):
    status, out, err = run("caption", picture(world), picture(world), "--model", world / "run")
    assert (status, len(out.splitlines())) == (0, 1)
    assert err == "pictures named more than once, taken once: 1\n"


def test_pictures_of_one_name_keep_their_own_gaze(run, world, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (40, 30), "red").save(tmp_path / folder / f"{'x' * 200}.png")
    paths = [tmp_path / folder for folder in ("a", "b")]
    status, out, _ = run("caption", *paths, "--model", world / "run", "--gaze", tmp_path / "gaze")
    assert status == 0
    assert len({line.split("\t")[0] for line in out.splitlines()}) == 2
    assert len(list((tmp_path / "gaze").iterdir())) == 2


def test_captions_that_are_cut_are_counted(run, world):
    chosen = sorted((world / "data/images").iterdir())[:3]
    greedy = ("--beam", 1, "--max-length", 1)
    status, out, err = run("caption", *chosen, "--model", world / "run", *greedy)
    assert status == 0
    assert len(out.splitlines()) == 3
    assert err == "cut at 1 words (--max-length): 3 of 3 captions\n"


def test_no_memory_is_one_line(run, world, monkeypatch):
    def fail(*paths, **options):
        raise MemoryError

    monkeypatch.setattr("gazetell.inference.predict.Captioner.load", fail)
    status, out, err = run("caption", picture(world), "--model", world / "run")
    assert (status, out) == (1, "")
    assert err == "error: no memory is left; a smaller batch, beam or model needs less\n"
