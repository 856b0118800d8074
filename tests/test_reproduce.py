"""Tables: plans are checked before the work, rows are made once, the page says what was found."""

import json
import re

import pytest

from gazetell import reproduce as module
from gazetell import scenes
from gazetell.data.records import Dataset
from gazetell.errors import DataError, UsageError
from gazetell.files import toml_names
from gazetell.models.folder import load_model
from gazetell.reproduce import PLANS, line, page, read_plan, reproduce

TINY = """options = {architecture = "lstm", encoder_trainable = "none", epochs = 1, embedding = 8, \
hidden = 12, encoder_size = 32}"""
PLAN = f"""
title = "Scenes"
beams = [1, 2]
[[row]]
name = "lstm"
recipe = "scenes"
{TINY}
seeds = [0, 1]
[[row]]
name = "lstm, CIDEr"
init_from = "lstm"
options = {{reward = "cider", samples = 2, epochs = 1, precision = "fp32"}}
[[row]]
name = "lstm, vectors"
recipe = "scenes"
{TINY.replace("32}", "32, freeze_words = true}")}
vectors = 8
[[row]]
name = "two lstm"
members = ["lstm"]
[[compare]]
rows = ["lstm, CIDEr", "lstm"]
[[published]]
name = "Somebody 2015"
bleu = "1 / 2 / 3 / 4"
"""

# Here another seed draws another encoder, and an ensemble needs one and the same.
ONE_SEED = PLAN.replace("seeds = [0, 1]", "seeds = [0]")
WITH_CIDER, WITH_VECTORS = (
    ONE_SEED.replace('members = ["lstm"]', f'members = ["lstm", "lstm, {name}"]')
    for name in ("CIDEr", "vectors")
)
SILENT = {"report": lambda line: None, "show": lambda line: None}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    scenes.generate(folder, train=12, val=4, test=5, questions_per_image=0, seed=1)
    return folder


def plan(tmp_path, text=PLAN):
    (tmp_path / "plan.toml").write_text(text)
    return read_plan(str(tmp_path / "plan.toml"))


def test_a_table_is_made_once_and_goes_on_where_it_was(data, tmp_path, monkeypatch):
    chosen, trained, measured = plan(tmp_path, ONE_SEED), [], []
    real_train, real_evaluate = module.train, module.evaluate

    def counted(data, run, *rest, **more):
        trained.append(run.name)
        if len(trained) == 2:
            raise KeyboardInterrupt
        return real_train(data, run, *rest, **more)

    def evaluated(*rest, **more):
        measured.append(more["beam"])
        return real_evaluate(*rest, **more)

    monkeypatch.setattr(module, "train", counted)
    monkeypatch.setattr(module, "evaluate", evaluated)
    out, shown = tmp_path / "out", []
    with pytest.raises(KeyboardInterrupt):
        reproduce(chosen, data, out, report=lambda line: None, show=shown.append)
    assert [text.split(" | ")[0] for text in shown[1:]] == ["| lstm", "| lstm"]
    lines = []
    entries = reproduce(chosen, data, out, report=lines.append, show=lambda line: None)
    assert re.match(
        "4 rows, 3 runs, 1 of them trained already; to train: at most 2 epochs, about 0 minutes",
        lines[0],
    )
    assert trained == ["lstm-seed0", *["lstm-cider-seed0"] * 2, "lstm-vectors-seed0"]
    words = (out / "vectors-8-frequency1.txt").read_text().splitlines()
    word, *numbers = words[10].split()
    model = load_model(out / "runs/lstm-vectors-seed0")
    row = model.captioner.embed.weight[model.tokenizer.vocabulary.index(word)]
    assert row.tolist() == pytest.approx([float(number) for number in numbers])
    names = ["lstm", "lstm, CIDEr", "lstm, vectors", "two lstm"]
    assert [(e["row"], e["beam"]) for e in entries] == [(n, b) for n in names for b in (1, 2)]
    assert json.loads((out / "results.json").read_text()) == entries
    text = (out / "results.md").read_text()
    assert all(line(entry) in text for entry in entries)
    assert "Somebody 2015" in text
    assert "| lstm, CIDEr | lstm |" in text
    assert len(measured) == 8
    assert reproduce(chosen, data, out, **SILENT) == entries
    assert (len(trained), len(measured)) == (4, 8)

    # Figures of another model, or without a metric that is asked for, are no figures of this one.
    config = out / "runs/lstm-cider-seed0/evaluation/test-beam1/of.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"java": True}))
    reproduce(chosen, data, out, **SILENT)
    assert measured[8:] == [1]
    other = plan(tmp_path, ONE_SEED.replace("hidden = 12", "hidden = 13"))
    with pytest.raises(UsageError, match="was made with hidden 12, the plan says 13"):
        reproduce(other, data, out, **SILENT)
    whole = Dataset.open(data)
    Dataset("less", "table", whole.root, whole.captions[1:]).save(tmp_path / "less")
    with pytest.raises(UsageError, match="was made with other records"):
        reproduce(chosen, tmp_path / "less", out, **SILENT)


