"""The answerers: what holds for all of them, and each against its equations."""

import itertools
from typing import Literal

import pytest
import sums
import torch
import torch.nn.functional as F
from sums import add, affine, dot, length_one, mean, normalised, softmax, tanh, times, weighted
from tiny_answerers import EVERY, A, B, C, H, N, T, V, config, follows, grid, model, questions

from gazetell.errors import UsageError
from gazetell.models.answerers import ANSWERERS, build_answerer
from gazetell.models.captioners import CAPTIONERS
from gazetell.models.encoders import Grid
from gazetell.models.options import all_options

NORMALISED = {"l2": length_one, "layer": normalised, "none": list}


def same(one, other):
    """Equal logits, and equal attention where there is one."""
    pairs = [x for x in zip(one, other, strict=True) if x != (None, None)]
    return all(torch.allclose(a, b, atol=1e-10, rtol=0) for a, b in pairs)


def in_snake(rows, width):
    """Cells in snake order, a row at a time."""
    grid_rows = [rows[at : at + width] for at in range(0, len(rows), width)]
    return [x for n, row in enumerate(grid_rows) for x in (row[::-1] if n % 2 else row)]


def dmn_by_hand(passes, width):
    """The docstring's equations for one question, in lists of Python floats."""

    def compute(p, cells, words):
        facts = [
            tanh(add(affine(p, "facts", normalised(x)), place(p, i, len(cells) // width, width)))
            for i, x in enumerate(cells)
        ]
        facts = in_snake(facts, width)
        fused = [[0.0] * H for _ in facts]
        for end, order in (("_l0", 1), ("_l0_reverse", -1)):
            h = [0.0] * H
            for i in range(len(facts))[::order]:
                h = sums.gru(p, "fusion", facts[i], h, end)
                fused[i] = add(fused[i], h)
        q = question(p, words)
        m, gaze = q, []
        for t in range(passes):
            g = softmax([score(p, t, fact, q, m) for fact in fused])
            c = weighted(g, fused) if "reader.state" not in p else attend(p, t, fused, g, passes)
            if "memory_cell.weight_ih" in p:
                m = sums.gru(p, "memory_cell", c, m)
            else:
                m = [max(x, 0.0) for x in affine(p, f"memories.{t}", m + c + q)]
            gaze.append(in_snake(g, width))  # back into reading order
        return affine(p, "head.1", q + m), gaze

    return compute


def place(p, i, height, width):
    """W_p p_i, or zeros."""
    centre = [(i // width + 0.5) / height * 2 - 1, (i % width + 0.5) / width * 2 - 1]
    return times(p["places.weight"], centre) if "places.weight" in p else [0.0] * H


def question(p, words):
    h, c = [0.0] * H, [0.0] * H
    for word in words:
        x = p["embed.weight"][word]
        if len(p["question.bias_ih_l0"]) == 4 * H:
            w, b = "question.weight_", "question.bias_"
            drive = add(times(p[f"{w}ih_l0"], x), times(p[f"{w}hh_l0"], h), p[f"{b}ih_l0"])
            h, c = sums.lstm(add(drive, p[f"{b}hh_l0"]), c)
        else:
            h = sums.gru(p, "question", x, h, "_l0")
    return h


def score(p, t, fact, q, m):
    """W2 tanh(W1 z + b1)."""
    z = [f * x for v in (q, m) for f, x in zip(fact, v, strict=True)]
    z += [abs(f - x) for v in (q, m) for f, x in zip(fact, v, strict=True)]
    return dot(p[f"gates.{t}.score"], tanh(affine(p, f"gates.{t}.inner", z)))


def attend(p, t, facts, gates, passes):
    """The context of the attention GRU of pass t."""
    weight, bias = p["reader.facts.weight"], p["reader.facts.bias"]
    w_r, w = (weight[(2 * t + half) * H : (2 * t + half + 1) * H] for half in (0, 1))
    b_r, b = (bias[(2 * t + half) * H : (2 * t + half + 1) * H] for half in (0, 1))
    u_r, u = p["reader.state"][t][:H], p["reader.state"][t][H:]
    h = [0.0] * H
    for fact, g in zip(facts, gates, strict=True):
        r = [sums.sigmoid(x) for x in add(times(w_r, fact), times(u_r, h), b_r)]
        inner = [x * y for x, y in zip(r, times(u, h), strict=True)]
        candidate = tanh(add(times(w, fact), inner, b))
        h = [g * x + (1 - g) * y for x, y in zip(candidate, h, strict=True)]
    assert len(weight) == 2 * passes * H
    return h


@pytest.mark.parametrize("normalise", NORMALISED)
@pytest.mark.parametrize(("pooling", "layers"), [("sum", 3), ("mean", 1)])
def test_bag_of_words_follows_its_equations(pooling, layers, normalise):
    def by_hand(p, cells, words):
        bag = add(*(p["embed.weight"][word] for word in words))
        if pooling == "mean":
            bag = [x / len(words) for x in bag]
        vector = NORMALISED[normalise](mean(cells))
        u = add(times(p["words.weight"], bag), affine(p, "image", vector))
        for layer in range(layers):
            u = tanh(affine(p, f"hidden.{1 + 3 * layer}", u))
        return affine(p, "head", u), None

    answerer = model("bow-mlp", pooling=pooling, layers=layers, normalise=normalise)
    assert follows(answerer, by_hand, grid())


@pytest.mark.parametrize(("fusion", "layers"), [("concat", 3), ("product", 2), ("concat", 1)])
def test_stacked_lstms_follow_their_equations(fusion, layers):
    def by_hand(p, cells, words):
        below = [p["embed.weight"][word] for word in words]
        for layer in range(layers):
            w, b = f"lstms.{layer}.weight_", f"lstms.{layer}.bias_"
            h, c, states = [0.0] * H, [0.0] * H, []
            for x in below:
                drive = add(times(p[f"{w}ih_l0"], x), times(p[f"{w}hh_l0"], h))
                h, c = sums.lstm(add(drive, p[f"{b}ih_l0"], p[f"{b}hh_l0"]), c)
                states.append(h)
            below = [add(x, h) for x, h in zip(below, states, strict=True)] if layer else states
        s = affine(p, "words", below[-1])
        v = affine(p, "image", length_one(mean(cells)))
        if fusion == "product":
            u = [x * y for x, y in zip(tanh(s), tanh(v), strict=True)]
        else:
            u = tanh(add(s, v))
        return affine(p, "head.1", u), None

    assert follows(model("lstm-vqa", fusion=fusion, layers=layers), by_hand, grid())


@pytest.mark.parametrize("options", [{}, {"glimpses": 3, "question": "lstm", "positions": True}])
def test_an_attending_answerer_follows_its_equations(options):
    glimpses = options.get("glimpses", 2)

    def by_hand(p, cells, words):
        keys = [
            add(affine(p, "facts", normalised(x)), place(p, i, 2, 3)) for i, x in enumerate(cells)
        ]
        q, gaze, seen = question(p, words), [], []
        asked = affine(p, "queries", q)
        for t in range(glimpses):
            query = asked[t * H : (t + 1) * H]
            gaze.append(softmax([dot(query, key) / H**0.5 for key in keys]))
            seen += weighted(gaze[-1], keys)
        sides = tanh(affine(p, "seen", seen)), tanh(affine(p, "words", q))
        return affine(p, "head.1", [x * y for x, y in zip(*sides, strict=True)]), gaze

    assert follows(model("attention-vqa", **options), by_hand, grid())


CHOICES = list(itertools.product(("gru", "soft"), ("relu", "gru"), ("gru", "lstm")))


@pytest.mark.parametrize(("attention", "memory", "reads"), CHOICES)
def test_answers_follow_the_equations(attention, memory, reads):
    answerer = model("dmn-plus", attention_kind=attention, memory=memory, question=reads, passes=2)
    assert follows(answerer, dmn_by_hand(2, 3), grid(2, 3))


@pytest.mark.parametrize(("height", "width", "passes"), [(1, 1, 3), (3, 2, 3), (7, 7, 1)])
def test_grids_of_other_shapes_follow_them_too(height, width, passes):
    answerer = model("dmn-plus", passes=passes)
    assert follows(answerer, dmn_by_hand(passes, width), grid(height, width))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 3), (3, 2)])
def test_regions_may_be_told_where_they_lie(height, width):
    answerer = model("dmn-plus", positions=True)
    assert follows(answerer, dmn_by_hand(3, width), grid(height, width))


def test_gates_remember_at_first_and_recurrent_weights_are_orthogonal():
    answerer = build_answerer(**config("dmn-plus", question="lstm"))
    biases = answerer.question.bias_ih_l0 + answerer.question.bias_hh_l0
    assert biases.tolist() == [0] * H + [1] * H + [0] * 2 * H
    assert not answerer.fusion.bias_ih_l0.any()
    for block in (*answerer.question.weight_hh_l0.split(H), *answerer.fusion.weight_hh_l0.split(H)):
        assert torch.allclose(block @ block.T, torch.eye(H), atol=1e-5)
    assert not answerer.embed.weight[0].any()  # padding


@EVERY
def test_padding_and_the_company_of_other_questions_do_not_matter(architecture, options):
    answerer, pictures = model(architecture, **options), grid()
    tokens, lengths, owner = questions()
    found = answerer(pictures, tokens, lengths, owner)
    longer = F.pad(tokens, (0, 4))
    assert same(answerer(pictures, longer, lengths, owner), found)
    # Whatever stands behind a question's words.
    behind = torch.arange(T + 4) >= lengths.unsqueeze(1)
    assert same(answerer(pictures, longer.masked_fill(behind, V - 1), lengths, owner), found)
    for n in range(N):
        alone = tokens[n : n + 1, : lengths[n]], lengths[n : n + 1], owner[n : n + 1]
        expected = [None if x is None else x[n : n + 1] for x in found]
        assert same(answerer(pictures, *alone), expected)
    shorter = lengths.clamp(max=3)
    changed = answerer(pictures, tokens, shorter, owner)[0]
    assert not torch.allclose(changed[1], found[0][1], atol=1e-3)  # words do matter


@EVERY
def test_questions_that_share_a_picture_are_answered_as_if_each_had_its_own(architecture, options):
    answerer, pictures = model(architecture, **options), grid()
    tokens, lengths, owner = questions()
    repeated = Grid.of(pictures.cells[owner], pictures.height, pictures.width)
    shared = answerer(pictures, tokens, lengths, owner)
    assert same(shared, answerer(repeated, tokens, lengths))
    assert same(shared, answerer.answer(answerer.encode_picture(pictures), tokens, lengths, owner))
    everyone = torch.arange(B)
    own = answerer(pictures, tokens[:B], lengths[:B])
    assert same(own, answerer(pictures, tokens[:B], lengths[:B], everyone))
    assert not torch.allclose(shared[0], answerer(pictures, tokens, lengths, (owner + 1) % B)[0])


@EVERY
def test_the_blind_twin_sees_no_picture(architecture, options):
    asked = questions()
    seeing, blind = (model(architecture, **options, blind=blind) for blind in (False, True))
    assert not torch.allclose(seeing(grid(), *asked)[0], seeing(grid(seed=9), *asked)[0], atol=1e-3)
    assert same(blind(grid(), *asked), blind(grid(seed=9), *asked))
    nothing = Grid.of(torch.zeros_like(grid().cells), 2, 3)
    assert same(blind(grid(), *asked), seeing(nothing, *asked))  # the same model otherwise
    broken = Grid.of(torch.full_like(grid().cells, float("nan")), 2, 3)
    assert same(blind(broken, *asked), blind(grid(), *asked))


@EVERY
def test_gradients_reach_every_parameter(architecture, options):
    answerer = model(architecture, **options, dropout=0.2, grid_dropout=0.1, word_dropout=0.1)
    torch.manual_seed(1)
    logits, _ = answerer.train()(grid(), *questions())
    logits.logsumexp(1).sum().backward()
    for name, parameter in answerer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name
    assert not answerer.embed.weight.grad[0].any()  # padding learns nothing


@EVERY
def test_dropout_is_for_training_alone(architecture, options):
    answerer = model(architecture, **options, dropout=0.5)
    asked = grid(), *questions()
    assert same(answerer(*asked), answerer(*asked))
    answerer.train()
    assert not torch.allclose(answerer(*asked)[0], answerer(*asked)[0], atol=1e-3)


@EVERY
def test_in_bfloat16_answers_and_gradients_are_nearly_the_same(architecture, options):
    answerer = model(architecture, **options, dropout=0.0).float()
    pictures, results = Grid.of(grid(7, 7).cells.float(), 7, 7), []
    for rough in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=rough):
            logits, attention = answerer(pictures, *questions())
        assert attention is None or attention.dtype == torch.float32
        total, learned = logits.float().logsumexp(1).sum(), list(answerer.parameters())
        gradients = torch.autograd.grad(total, learned)
        results.append((logits.float(), torch.cat([x.flatten() for x in gradients])))
    for exact, rough in zip(*results, strict=True):
        assert (rough - exact).norm() < 0.1 * exact.norm()


def test_the_image_vector_starts_as_strong_whatever_normalises_it():
    torch.manual_seed(0)
    channels = 400
    vector = torch.rand(64, channels) * 9
    pictures = Grid.of(vector.unsqueeze(1), 1, 1)
    for normalise in ("l2", "layer"):
        for architecture in ("bow-mlp", "lstm-vqa"):
            built = build_answerer(**config(architecture, channels=channels, normalise=normalise))
            seen = (built.encode_grid(pictures) - built.image.bias).detach()
            assert 0.4 < float(seen.square().mean().sqrt()) < 0.75
            assert float(seen.tanh().abs().mean()) < 0.6  # far from the tanh's ends


@pytest.mark.parametrize(
    ("architecture", "field", "value", "message"),
    [
        ("bow-mlp", "answers", 0, "answers 0: expected 1 or more"),
        ("bow-mlp", "layers", -1, "--layers -1: expected 1 or more"),
        ("bow-mlp", "pooling", "max", "--pooling max: expected one of sum, mean"),
        ("bow-mlp", "hidden", 8, "--hidden: bow-mlp has no such option; expected one of lst"),
        ("lstm-vqa", "dropout", 1.0, "--dropout 1.0: expected 0 up to below 1"),
        ("lstm-vqa", "word_dropout", -0.1, "--word-dropout -0.1: expected 0 up to below 1"),
        ("lstm-vqa", "fusion", "sum", "--fusion sum: expected one of concat, product"),
        ("lstm-vqa", "normalise", "l1", "--normalise l1: expected one of l2, layer, none"),
        ("lstm-vqa", "passes", 9, "--passes: lstm-vqa has no such option; expected one of dmn"),
        ("dmn-plus", "passes", 0, "--passes 0: expected 1 or more"),
        ("dmn-plus", "passes", "3", "--passes 3: expected a whole number"),
        ("dmn-plus", "blind", 1, "--blind 1: expected true or false"),
        ("dmn-plus", "memory", "lstm", "--memory lstm: expected one of relu, gru"),
        ("dmn-plus", "attention_kind", "hard", "--attention-kind hard: expected one of gru, soft"),
        ("dmn-plus", "question", "bow", "--question bow: expected one of gru, lstm"),
        ("dmn", "passes", 1, "--architecture dmn: expected one of bow-mlp, lstm-vqa, att"),
    ],
)
def test_what_cannot_be_built_is_named(architecture, field, value, message):
    sizes = {"channels": C, "vocabulary": V, "answers": A}
    with pytest.raises(UsageError, match=f"^{message}"):
        build_answerer(architecture, **{**sizes, field: value})


def test_the_union_of_all_options_says_whose_each_is():
    union = all_options({**CAPTIONERS, **ANSWERERS})
    assert union["passes"].architectures == ("dmn-plus",)
    assert union["passes"].default == 3
    assert union["passes"].help == "Passes over the picture (dmn-plus)."
    assert union["layers"].help == "Hidden layers (bow-mlp). LSTM layers (lstm-vqa)."
    assert union["embedding"].help == "Width of the word embeddings."
    assert union["fusion"].type == Literal["concat", "product"]
    # What a command line shows as the default holds for every architecture that has the option.
    for name, each in union.items():
        for architecture in each.architectures:
            of = {**CAPTIONERS, **ANSWERERS}[architecture].Options()
            assert getattr(of, name) == each.default
