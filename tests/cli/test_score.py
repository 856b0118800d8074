"""``gazetell score``: captions, answers, two models compared, a subset."""

import json
from pathlib import Path

import pytest

from gazetell.data import predictions as module
from gazetell.metrics import compare_answers, compare_captions, score_captions

ANIMALS = ("dog", "cat", "horse", "cow", "sheep", "bird", "goat", "pig")
CAPTIONS = {str(i): [f"a {one} runs", f"one {one} is running"] for i, one in enumerate(ANIMALS)}
RIGHT = {i: texts[0] for i, texts in CAPTIONS.items()}
WRONG = dict.fromkeys(CAPTIONS, "two people sit on chairs")
MIXED = {i: (RIGHT if int(i) % 2 else WRONG)[i] for i in CAPTIONS}
ANSWERS = {
    "1": (["yes"] * 10, "yes/no", "is"),
    "2": (["no"] * 8 + ["yes"] * 2, "yes/no", "is"),
    "3": (["two"] * 9 + ["3"], "number", "how many"),
    "4": (["kite"] * 5 + ["drum"] * 5, "other", "what"),
}
ANSWERED = {"1": "yes", "2": "yes", "3": "2", "4": "drum"}
WRONG_ANSWERS = dict.fromkeys(ANSWERED, "oak")
SCORES = {
    "accuracy": 90.0,
    "measure": "official VQA accuracy",
    "questions": 4,
    "per_answer_type": {"number": 100.0, "other": 100.0, "yes/no": 80.0},
    "per_question_type": {"how many": 100.0, "is": 80.0, "what": 100.0},
}


@pytest.fixture
def files(tmp_path):
    """Write references and models; give the options that name them."""

    def write(references, *models):
        options = []
        for name, rows in zip(("references", "predictions", "against"), (references, *models)):  # noqa: B905
            path = tmp_path / f"{name}.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
            options += [f"--{name}", path]
        return options

    return write


def captions(*models, references=CAPTIONS):
    wanted = [{"id": i, "captions": texts} for i, texts in references.items()]
    return wanted, *([{"id": i, "caption": text} for i, text in m.items()] for m in models)


def answers(*models, references=ANSWERS):
    wanted = [
        {"id": i, "answers": texts, "answer_type": answer, "question_type": question}
        for i, (texts, answer, question) in references.items()
    ]
    return wanted, *([{"id": i, "answer": text} for i, text in m.items()] for m in models)


def test_captions(run, files):
    status, out, err = run("score", *files(*captions(MIXED)), "--json")
    assert (status, err) == (0, "")
    assert json.loads(out) == score_captions(CAPTIONS, MIXED)
    status, out, err = run("score", *files(*captions(RIGHT)))
    assert out.splitlines()[0].split() == ["BLEU-1", "100.0"]
    assert out.splitlines()[-1].split() == ["SPICE", "not", "computed"]


def test_tables(run, files, tmp_path):
    """As ``data table`` reads them and ``describe`` writes them."""
    told = {i: f"={text}" for i, text in MIXED.items()}
    expected = run("score", *files(*captions(told)), "--json", status=0)[1]
    rows = [f"{i}.png,{text}" for i, texts in CAPTIONS.items() for text in texts]
    Path(tmp_path, "r.csv").write_text("\n".join(["image,caption", *reversed(rows)]))
    rows = [f"./{i}.png\t'{text}\t-1" for i, text in told.items()]  # as a spreadsheet takes it
    Path(tmp_path, "p.tsv").write_text("\n".join(["picture\tcaption\tlog_prob", *rows]))
    options = ("--references", tmp_path / "r.csv", "--predictions", tmp_path / "p.tsv")
    assert run("score", *options, "--json") == (0, expected, "")
    Path(tmp_path, "p.csv").write_text("picture,caption\nimages/1.png,a dog\n")
    options = ("--references", tmp_path / "r.csv", "--predictions", tmp_path / "p.csv")
    _, _, err = run("score", *options, status=3)
    assert err.endswith("p.csv: images/1.png; without their folder these names are there\n")
    rows = [f"{i},a.png,is it?,{text}" for i, (texts, *_) in ANSWERS.items() for text in texts]
    Path(tmp_path, "r.csv").write_text("\n".join(["id,image,question,answer", *rows]))
    rows = [f"{i};a.png;is it?;{text}" for i, text in ANSWERED.items()]
    Path(tmp_path, "p.csv").write_text("\n".join(["ID;image;question;answer", *rows]))
    options = ("--references", tmp_path / "r.csv", "--predictions", tmp_path / "p.csv")
    status, out, err = run("score", *options, "--json")
    types = {"per_answer_type": {}, "per_question_type": {}}
    assert (status, json.loads(out)) == (0, SCORES | types)
    assert err == "p.csv: read as ';' between fields\n"
    Path(tmp_path, "p.csv").write_text("id,image,question,answer\n1,a,b?,no\n1,a,b?,yes\n")
    assert "p.csv:3: question '1' twice, first on line 2" in run("score", *options, status=3)[2]


