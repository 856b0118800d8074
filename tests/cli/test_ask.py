"""``ask`` and ``evaluate`` with an answerer as a user has them, and models of the wrong kind."""

import io
import json
import re
import shutil

import pytest

from gazetell import scenes
from gazetell.data.records import Dataset
from gazetell.training.fit import train
from gazetell.training.options import train_options

TINY = {
    "architecture": "dmn-plus",
    "encoder": "small-cnn",
    "encoder_weights": "none",
    "encoder_trainable": "all",
    "encoder_size": 64,
    "embedding": 12,
    "min_frequency": 1,
    "epochs": 1,
    "precision": "fp32",
}
DMN = {"hidden": 16, "attention_width": 12, "passes": 2}
RUNS = {
    "run": DMN,
    "blind": {"blind": True, "encoder_trainable": "none"} | DMN,
    "plain": {"architecture": "bow-mlp", "width": 16},
    "captioner": {"architecture": "attention-lstm", "hidden": 16},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Scenes with questions, an answerer, its blind twin, one without attention, a captioner."""
    folder = tmp_path_factory.mktemp("world")
    scenes.generate(
        folder / "data", train=12, val=4, test=5, captions_per_image=2, questions_per_image=3
    )
    for name, changes in RUNS.items():
        train(
            folder / "data",
            folder / name,
            train_options(**TINY | changes),
            report=lambda line: None,
        )
    return folder


@pytest.fixture
def folder(world, tmp_path):
    """The world as the test's own, to write to."""
    shutil.copytree(world, tmp_path / "world")
    return tmp_path / "world"


@pytest.fixture
def typed(monkeypatch):
    """Let standard input hold this."""

    def give(content):
        data = content if isinstance(content, bytes) else content.encode()
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))

    return give


def picture(world):
    return sorted((world / "data/images").iterdir())[0]


LINE = re.compile(r"(\S.*?)  \((\d+\.\d\d) %\)")


# -- ask -------------------------------------------------------------------------------------


def test_an_answer_is_one_line(run, world):
    question = Dataset.open(world / "data").questions_of("train")[0].question
    status, out, err = run("ask", picture(world), question, "--model", world / "run")
    assert (status, err) == (0, "")
    assert LINE.fullmatch(out.rstrip("\n"))


def test_several_questions_and_several_answers(run, world):
    status, out, _ = run(
        "ask", picture(world), "is there a zebra?", "Is it", "--top", 3, "--model", world / "run"
    )
    assert status == 0
    lines = out.splitlines()
    assert len(lines) == 2
    for line in lines:
        chances = [float(chance) for _, chance in LINE.findall(line)]
        assert len(chances) == 3
        assert chances == sorted(chances, reverse=True)
    assert lines[0].endswith("  unknown words: zebra")


def test_json(run, world):
    status, out, err = run(
        "ask", picture(world), "is there a zebra?", "--model", world / "run", "--json", "--evidence"
    )
    assert (status, err) == (0, "")
    row = json.loads(out)
    assert row["question"] == "is there a zebra?"
    assert row["answer"] == row["top"][0]["answer"]
    assert len(row["top"]) == 5
    assert row["unknown_words"] == ["zebra"]
    assert len(row["attention"]) == 2
    assert sum(map(sum, row["attention"][0])) == pytest.approx(1, abs=0.01)
    assert 0 < row["without_picture"] < 1


def test_questions_from_standard_input(run, world, typed):
    typed("is there a star\n\n  how many?  \n")  # no newline is needed at the end either
    status, out, err = run("ask", picture(world), "--model", world / "run", "--json")
    assert (status, err) == (0, "")
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["question"] for row in rows] == ["is there a star", "how many?"]
    _, alone, _ = run("ask", picture(world), "how many?", "--model", world / "run", "--json")
    assert json.loads(alone) == rows[1]


def test_a_bad_question_on_standard_input_stops_no_other(run, world, typed):
    typed("is there a star\n?!\nhow many")
    status, out, err = run("ask", picture(world), "--model", world / "run")
    assert status == 1
    assert len(out.splitlines()) == 2
    assert err == "error: question '?!': has no words\n"


def test_no_questions_at_all(run, world, typed):
    typed("")
    status, out, err = run("ask", picture(world), "--model", world / "run")
    assert (status, out) == (0, "")
    assert err.endswith("no question on standard input\n")


