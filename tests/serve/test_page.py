"""The page in a real browser, against the real service with untrained models.

Whatever a test does, its page must ask no other host and raise no error (see ``visit``).
"""

import contextlib
import io
import json
import re
import subprocess
from pathlib import Path
from shutil import which
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image
from service import QUESTIONS, png, running

from gazetell.inference import gaze
from gazetell.inference.predict import Captioner
from gazetell.models.decoding import DecodingOptions
from gazetell.pictures import View
from gazetell.serve.api import create_app
from gazetell.serve.guard import ServeOptions

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright.expect
expect.set_options(timeout=30_000)  # a busy machine takes its time

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
ARGUMENTS += ["--disable-component-update", "--disable-sync", "--no-first-run"]
ARGUMENTS += ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]

pytestmark = pytest.mark.skipif(not Path(CHROMIUM).exists(), reason=f"{CHROMIUM} is not there")


@pytest.fixture(scope="module")
def app(models, untrained, confidence):
    """The service with the usual limits but a small body, and captions of several words."""
    decoding = DecodingOptions(beam=1, min_length=6, max_length=9)
    talkative = untrained(decoding=decoding, confidence=confidence())
    served = {**models, "tell": Captioner(talkative)}
    return create_app(served, ServeOptions(body=1, pixels=1))


@pytest.fixture(scope="module")
def server_url(app):
    with running(app) as url:
        yield url


@pytest.fixture(scope="module")
def browser():
    # For this file only: while Playwright runs, an event loop runs in this thread.
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, server_url):
    """A function that opens the page; what it did is judged when the test is over."""
    contexts, hosts, errors = [], set(), []

    def heard(message):
        # A refusal is told to the user; that the browser notes it too is no error of the page.
        if message.type == "error" and "Failed to load resource" not in message.text:
            errors.append(message.text)

    def open_page(width=1000, height=800, *, scheme="light", motion="reduce", routes=(), script=""):
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion=motion
        )
        contexts.append(context)
        context.set_default_timeout(30_000)
        context.grant_permissions(["clipboard-read", "clipboard-write", "camera"])
        page = context.new_page()
        page.on("request", lambda request: hosts.add(urlsplit(request.url)[:2]))
        page.on("console", heard)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.add_init_script(script)
        for path, answer in routes:
            page.route(path, answer)
        with page.expect_response("**/v1/models"):
            page.goto(server_url)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not errors
    scheme, host = urlsplit(server_url)[:2]
    assert hosts <= {(scheme, host), ("blob", "")}


def choose(page, content, name="scene.png"):
    page.set_input_files("#file", {"name": name, "mimeType": "image/png", "buffer": bytes(content)})


def show(page, content, name="scene.png"):
    """Choose a file; returns the service's caption."""
    with page.expect_response("**/v1/caption") as caught:
        choose(page, content, name)
    expect(page.locator("#words .gaze").first).to_be_attached()
    return caught.value.json()["captions"][0]


def ask(page, question):
    """Ask and wait for the answer; returns it and its card, the newest."""
    with page.expect_response("**/v1/answer") as caught:
        page.fill("#question", question)
        page.press("#question", "Enter")
    card = page.locator(".card").first
    expect(card.locator(".answer")).to_be_visible()
    return caught.value.json()["answers"][0], card


def light_on_grey(page):
    """What the canvas makes of a grey picture, (64, 64, 3)."""
    flat = page.evaluate("""() => [...document.querySelector("#light").getContext("2d")
        .getImageData(0, 0, 64, 64).data]""")
    layer = np.array(flat, dtype=float).reshape(64, 64, 4)
    opacity = layer[..., 3:] / 255
    return opacity * layer[..., :3] + (1 - opacity) * 128


def same_light(page, looked, n):
    """As the library draws the n-th map of a reply's attention."""
    maps = np.array(looked["maps"]).reshape(-1, looked["height"], looked["width"])
    grey, view = Image.new("RGB", (64, 64), (128,) * 3), View(looked["seen"], looked["cells"])
    expected = np.asarray(gaze.overlay(grey, maps[n], view))
    np.testing.assert_allclose(light_on_grey(page), expected, atol=4)
    expect(page.locator("#frame")).to_have_class(re.compile("looking"))