STAGES = """
title = "Stages"
data = "scenes"
beams = [1]
[[row]]
name = "words"
data = "texts"
on = []
recipe = "scenes"
options = {architecture = "lstm", blind = true, epochs = 1, embedding = 8, hidden = 12}
[[row]]
name = "captioner"
init_from = "words"
on = ["scenes", "few:val"]
recipe = "scenes"
options = {encoder_trainable = "none", epochs = 1}
[[row]]
name = "answerer"
encoder_from = "captioner"
word_vectors = "captioner"
recipe = "scenes-vqa"
options = {architecture = "lstm-vqa", encoder_trainable = "none", epochs = 1, embedding = 8}
[[row]]
name = "answerer, blind"
recipe = "scenes-vqa"
options = {architecture = "lstm-vqa", blind = true, epochs = 1, hidden = 12}
[[compare]]
rows = ["answerer", "answerer, blind"]
"""


def test_stages_on_several_datasets_and_questions_beside_captions(tmp_path):
    folder = tmp_path / "data"
    made = scenes.generate(
        folder / "scenes", train=12, val=4, test=5, questions_per_image=3, seed=1
    )
    Dataset("texts", "table", made.root, made.captions).save(folder / "texts")
    few = tuple(record for record in made.captions if record.split == "val")[:2]
    Dataset("few", "table", made.root, few).save(folder / "few")
    shown, out = [], tmp_path / "out"
    quiet = {"report": lambda line: None, "show": shown.append}
    entries = reproduce(plan(tmp_path, STAGES), folder, out, **quiet)
    told = [(entry["row"], entry["on"], entry["beam"]) for entry in entries]
    assert told == [
        ("captioner", "scenes", 1),
        ("captioner", "few:val", 1),
        ("answerer", "scenes", 0),
        ("answerer, blind", "scenes", 0),
    ]
    assert entries[1]["figures"]["pictures"] == 2
    assert [text.startswith("| model") for text in shown] == [1, 0, 1, 0, 1, 0, 0]
    runs = out / "runs"
    assert load_model(runs / "answerer-seed0").encoder.config == (
        load_model(runs / "captioner-seed0").encoder.config
    )
    assert (runs / "captioner-seed0/evaluation/few-val-beam1/metrics.json").is_file()
    text = (out / "results.md").read_text()
    assert "Measured on few:val:" in text
    assert "| answerer | answerer, blind | scenes |  | accuracy |" in text
    assert all(line(entry) in text for entry in entries)
    assert reproduce(plan(tmp_path, STAGES), folder, out, **SILENT) == entries
    asked = STAGES.replace('encoder_from = "captioner"', 'on = ["few:val"]')
    with pytest.raises(DataError, match=r"few: split 'val' has no questions"):
        reproduce(plan(tmp_path, asked.split("[[compare]]")[0]), folder, out, **SILENT)


TAUGHT = """
title = "Taught"
data = "scenes"
beams = [1]
[[row]]
name = "first"
encoder_from = "photo"
options = {architecture = "lstm", epochs = 1, embedding = 8, hidden = 12, min_frequency = 1}
seeds = [0, 1]
[[row]]
name = "both"
members = ["first"]
[[row]]
name = "taught"
encoder_from = "photo"
teacher = ["both"]
options = {architecture = "lstm", epochs = 1, embedding = 8, hidden = 12, min_frequency = 1}
on = []
[[row]]
name = "rewarded"
init_from = "photo"
reward_references = "texts"
options = {reward = "cider", samples = 2, epochs = 1}
on = []
"""


