"""Words and ids: training, round trips, special tokens in raw text, the file."""

import json
import pickle
import re
from collections import Counter

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from gazetell.data.text import SPECIAL, Question, Tokenizer, read_question, word_counts
from gazetell.errors import DataError, GazetellError, ModelError, UsageError

CAPTIONS = ["A dog runs.", "a Dog, and a cat!", "The man's dog doesn't run"]
CAPTIONS += ["a t-shirt on the dog", "a red t-shirt (large)"]
FAMILY = "👩\u200d👩\u200d👧"
SCRIPTS = ["שלום", "مرحبا", "😀", FAMILY, "élan", "日", "naïve", "7"]
WORDS = ["a", "dog", "runs", "man's", "t-shirt", *SCRIPTS]


def every_word() -> Tokenizer:
    return Tokenizer.train([" ".join(WORDS)], min_frequency=1)


def test_frequent_words_first_then_alphabetical():
    tokenizer = Tokenizer.train(CAPTIONS, min_frequency=1)
    # Independent count: no punctuation but apostrophes and hyphens inside words.
    words = re.findall(r"[a-z]+(?:['-][a-z]+)*", " ".join(CAPTIONS).lower())
    expected = sorted(Counter(words).items(), key=lambda item: (-item[1], item[0]))
    assert tokenizer.vocabulary == (*SPECIAL, *(word for word, _ in expected))
    assert tokenizer.vocab_size == len(expected) + 4
    assert "t-shirt" in tokenizer
    assert "doesn't" in tokenizer
    assert "Dog" not in tokenizer


def test_min_frequency_and_cap():
    assert Tokenizer.train(CAPTIONS, min_frequency=4).vocabulary[4:] == ("a", "dog")
    assert Tokenizer.train(CAPTIONS, min_frequency=1, max_words=1).vocabulary[4:] == ("a",)
    # The library's own limit of 30,000 words must not apply.
    many = (f"w{number}" for number in range(31_000))
    assert Tokenizer.train(many, min_frequency=1).vocab_size == 31_004


def test_training_refuses():
    with pytest.raises(DataError, match="no word occurs 5 times"):
        Tokenizer.train(CAPTIONS[:1])
    with pytest.raises(DataError, match="no word"):
        Tokenizer.train([], min_frequency=1)
    with pytest.raises(UsageError, match="min_frequency is 0"):
        Tokenizer.train(CAPTIONS, min_frequency=0)
    with pytest.raises(UsageError, match="max_words is 0"):
        Tokenizer.train(CAPTIONS, max_words=0)


def test_special_ids():
    tokenizer = Tokenizer.train(CAPTIONS, min_frequency=1)
    ids = tokenizer.encode("The MAN\u2019S dog, runs!")
    assert tokenizer.words(ids) == ["the", "man's", "dog", "runs"]
    assert (tokenizer.pad, tokenizer.start, tokenizer.end, tokenizer.unk) == (0, 1, 2, 3)
    assert tokenizer.encode("") == [1, 2]
    assert tokenizer.encode("...") == [1, 2]
    assert tokenizer.encode("zebra") == [1, 3, 2]
    assert tokenizer.decode([1, 3, 0, 2]) == ""


@pytest.mark.parametrize("length", [2, 3, 5, 6, 7, 100])
def test_truncation_keeps_the_end(length):
    tokenizer = Tokenizer.train(CAPTIONS, min_frequency=1)
    whole = tokenizer.encode("a dog and a cat")
    ids, empty = tokenizer.encode_batch(["a dog and a cat", ""], max_length=length)
    assert len(ids) == min(length, 7)
    assert ids[-1] == tokenizer.end
    assert ids[:-1] == whole[: len(ids) - 1]
    assert empty == [tokenizer.start, tokenizer.end]
    with pytest.raises(UsageError, match="max_length is 1"):
        tokenizer.encode_batch([""], max_length=1)


def test_emoji_scripts_and_invisible_characters():
    tokenizer = every_word()
    text = "\ufeffשלום \u200f👩\u200d👩\u200d👧😀 do\u00adg ru\u200bns مرحبا"
    assert tokenizer.words(tokenizer.encode(text)) == ["שלום", FAMILY, "😀", "dog", "runs", "مرحبا"]
    assert tokenizer.decode(tokenizer.encode("a\u200cdog")) == ""  # one word, unknown
    assert tokenizer.encode("a\u200cdog a-dog dog'a") == [1, 3, 3, 3, 2]
    assert tokenizer.decode(tokenizer.encode("a--dog a<dog -a- 'dog'")) == "a dog a dog a dog"
    decomposed = "e\u0301lan nai\u0308ve"
    assert tokenizer.decode(tokenizer.encode(decomposed)) == "élan naïve"
    assert tokenizer.decode(tokenizer.encode("a\x00dog\ta\u2028dog")) == "a dog a dog"