def test_answers(run, files):
    status, out, err = run("score", *files(*answers(ANSWERED)), "--json")
    assert (status, err) == (0, "")
    assert json.loads(out) == SCORES
    _, out, _ = run("score", *files(*answers(ANSWERED)))
    assert out.splitlines() == [
        "accuracy   90.00  official VQA accuracy, 4 questions",
        *("answer type", "  100.00  number", "  100.00  other", "   80.00  yes/no"),
        *("question type", "  100.00  how many", "   80.00  is", "  100.00  what"),
    ]


def test_one_answer_a_question(run, files):
    wanted = [{"id": i, "answers": [a]} for i, a in enumerate(["a dog", "Cat.", "two"])]
    _, found = answers({0: "dog", 1: "cat", 2: "3"})
    status, out, _ = run("score", *files(wanted, found))
    assert (status, out) == (0, "accuracy   66.67  exact match, 3 questions\n")


def test_wups_without_wordnet(run, files, monkeypatch, caplog):
    monkeypatch.setenv("WNSEARCHDIR", "nowhere")
    _, out, _ = run("score", *files(*answers(ANSWERED)), "--wups", "--json", status=0)
    assert json.loads(out) == {**SCORES, "wups_0.9": None, "wups_0.0": None}
    assert "WUPS not computed: WordNet is not there (no index.noun in nowhere)" in caplog.text
    _, out, _ = run("score", *files(*answers(ANSWERED)), "--wups")
    assert out.splitlines()[1:3] == ["wups_0.9  not computed", "wups_0.0  not computed"]


def test_each_file_is_parsed_once(run, files, monkeypatch):
    read = []
    for name in ("read_json", "read_jsonl"):
        original = getattr(module, name)
        monkeypatch.setattr(module, name, lambda path, f=original: read.append(path) or f(path))
    for content in (captions(RIGHT, MIXED), answers(ANSWERED, WRONG_ANSWERS)):
        options = files(*content)
        read.clear()
        assert run("score", *options, "--resamples", 40)[0] == 0
        assert sorted(read) == sorted(options[1::2])


@pytest.mark.parametrize("content", ["captions", "answers"])
def test_a_comparison_is_what_the_library_says(run, files, content):
    draws = {"resamples": 50, "seed": 3}
    if content == "captions":
        rows, about = captions(RIGHT, MIXED), {"pictures": 8}
        expected = compare_captions(CAPTIONS, RIGHT, MIXED, **draws)
    else:
        rows = answers(ANSWERED, WRONG_ANSWERS)
        about = {"questions": 4, "measure": "official VQA accuracy"}
        wanted = {i: texts for i, (texts, *_) in ANSWERS.items()}
        expected = compare_answers(wanted, ANSWERED, WRONG_ANSWERS, **draws)
    status, out, err = run("score", *files(*rows), "--resamples", 50, "--seed", 3, "--json")
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert found.pop("metrics") == {name: vars(scores) for name, scores in expected.items()}
    assert found == {**about, **draws, "level": 0.95}


def test_lines_say_whether_it_is_a_difference(run, files):
    given = files(*captions(RIGHT, MIXED))
    _, out, _ = run("score", *given, status=0)
    head, *lines = out.splitlines()
    assert head.split()[:3] == [str(given[3]), str(given[5]), "difference"]
    names = ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr"]
    assert [line.split()[0] for line in lines] == names
    assert all(line.endswith("  a difference") for line in lines)
    rouge = lines[4].split()
    assert rouge[3] == f"{float(rouge[1]) - float(rouge[2]):+.2f}"
    assert 0 < float(rouge[4]) < float(rouge[3]) < float(rouge[6])
    _, out, _ = run("score", *files(*captions(MIXED, MIXED)))
    ends = "+0.00 to +0.00  no difference shown"
    assert all(line.endswith(ends) for line in out.splitlines()[1:])
    _, out, _ = run("score", *files(*answers(ANSWERED, WRONG_ANSWERS)))
    assert out.splitlines()[1].split()[:4] == ["accuracy", "90.00", "0.00", "+90.00"]


