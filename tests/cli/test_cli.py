"""The command line as a user has it: output, exit status, one line for each mistake."""

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import fields
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest
from PIL import Image

from gazetell import cli
from gazetell.cli.features import TRAINED, Seen
from gazetell.cli.train import Given
from gazetell.errors import StoppedError
from gazetell.inference.load import load
from gazetell.models.confidence import Novelty
from gazetell.models.folder import save_model, update_settings
from gazetell.training.options import EncoderOptions, flags, train_options

# Wrong commands of every verb, and what is said of each; "model" has a config.json.
QUICK = """
captoin a.png | captoin
caption a.png --device CPU | --device 'CPU': expected auto, cpu, cuda, cuda:N or mps
caption a.png --precision=fp8 | --precision 'fp8': expected auto, bf16 or fp32
caption lost.png | lost.png: no such file or folder
caption a.png --model lost | lost: is not a model folder
caption a.png --model model --beem 3 | --beem
caption a.png --model model --beam 0 | --beam 0: expected 1 to 100
caption a.png --model model --n-best 0 | --n-best 0
caption a.png --model model --gaze a.bmp | --gaze a.bmp
ask lost.png what | lost.png: no such file or folder
ask a.png what --model lost | lost: is not a model folder
ask a.png what --model model --answers lost | lost: cannot be read
describe lost --out a.csv | lost: does not exist
describe https://x.org/a --out a.csv | https://x.org/a: addresses are not fetched
describe . --out a.doc | --out a.doc
describe . --out a.csv --model lost | lost: is not a model folder
describe . --model model | --out is missing: for example --out captions.html
compare a.png --model model | --model: expected two models or more
compare a.png --model model --model lost | lost: is not a model folder
compare lost.png --model model --model photo | lost.png: does not exist
demo --modell lost | Did you mean --model?
demo --model lost | lost: is not a model folder
demo --train --epochs 0 | --epochs 0: expected 1 or more
serve --model lost | lost: is not a model folder
serve --model name=lost | lost: is not a model folder
serve --port 70000 | --port 70000
data table lost.csv --out new | lost.csv: cannot be read
data show lost | lost: is not a prepared dataset
train | expected a prepared dataset and --out
train data | --out is missing: for example --out runs/mine
train lost --out new | lost: is not a prepared dataset
train data --out new --lr 1 | Did you mean --learning-rate?
train data --out new --epochs many | --epochs
train data --out new --schedule linear | --schedule
train data --out new --recipe lost | --recipe lost: expected a .toml file or one of
train data --out model | already contains config.json
train --resume data | has no run to resume
train --finish data | has no run to resume
evaluate model --data lost | lost: is not a prepared dataset
evaluate lost --data data | lost: is not a model folder
evaluate model --data data --against lost | lost: is not a model folder
evaluate model --data data --against model | --against model: is the model itself
evaluate model --data data --beam 0 | --beam 0: expected 1 to 100
evaluate model | --data is missing
calibrate lost data | lost: is not a model folder
calibrate model lost | lost: is not a prepared dataset
score --references lost --predictions lost | lost: cannot be read
features lost | lost: is not a prepared dataset
features data --recipe lost | --recipe lost
features data --encode resnet18 | --encode
vectors data --out a.txt --epochs 0 | epochs
vectors lost --out a.txt | lost: is not a prepared dataset
reproduce lost data | plan lost: expected a .toml file or one of
reproduce photo lost | lost: is not a prepared dataset
export model | --out is missing
export lost --out new | lost: is not a model folder
push lost hf://a/b | lost: is not a model folder
models lost | lost: is not a model folder
"""


