"""The API over a real connection, held to what the library says by itself."""

import base64
import concurrent.futures
import gzip
import json
import random
import re
import threading

import httpx
import pytest
import torch
from service import png, running, wait_until

from gazetell.inference.predict import Captioner
from gazetell.models.decoding import DecodingOptions
from gazetell.serve import engine
from gazetell.serve.api import create_app
from gazetell.serve.guard import CODES, ServeOptions

QUESTIONS = ["how many circles are there?", "what colour is the square?"]


@pytest.fixture(scope="module")
def client(server_url):
    with httpx.Client(base_url=server_url) as client:
        yield client


def text(content):
    return base64.b64encode(content).decode()


def same_maps(sent, maps):
    assert (sent["height"], sent["width"]) == maps.shape[1:]
    assert len(sent["maps"]) == len(maps)
    for one, expected in zip(sent["maps"], maps, strict=True):
        assert one == pytest.approx(expected.reshape(-1).tolist(), abs=1e-4)
        assert sum(one) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("form", [True, False])
def test_a_caption_is_what_the_library_says(client, models, picture, form):
    expected = models["tell"].caption(picture, beam=2, max_length=5)
    if form:
        sent = {"files": {"image": picture}, "data": {"beam": "2", "max_length": "5"}}
    else:
        sent = {"json": {"image": text(picture), "beam": 2, "max_length": 5}}
    reply = client.post("/v1/caption", **sent)
    assert reply.status_code == 200
    found = reply.json()
    assert found["model"] == "tell"
    (caption,) = found["captions"]
    assert (caption["text"], caption["words"]) == (expected.text, expected.words)
    assert caption["log_prob"] == pytest.approx(expected.log_prob, abs=1e-4)
    assert caption["ended"] is expected.ended
    same_maps(caption["attention"], expected.attention)
    times = found["timings"]
    assert times["total"] >= times["run"] > 0


def test_several_captions_are_the_best_of_the_beam(client, models, picture):
    expected = models["tell"].n_best(picture, 3, beam=4)
    sent = {"image": text(picture), "beam": 4, "captions": 3, "gaze": False}
    found = client.post("/v1/caption", json=sent).json()["captions"]
    assert [c["text"] for c in found] == [c.text for c in expected]
    assert all(c["attention"] is None for c in found)


@pytest.mark.parametrize("form", [True, False])
def test_answers_are_what_the_library_says(client, models, picture, form):
    expected = models["ask"].ask_all(picture, QUESTIONS, abstain_below=0.5, evidence=True)
    if form:
        fields = {"question": QUESTIONS, "abstain_below": "0.5", "evidence": "true"}
        sent = {"files": {"image": picture}, "data": fields}
    else:
        fields = {"questions": QUESTIONS, "abstain_below": 0.5, "evidence": True}
        sent = {"json": {"image": text(picture), **fields}}
    found = client.post("/v1/answer", **sent).json()
    assert found["model"] == "ask"
    for answer, right in zip(found["answers"], expected, strict=True):
        assert answer["question"] == right.question
        assert answer["answer"] == right.text
        assert answer["confidence"] == pytest.approx(right.confidence, abs=1e-5)
        assert answer["abstained"] is right.abstained is (right.confidence < 0.5)
        assert answer["without_picture"] == pytest.approx(right.without_picture, abs=1e-5)
        assert [t["answer"] for t in answer["top"]] == [a for a, _ in right.top]
        same_maps(answer["attention"], right.attention)


def test_a_single_question_a_model_by_name_and_unknown_words(client, models, picture):
    sent = {"image": text(picture), "question": "is the zebra red?", "model": "other"}
    found = client.post("/v1/answer", json=sent).json()
    (answer,) = found["answers"]
    assert found["model"] == "other"
    assert answer["answer"] == models["other"].ask(picture, "is the zebra red?").text
    assert answer["unknown_words"] == ["zebra"]
    assert answer["attention"] is None  # lstm-vqa has none


def test_a_question_that_is_cut_says_so(client, models, picture):
    most = models["ask"].max_question
    sent = {"image": text(picture), "questions": ["what " * (most + 2), "what is it?"]}
    answers = client.post("/v1/answer", json=sent).json()["answers"]
    assert [answer["words_cut"] for answer in answers] == [2, 0]


