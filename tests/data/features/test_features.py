"""Cached tower features, against transformers' own SigLIP on the shipped tiny weights."""

import copy
import errno
import hashlib
import io
import logging
import multiprocessing
import os
import pickle
import re
import resource
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from datasets import Dataset, Features, Image, List, Value
from PIL import Image as Pictures
from transformers import SiglipVisionModel

from siqvl import locks
from siqvl.data.features import build_features
from siqvl.data.features.build_features import cached_features
from siqvl.data.preparation.prepare import load_prepared, prepare
from siqvl.data.schema import RowKind, message
from siqvl.errors import UserError
from siqvl.model import SiQVLProcessor, assemble
from siqvl.recipe import DataPrep
from siqvl.tensor_store import TensorStore

BASE = Path(__file__).parents[3] / "recipes" / "tiny_base"
SHAPE = (64, 128)  # patches, hidden
ROW_BYTES = 64 * 128 * 2
fork = multiprocessing.get_context("fork")  # torch is imported already


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def assembled():
    model, processor = assemble(str(BASE / "vision"), str(BASE / "language"), max_image_tokens=64)
    model.model.vision_tower.requires_grad_(False)
    return model, processor


@pytest.fixture
def parts(assembled):
    """(frozen model, processor) of the shipped tiny weights; each test may spoil its own."""
    return copy.deepcopy(assembled)


@pytest.fixture
def tower_calls(parts) -> list[int]:
    """Pictures the tower encoded, one entry a call."""
    calls: list[int] = []
    parts[0].model.vision_tower.register_forward_hook(
        lambda module, args, out: calls.append(len(out.last_hidden_state))
    )
    return calls


def noise(seed: int, size: tuple[int, int] = (40, 52)) -> Pictures.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Pictures.fromarray(pixels)


def name_of(picture: Pictures.Image) -> str:
    return hashlib.sha256(picture.convert("RGB").tobytes()).hexdigest()


def rows_of(*rows: list[Pictures.Image]) -> Dataset:
    """Prepared rows with these pictures, cut down to the two columns that count."""
    content = []
    for pictures in rows:
        encoded = []
        for picture in pictures:
            picture.save(stream := io.BytesIO(), "PNG")
            encoded.append({"bytes": stream.getvalue(), "path": None})
        content.append({"images": encoded, "image_hashes": [name_of(p) for p in pictures]})
    columns = Features({"images": List(Image()), "image_hashes": List(Value("string"))})
    return Dataset.from_list(content, features=columns)


def singles(count: int) -> Dataset:
    return rows_of(*([noise(seed)] for seed in range(count)))


def build(folder: Path, dataset: Dataset, parts, **changes) -> TensorStore:
    model, processor = parts
    options = {"precision": "fp32", "batch_size": 4, **changes}
    return cached_features(folder, dataset, model=model, processor=processor, **options)


def shards_of(cache: TensorStore) -> list[Path]:
    return [shard.path for shard in cache.shards]


def content(cache: TensorStore) -> dict[str, torch.Tensor]:
    return {image: cache[image].clone() for image in cache}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[i], other[i]) for i in one)