def test_help_and_errors_in_arguments_take_no_torch(scenes_folder, tmp_path):
    """It takes seconds to load, of which nobody wants to wait for a slip of the pen."""
    (tmp_path / "data").symlink_to(scenes_folder)
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    rows = [row.rsplit(" | ", 1) for row in QUICK.strip().splitlines()]
    code = (
        "import sys; from gazetell.cli import main\n"
        "for line in sys.stdin.read().splitlines():\n"
        "    sys.argv = ['gazetell', *line.split()]\n"
        "    try: main()\n"
        "    except SystemExit: pass\n"
        "    assert not {'torch', 'lightning', 'transformers'} & {*sys.modules}, line\n"
    )
    lines = "\n".join(["--help", *(command for command, _ in rows)])
    ran = {"capture_output": True, "text": True, "cwd": tmp_path, "input": lines}
    done = subprocess.run([sys.executable, "-c", code], check=False, **ran)
    assert done.returncode == 0, done.stderr
    told = done.stderr.splitlines()
    assert len(told) == len(rows), done.stderr
    for (command, said), line in zip(rows, told, strict=True):
        assert line.startswith("error: "), (command, line)
        assert said in line, (command, line)
    lines = [line.strip(" │") for line in done.stdout.splitlines()]
    named = [line.partition(" ")[0] for line in lines if line.partition(" ")[2].strip()]
    assert [name for name in named if name in cli.VERBS] == [*cli.VERBS]  # each with its summary
    assert "Exit status: 0 done" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "data", "model"]


def test_torch_and_torchvision_that_do_not_fit_are_one_line(run, world, monkeypatch):
    def fail(*paths, **options):
        said = "raise RuntimeError('operator torchvision::nms does not exist')"
        exec(compile(said, "torchvision/_meta_registrations.py", "exec"))

    monkeypatch.setattr("gazetell.inference.predict.Captioner.load", fail)
    monkeypatch.setattr(
        "importlib.metadata.version", {"torch": "2.15.0+cpu", "torchvision": "0.1"}.get
    )
    for needed, fits in (
        ("torch (==2.15.0)", True),
        ("torch==1.5.0 ; extra == 'x'", True),
        ("torch==1.5.0", False),
    ):
        monkeypatch.setattr("importlib.metadata.requires", lambda name, needed=needed: [needed])
        if fits:
            with pytest.raises(RuntimeError, match="nms"):
                cli._status(["caption", "a.png", "--model", "tell"])
            continue
        assert run("caption a.png --model tell") == (
            1,
            "",
            "error: torch 2.15.0+cpu and torchvision 0.1 do not fit together: this torchvision "
            "needs torch==1.5.0; install a pair, as pip does when it chooses both\n",
        )


def test_options_of_a_run_are_read_as_the_models_have_them():
    """Their names and types, which the command line takes from the source."""
    assert get_type_hints(Given) == {name: each.type | None for name, each in flags().items()}
    encoder = {each.name for each in fields(EncoderOptions)} - {*TRAINED}
    assert {*get_type_hints(Seen)} == encoder | {"encoder_from", "flip"}


@pytest.mark.parametrize("verb", [*cli.VERBS])
def test_each_verb_has_help(run, verb):
    _, out, _ = run(f"{verb} --help", status=0)
    assert f"gazetell {verb}" in out


SAID = "no model was named: photo is used, which comes with gazetell\n"


def test_without_a_model_photo_is_used_and_said(run, world, photo):
    for command in ("caption a.png", "ask a.png is-it", "describe data/images --out a.csv"):
        named = run(f"{command} --model {photo} --device cpu".replace("a.csv", "b.csv"))
        status, out, err = run(command)
        assert (status, out) == (0, named[1])
        assert err.startswith(SAID)
        assert run(f"{command} --model photo --device cpu".replace("a.csv", "c.csv"))[0] == 0
    assert Path("a.csv").read_text() == Path("b.csv").read_text() == Path("c.csv").read_text()