def test_a_look_answers_as_the_picture_does(client, picture):
    reply = client.post("/v1/look", files={"image": picture})
    assert reply.status_code == 201
    handle = reply.json()["look"]
    assert client.post("/v1/look", json={"image": text(picture)}).json()["look"] == handle
    for path, more in (
        ("/v1/caption", {}),
        ("/v1/answer", {"questions": QUESTIONS}),
        ("/v1/answer", {"questions": QUESTIONS, "model": "other"}),
    ):
        by_look = client.post(path, json={"look": handle, **more}).json()
        by_picture = client.post(path, json={"image": text(picture), **more}).json()
        assert by_look["timings"]["open"] == 0 < by_picture["timings"]["open"]
        del by_look["timings"], by_picture["timings"]
        assert by_look == by_picture


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
    assert found["limits"]["body"] == 2**20
    assert found["token"] is False


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
    ({"json": {"image": text(png(9, 9)), "model": "\ud800"}}, "bad_request"),
    ({"json": {str(n): 0 for n in range(1000)}}, "invalid"),
    ({"json": [1]}, "bad_request"),
    ({"content": b"{", "headers": JSON}, "bad_request"),
    ({"content": b"[" * 100_000, "headers": JSON}, "bad_request"),
    ({"content": b"\xff\xfe", "headers": JSON}, "bad_request"),
    ({"content": b"x"}, "unsupported_media_type"),
    ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, "bad_request"),
    ({"content": b"x", "headers": {"content-type": FORM + "; charset=undefined"}}, "bad_request"),
    ({"content": LONE, "headers": {"content-type": FORM + "; charset=undefined"}}, "bad_request"),
    ({"files": {"other": b"x"}}, "invalid"),
    ({"files": [("image", b"x"), ("image", b"x")]}, "bad_request"),
    ({"content": b"x" * (2**20 + 1), "headers": JSON}, "body_too_large"),
    ({"content": (b"x" * 2**16 for _ in range(40)), "headers": JSON}, "body_too_large"),
]


def is_problem(reply, code):
    assert reply.headers["content-type"] == "application/problem+json"
    told = reply.json()
    assert told["code"] == code, told
    assert reply.status_code == told["status"] == CODES[code]
    assert told["detail"].strip()
    assert "\n" not in told["detail"]
    assert "Traceback" not in reply.text
    return told["detail"]


@pytest.mark.parametrize(("sent", "code"), BAD)
@pytest.mark.parametrize("path", ["/v1/caption", "/v1/answer"])
def test_bad_requests_are_told_what_was_expected(client, path, sent, code):
    sent = dict(sent)
    if path == "/v1/answer" and isinstance(sent.get("json"), dict):
        sent["json"] = {**sent["json"], "question": QUESTIONS[0]}
    if "content" in sent and not isinstance(sent["content"], bytes):
        sent["content"] = (b"x" * 2**16 for _ in range(40))  # a generator is used up once
    if "model" in (sent.get("json") or {}) and sent["json"]["model"] == "\ud800":
        sent = {"content": json.dumps(sent["json"]).encode(), "headers": JSON}
        code = "no_such_model"
    is_problem(client.post(path, **sent), code)


@pytest.mark.parametrize(
    ("path", "fields", "expected"),
    [
        ("/v1/caption", {"beam": 11}, "beam 11: expected 1 to 10"),
        ("/v1/caption", {"beam": 0}, "beam"),
        ("/v1/caption", {"beam": 2, "captions": 3}, "expected at most the beam, 2"),
        ("/v1/caption", {"max_length": 1000}, "max_length"),
        ("/v1/answer", {}, "0 questions: expected 1 to 16"),
        ("/v1/answer", {"questions": ["why?"] * 17}, "17 questions: expected 1 to 16"),
        ("/v1/answer", {"question": "x" * 501}, "501 characters; expected at most 500"),
        ("/v1/answer", {"question": "?!"}, "has no words"),
        ("/v1/answer", {"question": "a", "questions": ["b"]}, "expected one of them"),
        ("/v1/answer", {"question": "a", "abstain_below": 2}, "abstain_below"),
        ("/v1/answer", {"question": "a", "abstain_below": float("nan")}, "abstain_below"),
        ("/v1/answer", {"question": ""}, "has no words"),
        ("/v1/answer", {"question": 7}, "questions.0"),
        ("/v1/answer", {"questions": [0] * 100_000}, "questions.0"),
        ("/v1/answer", {"question": "is it \ud800?"}, "no valid Unicode"),
    ],
)
def test_fields_out_of_range(client, picture, path, fields, expected):
    body = json.dumps({"image": text(picture), **fields})  # ASCII: \ud800 stays an escape
    reply = client.post(path, content=body, headers=JSON)
    assert expected in is_problem(reply, "invalid")


