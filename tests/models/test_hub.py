"""``gazetell push`` to a stand-in of the hub's HTTP API, and downloads, whole and broken ones."""

import base64
import errno
import hashlib
import json
import os
import re
import shutil
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub.constants
import huggingface_hub.file_download
import pytest
from huggingface_hub.utils import _http

from gazetell.cli import doctor
from gazetell.errors import ModelError, UsageError, WriteError
from gazetell.inference.load import Pair, load
from gazetell.models.folder import fetch, is_pair, save_model, save_pair, update_metrics
from gazetell.models.hub import push

TOKEN = "hf_" + "x" * 34
LICENSES = ("cc-by-4.0", "apache-2.0")


class Hub(BaseHTTPRequestHandler):
    """Repositories of the user ``someone``: made, committed to (small files in the commit itself,
    large ones by LFS), and read. ``server.repos``: files and whether it is private.

    ``server.refused``: from the end of an address to status, code and message of the refusal.
    ``server.cut``: from a file to how many bytes come before the connection breaks off."""

    def do_GET(self):
        repos = self.server.repos
        found = re.fullmatch(
            r"/(?:api/models/)?(\w+/\w+)((?:/(?:tree|resolve|revision)).*)?", self.path
        )
        name, rest = found.groups() if found else ("", None)
        span = self.headers["Range"] or ""
        self.server.got.append(f"{self.command} {rest and rest.split('/', 3)[-1]} {span}".strip())
        for end, (status, code, said) in self.server.refused.items():
            if self.path.split("?")[0].endswith(end):
                return self._error(status, said, code)
        if (
            self.path.startswith("/api/models/")
            and self.headers["Authorization"] != f"Bearer {TOKEN}"
        ):
            return self._error(401, "Invalid credentials in Authorization header", None)
        if name not in repos:
            return self._error(404, "Repository not found", "RepoNotFound")
        files, large = repos[name]["files"], self.server.large
        contents = {k: large.get(v.decode("latin-1"), v) for k, v in files.items()}
        tags = {k: hashlib.sha1(v).hexdigest() for k, v in contents.items()}
        if rest and rest.startswith("/resolve/"):
            path = rest.split("/", 3)[3]
            headers = {"X-Repo-Commit": "a" * 40, "ETag": f'"{tags[path]}"'}
            begin, size = int(span[6:-1] or 0), len(contents[path])
            if span:
                headers["Content-Range"] = f"bytes {begin}-{size - 1}/{size}"
            if self.command == "GET" and path in self.server.cut:
                self.close_connection = True
                headers["Content-Length"] = str(size - begin)
                part = contents[path][begin : self.server.cut[path]]
                return self._reply(part, headers, 206 if span else 200)
            return self._reply(contents[path][begin:], headers, 206 if span else 200)
        if rest and rest.startswith("/tree/"):
            every = [
                {"type": "file", "path": k, "size": len(contents[k]), "oid": tags[k]} for k in files
            ]
            return self._reply(every)
        library = re.search(r"^library_name: (\S+)$", files.get("README.md", b"").decode(), re.M)
        about = {"id": name, "sha": "a" * 40, "private": repos[name]["private"]}
        about |= {"siblings": [{"rfilename": k} for k in files]}
        return self._reply(about | {"library_name": library and library[1]})

    do_HEAD = do_GET

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        value = json.loads(body.splitlines()[0])
        self.server.asked.append(self.path)
        if self.path == "/api/repos/create":
            if value.get("organization", "someone") != "someone":
                said = "You don't have the rights to create a model under this namespace"
                return self._error(403, said, None)
            name = f"someone/{value['name']}"
            self.server.repos[name] = {"files": {}, "private": value["visibility"] == "private"}
            return self._reply({"url": f"{self.server.url}/{name}"})
        if self.path == "/api/validate-yaml":
            license = re.search(r"^license: (\S+)$", value["content"], re.M)[1]
            wrong = [] if license in LICENSES else [{"message": '"license" must be one of [...]'}]
            return self._reply({"errors": wrong, "warnings": []}, status=400 if wrong else 200)
        if "/preupload/" in self.path:
            modes = {True: "lfs", False: "regular"}
            files = [
                {
                    "path": file["path"],
                    "uploadMode": modes[file["path"].endswith(".safetensors")],
                    "shouldIgnore": False,
                }
                for file in value["files"]
            ]
            return self._reply({"files": files})
        if self.path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**x, "actions": {"upload": {"href": f"{self.server.url}/lfs/{x['oid']}"}}}
                for x in value["objects"]
            ]
            return self._reply({"objects": objects, "transfer": "basic"})
        repo = self.server.repos[self.path.removeprefix("/api/models/").split("/commit/")[0]]
        for line in map(json.loads, body.splitlines()):
            match line["key"], line["value"]:
                case "file", file:
                    repo["files"][file["path"]] = base64.b64decode(file["content"])
                case "lfsFile", file:
                    repo["files"][file["path"]] = file["oid"].encode()
                case "deletedFile", file:
                    del repo["files"][file["path"]]
        return self._reply(
            {"commitUrl": f"{self.server.url}/someone/it/commit/{'b' * 40}", "commitOid": "b" * 40}
        )

    def do_PUT(self):
        oid, body = self.path.split("/")[-1], self.rfile.read(int(self.headers["Content-Length"]))
        assert hashlib.sha256(body).hexdigest() == oid
        self.server.large[oid] = body
        return self._reply({})

    def _error(self, status, said, code):
        headers = {"X-Error-Message": said} | ({"X-Error-Code": code} if code else {})
        return self._reply({"error": said}, headers, status)

    def _reply(self, value, headers=(), status=200):
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Length": str(len(body)), **dict(headers)}.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(monkeypatch, tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    server.repos, server.large, server.asked, server.got = {}, {}, [], []
    server.refused, server.cut = {}, {}
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    at = huggingface_hub.constants
    monkeypatch.setattr(at, "ENDPOINT", server.url)
    monkeypatch.setattr(at, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(
        at, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(at, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(at, "DOWNLOAD_CHUNK_SIZE", 4096)
    now = SimpleNamespace(sleep=lambda seconds: None, time=time.time, monotonic=time.monotonic)
    monkeypatch.setattr(huggingface_hub.file_download, "time", now)
    monkeypatch.setattr(_http, "time", now)
    yield server
    server.shutdown()
    server.server_close()


def test_a_model_goes_to_the_hub_and_comes_back(hub, model_folder, caplog, picture, capsys):
    figures = {"metrics": {"bleu_4": 0.25}, "split": "test", "pictures": 6}
    update_metrics(model_folder, figures)
    for name in ("checkpoints/last.ckpt", "evaluation/test/gaze.png", "metrics.jsonl", "a.jpg"):
        (model_folder / name).parent.mkdir(parents=True, exist_ok=True)
        (model_folder / name).write_text("not the hub's")
    before = {path: path.read_bytes() for path in model_folder.rglob("*.*")}
    doctor.push(str(model_folder), "hf://someone/tell", license="cc-by-4.0")
    assert "hf://someone/tell: a new public repository" in caplog.text
    sent = ["README.md", "config.json", "metrics.json", "model.safetensors", "tokenizer.json"]
    assert sorted(hub.repos["someone/tell"]["files"]) == sent
    out, err = capsys.readouterr()
    assert out == f"{hub.url}/someone/tell\n"
    assert f"sent: {', '.join(sent)}\n" in err
    card = hub.repos["someone/tell"]["files"]["README.md"].decode()
    assert card.startswith("---\nlibrary_name: gazetell\n")
    for said in ("license: cc-by-4.0\n", 'gazetell.load("hf://someone/tell")', "| BLEU-4 | 25.0 |"):
        assert said in card
    assert {path: path.read_bytes() for path in model_folder.rglob("*.*")} == before
    expected = load(model_folder).caption(picture).text
    assert load("hf://someone/tell").caption(picture).text == expected


@pytest.fixture
def picture(scenes_folder):
    return sorted((scenes_folder / "images").iterdir())[0]


def test_a_pair_takes_the_place_of_a_model(hub, untrained, untrained_answerer, tmp_path, caplog):
    save_model(tmp_path / "ask", untrained_answerer(seed=2))
    card = (tmp_path / "ask/README.md").read_text()
    (tmp_path / "ask/README.md").write_text(card.replace("---\n", "---\nlicense: apache-2.0\n", 1))
    push(str(tmp_path / "ask"), "hf://someone/it", private=True)  # the licence of its card
    assert hub.repos["someone/it"]["private"]
    pair = tmp_path / "pair"
    save_pair(pair, untrained(seed=2), untrained_answerer(seed=2))
    with pytest.raises(ModelError, match=r"its encoder lies in .*pair, .*; expected .*pair$"):
        push(str(pair / "captioner"), "hf://someone/it", license="cc-by-4.0")
    push(str(pair), "hf://someone/it", license="cc-by-4.0")
    assert "removed: answers.json, config.json, metrics.json, model.safetensors" in caplog.text
    files = hub.repos["someone/it"]["files"]
    assert {"encoder.safetensors", "captioner/config.json", "answerer/README.md"} <= files.keys()
    assert "config.json" not in files
    text = files["README.md"].decode()
    assert text.count("\n# ") == 2
    assert all(tag in text.split("---")[1] for tag in ("image-captioning", "visual-question"))
    assert is_pair(Path(huggingface_hub.snapshot_download("someone/it")))
    assert isinstance(load("hf://someone/it"), Pair)


def changed(folder, key, value):
    config = json.loads((folder / "config.json").read_text())
    config["about"][key] = value
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("key", "dataset"),
    [("dataset", "flickr8k"), ("dataset", "coco+daquar"), ("init_from_dataset", "flickr30k-asked")],
)
def test_what_was_learned_from_such_data_stays_private(hub, model_folder, caplog, key, dataset):
    changed(model_folder, key, dataset)
    with pytest.raises(UsageError, match=r"may not be shared .* expected --private$"):
        push(str(model_folder), "hf://someone/tell", license="cc-by-4.0")
    assert not hub.repos
    push(str(model_folder), "hf://someone/tell", license="cc-by-4.0", private=True)
    assert "hf://someone/tell: keep it private, for it was trained on" in caplog.text
    assert hub.repos["someone/tell"]["private"]


@pytest.mark.parametrize(
    ("target", "options", "error", "said"),
    [
        ("someone/tell", {}, UsageError, "someone/tell: expected hf://owner/name"),
        ("hf://someone/tell", {"license": None}, UsageError, "names no licence; expected --licen"),
        ("hf://other/tell", {}, WriteError, "may not write there: You don't have the rights"),
        ("hf://someone/tell", {"license": "x"}, WriteError, 'Invalid .* "license" must be one'),
        ("hf://someone/open", {"private": True}, UsageError, "everybody sees this repository"),
        ("hf://someone/bert", {}, UsageError, "holds another program's model"),
    ],
)
def test_what_cannot_be_sent_is_one_line(hub, model_folder, target, options, error, said):
    hub.repos["someone/open"] = {"files": {}, "private": False}
    hub.repos["someone/bert"] = {"files": {"config.json": b"{}"}, "private": False}
    with pytest.raises(error, match=said) as caught:
        push(str(model_folder), target, **({"license": "cc-by-4.0"} | options))
    assert str(caught.value).count(TOKEN) == 0
    assert not any("/commit/" in path for path in hub.asked)
    assert hub.repos["someone/bert"]["files"] == {"config.json": b"{}"}


def test_without_a_token_a_network_or_a_whole_model(hub, model_folder, monkeypatch, tmp_path):
    target, known = "hf://someone/tell", {"license": "cc-by-4.0"}
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(WriteError, match="the hub does not know the token"):
        push(str(model_folder), target, **known)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(UsageError, match="needs a token that may write there; set HF_TOKEN"):
        push(str(model_folder), target, **known)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(WriteError, match=r"hf://someone/tell: cannot be sent: .*refused"):
        push(str(model_folder), target, **known)
    (model_folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match=r"does not belong to config\.json"):
        push(str(model_folder), target, **known)
    shutil.rmtree(model_folder)
    with pytest.raises(ModelError, match="is not a model folder"):
        push(str(model_folder), target, **known)
    assert not hub.asked


# Downloads


@pytest.fixture
def name(hub, model_folder):
    """A model on the hub, with what nobody needs beside it."""
    files = {path.name: path.read_bytes() for path in model_folder.iterdir()}
    more = ("pytorch_model.bin", "tf_model.h5", "onnx/model.onnx", "onnx/model.safetensors")
    files |= dict.fromkeys(more, b"for another program")
    hub.repos["someone/tell"] = {"files": files, "private": False}
    return "hf://someone/tell"


WANTED = ["README.md", "config.json", "metrics.json", "model.safetensors", "tokenizer.json"]


def lies_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def asked_for(hub, file):
    """How a file was asked for since the last call."""
    spans = [line.partition(file)[2].strip() for line in hub.got if f"GET {file}" in line]
    hub.got.clear()
    return spans


def test_only_what_is_needed_comes_and_comes_once(hub, name, monkeypatch, tmp_path, caplog):
    assert lies_in(fetch(name)) == WANTED
    assert asked_for(hub, "model.safetensors") == [""]
    assert lies_in(fetch(f"{name}@v1.0")) == WANTED  # the same commit
    assert asked_for(hub, "model.safetensors") == []
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert load(name).tokenizer
    assert not hub.got
    assert not caplog.messages


@pytest.mark.parametrize("brought", ["model.safetensors", "pytorch_model.bin"])
def test_of_a_repository_of_transformers_bin_comes_where_there_is_nothing_else(hub, brought):
    texts = ["config.json", "merges.txt", "spiece.model", "chat_template.jinja", "modeling.py"]
    files = dict.fromkeys([*texts, brought, "pytorch_model.bin", "flax_model.msgpack"], b"{}")
    hub.repos["someone/blip"] = {"files": files, "private": False}
    assert lies_in(fetch("hf://someone/blip")) == sorted([*texts, brought])


def test_a_large_model_comes_from_the_hub(hub, large, picture):
    files = {path.name: path.read_bytes() for path in large("git").iterdir()}
    hub.repos["someone/git"] = {"files": files, "private": False}
    told = load("hf://someone/git").captioner
    assert told.name == "hf://someone/git"
    assert told.caption(picture, max_length=5) == load(large("git")).caption(picture, max_length=5)


def test_a_model_of_texts_alone_is_refused_before_its_weights_come(hub):
    pytest.importorskip("transformers")
    config = json.dumps({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]})
    files = {"config.json": config.encode(), "model.safetensors": b"of many gigabytes"}
    hub.repos["someone/gpt"] = {"files": files, "private": False}
    with pytest.raises(ModelError, match=r"^hf://someone/gpt: GPT2LMHeadModel tells nothing of p"):
        load("hf://someone/gpt")
    assert not any("safetensors" in line for line in hub.got)


def test_a_download_goes_on_where_it_broke_off(hub, name):
    half = hub.cut["model.safetensors"] = 4096 * 99
    with pytest.raises(ModelError) as caught:
        fetch(name)
    said = str(caught.value)
    assert said.startswith(f"{name}: the download broke off (peer closed connection")
    assert said.endswith("; run this again: whole files are kept")
    spans = asked_for(hub, "model.safetensors")  # at once it tried to go on
    assert spans[0] == ""
    assert set(spans[1:]) == {f"bytes={half}-"}
    cache = Path(huggingface_hub.constants.HF_HUB_CACHE)
    assert not list(cache.rglob("*.incomplete"))
    (folder,) = cache.glob("models--*/snapshots/*")
    assert lies_in(folder) == [file for file in WANTED if "safetensors" not in file]
    hub.cut.clear()
    assert load(name).tokenizer
    assert [line for line in hub.got if line.startswith("GET") and "." in line] == [
        "GET model.safetensors"
    ]


def test_a_server_that_breaks_off_once_is_not_noticed(hub, name, model_folder, monkeypatch):
    content = (model_folder / "model.safetensors").read_bytes()
    hub.cut["model.safetensors"] = 4096 * 9
    now = SimpleNamespace(sleep=lambda seconds: hub.cut.clear(), monotonic=time.monotonic)
    monkeypatch.setattr(huggingface_hub.file_download, "time", now)
    assert (fetch(name) / "model.safetensors").read_bytes() == content
    assert asked_for(hub, "model.safetensors") == ["", f"bytes={4096 * 9}-"]


def test_a_file_of_another_size_is_not_taken(hub, name, monkeypatch):
    send = Hub._reply

    def shorter(self, value, headers=(), status=200):
        wrong = self.command == "GET" and self.path.endswith("model.safetensors")
        return send(self, value[:-9] if wrong else value, headers, status)

    monkeypatch.setattr(Hub, "_reply", shorter)
    with pytest.raises(ModelError, match=r"tell: .*should be of size \d+ but has size \d+.*again"):
        fetch(name)
    (folder,) = Path(huggingface_hub.constants.HF_HUB_CACHE).glob("models--*/snapshots/*")
    assert "model.safetensors" not in lies_in(folder)


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
GATED = "Access to model someone/tell is restricted"


@pytest.mark.parametrize(
    ("refused", "said"),
    [
        ({"revision/main": (403, "GatedRepo", GATED)}, "with the account of your token$"),
        ({"config.json": (403, "GatedRepo", GATED)}, r"is gated; ask for .*/someone/tell, with "),
        ({"revision/main": (404, "RepoNotFound", "")}, "has no such repository, or it is p"),
        (
            {"revision/main": (401, "RepoNotFound", "Invalid username")},
            "has no such repository, or",
        ),
        ({"revision/main": (503, None, "Overloaded")}, r"refuses \(503: .*try again later$"),
        ({"tokenizer.json": (429, None, "Slow down")}, r"refuses \(429: .*try again later$"),
        ({"revision/v2": (404, "RevisionNotFound", "Invalid rev")}, "has no such revision; expec"),
        (
            {"tokenizer.json": (404, "EntryNotFound", "")},
            r"a file that it does not have \(.*token",
        ),
    ],
)
def test_what_the_hub_refuses_is_one_line(hub, name, refused, said):
    hub.refused = refused
    name += "@v2" * ("revision/v2" in refused)
    with pytest.raises(ModelError, match=said) as caught:
        fetch(name)
    assert str(caught.value).startswith(f"{name}: ")
    assert TOKEN not in str(caught.value)


def test_without_a_token_a_network_or_room(hub, name, monkeypatch, tmp_path):
    at = huggingface_hub.constants
    hub.refused = {"revision/main": (401, "GatedRepo", GATED)}
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(at, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(ModelError, match=r"is gated; .*, then set HF_TOKEN to a token of y"):
        fetch(name)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    hub.refused = {}
    with pytest.raises(ModelError, match="does not know your token; mend HF_TOKEN, or run: hf au"):
        fetch(name)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with monkeypatch.context() as patch:
        patch.setattr(at, "HF_HUB_OFFLINE", True)
        with pytest.raises(
            ModelError, match=r"is not whole in the cache \(.*, and HF_HUB_OFFLINE is"
        ):
            fetch(name)
        patch.setattr(at, "HF_HUB_OFFLINE", False)
        patch.setattr(at, "ENDPOINT", "http://127.0.0.1:9")
        with pytest.raises(ModelError, match=r"not whole in the .*cannot be reached .*refused"):
            fetch(name)

    def full(url, file, **_):
        file.write(b"half")
        raise FULL

    with monkeypatch.context() as patch:
        patch.setattr(huggingface_hub.file_download, "http_get", full)
        with pytest.raises(ModelError, match=r"cache \(No space left .*make room there, or set"):
            fetch(name)
    hub.cut["model.safetensors"] = 9
    with pytest.raises(ModelError, match="broke off"):
        fetch(name)
    monkeypatch.setattr(at, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"is not whole in the cache .*HF_HUB_OFFLINE is"):
        fetch(name)


@pytest.mark.parametrize(
    ("target", "lost", "error", "said"),
    [
        ("hf://tell", (), UsageError, "expected hf://owner/name or hf://owner/name@revision$"),
        ("hf://someone/tell@", (), UsageError, "expected hf://owner/name or"),
        ("hf://someone/tell", ("config.json",), ModelError, "has no config.json; expected a model"),
        (
            *("hf://someone/tell", ("model.safetensors", "pytorch_model.bin"), ModelError),
            r"has no weights; expected \.safetensors or \.bin files",
        ),
        ("hf://someone/tell", None, ModelError, r"lacks two\.safetensors, which its model\.safe"),
    ],
)
def test_a_repository_without_a_whole_model(hub, name, target, lost, error, said):
    files = hub.repos["someone/tell"]["files"]
    for file in lost or ():
        del files[file]
    if lost is None:
        weights = {"a": "model.safetensors", "b": "two.safetensors"}
        files["model.safetensors.index.json"] = json.dumps({"weight_map": weights}).encode()
    with pytest.raises(error, match=said) as caught:
        fetch(target)
    assert str(caught.value).startswith(f"{target}: ")