# Captions


def test_a_caption_is_there_at_once_and_its_gaze_plays_when_asked(visit, picture):
    def cut(route):
        reply = route.fetch()
        told = reply.json()
        told["captions"][0] |= {"ended": False, "certainty": None, "unfamiliar": True}
        route.fulfill(response=reply, json=told)

    page = visit(motion="no-preference", routes=[("**/v1/caption", cut)])
    page.clock.install(time=0)
    page.clock.pause_at(1000)
    caption = show(page, picture)
    words, looked, play = caption["words"], caption["attention"], page.locator("#play")
    assert len(words) > 3
    assert page.locator("#words .gaze").all_inner_texts() == words
    after = "getComputedStyle(document.getElementById('words'), '::after').content"
    assert page.evaluate(after) == '"…"'
    measure = "No measure of how sure it is"
    expect(page.locator(".certainty")).to_have_text(measure)
    expect(page.locator("#facts")).to_contain_text("unlike the pictures it learned from")
    expect(page.locator("#heard")).to_have_text(f"It sees: {caption['text']}. {measure}.")
    page.clock.run_for(2000)  # nothing plays by itself
    expect(page.locator("#words .gaze").last).to_have_css("opacity", "1")
    expect(page.locator("#frame")).not_to_have_class(re.compile("looking"))
    play.click()
    expect(play).to_have_text("Stop")
    same_light(page, looked, 0)
    before = light_on_grey(page)
    page.clock.run_for(800)  # the second word came after 620 ms; the light is on its way
    expect(page.locator("#words .gg-now")).to_have_text(words[1])
    between = light_on_grey(page)
    page.clock.run_for(300)
    same_light(page, looked, 1)
    way = np.abs(light_on_grey(page) - before)
    assert 0.1 * way.sum() < np.abs(between - before).sum() < 0.9 * way.sum()
    play.click()
    expect(play).to_have_text("Show where it looked")
    play.click()
    page.clock.run_for(620 * len(words) + 100)
    expect(play).to_have_text("Show where it looked")
    expect(page.locator("#frame")).not_to_have_class(re.compile("looking"))


def test_a_word_under_the_pointer_shows_its_gaze_as_the_library_does(visit, picture):
    page = visit()
    caption = show(page, picture)
    assert caption["certainty"] in ("sure", "fairly sure", "not sure")
    expect(page.locator(".certainty")).to_have_text(caption["certainty"].capitalize())
    expect(page.locator("#words .gg-now")).to_have_count(0)
    expect(page.locator("#frame")).not_to_have_class(re.compile("looking"))
    shown = []
    for n in (0, len(caption["words"]) - 1):
        page.locator("#words .gaze").nth(n).hover()
        same_light(page, caption["attention"], n)
        shown.append(light_on_grey(page))
        place = re.compile(f"^“{re.escape(caption['words'][n])}”: (mostly|spread over) ")
        expect(page.locator("#where")).to_have_text(place)
    assert np.abs(shown[0] - shown[1]).max() > 4
    page.hover("h1")
    expect(page.locator("#frame")).not_to_have_class(re.compile("looking"))
    # A click keeps it.
    page.locator("#words .gaze").first.click()
    page.hover("h1")
    same_light(page, caption["attention"], 0)
    expect(page.locator("#words [aria-pressed=true]")).to_have_count(1)


def test_arrow_keys_go_from_word_to_word(visit, picture):
    page = visit()
    caption = show(page, picture)
    words, focused = caption["words"], page.locator("#words .gaze:focus")
    page.locator("#words .gaze").first.focus()
    for key, at in [
        ("ArrowRight", 1),
        ("ArrowDown", 2),
        ("ArrowLeft", 1),
        ("End", len(words) - 1),
        ("ArrowRight", 0),
        ("ArrowUp", len(words) - 1),
        ("Home", 0),
    ]:
        page.keyboard.press(key)
        expect(page.locator("#words .gaze").nth(at)).to_be_focused()
        expect(focused).to_have_class(re.compile("now"))
        assert page.locator("#words [tabindex='0']").count() == 1
    same_light(page, caption["attention"], 0)
    page.keyboard.press("Escape")
    expect(page.locator("#words .gg-now")).to_have_count(0)


# Questions


