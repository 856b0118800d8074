"""The API over a real connection, held to what the library says by itself."""

import concurrent.futures
import functools
import gzip
import json
import random
import re
import threading

import httpx
import numpy as np
import pytest
import torch
from service import QUESTIONS, client_of, figure, is_problem, png, text, wait_until

from gazetell.data.text import sentence
from gazetell.inference.load import load
from gazetell.inference.predict import Answerer, Captioner
from gazetell.models.confidence import LIKELY, Novelty, certainty
from gazetell.models.decoding import DecodingOptions
from gazetell.pictures import Frame
from gazetell.serve import guard
from gazetell.serve.api import PHOTOGRAPHS, create_app
from gazetell.serve.guard import ServeOptions


@pytest.fixture(scope="module", params=["local", "ray"])
def client(request):
    """Of the service in this process, and of the one on replicas: the API is the same."""
    ray = request.param == "ray"
    url = request.getfixturevalue("replicas").url if ray else request.getfixturevalue("server_url")
    with httpx.Client(base_url=url, timeout=30) as client:
        yield client


def same_maps(sent, maps):
    assert (sent["height"], sent["width"]) == maps.shape[1:]
    assert len(sent["maps"]) == len(maps)
    for one, expected in zip(sent["maps"], maps, strict=True):
        assert one == pytest.approx(expected.reshape(-1).tolist(), abs=1e-4)
        assert sum(one) == pytest.approx(1, abs=0.01)


def same_answer(sent, expected):
    assert (sent["question"], sent["answer"]) == (expected.question, expected.text)
    assert sent["confidence"] == pytest.approx(expected.confidence, abs=1e-4)
    assert sent["certainty"] == certainty(sent["confidence"], not sent["abstained"], LIKELY)
    assert [t["answer"] for t in sent["top"]] == [a for a, _ in expected.top]
    assert (sent["unknown_words"], sent["words_cut"]) == (expected.unknown, expected.cut)
    if expected.without_picture is None:
        assert sent["without_picture"] is None
    else:
        assert sent["without_picture"] == pytest.approx(expected.without_picture, abs=1e-4)
    if expected.attention is None:
        assert sent["attention"] is None
    else:
        same_maps(sent["attention"], expected.attention)


# What the models say


@pytest.mark.parametrize("form", [True, False])
def test_a_caption_is_what_the_library_says(client, models, picture, form):
    expected = models["tell"].caption(picture, beam=2, max_length=5)
    if form:
        sent = {"files": {"image": picture}, "data": {"beam": "2", "max_length": "5"}}
    else:
        sent = {"json": {"image": text(picture), "beam": 2, "max_length": 5}}
    found = client.post("/v1/caption", **sent).json()
    assert found["model"] == "tell"
    (caption,) = found["captions"]
    assert (caption["text"], caption["words"]) == (expected.text, expected.words)
    assert caption["log_prob"] == pytest.approx(expected.log_prob, abs=1e-4)
    assert caption["ended"] is expected.ended
    assert caption["alt_text"] == sentence(expected.text, expected.ended) != expected.text
    assert caption["confidence"] == pytest.approx(expected.confidence, abs=1e-4)
    assert caption["sure"] is expected.sure
    assert caption["certainty"] == certainty(expected.confidence, expected.sure)
    same_maps(caption["attention"], expected.attention)
    assert found["timings"]["total"] >= found["timings"]["run"] > 0


def test_a_gaze_says_where_it_lies_on_the_picture(untrained, untrained_answerer):
    """A model of another fit, and what was sent once for both."""
    models = {
        "crop": Captioner(untrained(), fit="crop"),
        "pad": Answerer(untrained_answerer(), fit="pad"),
    }
    wide = png(200, 100)
    with client_of(create_app(models)) as client:
        look = client.post("/v1/look", files={"image": wide}).json()["look"]
        for sent in ({"image": text(wide)}, {"look": look}):
            told = client.post("/v1/caption", json=sent).json()["captions"][0]["attention"]
            asked = client.post("/v1/answer", json=sent | {"question": "is it red?"})
            asked = asked.json()["answers"][0]
            assert told["seen"] == [0.25, 0, 0.75, 1]
            # Where the cells look is measured, and lies within one of the seven.
            assert told["cells"] == pytest.approx(told["seen"], abs=1 / 7)
            assert asked["attention"]["seen"] == [0, -0.5, 1, 1.5]