def test_unknown_paths_and_methods(client):
    is_problem(client.get("/v1/nothing"), "not_found")
    is_problem(client.get("/v1/caption"), "method_not_allowed")
    is_problem(client.get("/page/../app.py"), "not_found")


@pytest.mark.parametrize("path", ["/", "/page/page.js", "/docs", "/openapi.json", "/v1/models"])
def test_head_answers_what_get_answers_without_a_body(client, path):
    head, get = client.head(path), client.get(path)
    assert (head.status_code, head.content) == (get.status_code, b"")
    for name in ("content-type", "content-security-policy", "cache-control", "allow"):
        assert head.headers.get(name) == get.headers.get(name)
    assert head.headers["content-length"] == get.headers["content-length"]


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/v1/nothing", "/v1/caption"])
def test_head_has_the_status_of_get(client, path):
    assert client.head(path).status_code == client.get(path).status_code


def test_fields_that_would_be_passed_over_are_refused(client, picture):
    sent = {"files": {"image": picture}}
    told = is_problem(client.post("/v1/caption?beam=1", **sent), "invalid")
    assert "send them in the body" in told
    twice = b'{"image": "%s", "beam": 1, "beam": 5}' % base64.b64encode(picture)
    told = is_problem(client.post("/v1/caption", content=twice, headers=JSON), "invalid")
    assert "twice" in told
    packed = gzip.compress(json.dumps({"image": text(picture)}).encode())
    headers = {**JSON, "content-encoding": "gzip"}
    told = is_problem(
        client.post("/v1/caption", content=packed, headers=headers), "unsupported_media_type"
    )
    assert "Content-Encoding" in told


def test_a_maximum_below_the_models_minimum_is_told_as_such(untrained, picture):
    model = Captioner(untrained(decoding=DecodingOptions(min_length=6, max_length=9)))
    with running(create_app({"m": model})) as url:
        sent = {"image": text(picture), "max_length": 3}
        told = is_problem(httpx.post(f"{url}/v1/caption", json=sent), "invalid")
    assert told == "max_length 3: the captions of m have at least 6 words."


def test_every_response_has_the_headers(client):
    for path in ("/", "/page/page.js", "/v1/models", "/v1/nothing", "/healthz"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"].startswith(
            "default-src 'none'; script-src 'self';"
        )
        assert "access-control-allow-origin" not in headers


def test_the_api_is_described_and_its_page_asks_no_other_host(client):
    paths = client.get("/openapi.json").json()["paths"]
    assert set(paths) == {"/v1/caption", "/v1/answer", "/v1/look", "/v1/models"}
    page = client.get("/docs").text
    assert "http://" not in page
    assert "https://" not in page


def test_addresses_in_the_api_page_are_relative(client):
    """A proxy may show the service below a prefix that it takes off."""
    page = client.get("/docs").text
    names = re.findall(r"""(?:src=|href=|url: )["'](.*?)["']""", page)
    assert len(names) == 4
    for name in names:
        assert not name.startswith("/")
        assert client.get(f"/{name}").status_code == 200
    assert client.get("/openapi.json").json()["servers"] == [{"url": "."}]


