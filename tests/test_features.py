"""Feature caches: what is in them, that a killed pass goes on, that damage and change are told."""

import errno
import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections import namedtuple
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image, ImageOps

from gazetell import features
from gazetell.data.records import CaptionRecord, Dataset, QuestionRecord
from gazetell.errors import DataError, GazetellError, ImageError, ModelError, WriteError
from gazetell.features import FeatureCache, build_cache, cache_folder, find_cache, grids
from gazetell.models.encoders import Encoder, EncoderConfig
from gazetell.models.precision import Precision
from gazetell.pictures import open_image, stack_pixels

COUNT, BLOCK, BATCH = 11, 4, 2
NAMES = [f"{n:02d}.png" for n in range(COUNT)]
CPU = torch.device("cpu")
FP32, BF16 = (Precision(dtype, "tested") for dtype in (torch.float32, torch.bfloat16))


def make_encoder(seed=0, size=32, **options):
    torch.manual_seed(seed)
    encoder = Encoder(EncoderConfig("small-cnn", size=size, **options)).eval()
    encoder.trunk[-2].weight.data *= 1000  # values of about 1, as trained networks have
    return encoder


@pytest.fixture(scope="module")
def encoder():
    return make_encoder()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of noise of many sizes. Not to be written to."""
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for name in NAMES:
        shape = (int(random.integers(40, 90)), int(random.integers(40, 90)), 3)
        Image.fromarray(random.integers(0, 256, shape, np.uint8)).save(folder / name)
    return folder


def dataset_of(root, folder, names=NAMES):
    records = tuple(CaptionRecord(name, name, ("a",), "train") for name in names)
    return Dataset("d", "table", root, records, folder=folder)


@pytest.fixture
def dataset(pictures, tmp_path):
    return dataset_of(pictures, tmp_path)


@pytest.fixture
def changeable(pictures, tmp_path):
    """The dataset, its pictures the test's own to change."""
    root = tmp_path / "own"
    shutil.copytree(pictures, root)
    return dataset_of(root, tmp_path)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(features, "BLOCK", BLOCK)


def build(dataset, encoder, precision=FP32, **options):
    options = {"flip": True, "batch": BATCH, "workers": 0} | options
    return build_cache(dataset, encoder, CPU, precision, **options)


def content(cache):
    return {path.name: path.read_bytes() for path in cache.folder.iterdir()}