def test_a_missing_model_is_one_line(run, world, monkeypatch, tmp_path):
    monkeypatch.setattr("gazetell.models.folder.PRETRAINED", tmp_path)
    commands = ("caption a.png", "ask a.png is-it", "describe data --out a.csv", "serve")
    for command in (*commands, "caption a.png --model photo", "models photo"):
        status, out, err = run(command)
        assert (status, out) == (5, "")
        assert err == (
            "error: photo: this installation of gazetell has no such model; expected a model "
            "folder, such as gazetell train writes\n"
        )
    assert json.loads(run("doctor --json")[1])["model photo"].startswith("not in this")


def test_photo_is_described_and_measured_without_writing_into_it(run, world, photo):
    before = {path: path.read_bytes() for path in photo.rglob("*.*")}
    _, cards, _ = run("models photo")
    assert "# attention-lstm on" in cards
    assert "# dmn-plus on" in cards
    status, out, err = run("evaluate photo --data data --beam 1 --json")
    assert (status, json.loads(out)["beam"]) == (0, 1)
    assert "data: its captions are measured; for questions evaluate photo/answerer" in err
    assert "predictions are not kept: photo is not a model folder of yours; --out keeps them" in err
    status, out, err = run("evaluate photo/answerer --data data --json --out kept")
    assert (status, json.loads(out)["questions"]) == (0, 15)
    (world / "data/captions.jsonl").unlink()
    assert json.loads(run("evaluate photo --data data --json")[1]) | {
        "answers_per_second": 0
    } == json.loads(out) | {"answers_per_second": 0}
    assert sorted(path.name for path in (world / "kept").glob("*.json*"))
    assert {path: path.read_bytes() for path in photo.rglob("*.*")} == before


def test_export_writes_half_the_size_and_pairs(run, world):
    status, out, err = run("export tell --out half")
    assert (status, out) == (0, "")
    assert err == "half: 1.0 MB\n"
    assert run("caption a.png --model half")[0] == 0
    assert run("export ask tell --out both")[0] == 0
    assert run("ask a.png is-it --model both")[0] == 0
    status, out, _ = run("evaluate both --data data --beam 1")
    assert status == 0
    assert (world / "both/captioner/evaluation/test-beam1/metrics.json").is_file()
    for command, said in (
        ("export tell --out both", "--out both: already exists"),
        ("export tell tell --out new", "expected one model folder, or those of a captioner and"),
        ("export --out new", "expected one model folder, or those of a captioner and"),
        ("export tell plain --out new", "have different encoders"),
    ):
        assert said in run(command)[2]
        assert not (world / "new").exists()


