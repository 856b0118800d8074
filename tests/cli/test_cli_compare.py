"""``gazetell compare``: lines, JSON, a page; what it refuses. Its work is tested by itself."""

import json

import pytest

from gazetell.inference import compare

COMPUTING = "--device cpu --precision fp32"


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    monkeypatch.setattr(compare, "_alone", compare._column)


def test_lines_tell_captions_costs_agreement_and_differences(run, world):
    line = f"compare data --model tell --model lstm --beam 1 {COMPUTING} --out page.html"
    _, out, err = run(f"{line} --max-length 2", status=0)
    assert "tell: captions cut off at their greatest length: " in err
    lines = out.splitlines()
    assert lines[0] == "images/scene-000016.png"
    assert [line.split()[0] for line in lines[1:3]] == ["tell", "lstm"]
    heads = next(line for line in lines if line.startswith("model "))
    assert heads.split("  ")[0] == "model"
    assert "CPU ms" in heads
    assert "CIDEr" in heads
    assert sum("tell and lstm: ROUGE-L " in line for line in lines) == 1
    assert "tell against lstm:" in lines
    assert sum("no difference shown" in line or "a difference" in line for line in lines) == 6
    assert "page: page.html" in err
    assert "gazetell compare data --model tell" in (world / "page.html").read_text()


def test_json_has_all_of_it_and_a_failure_is_told_once(run, world):
    (world / "torn.png").write_bytes(b"no picture")
    code, out, err = run(
        f"compare a.png torn.png --model ask --model plain --json {COMPUTING} --question",
        "is it zebra?",
    )
    found = json.loads(out)
    assert code == 1
    assert err.count("torn.png") == 1
    assert "ask: questions with unknown words: 1 of 1" in err
    assert [row["model"] for row in found["models"]] == ["ask", "plain"]
    good, torn = found["pictures"]
    assert good["question"] == "is it zebra?"
    assert {*good["told"]} == {"ask", "plain"}
    assert "answer" in good["told"]["ask"]
    assert "torn.png" in torn["told"]["plain"]["error"]
    assert found["agreement"][0]["rows"] == 1


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("compare --model tell --model lstm", "expected pictures"),
        ("compare a.png --model tell", "--model: expected two models or more"),
        ("compare a.png --model tell --model tell", "tell: is named twice"),
        ("compare a.png --model tell --model ask", "--model ask: cannot do this"),
        ("compare a.png --model tell --model lstm --prompt x", "--prompt: has no effect on tell"),
        (
            "compare a.png --model tell --model lstm --answers list.txt",
            "--answers: has no effect on",
        ),
        ("compare a.png --model tell --model lstm --out a.txt", "--out a.txt: expected"),
        ("compare a.png --model tell --model lstm --split val", "--split val: has no effect"),
        ("compare data --model tell --model lstm --question red?", "--question: has no effect"),
    ],
)
def test_mistakes(mistake, world, line, said):
    (world / "list.txt").write_text("red\n")
    mistake(2, said, line)