def test_groups_and_limits_of_words_decode_as_the_library_does(client, models, picture):
    options = {"beam": 4, "beam_groups": 2, "diversity": 2.0, "min_length": 2, "no_repeat_ngram": 2}
    sent = {"image": text(picture), **options, "captions": 2, "gaze": False}
    found = client.post("/v1/caption", json=sent).json()["captions"]
    expected = models["tell"].n_best(picture, 2, **options)
    assert [one["text"] for one in found] == [one.text for one in expected]


def test_several_captions_are_the_best_of_the_beam(client, models, picture):
    expected = models["tell"].n_best(picture, 3, beam=4)
    sent = {"image": text(picture), "beam": 4, "captions": 3, "gaze": False}
    found = client.post("/v1/caption", json=sent).json()["captions"]
    assert [c["text"] for c in found] == [c.text for c in expected]
    assert all(c["attention"] is None for c in found)


@pytest.mark.parametrize("form", [True, False])
def test_answers_are_what_the_library_says(client, models, picture, form):
    most = models["ask"].max_question
    questions = [QUESTIONS[0], "is the zebra red?", "what " * (most + 2)]
    expected = models["ask"].ask_all(picture, questions, evidence=True)
    if form:
        fields = {"question": questions, "abstain_below": "0.5", "evidence": "true"}
        sent = {"files": {"image": picture}, "data": fields}
    else:
        fields = {"questions": questions, "abstain_below": 0.5, "evidence": True}
        sent = {"json": {"image": text(picture), **fields}}
    found = client.post("/v1/answer", **sent).json()
    assert found["model"] == "ask"
    for answer, right in zip(found["answers"], expected, strict=True):
        same_answer(answer, right)
        assert answer["abstained"] is (right.confidence < 0.5)
    assert found["answers"][1]["unknown_words"] == ["zebra"]
    assert found["answers"][2]["words_cut"] == 2


def test_a_handle_answers_as_the_picture_does(client, picture):
    reply = client.post("/v1/look", files={"image": picture})
    assert reply.status_code == 201
    handle = reply.json()["look"]
    assert client.post("/v1/look", json={"image": text(picture)}).json()["look"] == handle
    for path, more in (
        ("/v1/caption", {}),
        ("/v1/answer", {"questions": QUESTIONS}),
        ("/v1/answer", {"questions": QUESTIONS, "model": "other"}),
    ):
        by_handle = client.post(path, json={"look": handle, **more}).json()
        by_picture = client.post(path, json={"image": text(picture), **more}).json()
        assert by_handle.pop("timings")["open"] == 0 < by_picture.pop("timings")["open"]
        assert by_handle == by_picture