def test_rows_begin_with_photo_are_taught_by_rows_and_count_in_a_dataset(tmp_path, photo):
    folder, out = tmp_path / "data", tmp_path / "out"
    made = scenes.generate(folder / "scenes", train=12, val=4, test=5, seed=1)
    Dataset("texts", "table", made.root, made.captions).save(folder / "texts")
    entries = reproduce(plan(tmp_path, TAUGHT), folder, out, **SILENT)
    assert [entry["row"] for entry in entries] == ["first", "first", "both"]

    def options(run):
        return json.loads((out / f"runs/{run}-seed0/training.json").read_text())["options"]

    assert options("taught")["teacher"] == [str(out / f"runs/first-seed{n}") for n in (0, 1)]
    assert options("taught")["encoder_from"] == str(photo / "captioner")
    assert options("rewarded")["init_from"] == str(photo / "captioner")
    training = out / "runs/taught-seed0/training.json"
    moved = json.loads(training.read_text())
    moved["options"]["encoder_from"] = "/installed/elsewhere/photo/captioner"
    training.write_text(json.dumps(moved))
    assert options("rewarded")["reward_references"] == str(folder / "texts")
    assert reproduce(plan(tmp_path, TAUGHT), folder, out, **SILENT) == entries
    lost = plan(tmp_path, TAUGHT.replace('"texts"', '"text"'))
    with pytest.raises(DataError, match=r"data/text: is not a prepared dataset"):
        reproduce(lost, folder, tmp_path / "new", **SILENT)
    own = TAUGHT.replace('encoder_from = "photo"\nteacher', 'recipe = "scenes"\nteacher')
    own = own.replace("hidden = 12", 'hidden = 12, encoder_trainable = "none"')
    with pytest.raises(UsageError, match=r"row 'taught': its encoder is frozen, so its teachers"):
        reproduce(plan(tmp_path, own), folder, tmp_path / "new", **SILENT)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('"both"]', '"boht"]', "row 'taught': needs 'boht', which is not a row above it"),
        ('"both"]', '"both", "first"]', "row 'taught': names 'first-seed0' twice"),
        ('"both"]', '"photo"]', "row 'taught': needs 'photo', which is not a row above it"),
        ('name = "both"', 'name = "photo"', "is the name of a model that comes with"),
        (
            "samples = 2,",
            'teacher = ["a"],',
            "teacher is among the options; expected it in",
        ),
        ("samples = 2,", "hidden = 3,", "row 'rewarded': --hidden 3: --init-from .* has 16"),
        ('reward = "cider", samples = 2,', "", "--reward-references .*expected --reward beside"),
    ],
)
def test_what_a_row_begins_with_is_checked(tmp_path, photo, old, new, expected):
    with pytest.raises(DataError, match=expected):
        plan(tmp_path, TAUGHT.replace(old, new))


def test_a_blind_row_lends_no_encoder(tmp_path):
    asked = STAGES.replace('encoder_from = "captioner"', 'encoder_from = "words"')
    with pytest.raises(DataError, match="'words' is blind and has no encoder to lend"):
        plan(tmp_path, asked)


def test_a_split_that_is_not_there_is_told_before_the_work(data, tmp_path):
    with pytest.raises(DataError, match="split 'dev'"):
        reproduce(plan(tmp_path, ONE_SEED), data, tmp_path / "out", split="dev")
    assert not (tmp_path / "out").exists()


def entry(row, seed, beam, bleu, cider):
    metrics = dict.fromkeys(("bleu_1", "bleu_2", "bleu_3", "rouge_l"), 0.5)
    metrics |= {"bleu_4": bleu, "cider": cider, "meteor": None}
    figures = {"metrics": metrics, "decoding_pictures_per_second": 1234.5}
    making = {"parameters": 5_240_000, "training_seconds": 90.0, "captions_per_second": 600.0}
    return {"row": row, "seed": seed, "on": "", "beam": beam, "figures": figures, **making}


def test_a_page_has_rows_spread_and_differences(tmp_path):
    found = [entry("lstm", 0, 1, 0.20, 0.50), entry("lstm", 1, 1, 0.22, 0.54)]
    assert line(found[0]) == (
        "| lstm | 0 | greedy | 50.0 | 50.0 | 50.0 | 20.0 |  | 50.0 | 50.0 | 5.2 M | 1.5 min | 600 "
        "| 1,234 |"
    )
    value = {"difference": 0.012, "low": 0.001, "high": 0.02, "significant": True}
    none = {"difference": 0.012, "low": -0.001, "high": 0.02, "significant": False}
    metrics = {"bleu_4": value, "cider": none}
    difference = {"rows": ["a", "b"], "on": "", "beam": 3, "metrics": metrics}
    text = page(plan(tmp_path), found, [difference])
    # Standard deviations of 20, 22 and of 50, 54.
    assert "- lstm, beam 1, 2 seeds: BLEU-4 21.0 ± 1.4, CIDEr 52.0 ± 2.8" in text
    assert "| a | b |  | 3 | BLEU-4 | **+1.2 [+0.1, +2.0]** |" in text
    assert "| a | b |  | 3 | CIDEr | +1.2 [-0.1, +2.0]: none shown |" in text
    assert "| Somebody 2015 | 1 / 2 / 3 / 4 |  |  |" in text