def test_features_are_siglips_rounded_to_bf16(tmp_path, parts):
    grey = noise(3).convert("L")
    pictures = [noise(0), noise(1, (64, 64)), noise(2, (7, 90)), grey]
    cache = build(tmp_path, rows_of(*([picture] for picture in pictures)), parts)
    tower = SiglipVisionModel.from_pretrained(BASE / "vision").eval()
    assert len(cache) == 4
    for picture in pictures:
        pixels = parts[1].image_processor(images=[picture], return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            reference = tower(pixels).last_hidden_state[0]
        features = cache[name_of(picture)]
        assert features.dtype == torch.bfloat16
        assert features.shape == SHAPE
        # half a unit in the last of bf16's 8 bits, and float32's own noise
        torch.testing.assert_close(features.float(), reference, rtol=2**-8, atol=1e-5)
        assert reference.std() > 0.1


def test_every_distinct_picture_is_computed_once(tmp_path, parts, tower_calls):
    a, b, c = noise(0), noise(1), noise(2)
    dataset = rows_of([a], [], [b, a, c], [c], [a])
    cache = build(tmp_path, dataset, parts, batch_size=2)
    assert sum(tower_calls) == 3
    assert set(cache) == {name_of(picture) for picture in (a, b, c)}
    assert name_of(noise(9)) not in cache
    with pytest.raises(KeyError, match=f"no features of picture {name_of(noise(9))}"):
        cache[name_of(noise(9))]
    alone = build(tmp_path / "alone", rows_of([c]), parts)
    torch.testing.assert_close(cache[name_of(c)], alone[name_of(c)], rtol=2**-7, atol=1e-5)


def test_a_second_run_asks_the_tower_nothing_and_a_third_only_what_is_new(
    tmp_path, parts, tower_calls
):
    first = content(build(tmp_path, singles(6), parts))
    tower_calls.clear()
    again = build(tmp_path, singles(6), parts)
    assert tower_calls == []
    assert equal(content(again), first)
    more = build(tmp_path, singles(8), parts)
    assert tower_calls == [2]
    assert len(more) == 8
    assert equal({image: more[image] for image in first}, first)


def test_rows_without_pictures_need_no_folder(tmp_path, parts):
    assert len(build(tmp_path / "none", rows_of([], []), parts)) == 0
    assert not (tmp_path / "none").exists()


def test_a_checkpoint_has_the_features_of_the_model_it_was_saved_from(tmp_path, parts, tower_calls):
    from siqvl.model.assemble import load_checkpoint

    build(tmp_path / "features", singles(2), parts)
    for part in parts:
        part.save_pretrained(tmp_path / "checkpoint")
    model, processor = load_checkpoint(tmp_path / "checkpoint")
    model.requires_grad_(False)
    model.model.vision_tower.register_forward_hook(lambda *_: pytest.fail("the tower ran"))
    assert len(build(tmp_path / "features", singles(2), (model, processor))) == 2


def _nudge_a_weight(model, processor):
    with torch.no_grad():
        model.model.vision_tower.encoder.layers[1].mlp.fc1.weight[3, 5] += 1e-3


def _change_the_tower_config(model, processor):
    model.config.vision_config.layer_norm_eps = 1e-5


def _normalise_otherwise(model, processor):
    processor.image_processor.image_mean = (0.5, 0.5, 0.4)


def _resize_otherwise(model, processor):
    processor.image_processor.resample = 2


@pytest.mark.parametrize(
    "change", [_nudge_a_weight, _change_the_tower_config, _normalise_otherwise, _resize_otherwise]
)
def test_another_tower_or_processor_has_features_of_its_own(tmp_path, parts, tower_calls, change):
    before = build(tmp_path, singles(2), parts)
    old = content(before)
    change(*parts)
    tower_calls.clear()
    after = build(tmp_path, singles(2), parts)
    assert tower_calls == [2]
    assert not set(shards_of(before)) & set(shards_of(after))
    assert equal(content(before), old)


def test_the_precision_is_part_of_the_key(tmp_path, parts, tower_calls):
    build(tmp_path, singles(2), parts)
    build(tmp_path, singles(2), parts, precision="bf16")
    assert tower_calls == [2, 2]


def test_a_changed_projector_keeps_the_features(tmp_path, parts, tower_calls):
    build(tmp_path, singles(2), parts)
    with torch.no_grad():
        parts[0].model.multi_modal_projector.linear.weight.mul_(2)
    build(tmp_path, singles(2), parts)
    assert tower_calls == [2]


def test_one_changed_pixel_is_another_picture(tmp_path, parts, tower_calls):
    picture = noise(0)
    before = build(tmp_path, rows_of([picture]), parts)[name_of(picture)].clone()
    picture.putpixel((3, 4), (255, 255, 255) if picture.getpixel((3, 4))[0] < 128 else (0, 0, 0))
    after = build(tmp_path, rows_of([picture]), parts)[name_of(picture)]
    assert tower_calls == [1, 1]
    assert not torch.equal(before, after)


def test_a_trainable_tower_is_refused(tmp_path, parts):
    next(parts[0].model.vision_tower.parameters()).requires_grad_(True)
    with pytest.raises(UserError, match="frozen vision tower, but this one is trainable"):
        build(tmp_path, singles(1), parts)


def test_prepared_rows_have_what_the_cache_asks_for(
    tmp_path, parts, tower_calls, make_row, made_source
):
    asked = [[message("user", f"What is at {number}?")] for number in range(5)]
    rows = [make_row(number=n, prompt=asked[n], images=[noise(n % 3)]) for n in range(5)]
    prepare([made_source(rows)], RowKind.SFT, tmp_path / "data", data=DataPrep(), seed=0)
    dataset, _ = load_prepared(tmp_path / "data", RowKind.SFT)
    cache = build(tmp_path / "features", dataset, parts)
    assert sum(tower_calls) == 3
    (image,) = dataset[4]["image_hashes"]
    reference = build(tmp_path / "other", rows_of([noise(1)]), parts)[name_of(noise(1))]
    torch.testing.assert_close(cache[image], reference, rtol=2**-7, atol=1e-5)


def test_rows_of_an_older_preparation_are_refused(tmp_path, parts):
    with pytest.raises(UserError, match="no column `image_hashes`; prepare the data again"):
        build(tmp_path, singles(1).remove_columns("image_hashes"), parts)


# What is on disk


def test_a_shard_is_a_safetensors_file_with_its_own_index(tmp_path, parts):
    cache = build(tmp_path, singles(5), parts, batch_size=2, shard_bytes=2 * ROW_BYTES)
    assert sorted(len(shard.names) for shard in cache.shards) == [1, 2, 2]
    for path in shards_of(cache):
        rows = safetensors.torch.load_file(path)["features"]
        with safetensors.safe_open(path, "pt") as file:
            images = file.metadata()["images"].split()
        assert len(rows) == len(images)
        for image, row in zip(images, rows, strict=True):
            assert torch.equal(cache[image], row)


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_a_shard_follows_the_umask(tmp_path, parts, umask: int, mode: int):
    """A file that safetensors 0.8 wrote could be read by its owner alone."""
    before = os.umask(umask)
    try:
        (shard,) = shards_of(build(tmp_path, singles(1), parts))
    finally:
        os.umask(before)
    assert shard.stat().st_mode & 0o777 == mode


def _torn(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 100)


def _torn_in_the_header(path: Path) -> None:
    os.truncate(path, 50)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0\0")


def _one_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1001] ^= 1
    path.write_bytes(data)