def test_training_starts_from_photo(photo, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    options = train_options(init_from="photo")
    assert options.init_from == str((photo / "captioner").resolve())
    options = train_options(init_from="photo", architecture="dmn-plus")
    assert options.init_from == str((photo / "answerer").resolve())
    options = train_options(encoder_from="photo", architecture="lstm-vqa")
    assert (options.encoder, options.encoder_size) == ("small-cnn", 64)


def test_caption_prints_the_caption_alone(run, world):
    status, out, err = run("caption a.png --model tell")
    assert (status, len(out.splitlines()), err) == (0, 1, "")


def test_caption_json(run, world):
    _, out, _ = run("caption a.png --model tell --json --beam 2", status=0)
    row = json.loads(out)
    assert row["caption"].split() == row["words"]
    assert len(row["attention"]) == len(row["words"])
    assert sum(map(sum, row["attention"][0])) == pytest.approx(1, abs=0.01)
    assert row["log_prob"] < 0


def test_a_caption_that_the_model_is_not_sure_of_is_marked(run, world, confidence):
    for bound, mark in ((1.0, "  (not sure)"), (0.0, "")):
        update_settings("tell", {"confidence": confidence(threshold=bound)})
        _, text, _ = run("caption a.png --model tell")
        assert text.strip().endswith(")") is bool(mark)
        row = json.loads(run("caption a.png --model tell --json")[1])
        assert text == row["caption"] + mark + "\n"
        assert 0 < row["confidence"] < 1
        assert row["sure"] is not bool(mark)


def test_a_picture_unlike_the_training_pictures_is_told(run, world, confidence):
    strange = {"novelty": Novelty(np.full((1, 128), 128**-0.5, np.float32), -1.0)}
    update_settings("tell", strange | {"confidence": confidence(threshold=0.0)})
    update_settings("ask", strange)
    said = "a.png: is unlike the pictures that the model learned from: check what is told of it"
    _, out, err = run("caption a.png --model tell", status=0)
    assert ("(not sure)" in out, said in err) == (False, True)
    assert json.loads(run("caption a.png --model tell --json")[1])["unfamiliar"] is True
    _, out, err = run("caption a.png data/images --model tell --csv", status=0)
    assert [row["unfamiliar"] for row in csv.DictReader(io.StringIO(out))] == ["true"] * 22
    assert "a.png (and 21 more of 22 pictures): is unlike" in err
    assert run("ask a.png is-it is-it --model ask", status=0)[2].count(said) == 1
    assert json.loads(run("ask a.png is-it --model ask --json")[1])["unfamiliar"] is True


def test_caption_csv_of_a_folder(run, world):
    status, out, _ = run("caption data/images --model tell --csv --batch 5")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert (status, len(rows)) == (0, 21)
    assert rows[0]["picture"] < rows[1]["picture"]
    assert all(row["caption"] and float(row["log_prob"]) < 0 for row in rows)


def test_one_bad_picture_spoils_no_other(run, world):
    (world / "new").mkdir()
    Image.new("RGB", (40, 30), "red").save(world / "new/a.png")
    (world / "new/b.jpg").write_text("no picture")
    (world / "new/c.png").write_bytes(b"")
    Image.new("L", (1, 1)).save(world / "new/d.png")
    status, out, err = run("caption new --model tell")
    assert status == 1
    assert [line.split("\t")[0] for line in out.splitlines()] == ["new/a.png", "new/d.png"]
    assert all(text in err for text in ("b.jpg", "c.png", "2 of 4 pictures failed"))


def test_caption_from_standard_input(run, world, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper((world / "a.png").open("rb")))
    status, out, _ = run("caption - --model tell")
    assert (status, out) == (0, run("caption a.png --model tell")[1])


def test_caption_saves_the_gaze(run, world):
    assert run("caption a.png --model tell --gaze g.html")[::2] == (0, "g.html: written\n")
    assert (world / "g.html").stat().st_size > 500
    _, _, err = run("caption a.png --model tell --gaze new/maps")
    assert err == "new/maps: a new folder was made\nnew/maps: files written: 1\n"
    assert [path.name for path in (world / "new/maps").iterdir()] == ["0000-a.png"]


def test_a_picture_that_cannot_be_read_has_one_name_and_one_exit_status(run, world, monkeypatch):
    """Whatever the verb: the file's name, or that it came from standard input."""
    (world / "bad.png").write_bytes(b"no picture")
    for picture, name in (
        ("bad.png", "bad.png"),
        ("-", "standard input"),
        ("lost.png", "lost.png"),
    ):
        for verb, more in (("caption", "--model tell"), ("ask", "is-it --model ask")):
            monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"no picture")))
            status, out, err = run(f"{verb} {picture} {more}")
            assert (status, out) == (4, "")
            assert err.startswith(f"error: {name}: ")


def test_that_a_model_is_blind_is_said_wherever_it_is_used(run, world, untrained):
    for name in ("deaf", "dumb"):
        save_model(world / name, untrained(blind=True))
    said = "deaf: is blind; it does not look at the picture\n"
    assert run("caption a.png --model deaf", status=0)[2] == said
    _, _, err = run("caption a.png --model deaf --model dumb", status=0)
    assert err == said + said.replace("deaf", "dumb")
    _, _, err = run("describe data/images --model deaf --out captions.csv", status=0)
    assert err.startswith(said)
    shutil.rmtree(world / "data/images")  # which nobody opens
    for model in ("deaf", "blind"):
        status, _, err = run(f"evaluate {model} --data data")
        assert (status, f"{model}: is blind; it does not look at the picture\n" in err) == (0, True)


