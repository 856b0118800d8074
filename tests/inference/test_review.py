"""The review sheet: what it holds, and what a person does with it in a browser."""

import csv
import io
import json
import re

import pytest
from page_reader import Page
from PIL import Image

from gazetell.errors import ImageError
from gazetell.inference.describe import thumbnail
from gazetell.inference.outputs import review_sheet, reviewed

EVIL = "</script><script>document.title='evil'</script>"


def row(picture, caption="a dog", log_prob=-2.0, **changes):
    image = Image.new("RGB", (40, 30), "navy")
    told = {"picture": picture, "caption": caption, "log_prob": log_prob, "ended": True}
    return told | {"stamp": "1-1", **thumbnail(image)} | changes


def rows(count=8):
    """Pictures 0.png, 1.png, ...; the first is the least sure."""
    return [row(f"{n}.png", f"caption {n}", log_prob=n - 50.0) for n in range(count)]


def data(text):
    (found,) = [data for tag, data in Page(text).texts if tag == "script" and data[0] == "{"]
    return json.loads(found)


def test_the_sheet_is_complete_in_itself_and_least_sure_first():
    given = rows(5)
    text = review_sheet("pictures", [given[3], given[0], given[4], given[2], given[1]], key="k")
    page = Page(text)
    assert text.startswith("<!doctype html>")
    assert re.findall(r"https?:|@import|url\(", text) == []
    assert page.all("link") == []
    policy = page.all("meta")[3]["content"]
    assert "default-src 'none'" in policy
    assert "img-src data:" in policy
    assert [row["picture"] for row in data(text)["rows"]] == [f"{n}.png" for n in range(5)]
    assert "not on this sheet" not in text


def test_what_comes_from_others_is_escaped():
    error = ImageError(f"{EVIL}: is not a picture")
    text = review_sheet(EVIL, [row(EVIL, EVIL)], [error], base=EVIL)
    assert len(Page(text).all("script")) == 2
    assert data(text)["rows"][0]["picture"] == data(text)["name"] == EVIL
    assert "1 picture is not on this sheet" in text


def test_a_thumbnail_is_small_and_keeps_its_shape():
    found = thumbnail(Image.new("RGB", (4000, 1000), "red"))
    assert (found["width"], found["height"]) == (320, 80)
    assert len(found["thumb"]) < 6000