def _exchanged_pictures(path: Path) -> None:
    with safetensors.safe_open(path, "pt") as file:
        one, other = file.metadata()["images"].encode().split()[:2]
    data = path.read_bytes().replace(one, b"?" * 64).replace(other, one).replace(b"?" * 64, other)
    path.write_bytes(data)


def _no_json(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'{"__meta', b'["__meta', 1))


def _json_of_another_kind(path: Path) -> None:
    path.write_bytes((4).to_bytes(8, "little") + b"[ 1]" + path.read_bytes())


def _deeply_nested(path: Path) -> None:
    path.write_bytes((100_000).to_bytes(8, "little") + b"[" * 100_001)


def _endless_header(path: Path) -> None:
    path.write_bytes(b"\xff" * 8 + path.read_bytes()[8:])


def _rewritten(path: Path, change) -> None:
    """A shard of the right form, with a right checksum, around other values."""
    header = int.from_bytes(path.read_bytes()[:8], "little") + 8
    with safetensors.safe_open(path, "pt") as file:
        old = file.metadata()
    rows = bytearray(path.read_bytes()[header:])
    change(rows)
    new = hashlib.sha256(old["images"].encode() + rows).hexdigest()
    text = path.read_bytes()[:header].replace(old["sha256"].encode(), new.encode())
    path.write_bytes(text + rows)


