"""Several processes train as one would; they are killed and go on; who cannot begin says why."""

import multiprocessing
import os
import re
import shutil
import signal
from functools import partial

import pytest
import torch
import torch.distributed.run as torchrun
from hypothesis import given
from hypothesis import strategies as st

import gazetell
from gazetell.data.records import Dataset
from gazetell.errors import GazetellError, ImageError, OtherRankError, UsageError
from gazetell.training import devices
from gazetell.training.devices import Ranks, Shares, deal, find_ranks
from gazetell.training.fit import resume, train

# Sums of float32 in another order; the models end as near to each other as this.
NEAR = {"rel": 1e-4, "abs": 1e-5}
FROZEN = {"encoder_trainable": "none"}
forked = partial(devices.start_processes, start_method="fork")
# Fresh ones, but of a process that has imported once what takes longer than all the rest.
fresh = partial(devices.start_processes, start_method="forkserver")
multiprocessing.set_forkserver_preload(["gazetell.training.fit"])


def alike(tiny, one, other):
    """Whether two runs have the same curves and nearly the same weights."""
    rows, others = tiny.rows(one), tiny.rows(other)
    assert len(rows) == len(others)
    for row, second in zip(rows, others, strict=True):
        assert row == pytest.approx(second, **NEAR)
    first, second = tiny.weights(one), tiny.weights(other)
    assert first.keys() == second.keys()
    assert all(torch.allclose(first[k], second[k], rtol=1e-3, atol=1e-5) for k in first)


# -- sharing a batch ---------------------------------------------------------------------------

batches = st.lists(st.integers(1, 60), min_size=1, max_size=40)