@pytest.fixture
def visit(browser, tmp_path):
    """Open a sheet of these rows in a browser that remembers; errors of its script fail."""
    contexts = {}

    def call(given, key="key", base="pictures", **options):
        name = str(options)
        if name not in contexts:
            contexts[name] = browser.new_context(**options)
        sheet = tmp_path / "sheet.html"
        text = review_sheet("shop", given, base=base, key=key, model="hf://a/b")
        sheet.write_text(text, encoding="utf-8")
        page = contexts[name].new_page()
        page.set_default_timeout(15000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(sheet.as_uri())
        return page

    errors, asked = [], []
    yield call
    for context in contexts.values():
        context.close()
    assert errors == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []


def field(page, number):
    return page.get_by_role("textbox", name=f"Alt text of {number}.png")


def box(page, number):
    return page.get_by_role("checkbox", name=f"Approve {number}.png")


def shown(locator):
    """For assertions that wait until the page has drawn."""
    from playwright.sync_api import expect

    return expect(locator)


def has_counts(page, *numbers):
    shown(page.locator("fieldset b")).to_have_text([str(n) for n in numbers])


def lists(page, *names):
    shown(page.locator(".row .name")).to_have_text(list(names))


def downloaded(page):
    """The name and the lines of the table that is downloaded."""
    with page.expect_download() as caught:
        page.get_by_role("button", name="Download CSV").click()
    text = caught.value.path().read_text(encoding="utf-8-sig")
    return caught.value.suggested_filename, list(csv.reader(io.StringIO(text, newline="")))


def test_captions_are_put_right_approved_and_downloaded(visit):
    page = visit([*rows(), row("=1+1.png", "-2 degrees")])
    has_counts(page, 9, 3, 9, 0, 0)
    field(page, 0).fill('a "red",\nround  ball ')
    field(page, 0).press("Enter")
    assert field(page, 1).evaluate("field => field === document.activeElement")
    assert page.get_by_role("status").inner_text() == "Approved, 1 of 9."
    box(page, 2).check()
    field(page, 3).fill("not yet approved")
    has_counts(page, 9, 1, 7, 2, 2)
    name, table = downloaded(page)
    assert name == "shop-alt-text.csv"
    assert table[:5] == [
        ["picture", "caption", "alt_text", "approved", "model"],
        ["0.png", 'a "red", round ball', 'a "red", round ball', "yes", "hf://a/b"],
        ["1.png", "Caption 1.", "", "no", "hf://a/b"],
        ["2.png", "Caption 2.", "Caption 2.", "yes", "hf://a/b"],
        ["3.png", "not yet approved", "", "no", "hf://a/b"],
    ]
    # What a spreadsheet would run is text; the name is still that of the file.
    assert table[9] == ["./=1+1.png", "'-2 degrees.", "", "no", "hf://a/b"]
    assert page.locator(".notice").first.inner_text().endswith("with =, +, - or @: 1.")


def is_kept(other, picture):
    """Wait until the browser has what a page kept last: it is told to other pages then."""
    other.wait_for_function(
        "name => Object.keys(localStorage).some((key) => key.endsWith('/' + name))", arg=picture
    )


def test_nothing_is_lost_on_reload(visit):
    other, page = visit(rows(), key="other"), visit(rows())
    field(page, 4).fill("mine")
    box(page, 5).check()
    is_kept(other, "5.png")
    page.close()
    page = visit(rows())
    shown(field(page, 4)).to_have_value("mine")
    shown(box(page, 5)).to_be_checked()
    has_counts(page, 8, 2, 7, 1, 1)
    # Another sheet has reviews of its own.
    has_counts(other, 8, 2, 8, 0, 0)
    # Two windows on one sheet agree.
    twin = visit(rows())
    box(page, 6).check()
    twin.locator(".row.approved").nth(1).wait_for(state="attached")
    page.bring_to_front()
    page.get_by_role("button", name="Undo edits").click()
    shown(field(page, 4)).to_have_value("Caption 4.")
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Forget all").click()
    has_counts(page, 8, 2, 8, 0, 0)
    page.wait_for_function("Object.keys(localStorage).length === 0")


def test_a_persons_words_outlive_a_new_model_and_approvals_do_not(visit):
    page = visit(rows())
    for number in (0, 3):
        field(page, number).fill("mine")
    for number in range(3):
        box(page, number).check()
    page.wait_for_timeout(300)  # Chromium hands on what was kept a moment later
    page.close()
    new = rows()
    new[0]["caption"] = new[1]["caption"] = "another model's"
    new[2]["stamp"] = new[3]["stamp"] = "2-2"  # another picture of that name
    page = visit(new)
    assert field(page, 0).input_value() == field(page, 3).input_value() == "mine"
    assert field(page, 1).input_value() == "Another model's."
    assert [box(page, number).is_checked() for number in range(4)] == [True, False, False, False]
    note = page.locator(".note").nth(3)
    shown(note).to_have_text("written for an earlier picture of this name")
    field(page, 3).press("Enter")
    shown(note).to_have_text("")


def test_leaving_asks_until_all_is_downloaded(visit):
    other = visit(rows(), key="other")  # keeps the browser open
    page = visit(rows())
    field(page, 0).click()
    asked = []

    def leave(page):
        """What the page asks on being closed; it stays open if it asks."""
        del asked[:]
        page.once("dialog", lambda dialog: (asked.append(dialog.type), dialog.dismiss()))
        page.close(run_before_unload=True)
        for _ in range(400):
            if asked or page.is_closed():
                break
            other.wait_for_timeout(25)
        return list(asked)

    box(page, 1).check()
    assert leave(page) == ["beforeunload"]
    downloaded(page)
    assert leave(page) == []
    assert page.is_closed()
    page = visit(rows())
    field(page, 2).fill("more")
    is_kept(other, "2.png")
    page.close()
    page = visit(rows())  # what was not downloaded then is not downloaded now
    field(page, 0).click()
    assert leave(page) == ["beforeunload"]


def test_filters_hold_until_chosen_again(visit):
    page = visit(rows())
    page.get_by_role("radio", name="Unsure").check(force=True)
    lists(page, "0.png", "1.png")
    box(page, 0).check()
    lists(page, "0.png", "1.png")  # nothing moves under one's hands
    page.keyboard.press("Tab")
    page.get_by_role("radio", name="Approved").check(force=True)
    lists(page, "0.png")
    page.get_by_role("radio", name="Edited").check(force=True)
    shown(page.get_by_text("No picture here.")).to_be_visible()
    page.get_by_role("radio", name="Unsure").check(force=True)
    lists(page, "1.png")
    page.get_by_role("radio", name="All").check(force=True)
    page.get_by_role("searchbox").fill("CAPTION 7")
    lists(page, "7.png")


def test_many_are_drawn_as_they_are_reached(visit):
    page = visit(rows(150))
    assert page.locator(".row").count() == 60
    last = field(page, 59)
    last.focus()
    page.keyboard.press("Alt+ArrowDown")
    assert field(page, 60).evaluate("field => field === document.activeElement")
    page.keyboard.press("Alt+ArrowUp")
    assert last.evaluate("field => field === document.activeElement")
    page.mouse.wheel(0, 100_000)
    page.locator(".row").nth(149).wait_for(state="attached")
    assert page.get_by_role("button", name="Show more").count() == 0


def test_what_is_odd_is_said(visit):
    odd = [row("0.png", "", -9.0), row("1.png", "a b c", -8.0, ended=False)]
    page = visit([*odd, row("a b/c#d?.png", EVIL)], base="../my%20pictures")
    notes = page.locator(".note").all_inner_texts()
    assert notes == ["the model found no words", "cut off before its end", ""]
    href = page.locator(".look").last.get_attribute("href")
    assert href == "../my%20pictures/a%20b/c%23d%3F.png"
    assert page.locator("textarea").last.input_value() == EVIL + "."
    assert page.title() == "shop: captions to review"


def test_captions_as_probable_are_as_sure(visit):
    same = [row(f"{n}.png", log_prob=-3.0) for n in range(3)]
    assert visit(same).locator(".sure").first.is_hidden()
    page = visit([row("a.png", log_prob=-9.0), *same], key="other")
    shown(page.locator(".sure > span")).to_have_text(["least sure", "surest", "surest", "surest"])
    assert visit(rows(1)).locator(".sure").is_hidden()
    values = [(0.2, False), (0.5, True), (0.8, True)]
    page = visit([row(f"{p}.png", confidence=p, sure=sure) for p, sure in values], key="words")
    shown(page.locator(".sure > span")).to_have_text(["not sure", "fairly sure", "sure"])
    assert "log" not in page.locator(".sure").last.get_attribute("title")
    assert visit([]).get_by_text("No pictures.").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_accessible(visit, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe-core")
    page = visit(rows(), color_scheme=scheme, bypass_csp=True)
    field(page, 0).press("Enter")
    field(page, 1).fill("")
    found = axe.Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def test_a_phone_shows_all_of_it(visit):
    phone = {"viewport": {"width": 320, "height": 640}, "has_touch": True, "is_mobile": True}
    page = visit(
        [row("a-very-long-name-without-a-single-space-in-it-at-all-" * 3, "word " * 60)], **phone
    )
    assert page.evaluate("document.documentElement.scrollWidth") == 320
    page.get_by_role("checkbox").tap()
    has_counts(page, 1, 0, 0, 0, 1)


def test_a_review_that_a_spreadsheet_saved_again_is_read(tmp_path):
    file = tmp_path / "review.csv"
    for between in ",;\t":
        rows = (("picture", "alt_text", "approved"), ("a.jpg", "A cat, asleep", "yes"))
        text = "\n".join(between.join(f'"{x}"' for x in row) for row in rows)
        file.write_text(text, encoding="utf-8")
        assert reviewed(file) == ([("a.jpg", "A cat, asleep", "")], 0)