def test_two_questions_are_answered_with_bars_and_gazes(visit, picture):
    page = visit()
    show(page, picture)
    page.click("summary")
    page.locator("#bound").fill("0")
    page.check("#evidence")
    for n, question in enumerate([QUESTIONS[0], f"{QUESTIONS[1]} zorb"], 1):
        answer, card = ask(page, question)
        expect(page.locator(".card")).to_have_count(n)
        expect(card.locator("h3")).to_have_text(question)
        expect(card.locator(".answer strong")).to_have_text(answer["answer"])
        expect(card.locator(".answer")).to_contain_text(answer["certainty"].capitalize())
        assert card.locator(".top li > :first-child").all_inner_texts() == [
            one["answer"] for one in answer["top"]
        ]
        for bar, share in zip(
            card.locator(".bar").all(),
            [answer["confidence"], *(one["confidence"] for one in answer["top"])],
            strict=True,
        ):
            width, part = bar.bounding_box()["width"], bar.locator("i").bounding_box()["width"]
            assert part == pytest.approx(share * width, abs=1)
        passes = card.locator(".passes .gaze")
        expect(passes).to_have_count(len(answer["attention"]["maps"]))
        passes.nth(1).click()
        same_light(page, answer["attention"], 1)
        expect(card).to_contain_text("Without the picture I would be")
        unknown = answer["unknown_words"]
        assert ("zorb" in unknown) is ("zorb" in question)
        told = [f"Words I never learned: {', '.join(unknown)}."] if unknown else []
        assert card.get_by_text("never learned").all_inner_texts() == told
    answer, card = ask(page, "what " * 40)
    expect(card).to_contain_text(f"I did not read the last {answer['words_cut']} words.")

    # It says when it is not sure.
    page.focus("#bound")
    page.keyboard.press("End")
    expect(page.locator("#bounded")).to_have_text("100 %")
    answer, card = ask(page, QUESTIONS[0])
    assert answer["abstained"]
    expect(card.locator(".answer strong")).to_have_text("I am not sure.")
    expect(card).to_contain_text(
        f"My best guess is “{answer['answer']}”; you asked for at least 100 %."
    )
    expect(page.locator("#heard")).to_contain_text("I am not sure. My best guess is")


def test_another_model_is_chosen_by_name(visit, picture):
    page = visit()
    show(page, picture)
    expect(page.locator("#captioner")).to_be_hidden()  # there is but one
    with page.expect_request("**/v1/answer") as caught:
        page.select_option("#answerer", "other")
        answer, card = ask(page, QUESTIONS[0])
    assert caught.value.post_data_json["model"] == "other"
    assert answer["attention"] is None
    expect(card.locator(".passes")).to_have_count(0)


# Refusals


def encoded(kind):
    """A red picture of another kind."""
    buffer = io.BytesIO()
    Image.new("RGB", (60, 40), (200, 30, 30)).save(buffer, kind)
    return buffer.getvalue()