def test_lone_surrogates_do_no_harm():
    tokenizer = every_word()
    assert tokenizer.words(tokenizer.encode("a \ud83d dog")) == ["a", "dog"]
    assert tokenizer.encode_batch(["a \ud83d dog"]) == [tokenizer.encode("a \ud83d dog")]


def test_raw_text_cannot_make_special_tokens():
    tokenizer = Tokenizer.train(["pad start end unk < > <end>"] * 2, min_frequency=1)
    for text in ("<end>", "a<pad>b", " <start> <unk>", "<e\u200bnd>", "＜end＞", "<END>"):
        ids = tokenizer.encode(text)
        assert not {0, 1, 2} & set(ids[1:-1]), text
    assert not {"<pad>", "<start>", "<end>", "<unk>"} & set(tokenizer.vocabulary[4:])


@given(st.lists(st.sampled_from(WORDS), max_size=30))
def test_round_trip_of_known_words(words):
    tokenizer = every_word()
    text = re.sub("(?<=日) (?=日)", "", " ".join(words))
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert len(ids) == len(words) + 2


HARD = "ab<>'-.,!()[]{}\"’ \t\n\u200b\u200c\u200d\u0301\u0338=İΣßK😀👩🏽\u20e3\ufe0f"
TEXT = st.text(max_size=60) | st.text(alphabet=HARD, max_size=30)


@settings(max_examples=200, deadline=None)
@given(text=TEXT, other=TEXT)
def test_any_text(text, other):
    tokenizer = Tokenizer.train([text, "a"], min_frequency=1)
    for raw in (text, other, text + other):
        ids = tokenizer.encode(raw)
        assert (ids[0], ids[-1]) == (1, 2)
        assert not {0, 1, 2} & set(ids[1:-1])
        once = tokenizer.decode(ids)
        assert tokenizer.decode(tokenizer.encode(once)) == once
    # Every word of a text it was trained on is known.
    assert tokenizer.unk not in tokenizer.encode(text)


@given(st.lists(st.text(alphabet=st.characters(max_codepoint=127), max_size=40)))
def test_ascii_is_read_as_the_library_reads_it(texts):
    tokenizer = Tokenizer.train([*texts[::2], "a-b it's"], min_frequency=1)
    plain = tokenizers.Tokenizer.from_str(tokenizer._inner.to_str())
    assert tokenizer.encode_batch(texts) == [row.ids for row in plain.encode_batch(texts)]
    words, lengths = word_counts(texts)
    found = [word for text in texts for word in every_split(plain, text)]
    assert (words, lengths.total()) == (Counter(found), len(texts))


def every_split(plain: tokenizers.Tokenizer, text: str) -> list[str]:
    normal = plain.normalizer.normalize_str(text)
    return [word for word, _ in plain.pre_tokenizer.pre_tokenize_str(normal)]


def test_a_tokenizer_that_truncates_is_read_by_the_library():
    inner = tokenizers.Tokenizer.from_str(every_word()._inner.to_str())
    inner.enable_truncation(3)
    assert Tokenizer(inner).encode("a dog runs") == inner.encode("a dog runs").ids


def test_many_texts_are_read_in_pieces(monkeypatch):
    tokenizer = Tokenizer.train(CAPTIONS, min_frequency=2)
    expected = [tokenizer.encode(text) for text in [*CAPTIONS, ""]]
    monkeypatch.setattr("gazetell.data.text._PIECE", 3)
    assert tokenizer.encode_batch([*CAPTIONS, ""]) == expected
    assert tokenizer.encode_batch([]) == []


def test_ids_outside_the_vocabulary():
    tokenizer = Tokenizer.train(CAPTIONS, min_frequency=2)
    for bad in (-1, tokenizer.vocab_size):
        with pytest.raises(ModelError, match=f"token id {bad} is outside"):
            tokenizer.decode([bad])


def test_file(tmp_path):
    path = tmp_path / "model" / "tokenizer.json"
    tokenizer = every_word()
    tokenizer.save(path)
    loaded = Tokenizer.load(path)
    assert (loaded, loaded.vocabulary) == (tokenizer, tokenizer.vocabulary)
    text = "A man's dog, <end> 😀!"
    assert loaded.encode(text) == tokenizer.encode(text)
    # The library alone reads it to the same ids.
    assert tokenizers.Tokenizer.from_file(str(path)).encode(text).ids == tokenizer.encode(text)
    assert [entry.name for entry in path.parent.iterdir()] == ["tokenizer.json"]
    assert pickle.loads(pickle.dumps(tokenizer)) == tokenizer