@pytest.mark.parametrize(
    ("size", "said"),
    [
        ((7, 30), "is 7 x 30 pixels, enlarged to an input of 64"),
        ((700, 100), "is 7.0 times as wide as high: most of the input is padding"),
    ],
)
def test_of_tiny_and_very_long_pictures_a_model_is_not_sure(run, world, confidence, size, said):
    update_settings("tell", {"confidence": confidence(threshold=0.0)})
    Image.new("RGB", size, "red").save("odd.png")
    said = f"odd.png: {said}; what is told of it is not sure\n"
    _, out, err = run("caption odd.png --model tell", status=0)
    assert (out.endswith("  (not sure)\n"), err) == (True, said)
    assert json.loads(run("caption odd.png --model tell --json")[1])["sure"] is False
    _, out, err = run("ask odd.png is-it --model ask", status=0)
    assert (out.startswith("not sure; at best: "), err) == (True, said)
    assert not run("ask odd.png is-it --model ask --abstain-below 0")[1].startswith("not sure")


def test_several_captions_of_each_picture(run, world):
    pictures = sorted((world / "data/images").iterdir())[:2]
    command = f"caption {pictures[0]} {pictures[1]} --model tell --beam 4 --n-best 3"
    _, out, _ = run(command, "--json", status=0)
    rows = [json.loads(line) for line in out.splitlines()]
    assert [(row["picture"], row["rank"]) for row in rows] == [
        (str(picture), rank) for picture in pictures for rank in (1, 2, 3)
    ]
    model = load(world / "tell")
    best = [x.text for picture in pictures for x in model.n_best(picture, 3, beam=4)]
    assert [row["caption"] for row in rows] == best
    _, out, _ = run(command, "--csv", "--gaze", "maps", status=0)
    head, *lines = out.splitlines()
    assert head == "picture,caption,log_prob,confidence,rank,unfamiliar"
    assert [line[-3:] for line in lines] == [",1,", ",2,", ",3,"] * 2
    assert len(list((world / "maps").iterdir())) == 6
    _, out, _ = run(
        f"caption {pictures[0]} --model tell --beam 4 --n-best 3 --beam-groups 4", status=0
    )
    assert out.splitlines() == [x.text for x in model.n_best(pictures[0], 3, beam=4, beam_groups=4)]
    _, _, err = run("caption a.png --model tell --beam 3 --n-best 3 --max-length 1 --beam-groups 3")
    assert "cut at 1 words" in err


def test_a_missing_picture_does_not_stop_the_others(run, world):
    status, out, err = run("caption a.png missing.png --model tell")
    assert (status, out.split("\t")[0], len(out.splitlines())) == (1, "a.png", 1)
    first, second = err.splitlines()
    assert first.startswith("error: missing.png: ")
    assert second == "1 of 2 pictures failed"


def test_pictures_of_one_name_keep_their_own_gaze(run, world):
    for folder in ("a", "b"):
        (world / folder).mkdir()
        Image.new("RGB", (40, 30), "red").save(world / folder / f"{'x' * 200}.png")
    _, out, _ = run("caption a b --model tell --gaze gaze", status=0)
    assert len({line.split("\t")[0] for line in out.splitlines()}) == 2
    assert len(list((world / "gaze").iterdir())) == 2


def test_what_is_cut_or_named_twice_is_said(run, world):
    status, out, err = run("caption data/images a.png a.png --model tell --beam 1 --max-length 1")
    assert (status, len(out.splitlines())) == (0, 22)
    assert err.splitlines() == [
        "pictures named more than once, taken once: 1",
        "cut at 1 words (--max-length): 22 of 22 captions",
    ]


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (MemoryError, 1, "error: no memory is left; a smaller batch, beam or model needs less\n"),
        (KeyboardInterrupt, 130, "interrupted\n"),
        (signal.SIGTERM, 130, "interrupted\n"),
        (StoppedError, 130, ""),  # who raises it has said a line
    ],
)
def test_no_memory_and_an_interruption_are_one_line(run, world, monkeypatch, error, status, line):
    def fail(*paths, **options):
        if isinstance(error, signal.Signals):
            signal.raise_signal(error)
        raise error

    monkeypatch.setattr("gazetell.inference.predict.Captioner.load", fail)
    assert run("caption a.png --model tell") == (status, "", line)