def test_pictures_are_kept_while_they_are_used_and_there_is_room(models, monkeypatch):
    now = [0.0]
    clocked = functools.partial(guard.TTLCache, timer=lambda: now[0])
    monkeypatch.setattr(guard, "TTLCache", clocked)
    with client_of(create_app({"tell": models["tell"]}, ServeOptions(looks=0.1))) as client:

        def keep(n):
            return client.post("/v1/look", files={"image": png(20 + n, 20)}).json()["look"]

        def is_kept(handle):
            reply = client.post("/v1/caption", json={"look": handle, "gaze": False})
            return reply.status_code == 200 or not is_problem(reply, "look_expired")

        first = keep(0)
        most = int(0.1 * 2**20 // figure(client, "gazetell_look_bytes"))
        others = [keep(n) for n in range(1, most)]
        assert is_kept(first)  # used last
        keep(most)
        assert figure(client, "gazetell_looks") == most
        assert is_kept(first)
        assert not is_kept(others[0])  # the least used
        for now[0] in (500, 1000):  # each use begins the 600 seconds anew
            assert is_kept(first)
        assert figure(client, "gazetell_looks") == 1
        now[0] = 1601
        assert figure(client, "gazetell_look_bytes") == 0
        assert not is_kept(first)
    with client_of(create_app({"tell": models["tell"]}, ServeOptions(looks=0.001))) as client:
        told = is_problem(client.post("/v1/look", files={"image": png(20, 20)}), "busy")
        assert "send it with each request" in told


@pytest.mark.parametrize("threshold", [-1.0, 2.0])
def test_examples_of_the_page_are_such_as_the_model_can_judge(untrained, threshold):
    model = Captioner(untrained(novelty=Novelty(np.eye(1, 128, dtype=np.float32), threshold)))
    with client_of(create_app({"tell": model})) as client:
        assert len(client.get("/v1/models").json()["examples"]) == (6 if threshold > 0 else 0)
        caption = client.post("/v1/caption", files={"image": png(90, 60)}).json()["captions"][0]
    assert caption["unfamiliar"] is (threshold < 0)


def test_the_model_in_the_box_is_shown_photographs():
    photo = load("photo", device="cpu").captioner
    with client_of(create_app({"photo": photo})) as client:
        assert client.get("/v1/models").json()["examples"] == list(PHOTOGRAPHS)


def test_models_and_limits(client):
    found = client.get("/v1/models").json()
    about = {m["name"]: m for m in found["models"]}
    assert [(n, m["kind"], m["default"]) for n, m in about.items()] == [
        ("tell", "captioner", True),
        ("ask", "answerer", True),
        ("other", "answerer", False),
    ]
    assert [m["attention"] for m in about.values()] == [True, True, False]
    assert about["tell"]["architecture"] == "attention-lstm"
    assert (found["limits"]["body"], found["limits"]["pixels"]) == (2**20, 10**6)
    assert found["token"] is False


# What is refused

JSON = {"content-type": "application/json"}
FORM = "multipart/form-data; boundary=b"
LONE = b'--b\r\nContent-Disposition: form-data; name="look"\r\n\r\nx\r\n--b--\r\n'
BAD = [
    ({"json": {}}, "invalid"),
    ({"json": {"image": "a"}}, "invalid"),
    ({"json": {"image": "", "look": "x"}}, "invalid"),
    ({"json": {"look": "x"}}, "look_expired"),
    ({"json": {"image": text(b"no picture")}}, "picture_unreadable"),
    ({"json": {"image": text(png(20, 20)[:60])}}, "picture_unreadable"),
    ({"json": {"image": text(b"")}}, "picture_unreadable"),
    ({"json": {"image": text(png(1100, 1100))}}, "picture_too_large"),
    ({"json": {"image": text(png(9, 9)), "colour": 1}}, "invalid"),
    ({"json": {"image": 3}}, "invalid"),
    ({"json": {"image": text(png(9, 9)), "model": "nobody"}}, "no_such_model"),
    ({"json": {str(n): 0 for n in range(1000)}}, "invalid"),
    ({"json": [1]}, "bad_request"),
    ({"content": b"{", "headers": JSON}, "bad_request"),
    ({"content": b"[" * 100_000, "headers": JSON}, "bad_request"),
    ({"content": b"\xff\xfe", "headers": JSON}, "bad_request"),
    ({"content": b'{"look": "x", "look": "y"}', "headers": JSON}, "invalid"),
    ({"content": gzip.compress(b"{}"), "headers": {**JSON, "content-encoding": "gzip"}},
     "unsupported_media_type"),
    ({"content": b"x"}, "unsupported_media_type"),
    ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, "bad_request"),
    ({"content": b"x", "headers": {"content-type": FORM + "; charset=undefined"}}, "bad_request"),
    ({"content": LONE, "headers": {"content-type": FORM + "; charset=undefined"}}, "bad_request"),
    ({"files": {"other": b"x"}}, "invalid"),
    ({"files": [("image", b"x"), ("image", b"x")]}, "bad_request"),
    ({"files": {"image": b"x"}, "data": {"image": "x"}}, "invalid"),
    ({"files": {"image": b"x"}, "params": {"beam": 1}}, "invalid"),
    ({"content": b"x" * (2**20 + 1), "headers": JSON}, "body_too_large"),
    ({"content": [b"x" * 2**16] * 40, "headers": JSON}, "body_too_large"),
]  # fmt: skip


