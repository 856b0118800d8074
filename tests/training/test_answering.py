"""Training answerers: the loss by hand, learning by heart, second stages, resuming, refusals."""

import json
import math
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import gazetell
from gazetell import scenes
from gazetell.data.answers import AnswerVocabulary
from gazetell.data.records import Dataset, QuestionRecord
from gazetell.errors import DataError, ModelError, UsageError
from gazetell.inference.evaluate import evaluate_answers
from gazetell.models.answerers import ANSWERERS
from gazetell.models.folder import load_model
from gazetell.training.answers import answer_loss
from gazetell.training.calibrate import fit_temperature
from gazetell.training.fit import resume, train
from gazetell.training.options import TrainOptions, read_recipe, recipe_names

TINY = {
    "architecture": "dmn-plus",
    "embedding": 12,
    "hidden": 16,
    "attention_width": 12,
    "width": 24,
    "layers": 1,
    "passes": 2,
    "dropout": 0.1,
    "min_frequency": 1,
    "encoder": "small-cnn",
    "encoder_weights": "none",
    "encoder_trainable": "all",
    "encoder_size": 32,
    "batch": 8,
    "precision": "fp32",
    "learning_rate": 3e-3,
    "encoder_learning_rate": 3e-3,
    "label_smoothing": 0.0,
    "epochs": 2,
    "seed": 5,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    scenes.generate(
        folder, train=16, val=6, test=2, captions_per_image=1, questions_per_image=4, seed=1
    )
    return folder


@pytest.fixture(scope="module")
def answerer(data, tmp_path_factory):
    """A run of an answerer."""
    folder = tmp_path_factory.mktemp("runs") / "answerer"
    train(data, folder, options(), report=quiet)
    return folder


def options(**changes):
    return TrainOptions(**{**TINY, **changes})


def quiet(line):
    pass


def state(run):
    model = load_model(run)
    return {**model.network.state_dict(), **model.encoder.state_dict()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def rows(run):
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in found]


# -- the loss --------------------------------------------------------------------------------


def by_hand(logits, targets, kind, smoothing):
    """Answer after answer, in Python."""
    losses = []
    for scores, target in zip(logits, targets, strict=True):
        if kind == "soft":
            each = [
                -t * math.log(1 / (1 + math.exp(-x))) - (1 - t) * math.log(1 / (1 + math.exp(x)))
                for x, t in zip(scores, target, strict=True)
            ]
            losses.append(sum(each))
            continue
        if not sum(target):
            continue
        whole = sum(math.exp(x) for x in scores)
        shares = [t / sum(target) for t in target]
        shares = [(1 - smoothing) * t + smoothing / len(shares) for t in shares]
        losses.append(
            -sum(t * math.log(math.exp(x) / whole) for x, t in zip(scores, shares, strict=True))
        )
    return sum(losses) / len(losses) if losses else 0.0


values = st.integers(0, 10).map(lambda n: n / 10)
tables = st.integers(1, 4).flatmap(
    lambda width: st.lists(st.lists(values, min_size=width, max_size=width), min_size=1, max_size=5)
)


@settings(max_examples=80, deadline=None)
@given(
    tables,
    st.sampled_from(["hard", "soft", "votes"]),
    st.sampled_from([0.0, 0.1, 0.5]),
    st.integers(0, 9999),
)
def test_the_loss_equals_a_plain_loop(targets, kind, smoothing, seed):
    if kind == "hard":  # one answer, or none
        targets = [
            [float(n == row.index(max(row)) and max(row) > 0) for n in range(len(row))]
            for row in targets
        ]
    random = torch.Generator().manual_seed(seed)
    shape = len(targets), len(targets[0])
    logits = torch.randn(shape, generator=random, dtype=torch.float64) * 3
    loss = answer_loss(logits, torch.tensor(targets, dtype=torch.float64), kind, smoothing)
    assert loss.item() == pytest.approx(by_hand(logits.tolist(), targets, kind, smoothing))


@pytest.mark.parametrize("kind", ["hard", "votes"])
def test_questions_without_a_target_have_no_gradient(kind):
    logits = torch.randn(3, 4, requires_grad=True)
    targets = torch.tensor([[0, 1.0, 0, 0], [0, 0, 0, 0], [0.5, 0, 0, 0]])
    answer_loss(logits, targets, kind, 0.1).backward()
    assert logits.grad[1].abs().max() == 0
    assert (logits.grad[[0, 2]].abs().sum(1) > 0).all()
    assert torch.isfinite(logits.grad).all()
    nothing = answer_loss(logits, torch.zeros(3, 4), kind)
    nothing.backward()
    assert nothing.item() == 0


# -- a run -----------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ANSWERERS)
def test_a_few_questions_are_learned_by_heart(data, tmp_path, architecture):
    chosen = options(
        architecture=architecture,
        overfit=4,
        batch=2,
        epochs=20,
        eval_every=20,
        hidden=48,
        width=64,
        embedding=32,
        learning_rate=8e-3,
        dropout=0.5,  # which is for nothing here: overfitting is without
        word_dropout=0.5,
        grid_dropout=0.5,
        beta2=0.95,
    )
    lines = []
    train(data, tmp_path / "run", chosen, report=lines.append)
    last = rows(tmp_path / "run")[-1]
    assert last["val_accuracy"] == 1.0
    own = load_model(tmp_path / "run").network.options
    assert own.dropout == own.word_dropout == own.grid_dropout == 0
    assert last["train_loss"] < rows(tmp_path / "run")[0]["train_loss"] / 3
    assert "best accuracy on val 1.0000" in lines[-1]
    model = gazetell.load(tmp_path / "run", precision="fp32")
    dataset = Dataset.open(data)
    pictures = [record.image for record in dataset.questions_of("train")]
    first = list(dict.fromkeys(pictures))[:4]
    for record in dataset.questions_of("train"):
        if record.image in first:
            assert model.ask(dataset.path(record), record.question).text == record.answers[0]


def test_a_run_leaves_a_complete_folder(data, answerer):
    found = rows(answerer)
    assert [row["epoch"] for row in found] == [1, 2]
    assert found[-1]["train_loss"] < found[0]["train_loss"]
    assert {"val_loss", "val_accuracy", "learning_rate"} <= found[0].keys()
    model = load_model(answerer)
    dataset = Dataset.open(data)
    training = dataset.questions_of("train")
    assert model.answers == AnswerVocabulary.train(training)
    assert model.about["questions"] == len(training)
    assert model.about["pictures"] == 16
    assert not model.sigmoid
    assert model.max_question == 30
    best = torch.load(answerer / "checkpoints/best.ckpt", weights_only=False)["state_dict"]
    mine = model.network.state_dict()
    assert all(torch.equal(mine[k], best[f"answerer.{k}"]) for k in mine)
    # What the history says of the best epoch is what an evaluation finds.
    found = evaluate_answers(gazetell.load(answerer, precision="fp32"), dataset, split="val")
    top = max(row["val_accuracy"] for row in rows(answerer))
    assert found.figures["metrics"]["accuracy"] == pytest.approx(100 * top, abs=0.01)


def test_the_temperature_is_the_one_of_the_validation_split(data, answerer):
    model = gazetell.load(answerer, precision="fp32")
    dataset = Dataset.open(data)
    asked = dataset.questions_of("val")
    logits, right = [], []
    for record in asked:
        look = model.encode(dataset.path(record))
        asked_now = [model.read_question(record.question)]
        row, _ = model.logits(look.grid, asked_now, torch.tensor([0]))
        logits.append(row)
        said = model.answers.answers[int(row.argmax())]
        right.append(float(said == record.answers[0]))
    assert model.temperature == pytest.approx(fit_temperature(torch.cat(logits), right), rel=1e-3)


@pytest.mark.parametrize(
    "changes",
    [{}, {"architecture": "lstm-vqa", "word_dropout": 0.2, "flip": True, "ema": 0.9}],
    ids=["dmn-plus", "lstm-vqa"],
)
def test_a_run_that_dies_and_is_resumed_ends_in_the_same_weights(data, tmp_path, changes):
    chosen = options(epochs=3, targets="votes", label_smoothing=0.1, **changes)
    train(data, tmp_path / "whole", chosen, report=quiet)

    class Killed(Exception):
        pass

    def die(line):
        if line.startswith("epoch 2/3"):  # before its checkpoint is written
            raise Killed

    with pytest.raises(Killed):
        train(data, tmp_path / "died", chosen, report=die)
    with pytest.raises(ModelError, match="--resume"):
        load_model(tmp_path / "died")
    lines = []
    resume(tmp_path / "died", report=lines.append)
    assert not any(line.startswith("epoch 1/3") for line in lines)
    assert same(state(tmp_path / "whole"), state(tmp_path / "died"))
    assert rows(tmp_path / "whole") == rows(tmp_path / "died")
    one, other = (load_model(tmp_path / name).temperature for name in ("whole", "died"))
    assert one == other


@pytest.mark.parametrize("targets", ["soft", "votes"])
def test_other_targets(tmp_path, data, targets):
    """Ten answers a question: the official accuracy chooses the best epoch."""
    plain = Dataset.open(data)
    voted = tuple(
        QuestionRecord(r.id, r.image, r.question, (*[r.answers[0]] * 7, "a b", "c", "d"), r.split)
        for r in plain.questions
    )
    Dataset("voted", "table", plain.root, questions=voted).save(tmp_path / "voted")
    train(tmp_path / "voted", tmp_path / "run", options(targets=targets), report=quiet)
    assert rows(tmp_path / "run")[1]["train_loss"] < rows(tmp_path / "run")[0]["train_loss"]
    model = gazetell.load(tmp_path / "run", precision="fp32")
    assert model.sigmoid is (targets == "soft")
    total = sum(model.probabilities(torch.zeros(1, len(model.answers)))[0].tolist())
    assert total == pytest.approx(len(model.answers) / 2 if targets == "soft" else 1, rel=1e-4)


def test_questions_outside_the_vocabulary_are_left_out(data, tmp_path):
    lines = []
    train(data, tmp_path / "run", options(answers=2, epochs=1), report=lines.append)
    model = load_model(tmp_path / "run")
    training = Dataset.open(data).questions_of("train")
    kept = [r for r in training if r.answers[0] in model.answers.answers]
    assert len(model.answers) == 2
    assert 0 < len(kept) < len(training)
    left = len(training) - len(kept)
    assert any(line.startswith(f"{left} training questions left out") for line in lines)
    assert any(f"{len(kept)} training and 24 validation questions" in line for line in lines)
    assert model.about["questions"] == len(kept)


def test_a_vocabulary_that_answers_nothing_is_told(data, answerer, tmp_path):
    """The earlier model's answers occur in no question of the new data."""
    plain = Dataset.open(data)
    other = tuple(
        QuestionRecord(r.id, r.image, r.question, ("xylophone",), r.split) for r in plain.questions
    )
    Dataset("other", "table", plain.root, questions=other).save(tmp_path / "other")
    with pytest.raises(DataError, match="no training question has an answer of the vocabulary"):
        train(tmp_path / "other", tmp_path / "run", options(init_from=str(answerer)), report=quiet)


# -- beginning with an earlier model ---------------------------------------------------------


def test_a_second_stage_begins_with_the_first(data, answerer, tmp_path):
    changes = {"architecture": "bow-mlp", "hidden": 99, "epochs": 1, "learning_rate": 1e-9}
    chosen = options(
        init_from=str(answerer), encoder_learning_rate=1e-9, **{**changes, "weight_decay": 0.0}
    )
    train(data, tmp_path / "run", chosen, report=quiet)
    first, second = load_model(answerer), load_model(tmp_path / "run")
    assert second.answerer.config == first.answerer.config  # not a bow-mlp, not 99 wide
    assert (second.answers, second.tokenizer) == (first.answers, first.tokenizer)
    for key, tensor in second.answerer.state_dict().items():
        assert torch.allclose(tensor, first.answerer.state_dict()[key], atol=1e-6)
    saved = json.loads((tmp_path / "run/training.json").read_text())["options"]
    assert saved["architecture"] == "dmn-plus"
    assert saved["attention_width"] == 12
    assert saved["passes"] == 2


def test_a_model_of_the_other_kind_to_begin_with(data, answerer, tmp_path):
    captions = options(architecture="attention-lstm", epochs=1)
    train(data, tmp_path / "captioner", captions, report=quiet)
    for architecture in ANSWERERS:
        chosen = options(architecture=architecture, init_from=str(tmp_path / "captioner"))
        with pytest.raises(UsageError) as caught:
            train(data, tmp_path / "run", chosen, report=quiet)
        assert "--init-from" in str(caught.value)
        assert "captioner" in str(caught.value)
    chosen = options(architecture="show-attend-tell", init_from=str(answerer))
    with pytest.raises(UsageError, match="--init-from"):
        train(data, tmp_path / "run", chosen, report=quiet)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("trainable", ["none", "all"])
def test_a_captioner_lends_its_encoder(data, tmp_path, trainable):
    """With its encoder frozen the two share a look at a picture."""
    train(data, tmp_path / "captioner", options(architecture="rnn", epochs=1), report=quiet)
    chosen = options(
        encoder_from=str(tmp_path / "captioner"), encoder_trainable=trainable, epochs=1
    )
    train(data, tmp_path / "run", chosen, report=quiet)
    first, second = (load_model(tmp_path / name).encoder for name in ("captioner", "run"))
    assert (first.fingerprint() == second.fingerprint()) == (trainable == "none")
    if trainable == "none":
        captioner, model = (gazetell.load(tmp_path / name) for name in ("captioner", "run"))
        picture = next((data / "images").iterdir())
        assert model.ask(captioner.encode(picture), "is there a star?").text


# -- without pictures ------------------------------------------------------------------------


@pytest.mark.parametrize("encoder", [{}, {"encoder_trainable": "none"}], ids=["trained", "frozen"])
def test_a_blind_twin_needs_no_pictures(data, tmp_path, encoder):
    moved = tmp_path / "data"
    shutil.copytree(data, moved)
    shutil.rmtree(moved / "images")
    train(moved, tmp_path / "run", options(blind=True, **encoder), report=quiet)
    model = gazetell.load(tmp_path / "run", precision="fp32")
    assert model.answerer.options.blind
    dataset = Dataset.open(data)
    record = dataset.questions_of("test")[0]
    one, other = (
        model.ask(dataset.root / image, record.question).confidence
        for image in sorted({r.image for r in dataset.questions_of("test")})
    )
    assert one == other
    # What it was trained on, zeros, is what it sees when it is used.
    found = evaluate_answers(model, dataset, split="val")
    top = max(row["val_accuracy"] for row in rows(tmp_path / "run"))
    assert found.figures["metrics"]["accuracy"] == pytest.approx(100 * top, abs=0.01)


def test_a_captioner_cannot_be_blind(data, tmp_path):
    with pytest.raises(UsageError, match="--blind"):
        train(data, tmp_path / "run", options(architecture="rnn", blind=True), report=quiet)


# -- data that does not fit ------------------------------------------------------------------


def test_captions_alone_answer_nothing_and_the_reverse(data, tmp_path):
    whole = Dataset.open(data)
    Dataset("c", "table", whole.root, captions=whole.captions).save(tmp_path / "captions")
    Dataset("q", "table", whole.root, questions=whole.questions).save(tmp_path / "questions")
    with pytest.raises(DataError, match=r"captions and no questions.*those that caption: ") as one:
        train(tmp_path / "captions", tmp_path / "run", options(), report=quiet)
    chosen = options(architecture="attention-lstm")
    with pytest.raises(DataError, match=r"questions and no captions.*those that answer: ") as two:
        train(tmp_path / "questions", tmp_path / "run", chosen, report=quiet)
    assert "dmn-plus" in str(two.value)
    assert "attention-lstm" in str(one.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_without_answers_is_named(data, tmp_path, split):
    whole = Dataset.open(data)
    some = tuple(
        QuestionRecord(r.id, r.image, r.question, () if r.split == split else r.answers, r.split)
        for r in whole.questions
    )
    Dataset("q", "table", whole.root, questions=some).save(tmp_path / "data")
    with pytest.raises(DataError, match=f"split '{split}' has no answers"):
        train(tmp_path / "data", tmp_path / "run", options(), report=quiet)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"targets": "firm"}, "--targets firm: expected one of hard, soft, votes"),
        ({"architecture": "vqa"}, "dmn-plus"),
        ({"answers": 0}, "--answers 0"),
        ({"max_question": 0}, "--max-question 0"),
        ({"fusion": "sum"}, "--fusion sum: expected one of concat, product"),
        ({"memory": "lstm"}, "--memory lstm"),
    ],
)
def test_options_out_of_range(change, named):
    with pytest.raises(UsageError) as caught:
        options(**change)
    assert named in str(caught.value)


@pytest.mark.parametrize("name", [n for n in recipe_names() if "vq" in n or n == "daquar"])
def test_the_answering_recipes_can_be_read(name):
    chosen = TrainOptions.from_dict(read_recipe(name), name)
    assert chosen.architecture in ANSWERERS
