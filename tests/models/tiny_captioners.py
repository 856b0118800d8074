"""Tiny captioners in float64, and what they are given."""

import torch

from gazetell.models.captioners import CAPTIONERS, build_captioner
from gazetell.models.encoders import Grid

# No two are alike, so that a transposed matrix shows.
B, R, C, T, E, H, V, A = 4, 6, 5, 7, 3, 8, 11, 9

WITHOUT_ATTENTION = ("rnn", "lstm")
WITH_ATTENTION = [name for name in CAPTIONERS if name not in WITHOUT_ATTENTION]


def model(architecture, seed=0, attention_width=A, **options):
    """Only attention that is additive has a width."""
    torch.manual_seed(seed)
    sizes = {"channels": C, "vocabulary": V, "embedding": E, "hidden": H, "dropout": 0.3}
    if hasattr(CAPTIONERS[architecture].Options, "attention_width"):
        sizes["attention_width"] = attention_width
    built = build_captioner(architecture, **{**sizes, **options}).double().eval()
    with torch.no_grad():  # biases that are not zero, so that a forgotten one shows
        for parameter in built.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return built


def grid(seed=1, batch=B):
    random = torch.Generator().manual_seed(seed)
    return Grid.of(torch.randn(batch, R, C, generator=random, dtype=torch.float64), 2, 3)


def words(seed=2, batch=B, steps=T):
    random = torch.Generator().manual_seed(seed)
    return torch.randint(0, V, (batch, steps), generator=random)


def numbers(captioner):
    """All weights as lists of Python floats."""
    return {name: tensor.tolist() for name, tensor in captioner.state_dict().items()}


def follows(captioner, by_hand):
    """Whether teacher forcing gives what ``by_hand(p, cells, tokens)`` does for each picture."""
    pictures, tokens = grid(), words()
    logits, attention = captioner(pictures, tokens)
    assert logits.shape == (B, T, V)
    for b in range(B):
        results = by_hand(numbers(captioner), pictures.cells[b].tolist(), tokens[b].tolist())
        expected, gaze = (torch.tensor(x, dtype=torch.float64) for x in results)
        assert torch.allclose(logits[b], expected, atol=1e-10, rtol=0)
        if attention is not None:
            assert torch.allclose(attention[b], gaze, atol=1e-10, rtol=0)
    return True