def _nan(path: Path) -> None:
    _rewritten(path, lambda rows: rows.__setitem__(slice(200, 202), b"\xc0\x7f"))


def _infinite(path: Path) -> None:
    _rewritten(path, lambda rows: rows.__setitem__(slice(-2, None), b"\x80\xff"))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_torn, "it has .* bytes where .* belong"),
        (_torn_in_the_header, "its header is damaged"),
        (_empty, "its header is damaged"),
        (_longer, "it has .* bytes where .* belong"),
        (_one_bit, "its checksum is wrong"),
        (_exchanged_pictures, "its checksum is wrong"),
        (_no_json, "its header is damaged"),
        (_json_of_another_kind, "its header is damaged"),
        (_deeply_nested, "its header is damaged"),
        (_endless_header, "its header is damaged"),
        (_nan, "it holds NaN or infinite values"),
        (_infinite, "it holds NaN or infinite values"),
    ],
)
def test_a_damaged_shard_is_named_and_computed_again(
    tmp_path, parts, tower_calls, caplog, damage, reason
):
    options = {"batch_size": 2, "shard_bytes": 2 * ROW_BYTES}
    cache = build(tmp_path, singles(4), parts, **options)
    good, path = content(cache), shards_of(cache)[0]
    del cache
    damage(path)
    tower_calls.clear()
    with caplog.at_level(logging.WARNING):
        rebuilt = build(tmp_path, singles(4), parts, **options)
    assert tower_calls == [2]
    assert equal(content(rebuilt), good)
    assert not path.exists()
    (record,) = caplog.records
    assert str(path) in record.getMessage()
    assert re.search(reason, record.getMessage())
    caplog.clear()
    build(tmp_path, singles(4), parts, **options)
    assert tower_calls == [2]
    assert not caplog.records


def test_a_shard_of_another_tower_is_not_used(tmp_path, parts, tower_calls, caplog):
    old = build(tmp_path, singles(2), parts)
    _nudge_a_weight(*parts)
    new = build(tmp_path, singles(3), parts)
    shutil.copy(shards_of(old)[0], stray := shards_of(new)[0].with_name("stray.safetensors"))
    tower_calls.clear()
    assert equal(content(build(tmp_path, singles(3), parts)), content(new))
    assert tower_calls == []
    assert "it is not of this tower, this image processor and this version" in caplog.text
    assert not stray.exists()


def test_a_shard_that_shrinks_in_use_is_an_error_not_a_crash(tmp_path, parts):
    cache = build(tmp_path, singles(2), parts)
    _torn(shards_of(cache)[0])
    with pytest.raises(UserError, match="changed while it was in use"):
        cache[next(iter(cache))]


def test_reading_leaves_the_file_as_it_was(tmp_path, parts):
    cache = build(tmp_path, singles(2), parts)
    before = shards_of(cache)[0].read_bytes()
    cache[next(iter(cache))].zero_()
    assert shards_of(cache)[0].read_bytes() == before


def test_features_that_are_not_finite_name_the_picture(tmp_path, parts):
    with torch.no_grad():
        parts[0].model.vision_tower.post_layernorm.weight[0] = torch.inf
    with pytest.raises(UserError, match=r"NaN or infinite features in fp32 \(picture [0-9a-f]{64}"):
        build(tmp_path, singles(1), parts)
    assert not list(tmp_path.rglob("*.safetensors"))
    assert not list(tmp_path.rglob(".*.partial"))


# Disks


def test_features_that_will_not_fit_are_refused_before_any_work(
    tmp_path, parts, tower_calls, monkeypatch
):
    # 3 rows of 64 * 128 bf16 are 49,152 bytes
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=49_151))
    with pytest.raises(UserError, match=r"3 pictures take 0\.0 GB, but .* GB free; move"):
        build(tmp_path, singles(3), parts)
    assert tower_calls == []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=49_152))
    assert len(build(tmp_path, singles(3), parts)) == 3


