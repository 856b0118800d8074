"""A real Ray cluster on this machine: the same rows as here, and its faults in one line each."""

import errno
import os
import pickle
import re
import shutil
import socket
from dataclasses import dataclass, replace

import pytest

ray = pytest.importorskip("ray", reason="ray is not installed (extra cluster)")
parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")

import torch  # noqa: E402

from gazetell.errors import DataError, GazetellError, ImageError, UsageError  # noqa: E402
from gazetell.features import build_cache  # noqa: E402
from gazetell.inference import cluster, sources  # noqa: E402
from gazetell.inference.describe import describe  # noqa: E402
from gazetell.inference.predict import Answerer, Captioner  # noqa: E402
from gazetell.models.encoders import Encoder, EncoderConfig  # noqa: E402
from gazetell.models.folder import save_pair  # noqa: E402
from gazetell.models.precision import choose  # noqa: E402

HOW = {"device": "cpu", "precision": "fp32"}


@pytest.fixture(scope="module")
def started():
    """One cluster for all tests, which starting takes most of the time of."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")  # else tests beside these stop it
        with cluster.connected(None):
            yield


@pytest.fixture(scope="module")
def home(scenes_dataset, untrained, untrained_answerer, tmp_path_factory):
    """Twelve pictures, one of them broken, and a model. Not to be written to."""
    home = tmp_path_factory.mktemp("cluster")
    (home / "pictures").mkdir()
    for number, record in enumerate(scenes_dataset.captions[:11]):
        shutil.copy(scenes_dataset.path(record), home / f"pictures/{number:02d}.png")
    (home / "pictures/99.png").write_bytes(b"no picture")
    save_pair(home / "model", untrained(seed=2), untrained_answerer(seed=2))
    return home


@pytest.fixture
def models(home):
    captioner = Captioner.load(home / "model", **HOW)
    return captioner, Answerer.load(home / "model", **HOW)


def rows_in(folder):
    return parquet.read_table(folder).sort_by("picture").to_pylist()


def test_the_rows_are_those_of_this_process(started, home, models, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "SMALLEST", 4)
    # One actor, for each imports torch; the features below come from two.
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 1})
    captioner, answerer = models
    how = {"answerer": answerer, "questions": ["what is it ?"], "batch": 4}
    describe(captioner, home / "pictures", tmp_path / "here", **how)
    shutil.copytree(tmp_path / "here", tmp_path / "ray")
    for number in (1, 2):
        (tmp_path / f"ray/part-{number:05d}.parquet").unlink()
    engine = cluster.Ray([str(home / "model")], **HOW)
    done = describe(captioner, home / "pictures", tmp_path / "ray", engine=engine, **how)
    # Blocks that have their part are not done again, those that have none are.
    assert (done.pictures, done.captioned, len(done.failed)) == (12, 7, 1)
    rows = rows_in(tmp_path / "here")
    assert rows_in(tmp_path / "ray") == rows
    assert [row["picture"] for row in rows] == sorted(p.name for p in (home / "pictures").iterdir())


def test_features_are_those_of_this_process(started, home, scenes_dataset, tmp_path):
    torch.manual_seed(0)
    encoder = Encoder(EncoderConfig("small-cnn", size=32)).eval()
    device, precision = choose("cpu", "fp32")
    caches = []
    for name in ("here", "ray"):
        dataset = replace(scenes_dataset, folder=tmp_path / name)
        encode = cluster.ray_records(encoder, "fp32", dataset.root, flip=True, batch=8)
        how = {"flip": True, "batch": 8, "encode": encode if name == "ray" else None}
        caches.append(build_cache(dataset, encoder, device, precision, **how))
    here, there = caches
    names = list(here.rows)
    assert list(there.rows) == names
    assert torch.equal(here.grid(names).cells, there.grid(names).cells)
    # What a machine cannot do comes back as it would be told here.
    with pytest.raises(ImageError, match=r"^machine \S+: \S+99\.png: is not a picture") as caught:
        list(encode([home / "pictures/99.png"]))
    assert "\n" not in str(caught.value)


@dataclass
class Failing:
    """A job that fails as a machine may."""

    error: str
    device: str = "cpu"

    def open(self):
        if self.error == "disk":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self.error == "folder":
            sources.Reader(None, "/nowhere/pictures").check()
        return lambda block: block


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        ("disk", GazetellError, r"^machine \S+: .*No space left on device"),
        ("folder", DataError, r"^machine \S+: /nowhere/pictures: is not here; expected a folder"),
        (
            "gazetell",
            DataError,
            r"machine \S+: has gazetell \S+; the machine that started this has 9\.9",
        ),
        ("torch", DataError, r"machine \S+: has torch \S+; the machine that started this has 9\.9"),
    ],
)
def test_a_fault_of_a_machine_comes_back_as_one_line(error, kind, said):
    versions = cluster._versions() | {error: "9.9"}
    actor = cluster.Actor(Failing(error), versions)
    result = pickle.loads(actor({"number": [3], "block": [pickle.dumps(1)]})["result"][0])
    assert type(result) is kind
    assert re.search(said, str(result))


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:1", r"--address 127\.0\.0\.1:1: cannot be reached"),
        ("nowhere", "expected auto or host:port"),
        ("ray://127.0.0.1:1", "Ray's client cannot run this.*ray job submit"),
    ],
)
def test_a_cluster_that_is_not_there_is_one_line(monkeypatch, address, said):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(UsageError, match=said):
        list(cluster.run(lambda put: Failing(""), [1], address, "cpu"))


def test_an_address_where_something_else_answers_is_given_up(monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(cluster, "REACH", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        work = cluster.run(
            lambda put: Failing(""), [1], f"127.0.0.1:{server.getsockname()[1]}", "cpu"
        )
        with pytest.raises(UsageError, match="what answers there is not Ray"):
            list(work)


def test_what_ray_cannot_use_is_refused_before(started, monkeypatch):
    with pytest.raises(UsageError, match="--device cuda: the cluster has no GPU"):
        list(cluster.run(lambda put: Failing(""), [1], None, "cuda"))
    with pytest.raises(UsageError, match="--device cuda:1: expected auto, cpu, cuda"):
        cluster.check_ready("cuda:1")
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install .*\(extra cluster\)"):
        cluster.Ray(["model"])
