"""The files in deploy/: their commands are commands that there are."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from gazetell.cli import app
from gazetell.errors import UsageError
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


def test_the_manifest_is_a_rayservice():
    """Its schema, that of Ray Serve's configuration in it, and the application that this builds."""
    pytest.importorskip("ray.serve", reason="needs the extra [cluster]")
    import jsonschema
    import yaml
    from ray.serve.schema import ServeDeploySchema

    from gazetell.serve import replicas

    manifest = yaml.safe_load((DEPLOY / "rayservice.yaml").read_text())
    schema = json.loads(Path(__file__).with_name("rayservice.json").read_text())
    jsonschema.validate(manifest, schema)
    for path, wrong in ((("spec", "serveConfig"), ""), (("metadata", "name"), "Not_A_Name")):
        broken = json.loads(json.dumps(manifest))
        broken[path[0]][path[1]] = wrong
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, schema)

    config = ServeDeploySchema.model_validate(yaml.safe_load(manifest["spec"]["serveConfigV2"]))
    (application,) = config.applications
    assert application.import_path == f"{replicas.__name__}:{replicas.app.__name__}"
    front = replicas.app(application.args)
    number = replicas.bounds(application.args["replicas"])
    replica = front._bound_deployment.init_args[0]._bound_deployment
    scaling = replica._deployment_config.autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas) == number
    with pytest.raises(UsageError, match="colour: is not an argument; expected batch, beam"):
        replicas.app({**application.args, "colour": 1})

    cluster = manifest["spec"]["rayClusterConfig"]
    head, (workers,) = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    (container,) = workers["template"]["spec"]["containers"]
    limits, needs = container["resources"]["limits"], replica.ray_actor_options
    assert needs["num_cpus"] <= int(limits["cpu"])  # one replica a pod, and a pod for each
    assert needs.get("num_gpus", 0) <= int(limits.get("nvidia.com/gpu", 0))
    assert (workers["minReplicas"], workers["maxReplicas"]) == number
    grace = workers["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace > replica._deployment_config.graceful_shutdown_timeout_s
    options = ServeOptions()
    assert config.http_options.request_timeout_s > options.seconds + options.receive_seconds
    ports = [port["containerPort"] for port in head["template"]["spec"]["containers"][0]["ports"]]
    assert config.http_options.port in ports
    for spec in (head["template"]["spec"], workers["template"]["spec"]):
        (each,) = spec["containers"]
        assert "GAZETELL_TOKEN" in [variable["name"] for variable in each["env"]]
        volumes = {volume["name"] for volume in spec["volumes"]}
        places = [mount["mountPath"] for mount in each["volumeMounts"] if mount["name"] in volumes]
        for model in application.args["model"]:
            assert any(Path(model).is_relative_to(place) for place in places)
