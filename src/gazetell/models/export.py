"""Writing a model as ONNX graphs, which run without torch; ``gazetell.onnx`` runs them.

A folder of graphs holds, besides ``model.json`` and the vocabularies::

    encoder.onnx            pixels (B, 3, S, S) uint8 -> cells (B, R, C), before any projection
    captioner/start.onnx    cells -> state_0, state_1, ... (B, ...): what a captioner carries
    captioner/step.onnx     tokens (B,), the states -> log_probs (B, V), the first of the states
                            behind the word, attention (B, R) where the captioner has it
    answerer/answer.onnx    cells, tokens (B, T) -> logits (B, A), attention (B, P, R) likewise

B and T may be any number; the T words of a question are all words, without padding. Weights are
float32. With ``int8`` the matrices of captioner and answerer have 8 bits, and so have the numbers
that they are multiplied with, by scales that are found at each call; the encoder stays as it is.

Shapes: ``B`` batch, ``S`` input side, ``R`` regions, ``C`` channels, ``T`` words, ``E`` embedding,
``H`` hidden, ``V`` vocabulary, ``A`` answers, ``P`` passes, ``D`` directions.
"""

import hashlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from copy import deepcopy
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim

from .. import __version__
from ..errors import ModelError, UsageError
from ..files import atomic_path, write_json
from .answerers import AttentionGRU, RegionGates
from .captioners import State
from .encoders import Encoder, Grid
from .folder import AnswererFolder, CaptionerFolder
from .search import check_plain

FORMAT = 1  # of the folder, as gazetell.onnx reads it
OPSET = 18
# The gates of the operators in their order, by their places in torch's.
GATES = {nn.LSTM: (0, 3, 1, 2), nn.GRU: (1, 0, 2)}


def save_graphs(
    folder: Path, *models: CaptionerFolder | AnswererFolder, int8: bool = False
) -> None:
    """Write a captioner, an answerer, or both on one encoder, as the head of this module says.

    ``model.json`` comes last and holds the checksums of the other files.

    Raises:
        ModelError: two encoders, or a network that torch cannot export, or not as it computes.
        UsageError: a package is not installed, or the model's own decoding has an option that
            ``gazetell.onnx`` has not.
        WriteError: the folder cannot be written.
    """
    if missing := [name for name in ("onnxscript", "onnxruntime") if find_spec(name) is None]:
        packages = f"pip install onnx {' '.join(missing)} (extra onnx)"
        raise UsageError(f"--onnx needs {' and '.join(missing)}: {packages}")
    encoder = models[0].encoder
    if any(model.encoder.fingerprint() != encoder.fingerprint() for model in models[1:]):
        raise ModelError("captioner and answerer have different encoders; expected the same CNN")
    about: dict[str, Any] = {"format": FORMAT, "gazetell": __version__, "opset": OPSET}
    about |= {
        "int8": int8,
        # The cells are the area of the input that the grid tiles: left, top, right, bottom.
        "picture": {
            "size": encoder.size,
            "fit": encoder.config.fit,
            "fill": encoder.frame.fill,
            "cells": encoder.view((1, 1)).cells,
        },
        "grid": {"height": encoder.height, "width": encoder.width},
    }
    draw = torch.Generator().manual_seed(0)
    size = (2, 3, encoder.size, encoder.size)
    pixels = torch.randint(256, size, generator=draw, dtype=torch.uint8)
    with torch.inference_mode():
        cells = encoder.encode(pixels).cells.clone()
    files = [folder / "encoder.onnx"]
    _write(files[0], _encode, encoder, {"pixels": pixels}, {"cells": cells})
    for model in models:
        own = folder / model.kind
        if isinstance(model, CaptionerFolder):
            check_plain(model.decoding)
            about[model.kind] = _captioner(own, model, cells, int8)
            files += [own / "start.onnx", own / "step.onnx"]
        else:
            about[model.kind] = _answerer(own, model, cells, int8)
            files.append(own / "answer.onnx")
        model.tokenizer.save(own / "tokenizer.json")
        files.append(own / "tokenizer.json")
        about[model.kind] |= {
            "architecture": model.network.architecture,
            "novelty": model.novelty and model.novelty.to_dict(),
            "blind": model.network.options.blind,
            "special": dict(zip(("pad", "start", "end", "unk"), range(4), strict=True)),
        }
    about["sha256"] = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }
    write_json(folder / "model.json", about)