@pytest.mark.parametrize(("sent", "code"), BAD)
@pytest.mark.parametrize("path", ["/v1/caption", "/v1/answer"])
def test_bad_requests_are_told_what_was_expected(client, path, sent, code):
    sent = dict(sent)
    if path == "/v1/answer" and isinstance(sent.get("json"), dict):
        sent["json"] = {**sent["json"], "question": QUESTIONS[0]}
    if isinstance(sent.get("content"), list):
        sent["content"] = iter(sent["content"])  # in pieces, without a length
    is_problem(client.post(path, **sent), code)


@pytest.mark.parametrize(
    ("path", "fields", "expected"),
    [
        ("/v1/caption", {"beam": 11}, "beam 11: expected 1 to 10"),
        ("/v1/caption", {"beam": 0}, "beam"),
        ("/v1/caption", {"beam": 2, "captions": 3}, "expected at most the beam, 2"),
        ("/v1/caption", {"beam": 4, "beam_groups": 3}, "beam_groups 3: expected a number that"),
        ("/v1/caption", {"beam": 4, "diversity": 1}, "diversity: has no effect without beam_gr"),
        ("/v1/caption", {"min_length": 9, "max_length": 3}, "min_length 9: expected 0 to 3"),
        ("/v1/caption", {"max_length": 1000}, "max_length"),
        ("/v1/answer", {}, "0 questions: expected 1 to 16"),
        ("/v1/answer", {"questions": ["why?"] * 17}, "17 questions: expected 1 to 16"),
        ("/v1/answer", {"question": "x" * 501}, "501 characters; expected at most 500"),
        ("/v1/answer", {"question": "?!"}, "has no words"),
        ("/v1/answer", {"question": ""}, "has no words"),
        ("/v1/answer", {"question": "a", "questions": ["b"]}, "expected one of them"),
        ("/v1/answer", {"question": "a", "abstain_below": 2}, "abstain_below"),
        ("/v1/answer", {"question": "a", "abstain_below": float("nan")}, "abstain_below"),
        ("/v1/answer", {"question": 7}, "questions.0"),
        ("/v1/answer", {"questions": [0] * 100_000}, "questions.0"),
        ("/v1/answer", {"question": "is it \ud800?"}, "not valid Unicode"),
    ],
)
def test_fields_out_of_range(client, picture, path, fields, expected):
    body = json.dumps({"image": text(picture), **fields})  # ASCII: \ud800 stays an escape
    told = is_problem(client.post(path, content=body, headers=JSON), "invalid")
    assert expected in told


def test_a_maximum_below_the_models_minimum_is_told_as_such(untrained, picture):
    model = Captioner(untrained(decoding=DecodingOptions(min_length=6, max_length=9)))
    with client_of(create_app({"m": model})) as client:
        sent = {"image": text(picture), "max_length": 3}
        told = is_problem(client.post("/v1/caption", json=sent), "invalid")
        assert told == "max_length 3: the captions of m have at least 6 words."
        is_problem(client.post("/v1/answer", json=sent | {"question": "a"}), "invalid")
        sent = {"image": text(picture), "question": "why?"}
        told = is_problem(client.post("/v1/answer", json=sent), "no_such_model")
        assert told == "No answerer is served."