def test_a_disk_that_fills_up_keeps_the_finished_shards(tmp_path, parts, tower_calls):
    """No file may grow any more (RLIMIT_FSIZE) once the tower runs for the second time."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    tower = parts[0].model.vision_tower

    def fill(module, args, out):
        if len(tower_calls) == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))

    handle = tower.register_forward_hook(fill)
    options = {"batch_size": 2, "shard_bytes": 2 * ROW_BYTES}
    try:
        with pytest.raises(UserError, match="full disk: 2 of 6 missing pictures are kept") as error:
            build(tmp_path, singles(6), parts, **options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert error.value.__cause__.errno == errno.EFBIG
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1
    assert not list(tmp_path.rglob(".*.partial"))
    handle.remove()
    tower_calls.clear()
    assert len(build(tmp_path, singles(6), parts, **options)) == 6
    assert tower_calls == [2, 2]


def test_a_folder_that_may_not_be_written_to_is_named(tmp_path, parts):
    (tmp_path / "features").write_text("a file")
    with pytest.raises(UserError, match=r"may not be written to .*choose another `features_dir`"):
        build(tmp_path / "features", singles(1), parts)


# Several processes


def _with_one_thread(job, *arguments) -> None:
    """A fork has none of its parent's threads, and would wait for them."""
    torch.set_num_threads(1)
    job(*arguments)


def _run(*jobs) -> list[int]:
    """Each job in a process of its own, at once; exit codes."""
    processes = [fork.Process(target=_with_one_thread, args=job) for job in jobs]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    return [process.exitcode for process in processes]


def _die_in_the_third_batch(folder, dataset, parts, options):
    calls = []

    def kill(module, args, out):
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    parts[0].model.vision_tower.register_forward_hook(kill)
    build(folder, dataset, parts, **options)


def test_a_killed_run_keeps_its_finished_shards_and_a_rerun_equals_an_undisturbed_one(
    tmp_path, parts, tower_calls
):
    # a shard has two batches of two: the third batch is in the middle of the second shard
    dataset, options = singles(10), {"batch_size": 2, "shard_bytes": 4 * ROW_BYTES}
    undisturbed = content(build(tmp_path / "undisturbed", dataset, parts, **options))
    job = (_die_in_the_third_batch, tmp_path / "killed", dataset, parts, options)
    assert _run(job) == [-signal.SIGKILL]
    (kept,) = (tmp_path / "killed").rglob("*.safetensors")
    assert list((tmp_path / "killed").rglob(".*.partial"))
    tower_calls.clear()
    cache = build(tmp_path / "killed", dataset, parts, **options)
    assert tower_calls == [2, 2, 2]
    assert kept in shards_of(cache)
    assert equal(content(cache), undisturbed)
    assert not list((tmp_path / "killed").rglob(".*.partial"))


def _build(folder, dataset, parts, start, options):
    start.wait(30)
    build(folder, dataset, parts, **options)


def test_what_a_killed_run_of_several_processes_left_is_cleared(tmp_path, parts):
    cache = build(tmp_path, singles(2), parts)
    left = shards_of(cache)[0].with_name(".3-of-4.0123456789abcdef.partial")
    left.write_bytes(b"half a shard")
    build(tmp_path, singles(3), parts)
    assert not left.exists()


def test_builders_at_once_do_not_disturb_each_other(tmp_path, parts):
    dataset, options = singles(12), {"batch_size": 2, "shard_bytes": 2 * ROW_BYTES}
    alone = content(build(tmp_path / "alone", dataset, parts, **options))
    start, ranks = fork.Barrier(4), fork.Barrier(2)
    shared = tmp_path / "shared"
    several = [{**options, "rank": r, "world": 2, "barrier": ranks.wait} for r in range(2)]
    jobs = [(_build, shared, dataset, parts, start, o) for o in (options, options, *several)]
    assert _run(*jobs) == [0, 0, 0, 0]
    assert not list(shared.rglob(".*.partial"))
    together = content(build(shared, dataset, parts, **options))
    assert together.keys() == alone.keys()
    for image in alone:  # two ranks make other batches, which may round otherwise
        torch.testing.assert_close(together[image], alone[image], rtol=2**-7, atol=1e-5)


