"""``gazetell data``: verbs made from the readers, from files to a prepared dataset."""

import inspect
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from gazetell.data.readers import READERS
from gazetell.data.records import Dataset


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path)


@pytest.mark.parametrize("verb", READERS)
def test_a_verb_has_the_options_and_the_help_of_its_reader(run, verb):
    status, out, err = run("data", verb, "--help")
    assert (status, err) == (0, "")
    told = " ".join(out.replace("│", " ").split())
    reader = READERS[verb]
    assert inspect.getdoc(reader).splitlines()[0] in told
    taken = set(inspect.signature(reader).parameters) - {"bad", "pictures", "progress", "prepared"}
    for option in taken | {"out", "skip_bad", "without", "check", "json"}:
        assert f"--{option.replace('_', '-')} " in told
    assert "The prepared folder to write. [required]" in told
    assert "Args" not in told
    assert "bad rows and pictures out" in told


def test_bad_rows_are_told_together_and_nothing_is_written(run, tmp_path):
    """How many of the whole table, the first five with their lines; nothing is written."""
    table, out = tmp_path / "t.csv", tmp_path / "out"
    picture(tmp_path / "a.png")
    rows = ["image,caption", *[f"a.png,word {n}" for n in range(2, 5001)]]
    for n in range(100, 5001, 100):
        rows[n - 1] = "a.png,"
    rows[149] = "a.png,one,two"
    table.write_text("\n".join(rows))
    _, told, err = run("data", "table", table, "--out", out, status=3)
    empty = "caption is empty"
    first = [f"{table}:100: {empty}", f"{table}:150: expected 2 fields, found 3"]
    first += [f"{table}:{n}: {empty}" for n in (200, 300, 400)]
    last = "bad rows: 51, the first 5 named; --skip-bad leaves them out"
    assert (told, err) == ("", f"error: {'; '.join([*first, last])}\n")
    table.write_text("image,caption\na.png,\n,x\n")
    _, _, err = run("data", "table", table, "--out", out, status=3)
    assert err == (
        f"error: {table}:2: {empty}; {table}:3: image is empty; expected the name of a picture; "
        "bad rows: 2, all named; --skip-bad leaves them out\n"
    )
    prepare = "data", "table", table, "--out", out, "--skip-bad"
    assert "has no picture with a caption or question" in run(*prepare, status=3)[2]
    table.write_text("image,caption\na,a dog\n")
    _, _, err = run("data", "table", table, "--out", out, status=3)
    assert err.endswith("1 missing (first: a); a.png is there; expected names with their suffix\n")
    assert not out.exists()


@pytest.fixture
def official(tmp_path) -> Path:
    """VQA v1: ten training pictures and two of val, a question each."""
    folder = tmp_path / "vqa"
    for subset, images in (("train2014", range(1, 11)), ("val2014", range(11, 13))):
        questions = [{"question_id": n, "image_id": n, "question": "Is it?"} for n in images]
        rows = [{"question_id": n, "answers": [{"answer": "yes"}] * 10} for n in images]
        for n in images:
            picture(folder / f"{subset}/COCO_{subset}_{n:012d}.jpg")
        (folder / f"OpenEnded_mscoco_{subset}_questions.json").write_text(
            json.dumps({"questions": questions})
        )
        (folder / f"mscoco_{subset}_annotations.json").write_text(json.dumps({"annotations": rows}))
    return folder


def test_vqa_and_its_text_files_there_and_back(run, official, tmp_path):
    one, text, two = tmp_path / "one", tmp_path / "text", tmp_path / "two"
    _, out, err = run("data", "vqa", official, "--out", one, "--val-from-train", 0.2, status=0)
    assert "questions  12 (train 8, val 2, test 2)" in out
    assert "ceiling    of the most frequent answers, on val: 1: 100.0 %" in out
    assert err == "note: test is the official val; val is drawn from the pictures of train\n"
    assert run("data", "show", one) == (0, out, "")
    status, out, err = run("data", "write-vqa-text", one, "--out", text)
    assert (status, err) == (0, "")
    assert out == f"questions written to {text}: train 8, val 2, test 2\n"
    _, out, _ = run(
        "data", "vqa-text", text, "--images", official, "--out", two, "--json", status=0
    )
    assert json.loads(out)["asked"]["questions"] == {"train": 8, "val": 2, "test": 2}
    first, second = Dataset.open(one).questions, Dataset.open(two).questions
    assert sorted((r.id, r.image, r.question, r.answers[:1], r.split) for r in first) == sorted(
        (r.id, r.image, r.question, r.answers, r.split) for r in second
    )


