"""Prepared rows in memory: what `load_prepared` gives, without the shards."""

from siqvl.data.schema import RowKind, features, message, sft_row
from tests.data.made_pictures import picture


def stored(rows: list[dict], kind: RowKind = RowKind.SFT):
    """Rows as a `datasets.Dataset`; each image is called after its bytes."""
    from datasets import Dataset

    columns = features(kind)
    named = [
        row
        | {
            "images": [{"bytes": image, "path": None} for image in row["images"]],
            "image_hashes": [f"hash {hash(image)}" for image in row["images"]],
        }
        for row in rows
    ]
    return Dataset.from_list([{name: row[name] for name in columns} for row in named], columns)


def conversation(number: int, images: int, turns: list[tuple[str, str]]) -> dict:
    """A supervised row; the last answer is its completion."""
    *earlier, (question, answer) = turns
    prompt = [m for q, a in earlier for m in (message("user", q), message("assistant", a))]
    return sft_row(
        f"made/{number}",
        [picture(f"#{number % 256:02x}{image:02x}80") for image in range(images)],
        [*prompt, message("user", question)],
        answer,
        source="made",
    )
