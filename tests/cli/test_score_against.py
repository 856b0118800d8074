"""``gazetell score --against``: two models on the same pictures."""

import json

import pytest

from gazetell.metrics import compare_captions

ANIMALS = ("dog", "cat", "horse", "cow", "sheep", "bird", "goat", "pig")
REFERENCES = {
    str(i): [f"a {animal} runs", f"one {animal} is running"] for i, animal in enumerate(ANIMALS)
}
RIGHT = {i: texts[0] for i, texts in REFERENCES.items()}
WRONG = dict.fromkeys(REFERENCES, "two people sit on chairs")
MIXED = {i: (RIGHT if int(i) % 2 else WRONG)[i] for i in REFERENCES}


@pytest.fixture
def files(tmp_path):
    """Options with the files of references and two models, by name."""

    def write(first, second, references=REFERENCES):
        names = ("--references", "--predictions", "--against")
        options = []
        for name, rows in zip(names, (references, first, second), strict=True):
            path = tmp_path / f"{name[2:]}.jsonl"
            key = "captions" if name == "--references" else "caption"
            path.write_text("".join(json.dumps({"id": i, key: v}) + "\n" for i, v in rows.items()))
            options += [name, path]
        return options

    return write


def test_json_holds_what_the_library_says(run, files):
    status, out, err = run("score", *files(RIGHT, MIXED), "--resamples", 200, "--seed", 3, "--json")
    assert (status, err) == (0, "")
    found = json.loads(out)
    metrics = found.pop("metrics")
    assert found == {"pictures": 8, "resamples": 200, "seed": 3, "level": 0.95}
    expected = compare_captions(REFERENCES, RIGHT, MIXED, resamples=200, seed=3)
    assert metrics == {name: one.__dict__ for name, one in expected.items()}


def test_lines_say_whether_it_is_a_difference(run, files):
    status, out, _ = run("score", *files(RIGHT, MIXED))
    assert status == 0
    head, *lines = out.splitlines()
    assert head.split()[:3] == ["predictions", "against", "difference"]
    names = ["bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider"]
    assert [line.split()[0] for line in lines] == names
    assert all(line.endswith("  a difference") for line in lines)
    rouge = lines[4].split()
    assert rouge[1] == "1.0000"
    assert rouge[3] == f"{float(rouge[1]) - float(rouge[2]):+.4f}"
    assert 0 < float(rouge[4]) < float(rouge[3]) < float(rouge[6])

    _, out, _ = run("score", *files(MIXED, MIXED))
    lines = out.splitlines()[1:]
    assert all(line.endswith("+0.0000 to +0.0000  no difference shown") for line in lines)


def test_without_against_it_scores(run, files):
    status, out, _ = run("score", *files(RIGHT, WRONG)[:4])
    assert status == 0
    assert out.splitlines()[0].split() == ["bleu_1", "1.0000"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--java"], "--java: METEOR and SPICE are not compared"),
        (["--resamples", 0], "--resamples 0: expected at least 1"),
        (["--seed", -1], "--seed -1: expected 0 or more"),
    ],
)
def test_options_out_of_range(run, files, more, message):
    status, out, err = run("score", *files(RIGHT, WRONG), *more)
    assert (status, out) == (2, "")
    assert err.startswith(f"error: {message}")
    assert len(err.splitlines()) == 1


def test_files_that_do_not_fit(run, files):
    fewer = {i: WRONG[i] for i in list(WRONG)[:-1]}
    status, _, err = run("score", *files(RIGHT, fewer))
    assert status == 3
    assert "against.jsonl: lacks 1 of the 8 pictures" in err
    one = {"0": RIGHT["0"]}
    status, _, err = run("score", *files(one, one, {"0": REFERENCES["0"]}))
    assert status == 3
    assert "has one picture; expected at least two" in err
