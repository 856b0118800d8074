"""Tiny answerers in float64, and what they are given."""

import pytest
import torch
from tiny_captioners import numbers

from gazetell.models.answerers import ANSWERERS, build_answerer
from gazetell.models.encoders import Grid

# No two are alike, so that a transposed matrix shows. B pictures, N questions.
B, N, C, T, E, H, V, A, WIDTH, GATE = 3, 5, 6, 7, 4, 8, 13, 9, 11, 10

VARIANTS = [
    ("bow-mlp", {}),
    ("bow-mlp", {"pooling": "mean", "normalise": "layer", "layers": 1}),
    ("lstm-vqa", {}),
    ("lstm-vqa", {"fusion": "product", "normalise": "none", "layers": 1}),
    ("attention-vqa", {}),
    ("attention-vqa", {"glimpses": 1, "question": "lstm", "positions": True}),
    ("dmn-plus", {}),
    ("dmn-plus", {"question": "lstm", "passes": 1}),
    ("dmn-plus", {"attention_kind": "soft", "memory": "gru", "passes": 2}),
]
IDS = [" ".join((name, *map(str, options.values()))) for name, options in VARIANTS]
EVERY = pytest.mark.parametrize(("architecture", "options"), VARIANTS, ids=IDS)


def config(architecture, hidden=H, width=WIDTH, attention_width=GATE, **options):
    """Arguments of ``build_answerer``, of the three widths those that the architecture has."""
    sizes = {"channels": C, "vocabulary": V, "answers": A, "embedding": E}
    widths = {"hidden": hidden, "width": width, "attention_width": attention_width}
    has = ANSWERERS[architecture].Options
    widths = {name: value for name, value in widths.items() if hasattr(has, name)}
    return {"architecture": architecture, **sizes, **widths, **options}


def model(architecture, seed=0, **options):
    torch.manual_seed(seed)
    built = build_answerer(**config(architecture, **options)).double().eval()
    with torch.no_grad():  # biases that are not zero, so that a forgotten one shows
        for parameter in built.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return built


def grid(height=2, width=3, seed=1, batch=B):
    random = torch.Generator().manual_seed(seed)
    cells = torch.randn(batch, height * width, C, generator=random, dtype=torch.float64)
    return Grid.of(cells, height, width)


def questions(seed=2, count=N, steps=T):
    """Words (N, T), lengths (N,) in no order, one of them 1 and one T, and owners (N,)."""
    random = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, steps + 1, (count,), generator=random)
    lengths[0], lengths[1] = 1, steps
    tokens = torch.randint(1, V, (count, steps), generator=random)
    tokens *= torch.arange(steps) < lengths.unsqueeze(1)
    return tokens, lengths, torch.randint(0, B, (count,), generator=random)


def follows(answerer, by_hand, pictures):
    """Whether the answerer gives what ``by_hand(p, picture's cells, words)`` does."""
    tokens, lengths, owner = questions()
    logits, attention = answerer(pictures, tokens, lengths, owner)
    assert logits.shape == (N, A)
    p = numbers(answerer)
    for n in range(N):
        words = tokens[n, : lengths[n]].tolist()
        scores, gaze = by_hand(p, pictures.cells[owner[n]].tolist(), words)
        assert torch.allclose(logits[n], logits.new_tensor(scores), atol=1e-10, rtol=0)
        if gaze is not None:
            assert torch.allclose(attention[n], attention.new_tensor(gaze), atol=1e-10, rtol=0)
    return True