def test_two_builders_of_the_same_share_compute_it_once(tmp_path, parts):
    options = {"batch_size": 2, "shard_bytes": 2 * ROW_BYTES}
    start = fork.Barrier(2)
    job = (_build, tmp_path, singles(12), parts, start, options)
    assert _run(job, job) == [0, 0]
    assert len(list(tmp_path.rglob("*.safetensors"))) == 6


@pytest.mark.parametrize("why", ["no locks", "another one hangs"])
def test_two_builders_that_cannot_wait_for_each_other_do_no_harm(
    tmp_path, parts, monkeypatch, caplog, why
):
    place = build(tmp_path, singles(1), parts).shards[0].path.parent
    written = place / ".0-of-1.0123456789abcdef.partial"  # by one that lives
    written.write_bytes(b"half a shard")
    options = {"batch_size": 2, "shard_bytes": 2 * ROW_BYTES}
    if why == "no locks":

        def flock(file, how):
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(locks.fcntl, "flock", flock)
        assert _run(*[(_build, tmp_path, singles(6), parts, fork.Barrier(2), options)] * 2) == [
            0,
            0,
        ]
    else:
        monkeypatch.setattr(build_features, "LONGEST_SHARD", 0.1)
        with locks.locked(place / ".0-of-1.lock"):
            build(tmp_path, singles(6), parts, **options)
        assert "waiting for it" in caplog.text
    assert written.exists()
    assert len(build(tmp_path, singles(6), parts, **options)) == 6


def _rank(folder, dataset, parts, rank, barrier, results):
    cache = build(folder, dataset, parts, rank=rank, world=2, barrier=barrier.wait)
    results.put((rank, len(cache), sum(float(cache[image].sum()) for image in sorted(cache))))


def test_each_rank_computes_its_share_and_reads_all(tmp_path, parts):
    dataset, barrier, results = singles(7), fork.Barrier(2), fork.SimpleQueue()
    assert _run(
        *((_rank, tmp_path, dataset, parts, rank, barrier, results) for rank in (0, 1))
    ) == [
        0,
        0,
    ]
    one, other = results.get(), results.get()
    assert one[1:] == other[1:]
    assert one[1] == 7
    assert sorted(len(s.names) for s in build(tmp_path, dataset, parts).shards) == [3, 4]


def test_a_machine_that_computes_all_shares_has_the_very_same_features(tmp_path, parts):
    """Whoever computes a share, its batches are the same: so are features, to the last bit."""
    dataset, options = singles(11), {"batch_size": 4, "world": 2, "rank": 0}

    def second() -> None:
        theirs = options | {"rank": 1, "shares": [1]}
        build(tmp_path / "shared", dataset, parts, barrier=lambda: None, **theirs)

    shared = build(tmp_path / "shared", dataset, parts, shares=[0], barrier=second, **options)
    both = options | {"shares": [0, 1], "barrier": lambda: None}
    own = build(tmp_path / "own", dataset, parts, **both)
    assert len(own) == 11
    assert equal(content(own), content(shared))


def test_several_ranks_without_a_barrier_are_refused(tmp_path, parts):
    with pytest.raises(ValueError, match="pass the barrier"):
        build(tmp_path, singles(2), parts, world=2)


def test_decoding_in_workers_changes_nothing(tmp_path, parts):
    dataset = singles(5)
    alone = content(build(tmp_path / "alone", dataset, parts, batch_size=2))
    assert equal(content(build(tmp_path / "w", dataset, parts, batch_size=2, workers=2)), alone)


class _Lookups(torch.utils.data.Dataset):
    def __init__(self, cache: TensorStore, images: list[str]) -> None:
        self.cache, self.images = cache, images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.cache[self.images[index]]