@pytest.mark.parametrize("name", toml_names(PLANS))
def test_the_plans_that_come_along_are_sound(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.safetensors").touch()
    chosen = read_plan(name)
    chosen.check_ensembles("file.safetensors")
    for row in chosen.rows:
        if not row.members:
            options = chosen.planned(row, 1, "file.safetensors")
            assert options.seed == 1
            given = options.encoder_weights == str(tmp_path / "file.safetensors")
            assert given or chosen.lender(row) or options.blind


HEAD = 'title = "x"\nbeams = [1]\n'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("title = ", "is not TOML"),
        ('title = "x"', "plan.toml: the plan lacks the key 'beams'"),
        (HEAD, r"the plan lacks rows; expected \[\[row\]\]"),
        (f'{HEAD}[[row]]\nname = "a"\n[[row]]\nseeds = [1]', "row 2 lacks the key 'name'"),
        (f"{HEAD}[[row]]\nname = 5", r"row\.0\.name: Input should be a valid string"),
        (f'{HEAD}[[row]]\nname = "a"\nvectors = true', r"row\.0\.vectors: .*valid integer"),
        (f'{HEAD}[[row]]\nname = "a"\nseeds = [0, 0]', "expected seeds that differ"),
        (f'{HEAD}[[row]]\nname = "a"\n[[compare]]\nrows = ["a"]', r"compare\.0\.rows\.1: F"),
        (f'{HEAD}[[row]]\nname = "a"\n[[compare]]\nrows = ["a", "a"]', "two different names"),
        (PLAN.replace('members = ["lstm"]', 'members = ["gru"]'), "needs 'gru'"),
        (PLAN.replace('init_from = "lstm"', 'init_from = "two lstm"'), "needs 'two lstm'"),
        (PLAN.replace("epochs = 1, embedding", "epoch = 1, embedding"), "--epoch: there is no"),
        (PLAN.replace('"two lstm"', '"LSTM"'), "row 'LSTM': another row has the same name or fold"),
        (PLAN.replace('rows = ["lstm, CIDEr"', 'rows = ["gru"'), "compares 'gru'"),
        (PLAN.replace("seeds = [0, 1]", "sead = [0, 1]"), "sead"),
        (PLAN.replace("[[compare]]", "[[compares]]"), "compares"),
        (PLAN.replace("bleu =", "blue ="), "blue"),
        (PLAN.replace("beams = [1, 2]", "beams = [0]"), "beam 0"),
        (PLAN.replace("seeds = [0, 1]", "seeds = []"), "expected seeds"),
        (
            PLAN.replace('members = ["lstm"]', 'members = ["lstm"]\nseeds = [1]'),
            "takes only members",
        ),
        (
            PLAN.replace("{reward =", "{hidden = 9, reward ="),
            "hidden: is taken from lstm",
        ),
        (
            PLAN.replace('init_from = "lstm"', 'init_from = "lstm"\nseeds = [2]'),
            "a run of each seed",
        ),
        (PLAN.replace('"lstm", enc', '"bow-mlp", enc').replace("hidden = 12, ", ""), "bow-mlp has"),
        (
            f'{STAGES}[[row]]\nname = "two"\nmembers = ["answerer"]',
            "ensembles and teachers take only captioners",
        ),
        (
            STAGES.replace("epochs = 1, hidden = 12}", "epochs = 1}\nvectors = 8", 1),
            "made from capt",
        ),
        (PLAN.replace("vectors = 8", 'encoder_from = "gru"'), "needs 'gru'"),
        (
            PLAN.replace("vectors = 8", 'vectors = 8\nword_vectors = "lstm"'),
            "vectors: is taken from",
        ),
        (PLAN.replace("vectors = 8", "on = [5]"), r"on\.0: .*valid string"),
        (
            PLAN.replace('rows = ["lstm, CIDEr"', 'rows = ["lstm, vectors"').replace(
                "vectors = 8", "vectors = 8\non = []"
            ),
            "no dataset measures both",
        ),
    ],
)
def test_a_plan_that_is_wrong_is_refused_before_the_work(text, expected, tmp_path):
    with pytest.raises(DataError, match=expected):
        plan(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        (PLAN, False),  # each seed draws a CNN
        (ONE_SEED, True),
        (WITH_CIDER, True),
        (WITH_VECTORS, True),
        (WITH_VECTORS.replace("32, freeze_words", "64, freeze_words"), False),
        (WITH_CIDER.replace("reward =", 'encoder_trainable = "all", reward ='), False),
    ],
)
def test_an_ensemble_of_different_cnns_is_refused_before_the_work(text, fits, data, tmp_path):
    chosen = plan(tmp_path, text)
    if fits:
        chosen.check_ensembles(None)
        return
    with pytest.raises(UsageError, match=r"'two lstm'.* needs one CNN, but 'lstm'"):
        reproduce(chosen, data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_such_plan():
    with pytest.raises(UsageError, match="flickr8k"):
        read_plan("flickr9k")


def test_weights_that_no_row_begins_with_are_refused(data, tmp_path):
    """The recipe "scenes" has none to replace, and a second stage begins with the first's."""
    told = "encoder_weights mine: has no effect: no row of the plan begins with"
    with pytest.raises(UsageError, match=told):
        reproduce(plan(tmp_path), data, tmp_path / "out", encoder_weights="mine", **SILENT)
    assert not (tmp_path / "out").exists()