def test_files_of_vqa_by_name(run, mistake, official, tmp_path):
    questions = official / "OpenEnded_mscoco_val2014_questions.json"
    answers = official / "mscoco_val2014_annotations.json"
    here = ["data", "vqa", official, "--out", tmp_path / "out"]
    _, out, _ = run(*here, "--train", questions, "--train-annotations", answers, status=0)
    assert "questions  2 (train 2, val 0, test 0)" in out
    for options, told in (
        (["--val", questions], "--val: expected --val-annotations with it"),
        (["--test-annotations", answers], "--test-annotations: expected --test with it"),
    ):
        mistake(2, f"error: {told}\n", *here, *options)


def test_unanswered_questions_are_told(run, tmp_path):
    picture(tmp_path / "a.jpg")
    row = {"id": "1", "image": "a.jpg", "question": "Is it?", "split": "train"}
    rows = [{**row, "answers": ["yes"]}, {**row, "id": "2", "answers": []}]
    lines = "\n".join(map(json.dumps, rows))
    (tmp_path / "questions.jsonl").write_text(lines)
    about = {"format": 1, "name": "mine", "kind": "vqa", "root": "."}
    (tmp_path / "dataset.json").write_text(json.dumps(about))
    status, out, err = run("data", "write-vqa-text", tmp_path, "--out", tmp_path / "text")
    assert (status, out) == (0, f"questions written to {tmp_path / 'text'}: train 1\n")
    assert err == "questions without an answer, left out: 1\n"


def test_what_is_left_out_is_told_on_standard_error(run, mistake, tmp_path):
    folder = tmp_path / "daquar"
    picture(folder / "images/image1.jpg")
    picture(folder / "images/image2.jpg")
    (folder / "train_images_list.txt").write_text("image1")
    (folder / "test_images_list.txt").write_text("image2")
    pairs = "what is in the image1 ?\nlamp\nwhat is in the image2 ?\n"
    (folder / "all_qa_pairs.txt").write_text(pairs)
    here = ["data", "daquar", folder, "--out", tmp_path / "out"]
    mistake(3, "all_qa_pairs.txt:3: the last question has no answer line\n", *here)
    _, _, err = run(*here, "--skip-bad", "--json", status=0)
    assert err.splitlines() == [
        f"left out: bad rows 1; see {tmp_path}/out/quarantine.jsonl",
        "note: val 0.1 of 1 pictures is 0.1; 0 taken",
        "warning: split val has no pictures",
        "warning: split test has no pictures",
        "warning: the dataset has one picture only; a model would only memorise it",
    ]


def test_a_table(run, mistake, tmp_path):
    picture(tmp_path / "a.png")
    table = tmp_path / "t.csv"
    table.write_text("image;ask;say\nA.png;Is it?;yes\na.png;Is it?;no\n")
    here = ["data", "table", table, "--out", tmp_path / "out"]
    _, out, err = run(*here, "--question-column", "ask", "--answer-column", "say", status=0)
    assert "answers    2 a question; 1 different in train" in out
    assert "note: t.csv: read as ';' between fields; --encoding or --delimiter if wrong\n" in err
    assert "note: pictures found although slash, letter case or Unicode form differ: 1 " in err
    asked, both = ["--question-column", "ask"], "--caption-column and --question-column"
    hint = "expected one, or its name: --answer-column"
    said = f"error: {table}:1: no column 'answer'; columns: image, ask, say; {hint}\n"
    mistake(3, said, *here, *asked)
    told = f"error: {both}: expected only one of them\n"
    mistake(2, told, *here, *asked, "--caption-column", "say")
    told = f"error: --split-column set: {table}:1 has no such column; columns: image, ask, say\n"
    mistake(2, told, *here, "--split-column", "set")
    asked = [*here, *asked, "--answer-column", "say"]
    told = (
        f"error: --images {tmp_path / 'no'}: is not a folder; expected the folder of the pictures\n"
    )
    mistake(2, told, *asked, "--images", tmp_path / "no")
    told = f"error: --where say=si: no row of {table} has it; say is 'yes' (1), 'no' (1)\n"
    mistake(2, told, *asked, "--where", "say=yes", "--where", "say=si")
    _, _, err = run(*asked, "--where", "say=yes", status=0)
    assert "note: t.csv: 1 of 2 rows taken, where say=yes\n" in err