@given(words=batches, ranks=st.integers(1, 5))
def test_a_batch_is_dealt_whole_and_evenly(words, ranks):
    pictures = [7 * n for n in range(len(words))]
    lengths = dict(zip(pictures, words, strict=True))
    shares = deal(pictures, lengths, ranks)
    assert sorted(p for share in shares for p in share) == pictures
    sizes = [len(share) for share in shares]
    assert max(sizes) - -(-len(words) // ranks) <= 0
    assert all(share == sorted(share) for share in shares)
    loads = [sum(lengths[p] for p in share) for share in shares]
    # Never worse than dealing them out at random by more than the largest picture.
    assert max(loads) <= sum(words) / ranks + max(words)


def test_words_are_balanced_where_pictures_differ():
    """Numbers of pictures alone would leave one rank half as much work again."""
    words = [52, 50, 48, 46, 20, 18, 16, 14] * 4
    loads = [sum(words[p] for p in share) for share in deal(range(32), words, 2)]
    assert max(loads) / min(loads) < 1.02


@given(words=batches, batch=st.integers(1, 9), world=st.integers(1, 4))
def test_the_batches_of_all_ranks_are_those_of_one(words, batch, world):
    order = torch.randperm(len(words), generator=torch.Generator().manual_seed(3)).tolist()
    every = [Shares(order, batch, words, Ranks(devices=world, rank=r)) for r in range(world)]
    steps = [list(each) for each in every]
    assert len({len(each) for each in [*every, *steps]}) == 1
    for step, parts in enumerate(zip(*steps, strict=True)):
        own = [part for part, each in zip(parts, every, strict=True) if not each.idle(step)]
        assert all(parts)
        whole = order[step * batch : (step + 1) * batch]
        assert sorted(p for part in own for p in part) == sorted(whole)


# -- two processes -----------------------------------------------------------------------------


def test_two_processes_of_torchrun_train_as_one(tiny, tmp_path, capfd):
    """Batches of 5, 5, 5 and 1 of 16 pictures: the last leaves one process without a picture.

    The launcher is a fork, and what it starts are forks: importing torch takes longer than all.
    """
    shutil.copytree(tiny.data, tmp_path / "data", ignore=shutil.ignore_patterns("features"))
    chosen = {"attention_penalty": 0.5, "batch": 5, "epochs": 3, "ema": 0.5, **FROZEN}
    script = tmp_path / "script.py"
    script.write_text("from gazetell.cli import main\nmain()\n")
    port = str(devices.find_free_network_port())
    words = ["--nproc-per-node", "2", "--master-port", port, "--start-method", "fork"]
    words += ["--run-path", script, "train", tmp_path / "data", "--out", tmp_path / "two"]
    words = [*map(str, words), *tiny.flags(**chosen)]
    launcher = multiprocessing.get_context("fork").Process(target=torchrun.main, args=(words,))
    launcher.start()
    launcher.join()
    said = capfd.readouterr().err
    assert launcher.exitcode == 0, said
    for line in ("2 processes", "model written to"):
        assert said.count(line) == 1
    tiny.train(tmp_path / "one", data=tmp_path / "data", **chosen)
    alike(tiny, tmp_path / "one", tmp_path / "two")
    # The cache was made once, by the first of them.
    assert len(list((tmp_path / "data/features").glob("*/*.npy"))) == 1
    models = [gazetell.load(tmp_path / name, precision="fp32") for name in ("one", "two")]
    dataset = Dataset.open(tiny.data)
    for record in dataset.split("val"):
        said = [model.caption(dataset.path(record)) for model in models]
        assert said[0].text == said[1].text
    assert models[0].confidence == models[1].confidence


def test_a_killed_process_ends_all_and_one_goes_on(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "start_processes", fresh)
    chosen = {"architecture": "dmn-plus", "attention_width": 12, "batch": 6, "epochs": 4}
    chosen |= {"label_smoothing": 0.0, **FROZEN}
    run = tmp_path / "run"

    def kill(line):
        if line.startswith("epoch 2/"):
            ranks = sorted(multiprocessing.active_children(), key=lambda each: each.pid)
            os.kill(ranks[1].pid, signal.SIGKILL)

    said = f"process 2 of 2 was ended by SIGKILL; go on with: .*--resume {run}"
    with pytest.raises(GazetellError, match=said):
        train(tiny.data, run, tiny.options(**chosen, devices=2), report=kill)
    assert not multiprocessing.active_children()
    assert not (run / "config.json").exists()
    tiny.train(tmp_path / "whole", **chosen)
    lines = []
    resume(run, devices=1, report=lines.append)
    assert lines[0].startswith("resuming")
    assert "processes" not in lines[1]
    alike(tiny, tmp_path / "whole", run)


def wait(folder, report, progress):
    """What a rank does while it is interrupted: its file tells how it ended."""
    file = folder / os.environ["RANK"]
    file.touch()
    try:
        report("begun")
        signal.sigtimedwait([], 60)
    finally:
        file.write_text("cleaned up")


def test_ctrl_c_ends_all_and_none_says_more(tmp_path, capfd, monkeypatch):
    """In a terminal the ranks hear it too, and perhaps before the one that started them."""
    monkeypatch.setattr(devices, "start_processes", forked)
    monkeypatch.setattr(devices, "GRACE", 60.0)  # a busy machine may let a rank wait for seconds
    lines = []

    def interrupt(line):
        lines.append(line)
        if len(lines) == 2:
            for rank in multiprocessing.active_children():
                os.kill(rank.pid, signal.SIGINT)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        devices.launch(wait, (tmp_path,), 2, tmp_path, interrupt, False)
    assert not multiprocessing.active_children()
    assert [(tmp_path / name).read_text() for name in "01"] == ["cleaned up"] * 2
    assert lines == ["begun"] * 2
    assert capfd.readouterr().err == ""


def test_a_failed_start_leaves_no_folder(tiny, tmp_path, monkeypatch):
    """The processes are forks here, which need not import torch anew as fresh ones must."""
    monkeypatch.setattr(devices, "start_processes", forked)
    shutil.copytree(tiny.data, tmp_path / "data", ignore=shutil.ignore_patterns("features"))
    broken = next((tmp_path / "data/images").iterdir())
    broken.write_text("no picture")
    with pytest.raises(ImageError, match=broken.name):
        tiny.train(tmp_path / "run", data=tmp_path / "data", devices=2, **FROZEN)
    assert not (tmp_path / "run").exists()
    assert not multiprocessing.active_children()


# -- who takes part ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"devices": 0}, "--devices 0: expected 1 or more"),
        ({"nodes": 2}, "--nodes 2: expected a start by torchrun or srun"),
        ({"devices": 2, "batch": 1}, "--batch 1: fewer pictures per step than 2 devices"),
        ({"devices": 2, "strategy": "fsdp"}, "--strategy fsdp: needs GPUs with CUDA, not cpu"),
        ({"strategy": "ddp"}, "--strategy ddp: needs more than one device"),
        ({"strategy": "dp"}, "--strategy dp: expected one of auto, ddp, fsdp"),
    ],
)
def test_what_cannot_be_shared_is_refused(chosen, said, tiny, tmp_path):
    with pytest.raises(UsageError, match=re.escape(said)):
        tiny.train(tmp_path / "run", device="cpu", **chosen)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("device", "chosen", "said"),
    [
        ("mps", {}, "--devices 2: there is only one mps"),
        ("cuda:1", {}, "--devices 2: --device cuda:1 is a single one"),
        ("cuda", {"devices": 4}, "--devices 4: this machine has 3 GPUs"),
        ("cuda", {"strategy": "fsdp", "ema": 0.9}, "--ema 0.9: "),
    ],
)
def test_devices_that_are_not_there(device, chosen, said, tiny, monkeypatch):
    monkeypatch.setattr(devices, "choose_device", lambda name: torch.device(device))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    with pytest.raises(UsageError, match=re.escape(said)):
        find_ranks(tiny.options(**{"devices": 2, **chosen}))