@pytest.mark.parametrize(
    ("command", "status", "said"),
    [
        ("captoin", 2, "caption"),
        ("caption a.png --model tell --beem 3", 2, "--beam"),
        ("caption --model tell", 2, "expected pictures"),
        ("caption nothing.png --model tell", 4, "nothing.png"),
        ("caption bare --model tell", 4, "bare: no pictures there"),
        ("caption a.png --model nowhere", 5, "nowhere: is not a model folder"),
        ("caption a.png --model ask", 5, "use it with: gazetell ask"),
        ("caption https://x.org/a.png --model tell", 4, "https://x.org/a.png: addresses are not f"),
        ("ask https://x.org/a.png what --model nowhere", 4, "addresses are not fetched; download"),
        ("caption a.png --gaze https://x.org/g.png", 2, "--gaze https://x.org/g.png: addresses"),
        ("caption a.png --model tell --beam 0", 2, "--beam 0:"),
        ("caption a.png --model tell --batch 0", 2, "--batch 0"),
        (
            "caption a.png --model tell --beam 3 --n-best 4",
            2,
            "--n-best 4: expected 1 to 3, the beam",
        ),
        ("caption a.png --model tell --n-best 0", 2, "--n-best 0: expected 1"),
        ("caption a.png --model tell --beam 3 --n-best 2 --gaze g.png", 2, "one file for 2 capt"),
        ("caption a.png --model tell --beam 4 --beam-groups 3", 2, "--beam-groups 3: expected a n"),
        ("caption a.png --model tell --diversity 1", 2, "--diversity: has no effect without --be"),
        ("caption a.png --model tell --beam 3 --min-length 30", 2, "--min-length 30: expected 0"),
        ("caption a.png missing.png --model nowhere", 5, "nowhere: is not a model folder"),
        ("caption a.png --model tell --json --csv", 2, "--json and --csv"),
        ("caption a.png --model tell --gaze a.bmp", 2, ".bmp"),
        ("caption a.png data/images --model tell --gaze a.gif", 2, "one file for 22 pictures"),
        ("caption a.png --model tell --gaze ask/config", 2, "is a file; expected a folder"),
        ("caption a.png --model tell --gaze a.png", 2, "a.png: is one of the pictures"),
        ("caption a.png --model tell --gaze=", 2, "--gaze '': is empty"),
        ("caption a.png --model tell --model tell/", 2, "--model tell: is named twice"),
        ("caption a.png --model tell --empty-model", 2, "--empty-model"),
        ("evaluate tell --data data --out lstm", 2, "--out lstm: holds a model"),
        ("vectors data --out data/captions.jsonl", 2, "is a file of the dataset"),
        ("demo --train --out d --seed -1", 2, "--seed -1"),
        ("caption a.png --model tell --device toaster", 2, "toaster"),
        # Without effect.
        ("caption a.png --model tell --top-k 5", 2, "--top-k: has no effect without --sample"),
        ("caption - --model tell --batch 4", 2, "--batch: has no effect"),
        ("caption a.png --model lstm --gaze g.png", 2, "lstm has no attention"),
        ("caption a.png --model tell --gaze -", 2, "--gaze -: standard input"),
        ("caption a.png --model tell --sample --max-length 0", 2, "--max-length 0: "),
        ("reproduce --split val", 2, "--split: has no effect"),
        ("features data --seed 3", 2, "--seed: has no effect"),
        # Other verbs.
        ("train data", 2, "--out"),
        ("train data --out tell", 2, "expected a new folder"),
        ("train --resume data", 5, "no run to resume"),
        ("train --resume tell --hidden 9", 2, "--resume takes only the run folder"),
        ("train data --out n --recipe scenes --freeze-words", 2, "--freeze-w"),
        ("train data --out new --passes 3", 2, "--passes"),
        ("features data --encoder resnet18 --encoder-weights a.pth", 5, "a.pth"),
        ("score --references r --predictions p", 3, "r: "),
        ("data table nowhere.csv --out new", 3, "nowhere.csv"),
        ("data merge data --out data", 2, "--out data: data is read here; expected another"),
        ("data merge data:test --out data/", 2, "data:test is read here; expected another"),
        ("data questions-from-captions data --out data", 2, "data is read here; expected another"),
        ("data table a.csv --without data:test --out data", 2, "data:test is read here; expected"),
        ("data table data/captions.jsonl --out data", 2, "captions.jsonl is read here; expected"),
        ("models nowhere", 5, "nowhere"),
    ],
)
def test_a_mistake_is_one_line(mistake, world, command, status, said):
    (world / "ask/config").touch()
    (world / "bare").mkdir()
    mistake(status, said, command)