def _encode(encoder: Encoder, pixels: Tensor) -> Tensor:
    return encoder.encode(pixels).cells


def _projected(encoder: Encoder, cells: Tensor) -> Grid:
    """The grid that a captioner or an answerer reads, of the CNN's cells."""
    return encoder.project_grid(Grid.of(cells, encoder.height, encoder.width))


def _captioner(folder: Path, model: CaptionerFolder, cells: Tensor, int8: bool) -> dict[str, Any]:
    """Write a captioner's graphs; its settings."""
    encoder, captioner = model.encoder, model.captioner.float().eval()
    both = nn.ModuleList([encoder, captioner])

    def start(_: nn.Module, cells: Tensor) -> tuple[Tensor, ...]:
        state = captioner.start(_projected(encoder, cells))
        return (*state.recurrent, *state.memory)

    def step(_: nn.Module, tokens: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        state = State(states[:recurrent], states[recurrent:])
        logits, state, attention = captioner.step(tokens, state)
        found = (logits.float().log_softmax(1), *state.recurrent)
        return found if attention is None else (*found, attention)

    tokens = torch.ones(2, dtype=torch.long)
    with torch.inference_mode():
        first = captioner.start(_projected(encoder, cells))
        recurrent = len(first.recurrent)
        states = {f"state_{n}": x.clone() for n, x in enumerate(first.recurrent + first.memory)}
        found = step(captioner, tokens, *states.values())
    names = ("log_probs", *(f"next_{n}" for n in range(recurrent)), "attention")
    _write(folder / "start.onnx", start, both, {"cells": cells}, states, int8)
    inputs = {"tokens": tokens, **states}
    _write(
        folder / "step.onnx", step, captioner, inputs, dict(zip(names, found, strict=False)), int8
    )
    return {
        "recurrent": recurrent,
        "decoding": asdict(model.decoding),
        "confidence": model.confidence and model.confidence.to_dict(),
    }


def _answerer(folder: Path, model: AnswererFolder, cells: Tensor, int8: bool) -> dict[str, Any]:
    """Write an answerer's graph; its settings."""
    encoder, answerer = model.encoder, _plain(model.answerer.float().eval())

    def answer(_: nn.Module, cells: Tensor, tokens: Tensor) -> tuple[Tensor, ...]:
        lengths = torch.full_like(tokens[:, 0], tokens.shape[1])
        logits, attention = answerer(_projected(encoder, cells), tokens, lengths)
        return (logits,) if attention is None else (logits, attention)

    both = nn.ModuleList([encoder, answerer])
    tokens = torch.tensor([[3, 4, 3], [4, 3, 3]])
    with torch.inference_mode():
        found = model.answerer(_projected(encoder, cells), tokens, torch.tensor([3, 3]))
    outputs = {n: x for n, x in zip(("logits", "attention"), found, strict=True) if x is not None}
    inputs = {"cells": cells, "tokens": tokens}
    _write(folder / "answer.onnx", answer, both, inputs, outputs, int8)
    settings = "temperature", "unknown_temperature", "sigmoid", "max_question", "abstain_below"
    return {
        "answers": list(model.answers.answers),
        **{name: getattr(model, name) for name in settings},
    }


class _Graph(nn.Module):
    """A function of a network as a network."""

    def __init__(self, run: Callable[..., Any], network: nn.Module) -> None:
        super().__init__()
        self.run, self.network = run, network

    def forward(self, *inputs: Tensor) -> Any:
        return self.run(self.network, *inputs)


def _write(
    path: Path,
    run: Callable[..., Any],
    network: nn.Module,
    inputs: dict[str, Tensor],
    outputs: dict[str, Tensor],
    int8: bool = False,
) -> None:
    """Write ``run(network, *inputs)`` as a graph; rows, and words of ``tokens``, in any number.

    The graph must give ``outputs`` for ``inputs``, which are of two rows.
    """
    import onnxruntime

    rows, words = Dim("rows"), Dim("words")
    shapes = tuple(
        {0: rows, 1: words} if x.dim() == 2 and n == "tokens" else {0: rows}
        for n, x in inputs.items()
    )
    try:
        with _quiet(), torch.no_grad():
            program: Any = torch.onnx.export(
                _Graph(run, network).eval(),
                tuple(inputs.values()),
                dynamic_shapes=(shapes,),
                input_names=list(inputs),
                output_names=list(outputs),
                opset_version=OPSET,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise ModelError(f"{path.stem}: torch cannot export this network: {reason}") from error
    if any(isinstance(x.shape[0], int) for x in program.model.graph.inputs):
        raise ModelError(f"{path.stem}: this network takes no other number of pictures than two")
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # where in our files each node comes from
    graph = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    found = graph.run(None, {name: x.numpy() for name, x in inputs.items()})
    for name, x, expected in zip(outputs, found, outputs.values(), strict=True):
        if not np.allclose(x, expected, atol=1e-3 * float(expected.abs().max()), equal_nan=True):
            raise ModelError(f"{path.stem}: {name} of its graph is not what the network gives")
    with atomic_path(path) as temporary:
        program.save(temporary, external_data=False)
        if int8:
            from onnxruntime.quantization import QuantType, quantize_dynamic

            nodes = program.model.graph.all_nodes()
            # It takes no vector for a matrix.
            vectors = [x.name for x in nodes if any(map(_is_vector, x.inputs[:2]))]
            with _quiet():
                quantize_dynamic(
                    temporary,
                    temporary,
                    per_channel=True,
                    weight_type=QuantType.QInt8,
                    op_types_to_quantize=["MatMul", "Gemm"],
                    nodes_to_exclude=vectors,
                )


def _is_vector(value: Any) -> bool:
    """Whether a value of a graph is a constant of one dimension."""
    return value is not None and value.const_value is not None and len(value.const_value.shape) < 2


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter says of itself; of a failure it prints the whole graph."""
    with warnings.catch_warnings(), redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        before = logging.root.manager.disable
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(before)


class _Words(NamedTuple):
    """Words (B, T, E) in the place of a ``PackedSequence``."""

    data: Tensor


def _plain(answerer: Any) -> Any:
    """A copy of an answerer with what torch does not export done otherwise."""
    answerer = deepcopy(answerer)
    answerer.embed_words = lambda tokens, lengths: _Words(answerer.embed(tokens))
    for name, module in list(answerer.named_modules()):
        for kind, made in PLAIN.items():
            if isinstance(module, kind):
                parent, _, last = name.rpartition(".")
                setattr(answerer.get_submodule(parent), last, made(module))
    return answerer


def run_layer(
    kind: str, x: Tensor, weights: Tensor, states: Tensor, biases: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """ONNX's LSTM or GRU; torch would unroll one for one length, or make a loop of it.

    Args:
        kind: LSTM or GRU.
        x: (T, B, E).
        weights: (D, gates H, E).
        states: (D, gates H, H).
        biases: (D, 2 gates H), those of x before those of the state.

    Returns:
        The outputs (B, T, D H), and the last state (D, B, H); of an LSTM also its cell.
    """
    (steps, batch, _), (ways, _, hidden) = x.shape, states.shape
    attributes: dict[str, Any] = {"hidden_size": hidden}
    attributes["direction"] = "bidirectional" if ways == 2 else "forward"
    if kind == "GRU":
        attributes["linear_before_reset"] = 1  # as torch has it
    last = [ways, batch, hidden]
    shapes = [[steps, *last], *[last] * (2 if kind == "LSTM" else 1)]
    every, *state = torch.onnx.ops.symbolic_multi_out(
        kind,
        (x, weights, states, biases),
        attributes,
        dtypes=[x.dtype] * len(shapes),
        shapes=shapes,
        version=OPSET,
    )
    return every.permute(2, 0, 1, 3).flatten(2), state  # (T, D, B, H) -> (B, T, D H)


class _Recurrent(nn.Module):
    """A torch LSTM or GRU of one layer by ``run_layer``."""

    weights: Tensor
    states: Tensor
    biases: Tensor

    def __init__(self, layer: nn.LSTM | nn.GRU) -> None:
        super().__init__()
        if (layer.num_layers, layer.batch_first, layer.bias, layer.proj_size) != (1, True, True, 0):
            raise ModelError(f"{layer}: expected one layer with biases, batch first")
        self.kind, order = type(layer).__name__, GATES[type(layer)]

        def stacked(*names: str) -> Tensor:
            """Weights of these names, gates in the operator's order, a row a direction."""
            ways = ("", "_reverse") if layer.bidirectional else ("",)
            each = [
                [
                    getattr(layer, f"{name}_l0{way}").chunk(len(order))[gate]
                    for name in names
                    for gate in order
                ]
                for way in ways
            ]
            return torch.stack([torch.cat(gates) for gates in each]).detach()

        self.register_buffer("weights", stacked("weight_ih"))
        self.register_buffer("states", stacked("weight_hh"))
        self.register_buffer("biases", stacked("bias_ih", "bias_hh"))

    def forward(self, words: "_Words | Tensor") -> Any:
        x = (words.data if isinstance(words, _Words) else words).transpose(0, 1)
        outputs, state = run_layer(self.kind, x, self.weights, self.states, self.biases)
        found = outputs if isinstance(words, Tensor) else _Words(outputs)
        return found, tuple(state) if len(state) > 1 else state[0]


class _AttentionGRU(nn.Module):
    """``AttentionGRU`` as a GRU whose update gate z is 1 - g: a number more of its input is::

    z = sigmoid(log((1 - g) / g))
    """

    weights: Tensor
    states: Tensor
    biases: Tensor

    def __init__(self, reader: AttentionGRU) -> None:
        super().__init__()
        hidden, inputs = reader.state.shape[2], reader.facts.in_features
        weights = torch.zeros(reader.passes, 1, 3 * hidden, 1 + inputs)
        states = torch.zeros(reader.passes, 1, 3 * hidden, hidden)
        biases = torch.zeros(reader.passes, 1, 6 * hidden)
        weights[:, 0, :hidden, 0] = 1
        weights[:, 0, hidden:, 1:] = reader.facts.weight.detach().unflatten(0, (reader.passes, -1))
        states[:, 0, hidden:] = reader.state.detach()
        biases[:, 0, hidden : 3 * hidden] = reader.facts.bias.detach().view(reader.passes, -1)
        for name, value in (("weights", weights), ("states", states), ("biases", biases)):
            self.register_buffer(name, value)

    def drives(self, facts: Tensor) -> tuple[Tensor, ...]:
        """The facts: the operator takes them as they are."""
        return (facts,) * len(self.weights)

    def forward(self, facts: Tensor, gates: Tensor, number: int, _: None) -> Tensor:
        g = gates.clamp(1e-20, 1 - 2**-24)  # both logarithms are finite
        x = torch.cat(((torch.log1p(-g) - g.log()).unsqueeze(2), facts), 2).transpose(0, 1)
        each = self.weights[number], self.states[number], self.biases[number]
        return run_layer("GRU", x, *each)[1][0][0]


class _Gates(nn.Module):
    """``RegionGates`` by their equation, a question a picture."""

    def __init__(self, gates: RegionGates) -> None:
        super().__init__()
        self.gates = gates

    def forward(self, facts: Tensor, question: Tensor, memory: Tensor | None, _: None) -> Tensor:
        vectors = [v.unsqueeze(1) for v in (question, question if memory is None else memory)]
        z = [facts * v for v in vectors] + [(facts - v).abs() for v in vectors]  # 4 x (B, R, H)
        return (self.gates.inner(torch.cat(z, 2)).tanh() @ self.gates.score).softmax(1)


PLAIN: dict[type, Callable[[Any], nn.Module]] = {
    nn.LSTM: _Recurrent,
    nn.GRU: _Recurrent,
    AttentionGRU: _AttentionGRU,
    RegionGates: _Gates,
}