def test_a_file_name_is_never_opened(client, tmp_path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(png(30, 30))
    reply = client.post("/v1/caption", files={"image": (str(secret), b"nothing")})
    is_problem(reply, "picture_unreadable")
    is_problem(client.post("/v1/caption", files={"image": (None, str(secret))}), "invalid")
    is_problem(client.post("/v1/caption", json={"image": str(secret)}), "invalid")


def test_unknown_paths_and_methods(client):
    is_problem(client.get("/v1/nothing"), "not_found")
    is_problem(client.get("/v1/caption"), "method_not_allowed")
    is_problem(client.get("/page/../api.py"), "not_found")


def test_a_token_is_asked_for(models, picture):
    with client_of(create_app(models, token="secret")) as client:
        assert client.get("/v1/models").json()["token"] is True
        sent = {"files": {"image": picture}}
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic secret"}):
            reply = client.post("/v1/caption", **sent, headers=headers)
            is_problem(reply, "unauthorized")
            assert reply.headers["www-authenticate"] == "Bearer"
        reply = client.post("/v1/caption", **sent, headers={"authorization": "Bearer secret"})
        assert reply.status_code == 200


# Every response

PATHS = ["/", "/page/page.js", "/docs", "/openapi.json", "/healthz", "/readyz", "/v1/models"]


@pytest.mark.parametrize("path", [*PATHS, "/metrics", "/v1/nothing", "/v1/caption"])
def test_head_answers_what_get_answers_without_a_body(client, path):
    head, get = client.head(path), client.get(path)
    assert (head.status_code, head.content) == (get.status_code, b"")
    for name in ("content-type", "content-security-policy", "cache-control", "allow"):
        assert head.headers.get(name) == get.headers.get(name)
    if path in PATHS:  # the others' bodies differ from time to time
        assert head.headers["content-length"] == get.headers["content-length"]
    assert get.headers["x-content-type-options"] == "nosniff"
    assert get.headers["content-security-policy"].startswith("default-src 'none'; script-src")
    assert ("unsafe-inline" in get.headers["content-security-policy"]) is (path == "/docs")
    assert "access-control-allow-origin" not in get.headers


def test_the_api_page_asks_no_other_host_and_its_addresses_are_relative(client):
    """A proxy may show the service below a prefix that it takes off."""
    page = client.get("/docs").text
    assert not re.search("https?://", page)
    names = re.findall(r"""(?:src=|href=|url: )["'](.*?)["']""", page)
    assert len(names) == 4
    for name in names:
        assert not name.startswith("/")
        assert client.get(f"/{name}").status_code == 200
    described = client.get("/openapi.json").json()
    assert described["servers"] == [{"url": "."}]
    assert set(described["paths"]) == {"/v1/caption", "/v1/answer", "/v1/look", "/v1/models"}


def test_figures_count_what_happened(models, picture):
    with client_of(create_app(models)) as client:
        for _ in range(3):
            client.post("/v1/caption", files={"image": picture})
        client.post("/v1/look", files={"image": picture})
        client.post("/v1/caption", files={"image": b"x"})
        wait_until(lambda: figure(client, "gazetell_queue") == 0)
        figures = client.get("/metrics").text
    assert 'gazetell_requests_total{route="/v1/caption",status="200"} 3.0' in figures
    assert 'gazetell_problems_total{code="picture_unreadable"} 1.0' in figures
    assert 'gazetell_batch_size_count{stage="caption"} 3.0' in figures
    assert "gazetell_looks 1.0" in figures
    assert "gazetell_upload_bytes 0.0" in figures


# Many at once


class Slow:
    """A captioner that waits for a sign before each batch, and counts its pictures."""

    def __init__(self, monkeypatch, model):
        self.go, self.begun, self.pictures = threading.Semaphore(1), threading.Semaphore(0), []
        decode, self.model = model.decode_best, model

        def waits(grid, *options):
            self.begun.release()
            assert self.go.acquire(timeout=60)
            self.pictures.append(len(grid.cells))
            return decode(grid, *options)

        monkeypatch.setattr(model, "decode_best", waits)


@pytest.fixture
def slow(monkeypatch, untrained):
    """Served by a test; its one sign is for the warm-up."""
    slow = Slow(monkeypatch, Captioner(untrained()))
    yield slow
    slow.go.release(100)


@pytest.fixture
def pool():
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        yield pool


def post(client, picture):
    return client.post("/v1/caption", files={"image": picture}, timeout=60)


def test_what_is_answered_together_is_what_each_would_get_alone(slow, models, picture, pool):
    """Different pictures, numbers of questions and options, by handle and by file, at once."""
    served = {"m": slow.model, "ask": models["ask"], "other": models["other"]}
    words, chance = [*QUESTIONS, "is there a star?"], random.Random(0)
    with client_of(create_app(served, ServeOptions(batch=16))) as client:
        handle = client.post("/v1/look", files={"image": picture}).json()["look"]
        sent = []
        for n in range(10):
            image = picture if n % 3 == 0 else png(30 + n, 40, (20 * n, 255 - 20 * n, 90))
            where = {"look": handle} if n % 3 == 0 else {"image": text(image)}
            fields = {
                "questions": chance.sample(words, 1 + n % 3),
                "evidence": n % 4 == 0,
                "model": "other" if n % 5 == 4 else "ask",
            }
            sent.append((image, fields, where))
        assert slow.begun.acquire(timeout=60)
        first = pool.submit(post, client, picture)  # keeps the engine busy meanwhile
        assert slow.begun.acquire(timeout=60)
        others = [pool.submit(post, client, picture) for _ in range(3)]
        wait_until(lambda: figure(client, "gazetell_queue") == 4)
        tasks = [
            pool.submit(client.post, "/v1/answer", json={**where, **fields})
            for _, fields, where in sent[:8]
        ]
        wait_until(lambda: figure(client, "gazetell_queue") == 12)
        slow.go.release(10)
        assert all(task.result().status_code == 200 for task in (first, *others))
        assert slow.pictures == [1, 1, 3]  # the warm-up, the first, and all others at once
        for (image, fields, _), task in zip(sent, tasks, strict=False):
            evidence = fields["evidence"]
            alone = models[fields["model"]].ask_all(image, fields["questions"], evidence=evidence)
            for found, expected in zip(task.result().json()["answers"], alone, strict=True):
                same_answer(found, expected)


def test_a_picture_that_takes_too_long_to_open_is_a_timeout(models, monkeypatch, picture):
    go = threading.Event()
    app = create_app({"m": models["tell"]}, ServeOptions(seconds=0.3))
    with client_of(app) as client, monkeypatch.context() as slowly:
        slowly.setattr(Frame, "pixels", lambda *_: go.wait(60) and None)
        is_problem(post(client, picture), "timeout")
        go.set()


def test_one_too_many_is_sent_away_and_told_when_to_come_back(slow, picture, pool):
    with client_of(create_app({"m": slow.model}, ServeOptions(queue=2))) as client:
        tasks = [pool.submit(post, client, picture) for _ in range(2)]
        wait_until(lambda: figure(client, "gazetell_queue") == 2)
        reply = post(client, picture)
        is_problem(reply, "queue_full")
        assert int(reply.headers["retry-after"]) > 0
        slow.go.release(10)
        assert [task.result().status_code for task in tasks] == [200, 200]
        assert post(client, picture).status_code == 200


def test_a_late_answer_is_a_timeout_and_the_work_is_dropped(slow, picture):
    with client_of(create_app({"m": slow.model}, ServeOptions(seconds=1))) as client:
        is_problem(post(client, picture), "timeout")  # being decoded
        is_problem(post(client, picture), "timeout")  # in the queue behind it
        slow.go.release(10)
        assert post(client, picture).status_code == 200
        assert len(slow.pictures) == 3  # the warm-up, the first and the last, not the second


def test_who_left_is_dropped_from_the_queue(slow, picture, pool):
    with client_of(create_app({"m": slow.model})) as client:
        slow.begun.acquire(timeout=60)
        first = pool.submit(post, client, picture)
        assert slow.begun.acquire(timeout=60)
        with pytest.raises(httpx.ReadTimeout):
            client.post("/v1/caption", files={"image": picture}, timeout=0.3)
        wait_until(lambda: figure(client, "gazetell_abandoned_total") == 1)
        slow.go.release(10)
        assert first.result().status_code == 200
        assert post(client, picture).status_code == 200
        assert len(slow.pictures) == 3


# Models that fail


def test_a_defect_is_told_without_its_insides_and_a_lost_device_to_those_who_watch(
    monkeypatch, untrained, picture
):
    model = Captioner(untrained())
    with client_of(create_app({"m": model})) as client:

        def fails(error):
            def raises(*_):
                raise error("insides")

            monkeypatch.setattr(model, "decode_best", raises)

        with monkeypatch.context():
            fails(RuntimeError)
            reply = post(client, picture)
            is_problem(reply, "internal")
            assert "insides" not in reply.text
        monkeypatch.undo()
        assert post(client, picture).status_code == 200
        assert client.get("/healthz").status_code == 200
        fails(torch.AcceleratorError)
        is_problem(post(client, picture), "internal")
        wait_until(lambda: client.get("/healthz").status_code == 503)
        for reply in (client.get("/readyz"), post(client, picture)):
            assert "The models failed" in is_problem(reply, "not_ready")
