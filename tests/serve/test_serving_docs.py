"""docs/serving.md: its commands are run, its Python is run, its tables agree with the code."""

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest
from service import running

from gazetell.serve import api
from gazetell.serve.guard import CODES, ServeOptions

PAGE = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.S)
ADDRESS = "http://127.0.0.1:8000"


@pytest.fixture
def here(tmp_path, picture, monkeypatch):
    (tmp_path / "photo.jpg").write_bytes(picture)
    monkeypatch.chdir(tmp_path)


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl here")
def test_the_commands_do_what_they_say(here, server_url):
    commands = [x.strip() for x in PAGE.splitlines() if re.match(r"    (curl|LOOK)", x)]
    assert len(commands) > 8
    # One shell for all: later commands use what earlier ones found out.
    script = "set -e\n" + "\n".join(f"{x}\necho" for x in commands).replace(ADDRESS, server_url)
    script = script.replace("curl ", "curl -sS --fail-with-body ")
    found = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
    assert found.returncode == 0, found.stdout + found.stderr
    replies = [json.loads(x) for x in found.stdout.splitlines() if x.startswith("{")]
    assert len(replies[1]["captions"]) == 3
    answers = replies[2]["answers"]
    assert [a["question"] for a in answers] == ["how many circles are there?", "is there a star?"]
    assert replies[3]["answers"][0]["answer"] == answers[1]["answer"]
    assert "gazetell_requests_total" in found.stdout


def test_the_python_example_runs(here, server_url, capsys):
    code = PYTHON[0]
    exec(compile(code.replace(ADDRESS, server_url), "docs/serving.md", "exec"), {})
    assert capsys.readouterr().out.strip()


def test_the_endpoint_of_the_example_works(models, picture):
    """Written for ``serve/api.py``, so it finds there what it uses."""
    app = api.create_app(models)
    names = {**vars(api), "app": app, "service": app.state.service}
    exec(compile(PYTHON[1], "docs/serving.md", "exec"), names)
    with running(app) as url:
        image = {"image": base64.b64encode(picture).decode()}
        reply = httpx.post(f"{url}/v1/features", json=image)
        assert reply.status_code == 200, reply.text
        expected = models["tell"].encode(picture).grid.pooled[0].tolist()
        assert reply.json()["features"] == pytest.approx(expected, abs=1e-4)
        assert httpx.post(f"{url}/v1/features", json={}).json()["code"] == "invalid"
        assert 'stage="features"' in httpx.get(f"{url}/metrics").text
        assert "/v1/features" in httpx.get(f"{url}/openapi.json").json()["paths"]


def test_all_codes_are_told():
    rows = dict(re.findall(r"^\| ([\d, ]+) \| (.*) \|$", PAGE, re.M))
    told = {code: row for row, text in rows.items() for code in re.findall(r"`(\w+)`", text)}
    assert set(told) == set(CODES)
    assert all(str(CODES[code]) in row for code, row in told.items())


def test_all_limits_are_told_with_their_defaults():
    rows = re.findall(r"^\| (`--.*?) \| (.*?) \|", PAGE, re.M)
    told = {
        name.replace("-", "_"): float(default)
        for names, defaults in rows
        for name, default in zip(
            re.findall(r"--([\w-]+)", names), re.findall(r"\d+", defaults), strict=True
        )
    }
    others = ("host", "port", "device", "precision", "fit", "threads", "openers", "trust", "prompt")
    kept = {k: v for k, v in vars(ServeOptions()).items() if k not in others}
    assert told == kept
