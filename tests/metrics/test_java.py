"""METEOR and SPICE against small programs that stand in for Java."""

import os
import sys
import textwrap
from pathlib import Path

import pytest

from gazetell.metrics import captions as java
from gazetell.metrics import meteor, score_captions, spice

CANDIDATES = ["a dog runs", ""]
REFERENCES = [["a dog", "the dog runs"], ["a cat"]]

METEOR = """
    import sys
    for line in sys.stdin:
        kind, *parts = [part.strip() for part in line.rstrip("\\n").split("|||")]
        if kind == "SCORE":
            print(len(parts), len(parts[-1].split()), flush=True)
        else:
            values = [int(part.split()[1]) / 10 for part in parts]
            for value in [*values, sum(values)]:
                print(value, flush=True)
"""
SPICE = """
    import json, sys
    asked, answer = sys.argv[4], sys.argv[6]
    rows = [
        {"image_id": row["image_id"], "scores": {"All": {"f": len(row["test"].split()) / 10}}}
        for row in json.load(open(asked))
    ]
    json.dump(rows[::-1], open(answer, "w"))
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Put a ``java`` of ours on the PATH and an empty shell of pycocoevalcap before the real."""
    package = tmp_path / "lib" / "pycocoevalcap"
    files = ["__init__.py", "meteor/meteor-1.5.jar", "meteor/data/paraphrase-en.gz"]
    files += [f"spice/{name}" for name in java.SPICE_NEEDS]
    for name in files:
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).touch()
    monkeypatch.syspath_prepend(tmp_path / "lib")
    for name in [name for name in sys.modules if name.split(".")[0] == "pycocoevalcap"]:
        monkeypatch.delitem(sys.modules, name)
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))

    def write(code: str) -> Path:
        program = programs / "java"
        note = f"import os; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n"
        program.write_text(f"#!{sys.executable}\n{note}{textwrap.dedent(code)}")
        program.chmod(0o755)
        return package

    return write


def is_running(tmp_path: Path) -> bool:
    try:
        os.kill(int((tmp_path / "pid").read_text()), 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(("metric", "code", "score"), [(meteor, METEOR, 0.3), (spice, SPICE, 0.15)])
def test_a_program_that_works(stand_in, tmp_path, metric, code, score):
    noise = "import sys\nsys.stderr.write('warning\\n' * 100000); sys.stderr.flush()"
    stand_in(noise + textwrap.dedent(code))
    result = metric(CANDIDATES, REFERENCES)
    assert result.score == pytest.approx(score)
    assert result.per_picture == pytest.approx((0.3, 0.0))
    assert result.reason is None
    assert not is_running(tmp_path)


@pytest.mark.parametrize("metric", [meteor, spice])
@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import sys; sys.exit('no memory')", "no memory"),
        ("import sys; sys.exit(3)", ""),
        ("print('what?\\n' * 9, flush=True)\nimport sys; sys.stdin.read()", ""),
        ("import time; time.sleep(60)", "took longer than 0.8 s"),
    ],
)
def test_a_program_that_fails(stand_in, tmp_path, metric, code, reason):
    stand_in(code)
    timeout = {"timeout": 0.8} if "sleep" in code else {}
    result = metric(CANDIDATES, REFERENCES, **timeout)
    assert result.score is None
    assert metric.__name__.upper() in result.reason
    assert reason in result.reason
    assert "\n" not in result.reason
    assert not is_running(tmp_path)


def test_what_is_not_there(stand_in, monkeypatch):
    package = stand_in("")
    (package / "spice" / java.SPICE_NEEDS[1]).unlink()
    reason = f"pycocoevalcap has no spice/{java.SPICE_NEEDS[1]}"
    assert spice(CANDIDATES, REFERENCES) == java.JavaScore(None, reason=reason)
    os.remove(Path(os.environ["PATH"]) / "java")
    reason = "Java is not installed (no 'java' on the PATH)"
    assert meteor(CANDIDATES, REFERENCES) == java.JavaScore(None, reason=reason)
    monkeypatch.setattr(java.importlib.util, "find_spec", lambda name: None)
    for metric in (meteor, spice):
        result = metric(CANDIDATES, REFERENCES)
        assert result.score is None
        assert "pycocoevalcap is not installed" in result.reason


def test_scores_say_what_was_not_computed(stand_in, caplog):
    package = stand_in(METEOR)
    (package / "spice" / "spice-1.0.jar").unlink()
    references, predictions = {"1": ["a dog"], "2": ["a cat"]}, {"1": "a dog", "2": "."}
    scores = score_captions(references, predictions, java=True)
    assert scores["meteor"] == pytest.approx(0.2)
    assert scores["spice"] is None
    assert caplog.messages == ["SPICE not computed: pycocoevalcap has no spice/spice-1.0.jar"]
    caplog.clear()
    scores = score_captions(references, predictions)
    assert scores["meteor"] is scores["spice"] is None
    assert not caplog.messages