def test_several_pictures_are_redrawn_named_and_gone_back_to(visit, app, monkeypatch):
    async def spy(content, work):
        sent.append(content)
        return await opened(content, work)

    sent, asked, engine = [], [], app.state.service.engine
    opened = engine.open
    monkeypatch.setattr(engine, "open", spy)
    page = visit()
    plain = png(64, 48, (10, 200, 30))
    first = show(page, plain, "one.png")
    answer, _ = ask(page, QUESTIONS[0])
    expect(page.locator("#shots")).to_be_hidden()
    page.on("request", lambda request: asked.append(urlsplit(request.url).path))
    files = {
        "broken.png": b"no picture",
        "big.tif": bytes(2**20 + 1),
        "scan.pdf": b"%PDF-1.4",
        "IMG_1.HEIC": b"\0\0\0\x18ftypheic",
        "film.mp4": b"\0\0\0\x18ftypisom",
        "large.png": png(1100, 1000),
        "small.avif": encoded("AVIF"),
    }
    page.set_input_files(
        "#file", [{"name": name, "mimeType": "", "buffer": x} for name, x in files.items()]
    )
    shots, note = page.locator("#shots button"), page.get_by_role("alert").locator("p")
    expect(shots).to_have_count(3)
    assert note.all_inner_texts() == [
        "“broken.png” cannot be read as a picture: choose a JPEG, PNG or WebP.",
        "“big.tif” is over 1.0 MB, and this browser cannot make it smaller: choose a smaller one.",
        "“scan.pdf” is a PDF, not a picture: save the page as a JPEG or PNG.",
        "“IMG_1.HEIC” is HEIC, which neither this browser nor the server reads: export it as a "
        "JPEG.",
        "“film.mp4” is a video: choose a picture.",
    ]
    # What is over the limits, or of a kind that not every server reads, is sent redrawn.
    expect(page.locator("#facts")).to_contain_text("sent as a JPEG of 1048 × 953 pixels")
    expect(shots.last).to_have_attribute("title", re.compile("^small.avif: .+"))
    assert sent[0] == plain  # as it was
    for content, size in zip(sent[-2:], ((1048, 953), (60, 40)), strict=True):
        redrawn = Image.open(io.BytesIO(content))
        assert (redrawn.format, redrawn.size) == ("JPEG", size)
        assert redrawn.getpixel((20, 20)) == pytest.approx((200, 30, 30), abs=4)
    expect(page.locator("#curl")).to_be_hidden()
    # The first of them is shown; what was said of the one before is still there.
    expect(page.locator("#shots [aria-pressed=true]")).to_have_count(1)
    expect(shots.nth(1)).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".card")).to_have_count(0)
    before = len(asked)
    page.get_by_role("alert").click()  # closes it
    expect(page.get_by_role("alert")).to_be_empty()
    shots.first.click()
    expect(page.locator("#words .gaze")).to_have_text(first["words"])
    expect(page.locator(".card .answer")).to_contain_text(answer["answer"])
    expect(page.locator("#curl")).to_be_visible()
    assert [path for path in asked[before:] if path.startswith("/v1/")] == []


def test_a_refused_file_leaves_what_was_there(visit, picture):
    page = visit()
    first = show(page, picture)
    choose(page, b"no picture")
    note = page.get_by_role("alert")
    expect(note).not_to_be_empty()
    assert page.locator("#words .gaze").all_inner_texts() == first["words"]
    expect(page.locator("#frame.waiting")).to_have_count(0)
    ask(page, QUESTIONS[0])
    expect(note).to_be_empty()


def test_a_server_that_does_not_answer_costs_no_question(visit, picture):
    page = visit()
    show(page, picture)
    page.route("**/v1/answer", lambda route: route.abort())
    page.fill("#question", QUESTIONS[0])
    page.press("#question", "Enter")
    expect(page.get_by_role("alert")).to_contain_text("The server does not answer: ")
    expect(page.locator("#question")).to_have_value(QUESTIONS[0])
    expect(page.locator(".card")).to_have_count(0)
    page.unroute("**/v1/answer")
    page.click("#ask button")
    expect(page.locator(".card .answer")).to_have_count(1)


def problem(status, code):
    return {
        "status": status,
        "content_type": "application/problem+json",
        "body": json.dumps({"code": code, "status": status, "detail": "So it is."}),
    }


def test_a_look_that_expired_is_sent_again_silently(visit, picture):
    page = visit()
    show(page, picture)
    sent = []
    page.on("request", lambda request: sent.append(urlsplit(request.url).path))
    page.route("**/v1/answer", lambda route: route.fulfill(**problem(404, "look_expired")), times=1)
    page.fill("#question", QUESTIONS[0])
    page.press("#question", "Enter")
    expect(page.locator(".card .answer")).to_have_count(1)
    assert sent == ["/v1/answer", "/v1/look", "/v1/answer"]
    expect(page.get_by_role("alert")).to_be_empty()


def test_a_token_is_asked_for_and_kept(visit, picture):
    def guard(route):
        if route.request.headers.get("authorization") == "Bearer open sesame":
            route.continue_()
        else:
            route.fulfill(**problem(401, "unauthorized"))

    page = visit(routes=[("**/v1/look", guard), ("**/v1/caption", guard)])
    choose(page, picture)
    gate = page.get_by_role("dialog", name="This server asks for a token")
    expect(gate).to_be_visible()
    expect(page.locator("#token")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("alert")).to_contain_text("Without a token")
    choose(page, picture)
    page.fill("#token", "guess")
    page.press("#token", "Enter")
    expect(page.get_by_role("dialog", name="That token was refused")).to_be_visible()
    page.fill("#token", "open sesame")
    page.press("#token", "Enter")
    expect(page.locator("#words .gaze").first).to_be_attached()
    page.reload()
    show(page, picture)  # without a question
    page.click("#curl")
    expect(page.locator("#curl")).to_have_text("Copied")
    assert "$GAZETELL_TOKEN" in page.evaluate("navigator.clipboard.readText()")