def test_the_references_of_one_split(run, files, mistake):
    rows, said = captions(RIGHT)
    prepared = [row | {"split": "test" if row["id"] in "123" else "train"} for row in rows]
    options = files(prepared, [row for row in said if row["id"] in "123"])
    _, out, _ = run("score", *options, "--split", "test", "--json", status=0)
    few = {i: CAPTIONS[i] for i in "123"}
    assert json.loads(out) == score_captions(few, {i: RIGHT[i] for i in few})
    mistake(3, "has no split 'val'; expected test, train", "score", *options, "--split", "val")
    options = files(rows, said)
    mistake(3, "no split 'test'; its rows name no split", "score", *options, "--split", "test")


@pytest.mark.parametrize("json_", [False, True])
def test_a_subset_of_the_pictures(run, files, caplog, json_):
    few = {i: RIGHT[i] for i in ("5", "1")}
    options = files(*captions(few))
    status, out, err = run("score", *options)
    assert (status, out) == (3, "")
    assert "predictions.jsonl: lacks 6 of the 8 pictures" in err
    assert "--subset scores the pictures that have a prediction" in err
    _, out, _ = run("score", *options, "--subset", *(["--json"] if json_ else []), status=0)
    assert caplog.messages == ["left out, since they have no prediction: 6 of the pictures"]
    expected = score_captions({i: CAPTIONS[i] for i in few}, few)
    if json_:
        assert json.loads(out) == {**expected, "pictures": 2, "left_out": 6}
    else:
        assert out.splitlines()[5].split() == ["CIDEr", f"{100 * expected['cider']:.1f}"]


def test_a_subset_of_the_questions_and_of_both_models(run, files, caplog):
    rows = answers({"1": "yes", "3": "2", "4": "drum"}, WRONG_ANSWERS | {"4": "kite"})
    status, out, _ = run("score", *files(*rows), "--subset", "--json", "--resamples", 40)
    found = json.loads(out)
    assert (status, found["questions"], found["left_out"]) == (0, 3, 1)
    assert found["metrics"]["accuracy"]["first"] == 100
    assert caplog.messages == ["left out, since they have no prediction: 1 of the questions"]


@pytest.mark.parametrize("second", [None, "a cat"])
def test_a_figure_that_tells_nothing_is_told_of(run, files, caplog, second):
    references = {"1": ["a dog"]} | ({"2": [second]} if second else {})
    models = dict.fromkeys(references, "a dog")
    status, out, _ = run("score", *files(*captions(models, references=references)))
    assert (status, out.splitlines()[5].split()[0]) == (0, "CIDEr")
    assert ("CIDEr of one picture is 0 by definition" in caplog.text) is (second is None)
    assert len(caplog.messages) == (second is None)


OF_CAPTIONS, OF_ANSWERS = captions(RIGHT, MIXED), answers(ANSWERED, WRONG_ANSWERS)
ONE_ANSWER = [{"id": i, "answers": ["yes"]} for i in ANSWERS]


@pytest.mark.parametrize(
    ("rows", "more", "message"),
    [
        (OF_CAPTIONS, ["--java"], "--java: is not compared"),
        (OF_ANSWERS, ["--wups"], "--wups: is not compared"),
        (OF_CAPTIONS[:2], ["--wups"], "--wups: is for answers"),
        (OF_CAPTIONS, ["--year", 2021], "--year: is for answers"),
        (OF_ANSWERS[:2], ["--java"], "--java: is for captions"),
        (OF_ANSWERS[:2], ["--resamples", 10], "--resamples: needs --against"),
        (OF_CAPTIONS[:2], ["--seed", 0], "--seed: needs --against"),
        ((ONE_ANSWER, OF_ANSWERS[1]), ["--year", 2015], "--year: is for four answers a question"),
        (OF_ANSWERS, ["--year", 2016], "--year 2016: expected 2015 or 2021"),
        (OF_ANSWERS, ["--resamples", 39], "--resamples 39: expected at least 40"),
        (OF_CAPTIONS, ["--seed", -1], "--seed -1: expected 0 or more"),
    ],
)
def test_options_that_do_not_fit(mistake, files, rows, more, message):
    mistake(2, f"error: {message}", "score", *files(*rows), *more)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ((OF_CAPTIONS[0], OF_ANSWERS[1]), "references.jsonl holds captions"),
        ((OF_CAPTIONS[0], OF_CAPTIONS[1], OF_CAPTIONS[1][1:]), "against.jsonl: lacks 1 of the 8"),
        ((OF_CAPTIONS[0][1:], OF_CAPTIONS[1]), "references.jsonl: lacks 1 of the 8 pictures"),
        (
            captions(*[{"0": "x"}] * 2, references={"0": ["a dog"]}),
            "a comparison needs at least two",
        ),
    ],
)
def test_files_that_do_not_fit(mistake, files, rows, message):
    mistake(3, message, "score", *files(*rows))