def test_files_that_are_no_tokenizer(tmp_path):
    path = tmp_path / "tokenizer.json"
    with pytest.raises(ModelError, match=r"tokenizer\.json: cannot be read"):
        Tokenizer.load(path)
    every_word().save(path)
    good = path.read_text(encoding="utf-8")

    def edited(change) -> str:
        value = json.loads(good)
        change(value)
        return json.dumps(value)

    def swap(value) -> None:
        vocab = value["model"]["vocab"]
        vocab["<pad>"], vocab["<end>"] = vocab["<end>"], vocab["<pad>"]

    foreign = tokenizers.Tokenizer(tokenizers.models.BPE())
    added = tokenizers.Tokenizer.from_str(good)
    added.add_special_tokens(["<end>"])
    cases = {
        "empty": "",
        "truncated": good[: len(good) // 2],
        "no object": "[1, 2]",
        "other object": "{}",
        "foreign model": foreign.to_str(),
        "added tokens": added.to_str(),
        "swapped ids": edited(swap),
        "hole in ids": edited(lambda value: value["model"]["vocab"].update(dog=99)),
        "no vocabulary": edited(lambda value: value["model"].update(vocab={})),
        "no words": edited(
            lambda value: value["model"].update(vocab={word: i for i, word in enumerate(SPECIAL)})
        ),
        "bad pattern": good.replace("Split", "Spilt"),
    }
    for name, text in cases.items():
        path.write_text(text, encoding="utf-8")
        with pytest.raises(GazetellError, match=r"tokenizer\.json: ") as caught:
            Tokenizer.load(path)
        assert isinstance(caught.value, ModelError), name
        assert "\n" not in str(caught.value)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ModelError, match="is not UTF-8"):
        Tokenizer.load(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("一个红色的圆形，在图片中间。", [*"一个红色的圆形在图片中间"]),
        ("コーヒー", ["コ", "ー", "ヒ", "ー"]),
        ("ﾊﾞｽ", ["ﾊﾞ", "ｽ"]),
        ("が人々", ["が", "人", "々"]),
        ("빨간 원 하나", ["빨간", "원", "하나"]),
        ("一件T恤 a dog", ["一", "件", "t", "恤", "a", "dog"]),
        ("日'本-語", ["日", "本", "語"]),
    ],
)
def test_words_of_east_asian_scripts(text, words):
    tokenizer = Tokenizer.train([text], min_frequency=1)
    assert tokenizer.words(tokenizer.encode(text)) == words
    decoded = tokenizer.decode(tokenizer.encode(text))
    assert tokenizer.encode(decoded) == tokenizer.encode(text)


def test_only_characters_are_joined_again():
    tokenizer = Tokenizer.train(["一件T恤，a red 狗。 빨간 원"], min_frequency=1)
    text = tokenizer.decode(tokenizer.encode("一件T恤，red 狗。 빨간 원"))
    assert text == "一件 t 恤 red 狗 빨간 원"


def test_a_tokenizer_of_earlier_versions_reads_as_before(tmp_path):
    """Its pre-tokeniser stands in its file: a run of characters is one word."""
    path = tmp_path / "tokenizer.json"
    Tokenizer.train(["红 色 a dog"], min_frequency=1).save(path)
    value = json.loads(path.read_text(encoding="utf-8"))
    value["pre_tokenizer"]["pattern"]["Regex"] = (
        r"[^\p{P}\p{S}\p{Z}\p{Cc}\p{Cf}]+(?:['\-\u200c\u200d][^\p{P}\p{S}\p{Z}\p{Cc}\p{Cf}]+)*"
    )
    value["model"]["vocab"]["红色"] = len(value["model"]["vocab"])
    path.write_text(json.dumps(value), encoding="utf-8")
    old = Tokenizer.load(path)
    assert old.words(old.encode("红色 红 a dog")) == ["红色", "红", "a", "dog"]
    assert old.decode(old.encode("红色 红 色 dog")) == "红色 红 色 dog"


@pytest.mark.parametrize(
    ("texts", "scripts"),
    [
        (["วงกลมสีแดงในภาพ", "a dog"], "1 of 2 texts are in Thai without blanks"),
        (["ສີແດງວົງມົນ"], "1 of 1 texts are in Lao"),
        (["រង្វង់ក្រហម"], "1 of 1 texts are in Khmer"),
        (["အနီရောင်စက်ဝိုင်း"], "1 of 1 texts are in Burmese"),
        (["วงกลม สีแดง ใน ภาพ", "한국어로 쓴 문장", "一个蓝色的正方形"], None),
    ],
)
def test_a_warning_where_sentences_are_words(texts, scripts, caplog):
    Tokenizer.train(texts, min_frequency=1)
    assert [scripts in message for message in caplog.messages] == ([True] if scripts else [])
    word_counts(texts)  # asked many times for one dataset: says nothing
    assert len(caplog.messages) == bool(scripts)