def test_the_file_of_the_course(run, tmp_path):
    """Four training pictures, one with an unknown word, and six of val."""
    file, out = tmp_path / "coco.pt", tmp_path / "out"
    images = torch.arange(10 * 3 * 4 * 4).view(10, 3, 4, 4).to(torch.uint8)
    captions = torch.tensor([[1, 4, 5, 2, 0]]).repeat(10, 1)
    captions[1, 2] = 3
    content = {"vocab": {"idx_to_token": ["<NULL>", "<START>", "<END>", "<UNK>", "a", "dog"]}}
    for split, rows in (("train", slice(4)), ("val", slice(4, 10))):
        content |= {f"{split}_images": images[rows], f"{split}_captions": captions[rows]}
    here = ["data", "course", file, "--out", out]
    torch.save(content | {"train_captions": torch.full_like(captions[:4], 99)}, file)
    assert "bad rows: 4, all named" in run(*here, status=3)[2]
    assert not out.exists()
    torch.save(content, file)
    _, told, err = run(*here, "--test-from-val", 0.33, "--json", status=0)
    summary = json.loads(told)
    assert summary["splits"] == {"train": 3, "val": 4, "test": 2}
    assert summary["notes"][0].startswith("captions with <UNK> of train, left out: 1")
    assert err.startswith("note: captions with <UNK> of train, left out: 1")
    assert Dataset.open(out).root == out / "images"
    _, _, err = run(*here, "--unknown", "keep", status=0)
    assert "train with a minimum frequency of at least 2" in err


def test_datasets_merged_and_without_pictures_of_another(run, mistake, tmp_path):
    for name, split, images in (("a", "train", "12"), ("a", "test", "3"), ("b", "train", "45")):
        (tmp_path / f"{name}-{split}.csv").write_text("image,caption\n")
        for image in images:
            picture(tmp_path / f"{image}.jpg")
            with (tmp_path / f"{name}-{split}.csv").open("a") as file:
                file.write(f"{image}.jpg,a thing\n")
        here = ["data", "table", tmp_path / f"{name}-{split}.csv", "--split", split]
        assert run(*here, "--out", tmp_path / f"{name}-{split}")[0] == 0
    told = "error: --val 1.0: has no effect, since every picture goes to one split\n"
    mistake(2, told, *here, "--val", 1, "--out", tmp_path / "no")
    first, second = tmp_path / "a-train", tmp_path / "b-train"
    out = ["--out", tmp_path / "out"]
    status, told, err = run("data", "merge", first, f"{second}:train", tmp_path / "a-test", *out)
    assert (status, err.splitlines()[0]) == (0, "warning: split val has no pictures")
    assert told.splitlines()[1] == "pictures   5 (train 4, val 0, test 1)"
    without = ["--without", f"{tmp_path / 'out'}:test", "--without", first]
    status, told, err = run("data", "merge", tmp_path / "out", *without, "--out", tmp_path / "less")
    assert told.splitlines()[1] == "pictures   2 (train 2, val 0, test 0)"
    assert err.splitlines()[:2] == [
        f"note: pictures left out, since {tmp_path / 'out'} has them: 1",
        f"note: pictures left out, since {first} has them: 2",
    ]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("--captions 0", "--captions 0: expected 1 to 10 a picture"),
        ("--train 0 --val 0 --test 0", "--train and --val and --test 0: expected at least one"),
    ],
)
def test_errors_name_the_options_of_the_command_line(run, tmp_path, options, told):
    status, _, err = run(f"data scenes --out {tmp_path / 'new'} {options}")
    assert (status, f"error: {told}" in err) == (2, True)
    assert not (tmp_path / "new").exists()