def test_loader_workers_read_the_cache(tmp_path, parts):
    cache = build(tmp_path, singles(6), parts, batch_size=2, shard_bytes=2 * ROW_BYTES)
    images = sorted(cache)
    cache[images[0]]  # a mapping is open already when the workers start
    unpickled = pickle.loads(pickle.dumps(cache))
    for one in (cache, unpickled):
        loader = torch.utils.data.DataLoader(_Lookups(one, images), batch_size=3, num_workers=2)
        rows = torch.cat(list(loader))
        assert torch.equal(rows, torch.stack([cache[image] for image in images]))
    assert len(pickle.dumps(cache)) < ROW_BYTES  # files, not features
    assert len(pickle.dumps(cache[images[0]])) < 2 * ROW_BYTES  # a row, not its shard


# In the model


@pytest.fixture
def batch(parts) -> tuple[list[Pictures.Image], dict[str, torch.Tensor]]:
    """Three pictures in two rows, with labels on the answers."""
    processor: SiQVLProcessor = parts[1]
    pictures, image = [noise(seed) for seed in range(3)], "<|image_pad|>"
    texts = [f"{image}{image} what is it? a red circle", f"{image} where? at the top"]
    inputs = processor(text=texts, images=pictures, padding=True, return_tensors="pt")
    labels = inputs["input_ids"].clone()
    labels[(labels == processor.image_token_id) | (inputs["attention_mask"] == 0)] = -100
    return pictures, {**inputs, "labels": labels}


def _loss_and_gradients(model, inputs) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.zero_grad()
    loss = model.train()(**inputs).loss
    loss.backward()
    return loss, {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def test_loss_and_gradients_are_those_of_live_features_rounded_to_bf16(tmp_path, parts, batch):
    model = parts[0]
    pictures, inputs = batch
    cache = build(tmp_path, rows_of(pictures), parts)
    pixels = inputs.pop("pixel_values")
    rounded = model.model.get_vision_features(pixels).to(torch.bfloat16).float()
    live, reference = _loss_and_gradients(model, {**inputs, "vision_features": rounded})
    stored = torch.stack([cache[name_of(picture)] for picture in pictures])
    cached, gradients = _loss_and_gradients(model, {**inputs, "vision_features": stored})
    torch.testing.assert_close(cached, live, rtol=0, atol=1e-6)
    assert gradients.keys() == reference.keys()
    assert "model.multi_modal_projector.linear.weight" in gradients
    assert not any("vision_tower" in name for name in gradients)
    for name in reference:
        torch.testing.assert_close(gradients[name], reference[name], rtol=1e-6, atol=1e-6)
    shuffled = {**inputs, "vision_features": stored.flip(0)}
    assert (_loss_and_gradients(model, shuffled)[0] - live).abs() > 1e-5  # pictures matter


def test_under_bf16_autocast_cached_features_train_exactly_as_pixels_do(tmp_path, parts, batch):
    model = parts[0]
    pictures, inputs = batch
    cache = build(tmp_path, rows_of(pictures), parts, precision="bf16")
    stored = torch.stack([cache[name_of(picture)] for picture in pictures])
    with torch.autocast("cpu", torch.bfloat16):
        live, reference = _loss_and_gradients(model, inputs)
        inputs.pop("pixel_values")
        cached, gradients = _loss_and_gradients(model, {**inputs, "vision_features": stored})
    assert torch.equal(cached, live)
    for name in reference:
        assert torch.equal(gradients[name], reference[name]), name


@pytest.mark.parametrize("beams", [1, 2])
def test_generation_from_the_cache_is_that_of_live_features(tmp_path, parts, tower_calls, beams):
    model, processor = parts
    picture = noise(0)
    cache = build(tmp_path, rows_of([picture]), parts)
    inputs = processor(text="<|image_pad|> what?", images=[picture], return_tensors="pt")
    rounded = model.model.get_vision_features(inputs.pop("pixel_values")).to(torch.bfloat16)
    tower_calls.clear()
    options = {"max_new_tokens": 8, "do_sample": False, "num_beams": beams}
    live = model.generate(**inputs, vision_features=rounded.float(), **options)
    stored = cache[name_of(picture)].unsqueeze(0)
    assert torch.equal(model.generate(**inputs, vision_features=stored, **options), live)
    assert tower_calls == []