@pytest.mark.parametrize(
    ("text", "unknown"),
    [
        ("A dog runs.", []),
        ("A CAT runs, a cat!", ["CAT", "cat"]),  # as written, each once
        ("\u201cdogs\u201d don\u2019t", ["dogs", "don\u2019t"]),
        ("a\u200bdog ru\u00adns", ["a\u200bdog"]),  # invisible characters join and are as written
        ("cafe\u0301 caf\u00e9", ["caf\u00e9"]),  # one word, however it is encoded
        ("dog \U0001f415 \u72d7", ["\U0001f415", "\u72d7"]),
        ("<unk> <pad>", ["unk", "pad"]),
        ("", []),
        ("?!", []),
        ("\ud800 dog", ["\ufffd"]),
    ],
)
def test_unknown_words(text, unknown):
    words = Tokenizer.train(["a dog runs"], min_frequency=1)
    ids, written = words.encode_words(text)
    assert ids == words.encode(text)[1:-1]
    pairs = zip(ids, written, strict=True)
    unread = (word for number, word in pairs if number == words.unk)
    assert list(dict.fromkeys(unread)) == unknown


def test_the_words_of_a_question():
    words = Tokenizer.train(["what is it"], min_frequency=1)
    known = words.encode("what is it")[1:-1]
    assert read_question(words, "What is it?", 30) == Question("What is it?", known, [])
    assert read_question(words, "What is it?", 2) == Question("What is it?", known[:2], [], 1)
    asked = read_question(words, "Qué es? qué is", 3)
    assert (asked.ids[:2], asked.unknown, asked.cut) == ([words.unk] * 2, ["Qué", "es", "qué"], 1)
    assert read_question(words, "is " * 5_000 + "es", 30).cut == 4_971
    assert read_question(words, "is " * 5_000 + "es", 30).unknown == []  # not read
    assert len(read_question(words, "x" * 10_000, 30).ids) == 1


@pytest.mark.parametrize("question", ["", "  \n", "?!...", "\u200b", 7])
@pytest.mark.parametrize("keep", ["none", "all"])
def test_a_question_without_words_is_refused(question, keep):
    with pytest.raises(UsageError, match=r"has no words|expected text"):
        read_question(Tokenizer.train(["is"], min_frequency=1, keep=keep), question, 30)


WRITTEN = [
    "A dog, running (fast). It's “red/blue” - 5% off; $3.50!",
    "Ein Hund läuft über die Straße.",
    "L'été : déjà vu ! ¿Qué?",
    "红色，圆。一只狗",
    "a T-shirt… 🐶, ok?",
]


@pytest.mark.parametrize("text", WRITTEN)
def test_what_is_kept_of_how_a_text_is_written(text, tmp_path):
    """All: the text itself. Case: its words, which in lower case are those of the plain form."""
    plain, cased, whole = (
        Tokenizer.train(WRITTEN, min_frequency=1, keep=keep) for keep in ("none", "case", "all")
    )
    assert whole.decode(whole.encode(f"  {text}\n")) == text
    assert whole.decode(whole.encode(text.replace(" ", " \u200b \t"))) == text
    words = cased.words(cased.encode(text))
    assert [word.lower() for word in words] == plain.words(plain.encode(text))
    assert all(word in text for word in words)
    for tokenizer, keep in ((plain, "none"), (cased, "case"), (whole, "all")):
        tokenizer.save(tmp_path / "tokenizer.json")
        again = Tokenizer.load(tmp_path / "tokenizer.json")
        assert (again.keep, again.encode(text)) == (keep, tokenizer.encode(text))


def test_questions_are_read_as_the_tokenizer_keeps_them():
    words = Tokenizer.train(["Is it a Polish dog?"], min_frequency=1, keep="all")
    asked = read_question(words, "Is it a polish (dog)?", 30)
    assert asked.unknown == ["polish"]  # a mark that is new is no word
    assert words.decode(asked.ids).startswith("Is it a")
    assert read_question(words, "Is it?", 30).ids == words.encode("Is it?")[1:-1]


def test_marks_that_a_model_puts_side_by_side_have_one_blank():
    words = Tokenizer.train(["a, b (c) d. e"], min_frequency=1, keep="all")
    ids = [words.vocabulary.index(word) for word in (" (", "a", ", ", " (", "b", ". ")]
    assert words.decode(ids) == "(a, (b."