def test_from_a_table_to_a_model(run, world):
    """What a user with a table does, with one bad row."""
    names = sorted(os.listdir("data/images"))
    rows = [f"{name},a picture of number {n}\n" for n, name in enumerate(names)]
    Path("mine.csv").write_text("image,caption\n" + "".join(rows) + "lost.png,\n")
    prepare = "data table mine.csv --images data/images --out mine"
    status, _, err = run(prepare)
    assert status == 3
    assert f"mine.csv:{len(rows) + 2}" in err
    _, text, _ = run(f"{prepare} --skip-bad --json", status=0)
    assert json.loads(text)["bad_rows"] == 1
    assert Path("mine/quarantine.jsonl").is_file()
    _, text, _ = run("data show mine", status=0)
    assert "21" in text
    _, _, err = run(
        "train mine --out run --encoder small-cnn --encoder-weights none --encoder-trainable all "
        "--encoder-size 32 --hidden 16 --embedding 8 --epochs 1 --min-frequency 1 --eval-every 1",
        status=0,
    )
    assert "epoch 1/1" in err
    _, text, _ = run("caption a.png --model run", status=0)
    assert text.strip()


@pytest.mark.parametrize(
    ("recipe", "options", "expected", "use"),
    [
        ("scenes", "--eval-every 1", {"embedding": 128, "clip": 5.0}, "caption a.png"),
        ("scenes-answers", "--targets soft", {"architecture": "dmn-plus"}, "ask a.png how"),
    ],
)
def test_a_flag_wins_over_the_recipe(run, world, recipe, options, expected, use):
    small = "--epochs 1 --hidden 16 --encoder-size 32"
    _, _, err = run(f"train data --out run --recipe {recipe} {small} {options}", status=0)
    assert "best " in err
    kept = json.loads(Path("run/training.json").read_text())["options"]
    assert kept["hidden"] == 16
    assert {name: kept[name] for name in expected} == expected
    _, out, _ = run(f"{use} --model run", status=0)
    assert out.strip()


def test_features_prints_the_folder(run, world):
    command = "features data --encoder squeezenet1_1 --encoder-weights none --encoder-size 64"
    _, out, _ = run(command, status=0)
    assert Path(out.strip()).parent == Path("data/features")