@pytest.mark.parametrize(
    ("kind", "there", "gone"),
    [("captioner", "#telling", "#asking"), ("answerer", "#asking", "#telling")],
)
def test_only_what_is_served_is_offered(visit, picture, kind, there, gone):
    def some(route):
        reply = route.fetch()
        served = reply.json()
        served["models"] = [model for model in served["models"] if model["kind"] == kind]
        served["models"][0]["not_sure_below"] = 0.2
        served["examples"] = served["examples"][1:2]
        route.fulfill(response=reply, json=served)

    page = visit(routes=[("**/v1/models", some)])
    (example,) = page.locator("#examples img").all()
    assert example.get_attribute("alt") == "Example: a cup of coffee"
    choose(page, picture)
    expect(page.locator(there)).to_be_visible()
    expect(page.locator(gone)).to_be_hidden()
    if kind == "answerer":
        with page.expect_request("**/v1/answer") as caught:
            ask(page, QUESTIONS[0])
        assert "abstain_below" not in caught.value.post_data_json  # the model's own holds
        expect(page.locator("#bounded")).to_have_text("20 %")


# Ways to give a picture


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_a_picture_is_dropped_or_pasted(visit, picture, event):
    page = visit()
    page.evaluate(
        """([event, bytes]) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], "a.png", { type: "image/png" }));
            const options = { bubbles: true, cancelable: true };
            document.body.dispatchEvent(event === "drop"
                ? new DragEvent("drop", { ...options, dataTransfer: data })
                : new ClipboardEvent("paste", { ...options, clipboardData: data }));
        }""",
        [event, list(picture)],
    )
    expect(page.locator("#words .gaze").first).to_be_attached()


def test_a_picture_is_photographed_and_nothing_plays_meanwhile(visit, picture):
    page = visit(motion="no-preference")
    show(page, picture)
    page.click("#play")
    expect(page.locator("#frame")).to_have_class(re.compile("looking"))
    page.click("text=Use the camera")
    expect(page.locator("#snap")).to_be_focused()
    expect(page.locator("#play")).to_have_text("Show where it looked")
    expect(page.locator("#frame")).not_to_have_class(re.compile("looking"))
    assert page.evaluate("document.querySelector('#said').inert")
    page.keyboard.press("Enter")
    expect(page.locator("#shots button")).to_have_count(2)
    expect(page.locator("#words .gaze").first).to_be_attached()
    expect(page.locator("#film")).to_be_hidden()
    expect(page.locator("#camera")).to_be_focused()
    assert page.evaluate("document.querySelector('#film').srcObject") is None  # it is off
    assert not page.evaluate("document.querySelector('#said').inert")


def test_without_a_camera_there_is_no_button_and_a_refusal_is_told(visit):
    hide = "Object.defineProperty(navigator, 'mediaDevices', { value: undefined });"
    expect(visit(script=hide).locator("#camera")).to_be_hidden()
    page = visit(script="navigator.mediaDevices.getUserMedia = () => Promise.reject(Error());")
    page.click("#camera")
    expect(page.get_by_role("alert")).to_contain_text("The camera cannot be used: allow it")
    expect(page.locator("#shutter")).to_be_hidden()


# Copying