@pytest.fixture(scope="module")
def whole(encoder, pictures, tmp_path_factory):
    """The bytes of an uninterrupted pass."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "BLOCK", BLOCK)
        return content(build(dataset_of(pictures, tmp_path_factory.mktemp("whole")), encoder))


class Stop(Exception):
    pass


def stopped_after(blocks, dataset, encoder):
    """A pass that stops once so many blocks are written; its folder."""

    def progress(done, total):
        if done == blocks * BLOCK:
            raise Stop

    with pytest.raises(Stop):
        build(dataset, encoder, progress=progress)
    return cache_folder(dataset, encoder, FP32, flip=True)


def counted(dataset, encoder):
    """How far another pass has come, each time it tells."""
    seen = []
    build(dataset, encoder, progress=lambda *at: seen.append(at))
    return seen


# -- what is in it ---------------------------------------------------------------------------


def test_the_cache_holds_what_the_encoder_sees(encoder, pictures, dataset):
    cache = build(dataset, encoder)
    assert [block.shape for block in cache.blocks] == [(n, 2, 2, 2, 128) for n in (4, 4, 3)]
    order, mirrored = [7, 0, 3, 3], np.array([False, True, True, False])
    grid = cache.grid([NAMES[n] for n in order], mirrored)
    cells = grid.cells
    assert (cells.shape, cells.dtype) == ((4, 4, 128), torch.float16)
    assert (grid.height, grid.width) == (2, 2)
    assert torch.equal(cache.load([NAMES[n] for n in order], mirrored), cells)
    for row, (n, flip) in enumerate(zip(order, mirrored, strict=True)):
        pixels = torch.from_numpy(encoder.frame.pixels(open_image(pictures / NAMES[n])))[None]
        with torch.no_grad():
            expected = encoder.encode(pixels.flip(3) if flip else pixels).cells[0]
        scale = float(expected.abs().max())
        assert torch.allclose(cells[row].float(), expected, rtol=1e-3, atol=1e-3 * scale)
    assert not torch.equal(cells[2], cells[3])
    before = cells[3].clone()
    assert torch.equal(cache.grid([NAMES[3]]).cells[0], before)
    cells[3] = 0  # a copy of its own: the file stays as it is
    assert torch.equal(cache.grid([NAMES[3]]).cells[0], before)


def test_without_mirrored_copies(encoder, dataset):
    one, two = (build(dataset, encoder, flip=flip) for flip in (False, True))
    assert one.folder != two.folder
    assert torch.equal(one.grid(NAMES).cells, two.grid(NAMES).cells)
    assert 2 * one.size == two.size == COUNT * 2 * 4 * 128 * 2
    with pytest.raises(DataError, match="no mirrored copies"):
        one.grid(NAMES[:2], np.array([False, True]))
    with pytest.raises(DataError, match=r"no features of 'other\.png'"):
        one.grid([NAMES[0], "other.png"])


def test_workers_and_batches_change_nothing(encoder, dataset, whole, tmp_path):
    workers = build(replace(dataset, folder=tmp_path / "w"), encoder, workers=2)
    assert content(workers) == whole
    other = build(replace(dataset, folder=tmp_path / "b"), encoder, batch=5)
    cells, expected = (cache.grid(NAMES).cells.float() for cache in (other, workers))
    assert torch.allclose(cells, expected, rtol=2e-3, atol=1e-3 * float(expected.max()))
    assert 0.1 < expected.max() < 100


def test_numbers_beyond_float16_are_cut_and_told(dataset, caplog):
    encoder = make_encoder()
    encoder.trunk[-2].weight.data *= 1e9
    assert build(dataset, encoder).grid(NAMES).cells.max() == 65504
    assert "are cut to 65504.0" in caplog.text
    encoder.trunk[-2].weight.data[:] = torch.nan
    with pytest.raises(ModelError, match="not finite"):
        build(dataset, encoder)


# -- stopped and gone on ---------------------------------------------------------------------


def test_progress_and_nothing_twice(encoder, dataset, whole):
    assert counted(dataset, encoder) == [(n, 11) for n in (2, 4, 6, 8, 10, 11)]
    assert counted(dataset, encoder) == []
    assert content(build(dataset, encoder)) == whole


@pytest.mark.parametrize("blocks", [1, 2])
@pytest.mark.parametrize("extra", [b"", b"half a block" * 99])
def test_a_stopped_pass_goes_on(encoder, dataset, whole, blocks, extra):
    folder = stopped_after(blocks, dataset, encoder)
    (folder / f"{blocks:05d}.npy").write_bytes(extra)  # written, but not yet counted
    assert counted(dataset, encoder)[0] == (blocks * BLOCK + BATCH, COUNT)
    assert content(FeatureCache(folder, dataset.root)) == whole


def test_the_pictures_of_a_quick_try_are_kept_for_the_rest(encoder, dataset, whole):
    few, lines, seen = [NAMES[n] for n in (7, 2, 9)], [], []
    cache = build(dataset, encoder, pictures=few, report=lines.append)
    assert sorted(cache.rows) == sorted(few)
    assert find_cache(dataset, encoder, FP32, few).folder == cache.folder
    build(dataset, encoder, report=lines.append, progress=lambda *at: seen.append(at))
    assert seen[0] == (5, COUNT)
    assert [line.partition(" in ")[0] for line in lines] == [
        "pictures to encode: 3 of 3, 0 MB",
        "pictures to encode: 8 of 11, 0 MB",
    ]
    full = FeatureCache(cache.folder, dataset.root)
    assert sum(map(len, full.blocks)) == COUNT
    other = build(replace(dataset, folder=dataset.folder / "other"), encoder)
    assert torch.allclose(full.grid(NAMES).cells, other.grid(NAMES).cells, rtol=1e-3, atol=1e-3)
    assert build(dataset, encoder, pictures=few, report=lines.append).folder == cache.folder
    assert len(lines) == 2  # nothing is left to do


# -- pictures that change --------------------------------------------------------------------


def test_replaced_and_new_pictures_are_encoded_anew_and_told(encoder, changeable, caplog):
    before = build(changeable, encoder).grid(NAMES).cells
    for name in NAMES[:3]:
        ImageOps.invert(Image.open(changeable.root / name)).save(changeable.root / name)
    shutil.copy(changeable.root / NAMES[5], changeable.root / "new.png")
    grown = dataset_of(changeable.root, changeable.folder, [*NAMES, "new.png"])
    after = build(grown, encoder)
    (line,) = [record.getMessage() for record in caplog.records]
    assert (
        f"{after.folder}: pictures that have changed are encoded again: 3 (first: 00.png)" == line
    )
    assert sum(map(len, after.blocks)) == COUNT + 4  # only what changed
    cells = after.grid([*NAMES, "new.png"]).cells
    for n in range(3):
        assert not torch.allclose(cells[n], before[n])
    assert torch.equal(cells[3:COUNT], before[3:])
    assert torch.equal(cells[COUNT], before[5])
    assert counted(grown, encoder) == []


def test_a_picture_that_is_gone_keeps_its_record(encoder, changeable):
    cells = build(changeable, encoder).grid(NAMES).cells
    shutil.rmtree(changeable.root)
    assert torch.equal(build(changeable, encoder).grid(NAMES).cells, cells)


def test_a_worker_leaves_ctrl_c_to_its_parent_and_its_death_is_one_line(
    encoder, dataset, whole, tmp_path
):
    def send(number):
        return lambda *_: [os.kill(p.pid, number) for p in multiprocessing.active_children()]

    heard = replace(dataset, folder=tmp_path / "heard"), encoder
    assert content(build(*heard, workers=1, progress=send(signal.SIGINT))) == whole
    killed = replace(dataset, folder=tmp_path / "killed"), encoder
    with pytest.raises(GazetellError, match="a process that opens pictures has ended"):
        build(*killed, workers=1, batch=1, progress=send(signal.SIGKILL))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_picture_is_named_and_can_be_mended(
    encoder, pictures, changeable, whole, workers
):
    (changeable.root / NAMES[9]).write_bytes(b"no picture")
    with pytest.raises(ImageError, match=rf"{NAMES[9]}: is not a picture") as caught:
        build(changeable, encoder, workers=workers)
    assert "\n" not in str(caught.value)
    shutil.copy(pictures / NAMES[9], changeable.root)
    assert counted(changeable, encoder) == [(10, 11), (11, 11)]
    assert content(build(changeable, encoder))["00002.npy"] == whole["00002.npy"]


def test_each_encoder_root_and_precision_has_its_cache(encoder, pictures, dataset, tmp_path):
    folder = cache_folder(dataset, encoder, FP32, flip=False)
    assert folder.parent == tmp_path / "features"
    assert folder.name.startswith("small-cnn-32-")
    shutil.copytree(pictures, tmp_path / "images")
    inside = replace(dataset, root=tmp_path / "images")
    others = [
        cache_folder(dataset, encoder, FP32, flip=True),
        cache_folder(dataset, encoder, BF16, flip=False),
        cache_folder(dataset, make_encoder(seed=1), FP32, flip=False),
        cache_folder(dataset, make_encoder(fit="crop"), FP32, flip=False),
        cache_folder(dataset, make_encoder(fit="squash"), FP32, flip=False),
        cache_folder(inside, encoder, FP32, flip=False),
    ]
    assert len({folder, *others}) == 7
    questions = (QuestionRecord("q", "00.png", "what?", ("a",), "test"),)
    same = replace(dataset, captions=dataset.captions[::-1], questions=questions)
    assert cache_folder(same, make_encoder(), FP32, flip=False) == folder
    shutil.copytree(tmp_path / "images", tmp_path / "moved" / "images")
    moved = replace(inside, root=tmp_path / "moved" / "images", folder=tmp_path / "moved")
    assert cache_folder(moved, encoder, FP32, flip=False).name == others[-1].name


# -- damage ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["00000.npy", "00002.npy", "00001.json"])
@pytest.mark.parametrize("damage", ["a bit", "cut", "gone", "empty"])
def test_damage_is_told(encoder, dataset, name, damage):
    path = build(dataset, encoder).folder / name
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes({"a bit": data, "cut": data[:-4]}.get(damage, b""))
    if damage == "gone":
        path.unlink()
    if name.endswith(".json") and damage == "gone":
        build(dataset, encoder)  # a block that does not count
        return
    with pytest.raises(DataError, match=rf"{name[:5]}\.npy: is damaged \(.*delete the folder"):
        build(dataset, encoder)


# -- what evaluation takes -------------------------------------------------------------------


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("precision", [FP32, BF16])
def test_grids_come_from_a_cache_that_holds_them(encoder, dataset, monkeypatch, flip, precision):
    model = SimpleNamespace(encoder=encoder, precision=precision, device=CPU, blind=False)

    def see(loaded):
        with torch.inference_mode(), precision.autocast(CPU):
            return encoder.encode(stack_pixels(loaded))

    model.see = see
    plain = torch.cat([grid.cells for grid in grids(model, dataset, NAMES, 3)])
    build(dataset, encoder, precision, flip=flip)
    monkeypatch.setattr(model, "see", lambda images: pytest.fail("encoded a picture"))
    cached = [grid.cells for grid in grids(model, dataset, NAMES, 3)]
    assert [len(cells) for cells in cached] == [3, 3, 3, 2]
    # Batches of other sizes round otherwise: three digits of bfloat16, of the largest number.
    assert torch.allclose(torch.cat(cached), plain, rtol=0.01, atol=0.02 * float(plain.max()))


def test_a_cache_that_cannot_be_used_is_passed_over_and_told(encoder, changeable, caplog):
    assert find_cache(changeable, encoder, FP32, NAMES) is None
    folder = stopped_after(2, changeable, encoder)
    assert find_cache(changeable, encoder, FP32, NAMES[:8]) is not None
    assert not caplog.records
    assert find_cache(changeable, encoder, FP32, NAMES) is None
    assert "not encoded yet: 3 of 11 pictures (first: 08.png)" in caplog.text
    build(changeable, encoder)
    (changeable.root / NAMES[0]).touch()
    assert find_cache(changeable, encoder, FP32, NAMES) is None
    assert "changed since they were encoded: 1 of 11 pictures (first: 00.png)" in caplog.text
    assert caplog.text.count("not encoded yet") == 1
    (folder / "00000.npy").write_bytes(b"")
    assert find_cache(changeable, encoder, FP32, NAMES) is None
    assert "00000.npy: is damaged" in caplog.text
    assert len(caplog.records) == 3
    assert all("the pictures are encoded instead" in r.getMessage() for r in caplog.records)
    # Grids of an encoder that is trained are no use.
    assert find_cache(changeable, make_encoder(trainable="all"), FP32, NAMES) is None
    assert len(caplog.records) == 3


def test_caches_of_the_old_format_are_not_used_and_told(encoder, dataset, caplog):
    old = dataset.folder / "features" / "small-cnn-32-0123456789ab"
    old.mkdir(parents=True)
    (old / "features.json").write_text(json.dumps({"format": 1}))
    build(dataset, encoder)
    (line,) = [record.getMessage() for record in caplog.records]
    assert "older version are not used and can be deleted: small-cnn-32-0123456789ab" in line


# -- the disk --------------------------------------------------------------------------------


def test_a_disk_too_small_is_told_before_the_work(encoder, dataset, monkeypatch):
    usage = namedtuple("usage", "total used free")

    def free(amount):
        monkeypatch.setattr(features.shutil, "disk_usage", lambda path: usage(9, 9, amount))

    free(20_000)
    with pytest.raises(WriteError, match=r"needs 0\.0 GB; 0\.0 GB are free"):
        build(dataset, encoder)
    free(2048 * COUNT)  # 2 variants of 4 cells of 128 float16 are 2048 bytes a picture
    build(dataset, encoder)
    free(0)
    build(dataset, encoder)  # nothing left to write


def test_a_disk_that_fills_up_is_told_and_the_pass_goes_on(encoder, dataset, whole, monkeypatch):
    real, calls = np.save, []

    def save(path, block):
        calls.append(path)
        if len(calls) == 2:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path, block)

    monkeypatch.setattr(features.np, "save", save)
    with pytest.raises(WriteError, match=r"00001\.npy: cannot be written: No space left"):
        build(dataset, encoder)
    assert counted(dataset, encoder) == [(n, 11) for n in (6, 8, 10, 11)]
    assert content(build(dataset, encoder)) == whole


def test_a_folder_that_cannot_be_made_is_told(encoder, dataset, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="file"):
        build(replace(dataset, folder=tmp_path / "file"), encoder)


def test_one_process_at_a_time_writes_a_cache(
    pictures, dataset, encoder, tmp_path, monkeypatch, caplog
):
    """Who comes second waits, and encodes nothing again."""
    folder = cache_folder(dataset, encoder, FP32, flip=False)
    other = build_cache(dataset_of(pictures, tmp_path / "other"), encoder, CPU, FP32)
    folder.mkdir(parents=True)
    lock, made = FileLock(folder / ".lock"), []
    with lock:
        waiting = threading.Thread(
            target=lambda: made.append(build_cache(dataset, encoder, CPU, FP32))
        )
        waiting.start()
        until = time.monotonic() + 60
        while "waiting for it" not in caplog.text and time.monotonic() < until:
            time.sleep(0.01)
        monkeypatch.setattr(features, "encode_records", None)  # whoever encodes fails
        for path in other.folder.glob("0*"):
            shutil.copy(path, folder)
    waiting.join(60)
    assert "another process encodes the pictures" in caplog.text
    assert made[0].folder == folder
    assert not made[0].lacks(NAMES)