def test_a_person_is_prompted(run, world, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr("sys.stdin", Terminal("is there a star\n\nhow many\n"))
    status, out, err = run("ask", picture(world), "--model", world / "run")
    assert status == 0
    assert len(out.splitlines()) == 1  # the empty line ends it
    assert "an empty line ends" in err
    assert err.count("? ") == 2


def test_a_picture_from_standard_input(run, world, typed):
    typed(picture(world).read_bytes())
    status, out, _ = run("ask", "-", "is there a star", "--model", world / "run")
    assert status == 0
    assert out == run("ask", picture(world), "is there a star", "--model", world / "run")[1]


def test_abstaining_and_evidence(run, world):
    question = ("is there a star", "--model", world / "run", "--evidence")
    _, plain, _ = run("ask", picture(world), *question)
    assert re.search(r"  without the picture \d+\.\d\d %$", plain)
    assert "not sure" not in plain
    status, out, _ = run("ask", picture(world), *question, "--abstain-below", 1)
    assert status == 0
    assert out == f"not sure; at best: {plain}"
    _, out, _ = run("ask", picture(world), *question, "--abstain-below", 1, "--json")
    assert json.loads(out)["abstained"] is True


@pytest.mark.parametrize("suffix", [".png", ".html", ".gif"])
def test_the_gaze_of_one_question(run, world, tmp_path, suffix):
    where = tmp_path / f"gaze{suffix}"
    status, _, _ = run(
        "ask", picture(world), "is it red", "--model", world / "run", "--gaze", where
    )
    assert status == 0
    assert where.stat().st_size > 500


@pytest.mark.parametrize("name", ["gazes", "gazes.v2"])
def test_the_gaze_of_several_questions(run, world, tmp_path, typed, name):
    where = tmp_path / name
    if "." in name:
        where.mkdir()
    arguments = ("--model", world / "run", "--gaze", where)
    status, _, _ = run("ask", picture(world), "is it red", "how many", *arguments)
    assert status == 0
    assert sorted(path.name for path in where.iterdir()) == ["0000.png", "0001.png"]
    typed("one\ntwo\nthree\n")
    status, _, _ = run("ask", picture(world), *arguments)
    assert status == 0
    assert len(list(where.iterdir())) == 3


ASK = ["ask", "PIC", "is it red", "--model", "RUN"]
DATA = ["--data", "DATA"]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["ask", "PIC", "is it red"], 2, "--model"),
        (["ask", "--model", "RUN"], 2, "PICTURE"),
        (["ask", "PIC", "", "--model", "RUN"], 2, "question '': has no words"),
        (["ask", "PIC", "?!", "--model", "RUN"], 2, "question '?!': has no words"),
        (["ask", "-", "--model", "RUN"], 2, "expected questions beside it"),
        (["ask", "none.png", "is it red", "--model", "RUN"], 4, "none.png"),
        (["ask", "PIC", "is it red", "--model", "nowhere"], 5, "nowhere: is no model folder"),
        (["ask", "PIC", "is it red", "--model", "CAPTIONER"], 5, "use it with: gazetell caption"),
        (["caption", "PIC", "--model", "RUN"], 5, "use it with: gazetell ask"),
        ([*ASK, "--top", "0"], 2, "--top 0"),
        ([*ASK, "--top", "6"], 2, "--top 6"),
        ([*ASK, "--abstain-below", "1.5"], 2, "--abstain-below 1.5"),
        ([*ASK, "--abstain-below", "nan"], 2, "--abstain-below nan"),
        ([*ASK, "--gaze", "a.bmp"], 2, "--gaze a.bmp"),
        ([*ASK[:3], "how many", *ASK[3:], "--gaze", "a.png"], 2, "one file for 2 questions"),
        (["ask", "PIC", "--model", "RUN", "--gaze", "a.png"], 2, "one file for typed questions"),
        (["evaluate", "RUN", *DATA, "--beam", "3"], 2, "--beam: "),
        (["evaluate", "RUN", *DATA, "--beam", "1", "--beam", "2"], 2, "answers questions"),
        (["evaluate", "RUN", *DATA, "--java"], 2, "--java: "),
        (["evaluate", "RUN", *DATA, "--max-length", "5"], 2, "--max-length: "),
        (["evaluate", "RUN", *DATA, "--length-penalty", "1"], 2, "--length-penalty: "),
        (["evaluate", "RUN", *DATA, "--split", "val", "--keep-best"], 2, "--keep-best: "),
        (["evaluate", "CAPTIONER", *DATA, "--evidence"], 2, "--evidence: "),
        (["evaluate", "CAPTIONER", *DATA, "--abstain-below", "0.5"], 2, "--abstain-below: "),
        (["evaluate", "CAPTIONER", *DATA, "--question-only", "RUN"], 2, "--question-only: "),
        (["evaluate", "RUN", *DATA, "--question-only", "CAPTIONER"], 5, "is a captioner"),
        (["evaluate", "RUN", *DATA, "--question-only", "PLAIN"], 2, "trained with --blind"),
        (["evaluate", "RUN", *DATA, "--abstain-below", "7"], 2, "--abstain-below 7"),
        (["evaluate", "RUN", *DATA, "--limit", "-1"], 2, "--limit -1"),
        (["evaluate", "RUN", *DATA, "--split", "dev"], 3, "splits with questions: test, train"),
        (["evaluate", "RUN", "RUN", *DATA], 5, "an ensemble is of captioners"),
        (["evaluate", "CAPTIONER", "RUN", *DATA], 5, "is an answerer"),
        (["train", "DATA", "--out", "new", "--architecture", "vqa"], 2, "--architecture vqa"),
        (["train", "DATA", "--out", "new", "--blind"], 2, "--blind"),
    ],
)
def test_a_mistake_is_one_line(run, world, tmp_path, monkeypatch, arguments, status, said):
    monkeypatch.chdir(tmp_path)
    names = {
        "RUN": world / "run",
        "CAPTIONER": world / "captioner",
        "PLAIN": world / "plain",
        "DATA": world / "data",
        "PIC": picture(world),
    }
    found, out, err = run(*(names.get(argument, argument) for argument in arguments))
    assert (found, out) == (status, ""), err
    assert said in err
    assert len(err.strip().splitlines()) == 1
    assert err.startswith("error: ")
    assert not list(tmp_path.iterdir())


