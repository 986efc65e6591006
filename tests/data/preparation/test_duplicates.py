"""Look-alikes against comparing all pairs; which rows count as duplicates."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from siqvl.data.preparation.duplicates import LookAlikes
from siqvl.data.preparation.images import stored_image
from siqvl.data.preparation.prepare import load_prepared, prepare
from siqvl.data.schema import RowKind
from siqvl.recipe import DataPrep
from tests.data.made_pictures import picture


def brute_force(held: list[bytes], wanted: bytes, near: float) -> int | None:
    """The first signature every picture of which differs by at most `near` on average."""
    target = np.frombuffer(wanted, np.uint8).astype(float).reshape(-1, 192)
    for index, signature in enumerate(held):
        one = np.frombuffer(signature, np.uint8).astype(float).reshape(-1, 192)
        if np.all(np.abs(one - target).mean(axis=1) <= near):
            return index
    return None


worlds = given(
    seed=st.integers(0, 2**32 - 1), pictures=st.integers(1, 3), spread=st.integers(1, 255)
)


@settings(max_examples=5, deadline=None)
@worlds
def test_searching_finds_what_comparing_all_pairs_finds(seed, pictures, spread):
    search(seed, pictures, spread)


@pytest.mark.drill
@settings(max_examples=100, deadline=None)
@worlds
def test_searching_finds_it_in_a_hundred_worlds(seed, pictures, spread):
    search(seed, pictures, spread)


def search(seed: int, pictures: int, spread: int) -> None:
    """Signatures around six centers: what is found of each seventh of them is held against all."""
    rng = np.random.default_rng(seed)
    near = rng.uniform(0.5, 40)
    centers = rng.integers(0, 256, (6, pictures * 192))
    index, held = LookAlikes(near), []
    for _ in range(700):  # more than two full tails, so that runs are joined
        noise = rng.integers(-spread, spread + 1, pictures * 192)
        signature = np.clip(centers[rng.integers(6)] + noise, 0, 255).astype(np.uint8).tobytes()
        if rng.random() < 0.15:
            found = index.find(signature)
            expected = brute_force(held, signature, near)
            assert found == (None if expected is None else str(expected))
        index.add(signature, str(len(held)))
        held.append(signature)


def test_the_limit_itself_still_looks_alike():
    index = LookAlikes(3.0)
    index.add(bytes([100] * 192), "grey")
    assert index.find(bytes([103] * 192)) == "grey"
    assert index.find(bytes([103] * 191 + [104])) is None
    assert index.find(bytes([0, 255] * 96)) is None


def photo(quality: int | None = None, size: tuple[int, int] = (64, 64), seed: int = 0) -> bytes:
    """Soft random colours, as a PNG or as a JPEG of a quality."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((64, 64)).filter(ImageFilter.GaussianBlur(2)).resize(size)
    stream = io.BytesIO()
    if quality is None:
        image.save(stream, "PNG")
    else:
        image.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def distance(first: bytes, second: bytes) -> float:
    one, two = (
        np.frombuffer(stored_image(data, 10**6).thumbnail, np.uint8) for data in (first, second)
    )
    return float(np.abs(one.astype(int) - two).mean())


def test_compression_and_size_change_a_picture_less_than_another_picture_does():
    same = [photo(quality=60), photo(size=(200, 180)), photo(quality=60, size=(90, 90))]
    assert max(distance(photo(), other) for other in same) < DataPrep().near
    assert min(distance(photo(), photo(seed=seed)) for seed in range(1, 20)) > 3 * DataPrep().near


def test_the_thumbnail_is_the_mean_of_what_each_pixel_covers():
    pixels = np.random.default_rng(0).integers(0, 256, (32, 24, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    found = np.frombuffer(stored_image(stream.getvalue(), 10**6).thumbnail, np.uint8)
    means = pixels.reshape(8, 4, 8, 3, 3).mean(axis=(1, 3))
    assert np.abs(found.reshape(8, 8, 3) - means).max() <= 1


@pytest.mark.parametrize(
    ("level", "left_out"),
    [
        ("none", {}),
        ("exact", {"duplicate": 2}),
        ("near", {"duplicate": 2, "near duplicate": 1}),
    ],
)
def test_which_rows_repeat_others(tmp_path, made_source, make_row, level, left_out):
    bmp = picture("#010101", format="BMP")  # other bytes, the same pixels as make_row's
    rows = [
        make_row(number=0x010101, id="first"),
        make_row(number=0x010101, id="same pixels", images=[bmp]),
        make_row(number=0x020202, id="alike"),
        make_row(number=0x010101, id="other text", prompt=[{"role": "user", "content": "Hm?"}]),
        make_row(number=0xFFFFFF, id="other picture"),
        make_row(id="two pictures", images=[bmp, bmp]),
        make_row(id="text only", images=[]),
        make_row(id="text only again", images=[]),
    ]
    data = DataPrep(duplicates=level, near=1.0)
    manifest = prepare([made_source(rows)], RowKind.SFT, tmp_path / "out", data=data, seed=0)
    assert manifest.left_out == left_out
    kept = load_prepared(tmp_path / "out", RowKind.SFT)[0]["id"]
    assert "first" in kept
    assert ("same pixels" in kept) == (level == "none")
    assert ("alike" in kept) == (level != "near")
    assert {"other text", "other picture", "two pictures", "text only"} <= set(kept)
    lines = (tmp_path / "out" / "quarantine.jsonl").read_text()
    assert ("the picture looks like that of first" in lines) == (level == "near")
    assert (manifest.distinct_images, manifest.shared_images) == (
        (2, 1) if level == "near" else (3, 1)
    )
