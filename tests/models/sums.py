"""Sums of the equations by hand, on lists of Python floats."""

import math


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def softmax(scores):
    total = sum(math.exp(score) for score in scores)
    return [math.exp(score) / total for score in scores]


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def add(*vectors):
    return [sum(values) for values in zip(*vectors, strict=True)]


def times(matrix, x):
    return [dot(row, x) for row in matrix]


def mean(vectors):
    return [sum(values) / len(vectors) for values in zip(*vectors, strict=True)]


def weighted(weights, vectors):
    return [dot(weights, values) for values in zip(*vectors, strict=True)]


def normalised(x):
    """Layer normalisation without learned scale."""
    centre = sum(x) / len(x)
    variance = sum((value - centre) ** 2 for value in x) / len(x)
    return [(value - centre) / math.sqrt(variance + 1e-5) for value in x]


def layer_norm(weight, bias, x):
    return [w * value + b for w, value, b in zip(weight, normalised(x), bias, strict=True)]


def lstm(gates, c):
    """h and c after one step, from the affine sums of the gates i, f, g and o."""
    i, f, g, o = (gates[n * len(c) : (n + 1) * len(c)] for n in range(4))
    c = [sigmoid(f[j]) * c[j] + sigmoid(i[j]) * math.tanh(g[j]) for j in range(len(c))]
    return [sigmoid(o[j]) * math.tanh(c[j]) for j in range(len(c))], c


def gru(p, name, x, h, end=""):
    """One step of torch's GRU, gates r, z, n; ``end`` as in ``l0_reverse``."""
    from_x = add(times(p[f"{name}.weight_ih{end}"], x), p[f"{name}.bias_ih{end}"])
    from_h = add(times(p[f"{name}.weight_hh{end}"], h), p[f"{name}.bias_hh{end}"])
    new, size = [], len(h)
    for j in range(size):
        r = sigmoid(from_x[j] + from_h[j])
        z = sigmoid(from_x[size + j] + from_h[size + j])
        n = math.tanh(from_x[2 * size + j] + r * from_h[2 * size + j])
        new.append((1 - z) * n + z * h[j])
    return new


def affine(p, name, x):
    """W x + b of a linear layer."""
    return add(times(p[f"{name}.weight"], x), p[f"{name}.bias"])


def tanh(x):
    return [math.tanh(value) for value in x]


def length_one(x):
    return [value / math.sqrt(dot(x, x)) for value in x]
