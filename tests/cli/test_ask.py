"""``ask`` as a user has it."""

import io
import json
import re

import pytest

LINE = re.compile(r"(\S.*?)  \((\d+\.\d\d) %\)")


@pytest.fixture
def typed(monkeypatch):
    """Let standard input hold this."""

    def give(content):
        data = content if isinstance(content, bytes) else content.encode()
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data), encoding="ascii"))

    return give


def test_an_answer_is_one_line(run, world):
    status, out, err = run("ask a.png --model ask", "is there a?")
    assert (status, err) == (0, "")
    assert LINE.fullmatch(out.rstrip("\n"))
    _, _, err = run("ask a.png --model blind", "is there a?", status=0)
    assert err == "blind: is blind; it does not look at the picture\n"


def test_several_questions_and_several_answers(run, world):
    _, out, _ = run("ask a.png --model ask --top 3", "is there a zebra?", "is " * 33, status=0)
    first, second = out.splitlines()
    for line in (first, second):
        chances = [float(chance) for _, chance in LINE.findall(line)]
        assert len(chances) == 3
        assert chances == sorted(chances, reverse=True)
    assert first.endswith("  unknown words: zebra")
    assert second.endswith("  words not read, at the end: 3")


def test_json(run, world):
    status, out, err = run("ask a.png --model ask --json --evidence", "is there a zebra?")
    assert (status, err) == (0, "")
    row = json.loads(out)
    assert row["question"] == "is there a zebra?"
    assert row["answer"] == row["top"][0]["answer"]
    assert len(row["top"]) == 5
    assert row["unknown_words"] == ["zebra"]
    assert sum(map(sum, row["attention"][0])) == pytest.approx(1, abs=0.01)
    assert 0 < row["without_picture"] < 1


def test_questions_from_standard_input(run, world, typed):
    typed("is there a star\n?!\n\n  how many?  \nis grün")  # no newline is needed at the end
    status, out, err = run("ask a.png --model ask --json")
    assert status == 1  # a bad one stops no other
    assert err == "error: question '?!': has no words\n"
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["question"] for row in rows] == ["is there a star", "how many?", "is grün"]
    assert rows[2]["unknown_words"] == ["grün"]
    _, alone, _ = run("ask a.png --model ask --json", "how many?")
    assert json.loads(alone) == rows[1]
    typed(" \n")
    status, out, err = run("ask a.png --model nowhere")  # said before a model is loaded
    assert (status, out) == (2, "")
    assert err.startswith("error: give a question")
    typed("")
    assert "expected a picture there" in run("caption - --model nowhere", status=2)[2]


def test_a_person_is_prompted(run, world, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr("sys.stdin", Terminal("is there a star\n\nhow many\n"))
    status, out, err = run("ask a.png --model ask")
    assert (status, len(out.splitlines())) == (0, 1)  # the empty line ends it
    assert "an empty line ends" in err
    assert err.count("? ") == 2


def test_a_picture_from_standard_input(run, world, typed):
    typed((world / "a.png").read_bytes())
    _, out, _ = run("ask - --model ask", "is there a star", status=0)
    assert out == run("ask a.png --model ask", "is there a star")[1]


def test_abstaining_and_evidence(run, world):
    _, plain, _ = run("ask a.png --model ask --evidence", "is there a")
    assert re.search(r"  without the picture \d+\.\d\d %$", plain)
    assert "not sure" not in plain
    status, out, _ = run("ask a.png --model ask --evidence --abstain-below 1", "is there a")
    assert (status, out) == (0, f"not sure; at best: {plain}")
    _, out, _ = run("ask a.png --model ask --json --abstain-below 1", "is there a")
    assert json.loads(out)["abstained"] is True


@pytest.mark.parametrize("name", ["g.png", "g.html", "g.gif", "gazes", "gazes.v2"])
def test_the_gaze(run, world, typed, name):
    where = world / name
    if where.suffix == ".v2":
        where.mkdir()  # a folder, whatever its name
    err = run("ask a.png --model ask --gaze", where, "is it red", status=0)[2]
    if not where.is_dir():
        assert err == f"{where}: written\n"
        assert where.stat().st_size > 500
        return
    assert run("ask a.png --model ask --gaze", where, "is it red", "how many")[0] == 0
    assert sorted(path.name for path in where.iterdir()) == ["0000.png", "0001.png"]
    typed("one\ntwo\nthree\n")
    assert run("ask a.png --model ask --gaze", where)[0] == 0
    assert len(list(where.iterdir())) == 3


@pytest.mark.parametrize(
    ("command", "question", "status", "said"),
    [
        ("ask --model ask", None, 2, "PICTURE"),
        ("ask a.png --model ask", "?!", 2, "question '?!': has no words"),
        ("ask a.png a.png --model ask", "is it", 2, "a.png: is a file, not a question"),
        ("ask - --model ask", None, 2, "expected questions as arguments"),
        ("ask a.png --model ask", "-", 2, "-: is not a question"),
        ("ask a.png --model ask --gaze a.png", "is it", 2, "a.png: is one of the pictures"),
        ("ask a.png --model nowhere", "is it", 5, "nowhere: is not a model folder"),
        ("ask a.png --model tell", "is it", 5, "use it with: gazetell caption"),
        ("ask a.png --model ask --top 0", "is it", 2, "--top 0"),
        ("ask a.png --model ask --top 5 --json", "is it", 2, "--top: has no effect"),
        ("ask a.png --model ask --abstain-below 1.5", "is it", 2, "--abstain-below 1.5"),
        ("ask a.png --model ask --gaze a.bmp", "is it", 2, "--gaze a.bmp"),
        ("ask a.png one two --model ask --gaze g.png", None, 2, "one file for 2 questions"),
        ("ask a.png --model ask --gaze g.png", None, 2, "one file for typed questions"),
        ("ask a.png --model plain --gaze g.png", "is it", 2, "plain has no attention"),
    ],
)
def test_a_mistake_is_one_line(mistake, world, command, question, status, said):
    mistake(status, said, command, *([question] if question else []))