def test_no_gaze_without_attention_is_one_line(run, world, tmp_path):
    status, _, err = run(
        "ask", picture(world), "is it", "--model", world / "plain", "--gaze", tmp_path / "g.png"
    )
    assert status == 2
    assert "no attention" in err
    assert len(err.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


# -- evaluate --------------------------------------------------------------------------------


def test_evaluate_prints_and_saves(run, folder):
    status, out, err = run(
        "evaluate",
        folder / "run",
        "--data",
        folder / "data",
        "--evidence",
        "--abstain-below",
        0.2,
        "--question-only",
        folder / "blind",
    )
    assert status == 0
    titles = [line[:17].strip() for line in out.splitlines()]
    assert titles == [
        "accuracy",
        "answer type",
        "question type",
        "most frequent",
        "by first words",
        "question only",
        "ceiling",
        "grey picture",
        "other picture",
        "answering only",
        "abstaining",
        "pointing",
        "answers/s",
        "not measured: ece",
    ]
    assert "exact match, 15 questions about 5 pictures" in out
    where = folder / "run/evaluation/test"
    assert str(where) in err
    names = {"metrics.json", "predictions.jsonl", "reliability.png", "risk-coverage.png"}
    assert {path.name for path in where.iterdir()} == names
    figures = json.loads((where / "metrics.json").read_text())
    assert out.splitlines()[0].split()[1] == f"{figures['metrics']['accuracy']:.2f}"
    # They stand in the model folder and on its card, and the model still loads.
    assert json.loads((folder / "run/metrics.json").read_text()) == figures
    _, card, _ = run("models", folder / "run")
    assert "On test (15 questions):" in card
    assert "| accuracy |" in card
    assert run("ask", picture(folder), "is it", "--model", folder / "run")[0] == 0


def test_evaluate_json_and_score_agree(run, folder, tmp_path):
    status, out, _ = run(
        "evaluate",
        folder / "plain",
        "--data",
        folder / "data",
        "--json",
        "--out",
        tmp_path / "new",
    )
    assert status == 0
    figures = json.loads(out)
    assert figures["pointing"] is None
    assert figures == json.loads((tmp_path / "new/metrics.json").read_text())
    assert not (folder / "plain/evaluation").exists()
    # The predictions are a file that gazetell score reads.
    only = tmp_path / "test.jsonl"
    lines = (folder / "data/questions.jsonl").read_text().splitlines(keepends=True)
    only.write_text("".join(line for line in lines if json.loads(line)["split"] == "test"))
    status, out, _ = run(
        "score",
        "--references",
        only,
        "--predictions",
        tmp_path / "new/predictions.jsonl",
        "--json",
    )
    assert status == 0
    assert json.loads(out)["accuracy"] == figures["metrics"]["accuracy"]


def test_a_limited_evaluation_stays_off_the_card(run, folder):
    status, out, _ = run("evaluate", folder / "run", "--data", folder / "data", "--limit", 2)
    assert status == 0
    assert "about 2 pictures" in out
    assert json.loads((folder / "run/metrics.json").read_text()) == {}


# -- train -----------------------------------------------------------------------------------


def test_a_recipe_for_answers(run, world, tmp_path):
    status, _, err = run(
        "train",
        world / "data",
        "--out",
        tmp_path / "run",
        "--recipe",
        "scenes-answers",
        "--epochs",
        1,
        "--hidden",
        16,
        "--encoder-size",
        32,
        "--targets",
        "soft",
    )
    assert status == 0, err
    assert "best " in err
    options = json.loads((tmp_path / "run/training.json").read_text())["options"]
    assert (options["architecture"], options["hidden"], options["targets"]) == (
        "dmn-plus",
        16,
        "soft",
    )
    status, out, _ = run("ask", picture(world), "is it red", "--model", tmp_path / "run")
    assert status == 0
    assert LINE.match(out)


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        ("ask", ("--evidence", "--abstain-below", "--top", "--gaze", "standard input")),
        ("evaluate", ("--evidence", "--question-only", "--abstain-below", "--beam")),
        ("train", ("--blind", "--targets", "--passes", "dmn-plus")),
    ],
)
def test_help_names_what_there_is(run, verb, words):
    status, out, _ = run(verb, "--help")
    assert status == 0
    assert all(word in out for word in words)