SRUN = {"SLURM_STEP_NUM_TASKS": 6, "SLURM_NTASKS": 6, "SLURM_NTASKS_PER_NODE": 3}
SRUN |= {"SLURM_NNODES": 2, "SLURM_PROCID": 4, "SLURM_LOCALID": 1, "SLURM_NODEID": 1}
TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": 6, "LOCAL_WORLD_SIZE": 3}
TORCHRUN |= {"RANK": 4, "LOCAL_RANK": 1, "GROUP_RANK": 1}


@pytest.mark.parametrize("told", [SRUN, TORCHRUN], ids=["srun", "torchrun"])
def test_a_launcher_says_who_this_is(told, tiny, monkeypatch):
    for name, value in told.items():
        monkeypatch.setenv(name, str(value))
    for chosen in ({}, {"devices": 3, "nodes": 2}):
        ranks = find_ranks(tiny.options(device="cpu", **chosen))
        assert (ranks.devices, ranks.nodes, ranks.rank, ranks.local) == (3, 2, 4, 1)
        assert ranks.started
        assert not ranks.first
    for name, value in (("devices", 2), ("nodes", 1)):
        with pytest.raises(UsageError, match=f"--{name} {value}: the launcher started"):
            find_ranks(tiny.options(**{name: value}))


@pytest.mark.parametrize("name", ["WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"])
def test_another_launcher_is_refused(name, tiny, tmp_path, monkeypatch):
    monkeypatch.setenv(name, "2")
    with pytest.raises(UsageError, match=f"{name}=2: a launcher started 2 processes"):
        tiny.train(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_one_raises_ends_all(monkeypatch):
    """Seen from the second of two; the first says what is wrong."""
    ranks = Ranks(devices=2, rank=1)
    monkeypatch.setattr(ranks, "gathered", lambda failed: [True, failed])
    with pytest.raises(OtherRankError, match="process 1 of 2"), ranks.together():
        pass
    monkeypatch.setattr(ranks, "gathered", lambda failed: [False, failed])
    with pytest.raises(ImageError), ranks.together():
        raise ImageError("x.png: is not a picture")


# -- threads -----------------------------------------------------------------------------------


def test_training_finds_its_threads_and_leaves_the_process_as_it_was(tiny, tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert devices._products(torch.get_num_threads(), seconds=0.002) > 0
    # Three epochs; each tries one thread, two, one, two.
    slow, fast = [(3, 0), (0, 2)] * 2, [(1, 0), (0, 2)] * 2
    rates = iter([*fast, *slow, *fast])
    monkeypatch.setattr(devices, "_products", lambda threads: next(rates)[threads - 1])
    now = [2]  # in name alone: threads that wait for a busy core are slow
    monkeypatch.setattr(torch, "get_num_threads", lambda: now[-1])
    monkeypatch.setattr(torch, "set_num_threads", now.append)
    lines = tiny.train(tmp_path, architecture="lstm", device="cpu", epochs=3)
    assert now[-1] == 2
    said = [line[:5] for line in lines if line[:5] in ("epoch", "1 of ", "2 of ")]
    assert said == ["epoch", "1 of ", "epoch", "2 of ", "epoch"]
