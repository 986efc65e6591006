"""Shards: pictures as they are and once, everything else compressed, for any reader of parquet."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from PIL import Image

from siqvl.data.schema import Row, RowKind, arrow_schema, features
from siqvl.data.shards import ShardWriter
from siqvl.files import file_sha256
from tests.data.made_pictures import encoded


@pytest.mark.parametrize("kind", RowKind)
def test_the_schema_without_datasets_is_the_one_with_it(kind: RowKind) -> None:
    assert arrow_schema(kind) == features(kind).arrow_schema.remove_metadata()


def noise(seed: int, side: int = 128) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return encoded(Image.fromarray(pixels), "JPEG")


def stored(row: Row, pictures: list[bytes]) -> Row:
    images = [{"bytes": picture, "path": None} for picture in pictures]
    return row | {"images": images, "image_hashes": ["0" * 64] * len(pictures)}


def written(folder: Path, rows: list[Row], rows_per_shard: int = 1_000) -> list[Path]:
    table = pa.Table.from_pylist(rows, features(RowKind.SFT).arrow_schema)
    with ShardWriter(folder, RowKind.SFT, rows_per_shard) as writer:
        for start in range(0, len(rows), 64):
            part = table.slice(start, 64)
            writer.write(
                part, [sum(len(i["bytes"]) for i in r["images"]) for r in part.to_pylist()]
            )
    for shard in writer.shards:
        file = folder / shard.name
        assert (shard.bytes, shard.sha256) == (file.stat().st_size, file_sha256(file))
    return [folder / shard.name for shard in writer.shards]


def test_pictures_alone_are_not_compressed(tmp_path: Path, make_row) -> None:
    (file,) = written(tmp_path / "shards", [stored(make_row(), [noise(0)])])
    group = pq.read_metadata(file).row_group(0)
    codecs = {
        column.path_in_schema: column.compression
        for column in (group.column(index) for index in range(group.num_columns))
    }
    assert codecs.pop("images.list.element.bytes") == "UNCOMPRESSED"
    assert set(codecs) >= {"id", "prompt.list.element.content", "image_hashes.list.element", "meta"}
    assert set(codecs.values()) == {"ZSTD"}


def test_a_picture_of_many_rows_is_stored_once_a_row_group(tmp_path: Path, make_row) -> None:
    pictures = [noise(seed, 256) for seed in range(100)]
    rows = [stored(make_row(number=n), [pictures[n // 5]]) for n in range(500)]
    (file,) = written(tmp_path / "shards", rows)
    once = sum(map(len, pictures))
    assert once > 2 * 2**20  # a dictionary of pyarrow's holds 1 MiB, if it is not told more
    assert once < file.stat().st_size < 1.05 * once


def test_readers_of_parquet_give_the_rows(tmp_path: Path, make_row) -> None:
    pictures = [noise(0), noise(1)]
    rows = [stored(make_row(number=n), [[], pictures[:1], pictures][n % 3]) for n in range(150)]
    files = written(tmp_path / "shards", rows, rows_per_shard=70)
    assert [pq.read_metadata(file).num_rows for file in files] == [70, 70, 10]
    assert pa.concat_tables(map(pq.read_table, files)).to_pylist() == rows
    frame = pd.concat([pd.read_parquet(file) for file in files])
    assert [[image["bytes"] for image in images] for images in frame["images"]] == [
        [image["bytes"] for image in row["images"]] for row in rows
    ]
    names = [str(file) for file in files]
    loaded = load_dataset("parquet", data_files=names, split="train", cache_dir=str(tmp_path))
    assert loaded.features == features(RowKind.SFT)
    assert loaded["id"] == [row["id"] for row in rows]
    assert [len(images) for images in loaded["images"]] == [len(row["images"]) for row in rows]
    assert loaded[1]["images"][0].size == (128, 128)