def test_a_file_name_is_never_opened(client, tmp_path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(png(30, 30))
    reply = client.post("/v1/caption", files={"image": (str(secret), b"nothing")})
    is_problem(reply, "picture_unreadable")
    is_problem(client.post("/v1/caption", files={"image": (None, str(secret))}), "invalid")
    is_problem(client.post("/v1/caption", json={"image": str(secret)}), "invalid")


def test_figures_count_what_happened(models, picture):
    with running(create_app(models)) as url, httpx.Client(base_url=url) as client:
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
    assert "gazetell_queue 0.0" in figures
    assert "gazetell_upload_bytes 0.0" in figures


def test_a_token_is_asked_for(models, picture):
    with running(create_app(models, token="secret")) as url, httpx.Client(base_url=url) as client:
        assert client.get("/v1/models").json()["token"] is True
        sent = {"files": {"image": picture}}
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic secret"}):
            reply = client.post("/v1/caption", **sent, headers=headers)
            is_problem(reply, "unauthorized")
            assert reply.headers["www-authenticate"] == "Bearer"
        reply = client.post("/v1/caption", **sent, headers={"authorization": "Bearer secret"})
        assert reply.status_code == 200


class Slow:
    """A captioner that waits for a sign before each batch, and counts its pictures."""

    def __init__(self, monkeypatch, model):
        self.go, self.begun, self.pictures = threading.Semaphore(0), threading.Semaphore(0), []
        decode = model.decode_best

        def waits(grid, options, count):
            self.begun.release()
            assert self.go.acquire(timeout=20)
            self.pictures.append(len(grid.cells))
            return decode(grid, options, count)

        monkeypatch.setattr(model, "decode_best", waits)


@pytest.fixture
def slow(monkeypatch, untrained):
    model = Captioner(untrained())
    slow = Slow(monkeypatch, model)
    slow.go.release()  # for the warm-up
    slow.model = model
    yield slow
    slow.go.release(100)


def post(client, picture):
    return client.post("/v1/caption", files={"image": picture}, timeout=30)


def figure(client, name):
    lines = client.get("/metrics").text.splitlines()
    return float(next(x.split()[1] for x in lines if x.startswith(f"{name} ")))


def test_requests_that_come_together_are_answered_together(slow, picture):
    app = create_app({"m": slow.model}, ServeOptions(batch=8))
    with (
        running(app) as url,
        httpx.Client(base_url=url) as client,
        concurrent.futures.ThreadPoolExecutor(8) as pool,
    ):
        assert slow.begun.acquire(timeout=20)  # the warm-up's
        first = pool.submit(post, client, picture)
        assert slow.begun.acquire(timeout=20)
        others = [pool.submit(post, client, png(30 + n, 30)) for n in range(5)]
        wait_until(lambda: figure(client, "gazetell_queue") == 6)
        slow.go.release(2)
        replies = [task.result() for task in (first, *others)]
        assert all(reply.status_code == 200 for reply in replies)
        assert slow.pictures == [1, 1, 5]  # the warm-up, the first, and all others at once


def test_what_is_answered_together_is_what_each_would_get_alone(slow, models, picture):
    """Different pictures, numbers of questions and options, by look and by file, at once."""
    served = {"m": slow.model, "ask": models["ask"], "other": models["other"]}
    app = create_app(served, ServeOptions(batch=16))
    chance = random.Random(0)
    words = ["how many circles are there?", "what colour is the square?", "is there a star?"]
    with (
        running(app) as url,
        httpx.Client(base_url=url, timeout=30) as client,
        concurrent.futures.ThreadPoolExecutor(12) as pool,
    ):
        look = client.post("/v1/look", files={"image": picture}).json()["look"]
        sent = []
        for n in range(10):
            image = png(30 + n, 40, (20 * n, 255 - 20 * n, 90))
            fields = {
                "questions": chance.sample(words, 1 + n % 3),
                "evidence": n % 4 == 0,
                "model": "other" if n % 5 == 4 else "ask",
            }
            where = {"look": look} if n % 3 == 0 else {"image": text(image)}
            sent.append((picture if n % 3 == 0 else image, fields, where))
        assert slow.begun.acquire(timeout=20)
        first = pool.submit(post, client, picture)  # keeps the engine busy meanwhile
        assert slow.begun.acquire(timeout=20)
        tasks = [
            pool.submit(client.post, "/v1/answer", json={**where, **fields})
            for _, fields, where in sent
        ]
        wait_until(lambda: figure(client, "gazetell_queue") == 11)
        slow.go.release(10)
        assert first.result().status_code == 200
        for (image, fields, _), task in zip(sent, tasks, strict=True):
            evidence = fields["evidence"]
            alone = models[fields["model"]].ask_all(image, fields["questions"], evidence=evidence)
            for found, expected in zip(task.result().json()["answers"], alone, strict=True):
                assert found["question"] == expected.question
                assert found["answer"] == expected.text
                assert found["confidence"] == pytest.approx(expected.confidence, abs=1e-4)
                assert (found["without_picture"] is not None) is evidence
                if expected.attention is not None:
                    same_maps(found["attention"], expected.attention)


def test_a_picture_that_takes_too_long_to_open_is_a_timeout(models, monkeypatch, picture):
    go = threading.Event()
    with monkeypatch.context() as slowly:
        slowly.setattr(engine, "to_pixels", lambda image, size: go.wait(20) and None)
        app = create_app({"m": models["tell"]}, ServeOptions(seconds=0.3))
        with running(app) as url, httpx.Client(base_url=url) as client:
            is_problem(post(client, picture), "timeout")
            go.set()


def test_one_too_many_is_sent_away_and_told_when_to_come_back(slow, picture):
    app = create_app({"m": slow.model}, ServeOptions(queue=2))
    with (
        running(app) as url,
        httpx.Client(base_url=url) as client,
        concurrent.futures.ThreadPoolExecutor(2) as pool,
    ):
        tasks = [pool.submit(post, client, picture) for _ in range(2)]
        wait_until(lambda: figure(client, "gazetell_queue") == 2)
        reply = post(client, picture)
        is_problem(reply, "queue_full")
        assert int(reply.headers["retry-after"]) > 0
        slow.go.release(10)
        assert [task.result().status_code for task in tasks] == [200, 200]
        assert post(client, picture).status_code == 200


def test_a_late_answer_is_a_timeout_and_the_work_is_dropped(slow, picture):
    app = create_app({"m": slow.model}, ServeOptions(seconds=0.5))
    with running(app) as url, httpx.Client(base_url=url) as client:
        is_problem(post(client, picture), "timeout")  # being decoded
        is_problem(post(client, picture), "timeout")  # in the queue behind it
        slow.go.release(10)
        assert post(client, picture).status_code == 200
        assert len(slow.pictures) == 3  # the warm-up, the first and the last, not the second


def test_who_left_is_dropped_from_the_queue(slow, picture):
    app = create_app({"m": slow.model})
    with (
        running(app) as url,
        httpx.Client(base_url=url) as client,
        concurrent.futures.ThreadPoolExecutor(1) as pool,
    ):
        slow.begun.acquire(timeout=20)
        first = pool.submit(post, client, picture)
        assert slow.begun.acquire(timeout=20)
        with httpx.Client(base_url=url, timeout=0.3) as impatient, pytest.raises(httpx.ReadTimeout):
            impatient.post("/v1/caption", files={"image": picture})
        wait_until(lambda: figure(client, "gazetell_abandoned_total") == 1)
        slow.go.release(10)
        assert first.result().status_code == 200
        assert post(client, picture).status_code == 200
        assert len(slow.pictures) == 3


def test_what_was_taken_in_is_answered_before_the_service_stops(slow, picture):
    app = create_app({"m": slow.model})
    with concurrent.futures.ThreadPoolExecutor(3) as pool, httpx.Client() as client:
        with running(app) as url:
            tasks = [
                pool.submit(client.post, f"{url}/v1/caption", files={"image": picture}, timeout=30)
                for _ in range(3)
            ]
            wait_until(lambda: figure(httpx.Client(base_url=url), "gazetell_queue") == 3)
            threading.Timer(0.5, slow.go.release, (10,)).start()
        assert [task.result().status_code for task in tasks] == [200] * 3


def test_a_defect_of_a_model_is_told_without_its_insides(models, monkeypatch, untrained, picture):
    model = Captioner(untrained())
    app = create_app({"m": model})
    with running(app) as url, httpx.Client(base_url=url) as client:

        def fails(*_):
            raise RuntimeError("insides")

        with monkeypatch.context() as broken:
            broken.setattr(model, "decode_best", fails)
            reply = post(client, picture)
        is_problem(reply, "internal")
        assert "insides" not in reply.text
        assert post(client, picture).status_code == 200


def test_a_device_that_fails_is_seen_by_those_who_watch_the_service(
    monkeypatch, untrained, picture
):
    model = Captioner(untrained())
    app = create_app({"m": model})
    with running(app) as url, httpx.Client(base_url=url) as client:

        def fails(*_):
            raise torch.AcceleratorError("insides")

        monkeypatch.setattr(model, "decode_best", fails)
        assert client.get("/healthz").status_code == 200
        is_problem(post(client, picture), "internal")
        wait_until(lambda: client.get("/healthz").status_code == 503)
        for reply in (client.get("/readyz"), post(client, picture)):
            assert "The models failed" in is_problem(reply, "not_ready")