def test_the_caption_is_copied_as_alt_text(visit, picture):
    page = visit()
    caption = show(page, picture)
    page.click("text=Copy as alt text")
    expect(page.locator("#heard")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == caption["alt_text"]


@pytest.mark.skipif(not which("curl"), reason="curl is not installed")
def test_a_copied_command_does_the_same(visit, picture, tmp_path):
    def run():
        expect(page.get_by_text("Copied", exact=True).first).to_be_attached()
        command = page.evaluate("navigator.clipboard.readText()")
        done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, check=True)
        return json.loads(done.stdout)

    name = """it's a; "picture", 1.png"""
    (tmp_path / name).write_bytes(picture)
    page = visit()
    caption = show(page, picture, name)
    page.click("#curl")
    assert run()["captions"][0]["words"] == caption["words"]
    answer, card = ask(page, "@what's < there?")
    card.get_by_text("Copy as curl").click()
    found = run()["answers"][0]
    assert (found["question"], found["answer"]) == (answer["question"], answer["answer"])
    with page.expect_response("**/v1/caption") as caught:
        page.locator("#examples button").first.click()
    page.click("#curl")
    assert run()["captions"][0]["words"] == caught.value.json()["captions"][0]["words"]


# For everyone


def test_the_keyboard_alone_is_enough(visit):
    def tab_to(selector):
        for _ in range(20):
            page.keyboard.press("Tab")
            if page.evaluate("(selector) => document.activeElement.matches(selector)", selector):
                return
        pytest.fail(f"no way to {selector}")

    page = visit()
    tab_to("#file")
    tab_to("#examples button")
    page.keyboard.press("Enter")
    expect(page.locator("#words .gaze").first).to_be_attached()
    expect(page.locator("#examples [aria-pressed=true]")).to_have_count(1)
    tab_to("#words .gaze")
    expect(page.locator("#words .gg-now")).to_have_count(1)
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    tab_to("#question")
    page.keyboard.type(QUESTIONS[0])
    page.keyboard.press("Enter")
    expect(page.locator(".card .answer")).to_have_count(1)
    tab_to(".passes .gaze")
    expect(page.locator("#where")).to_have_text(re.compile("^Pass 1: "))


def test_a_narrow_screen_needs_no_scrolling_sideways(visit, picture):
    def fits():
        boxes = [one.bounding_box() for one in page.locator("#examples button").all()]
        assert len({box["y"] for box in boxes}) == 1  # in line
        assert all(0 <= box["x"] <= width - box["width"] for box in boxes)
        return page.evaluate("document.documentElement.scrollWidth") == width

    for width in (390, 320):
        page = visit(width, 740)
        assert fits()
        show(page, picture)
        assert fits()
    show(page, picture)  # a list of two
    page.click("summary")
    ask(page, f"how many {'verylongword' * 12} are there?")
    assert fits()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(visit, picture, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe-core").Axe()

    def check():
        found = axe.run(page).response["violations"]
        assert not [(one["id"], [node["html"] for node in one["nodes"]]) for one in found]

    page = visit(scheme=scheme)
    check()
    show(page, picture)
    show(page, picture)  # a list of two
    page.click("summary")
    page.check("#evidence")
    ask(page, QUESTIONS[0])
    page.locator("#bound").fill("1")
    ask(page, QUESTIONS[1])
    page.locator(".passes .gaze").first.click()
    choose(page, b"none")
    expect(page.get_by_role("alert")).not_to_be_empty()
    check()
    page.route("**/v1/look", lambda route: route.fulfill(**problem(401, "unauthorized")))
    choose(page, picture)
    expect(page.get_by_role("dialog")).to_be_visible()
    check()


def test_page_and_api_page_work_below_a_prefix(browser, models, picture):
    """As behind a proxy's ``location /gaze/``, which takes the prefix off."""
    app = create_app(models, ServeOptions())

    async def proxied(scope, receive, send):
        if scope["type"] == "http":
            if not scope["path"].startswith("/gaze/"):
                outside.append(scope["path"])
            path = scope["path"].removeprefix("/gaze")
            scope = {**scope, "path": path, "raw_path": path.encode()}
        await app(scope, receive, send)

    outside, proxied.state = [], app.state
    with running(proxied) as url, contextlib.closing(browser.new_context()) as context:
        page = context.new_page()
        page.goto(f"{url}/gaze/")
        choose(page, picture)
        expect(page.locator("#words .gaze").first).to_be_attached()
        page.click("text=API")
        page.get_by_text("/v1/models").click()
        page.click("text=Try it out")
        with page.expect_response("**/gaze/v1/models") as caught:
            page.click("text=Execute")
        assert caught.value.status == 200
    assert {path for path in outside if path not in ("/readyz", "/favicon.ico")} == set()
