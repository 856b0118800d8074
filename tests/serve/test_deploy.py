"""The files in deploy/: their commands are commands that there are."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from gazetell.cli import app
from gazetell.serve.guard import ServeOptions

DEPLOY = Path(__file__).parents[2] / "deploy"
ROOT = DEPLOY.parent


def parsed(words):
    """The arguments of a ``gazetell`` command line, as the command line itself reads them."""
    assert words[0].endswith("gazetell")
    command, bound, _ = app.parse_args(words[1:], print_error=False, exit_on_error=False)
    assert command.__name__ == "serve"
    return bound.arguments["model"], bound.arguments.get("options", ServeOptions())


def test_the_image_starts_the_service():
    text = (DEPLOY / "Dockerfile").read_text()
    steps = re.sub(r"\\\n", "", text)
    entry = json.loads(re.search(r"^ENTRYPOINT (.*)$", steps, re.M).group(1))
    _, options = parsed([*entry, "--model", "/models/demo"])
    assert options.host == "0.0.0.0"
    health = json.loads(re.search(r"^HEALTHCHECK .*?CMD (.*)$", steps, re.M).group(1))
    compile(health[-1], "HEALTHCHECK", "exec")
    assert f":{options.port}/healthz" in health[-1]
    assert f"EXPOSE {options.port}" in steps
    assert steps.index("RUN python -m pip") < steps.index("USER gazetell")
    for line in re.findall(r"^COPY (.*) \S+$", steps, re.M):
        for name in line.split():
            assert (ROOT / name).exists(), name
    command = re.search(r"(gazetell) (--model .*)$", text, re.M).expand(r"\1 serve \2")
    assert parsed(shlex.split(command))


def unit():
    """Options of the systemd unit."""
    lines = (DEPLOY / "gazetell.service").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


def test_the_unit_starts_the_service_and_waits_for_it():
    from gazetell.serve.server import GRACE

    model, options = parsed(shlex.split(unit()["ExecStart"]))
    assert model == ("/var/lib/gazetell/demo",)
    assert float(unit()["TimeoutStopSec"]) > options.seconds + GRACE


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze here")
def test_systemd_finds_nothing_wrong(tmp_path):
    text = (DEPLOY / "gazetell.service").read_text()
    copy = tmp_path / "gazetell.service"
    copy.write_text(text.replace("/opt/gazetell/bin/gazetell", "/bin/true"))
    command = ["systemd-analyze", "verify", "--man=no", copy]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert "gazetell.service" not in found.stderr