def test_features_of_another_models_encoder_are_those_that_training_reads(run, world, photo):
    """The cache is made once, with the encoder of a folder or of ``photo``."""
    _, out, _ = run("features data --encoder-from photo", status=0)
    folder = Path(out.strip())
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    small = "--embedding 8 --hidden 16 --epochs 1 --min-frequency 1 --out run"
    run(f"train data --architecture lstm --encoder-from photo {small}", status=0)
    assert list((world / "data/features").iterdir()) == [world / folder]
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    ask, tell = (run(f"features data --encoder-from {x}", status=0)[1] for x in ("ask", "tell"))
    assert ask == tell != out  # those of photo are kept in half precision
    for more, said in (
        ("tell --encoder resnet18", "--encoder resnet18: --encoder-from "),
        ("tell --seed 1", "--seed: has no effect on weights "),
    ):
        _, _, err = run(f"features data --encoder-from {more}", status=2)
        assert said in err


def test_features_that_nobody_can_use_are_refused(run, world):
    told = run("features", world / "data", "--recipe", "scenes")
    expected = "error: --recipe scenes: trains its encoder, so its features cannot be kept\n"
    assert told == (2, "", expected)
    status, _, err = run("features", world / "data", "--batch", 0)
    assert (status, err) == (2, "error: --batch 0: expected 1 or more\n")


def test_models_lists(run, photo):
    status, out, _ = run("models --json")
    lists = json.loads(out)
    assert lists["models"] == ["photo"]
    assert status == 0
    assert "attention-lstm" in lists["captioners"]
    encoders = {"regnet_x_400mf", "resnet152", "vgg16", "mobilenet_v2", "small-cnn"}
    assert encoders <= set(lists["encoders"])
    _, out, _ = run("models")
    assert "timm/" not in out.replace("timm/NAME", "")  # more than a thousand names


def test_doctor(run, monkeypatch):
    """No host is asked unless the user says so."""
    asked = []

    def refuse(request, timeout):
        asked.append(request.host)
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    status, out, _ = run("doctor --json")
    facts = json.loads(out)
    assert status == 0
    assert facts["precision"].split(":")[0] in ("bf16", "fp32")
    assert facts["published weights"] == "not asked; --online asks download.pytorch.org"
    assert not asked
    _, out, _ = run("doctor --json --online")
    assert "no network" in json.loads(out)["published weights"]
    assert asked == ["download.pytorch.org"]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("train data --lr 1e-3", "--lr. Did you mean --learning-rate?"),
        ("train data --batch_size=8", "--batch_size. Did you mean --batch?"),
        ("train data -j 4", "-j. Did you mean --workers?"),
        ("train data --gpus 2", "--gpus. Did you mean --devices?"),
        ("train data --checkpoint tell", "--checkpoint. Did you mean --init-from?"),
        ("caption a.png --checkpoint tell", "--checkpoint. Did you mean --model?"),
        ("caption a.png --beam-size 3", "--beam-size. Did you mean --beam?"),
        ("caption --image a.png", "--image. PICTURES: no option name is needed."),
        ("evaluate --model tell --data data", "--model. RUNS: no option name is needed."),
        ("data table --csv a.csv --out new", "--csv. Did you mean --file?"),
        ("caption a.png --beem 3", "--beem. Did you mean --beam?"),
        ("caption a.png --lr 3", "--lr."),  # the verb has nothing like it
    ],
)
def test_options_of_other_programs_are_told_their_names_here(mistake, world, command, said):
    mistake(2, f"error: Unknown option: {said}\n", command)


def test_every_suggestion_is_an_option_of_some_verb():
    every = {
        name
        for verb in ("train", "caption", "ask", "evaluate", "describe", "score", "demo")
        for argument in cli.app.parse_commands([verb])[1][-1].assemble_argument_collection()
        for name in argument.names
    }
    every |= {"--folder", "--file", "--images"}  # of the verbs of data
    assert {x if x.isupper() else f"--{x}" for x in cli.ELSEWHERE} <= every


@pytest.mark.parametrize("verb", ["train", "caption", "evaluate", "demo", "serve"])
def test_help_is_not_cluttered(run, verb):
    _, out, _ = run(f"{verb} --help", status=0)
    assert "--empty" not in out
    assert "[default: ()]" not in out
    assert "[default: False]" not in out
    assert verb != "serve" or "[default: 8000]" in out
