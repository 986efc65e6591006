"""`python -m siqvl.tiny_base`: tokenizer, tower and language model, in this order."""

from __future__ import annotations

import json
from pathlib import Path

import click

from siqvl.model.assemble import chat_template
from siqvl.model.processing import SiQVLProcessor
from siqvl.tiny_base.corpus import text_row
from siqvl.tiny_base.language_model import train_language
from siqvl.tiny_base.tokenizer import train_tokenizer
from siqvl.tiny_base.vision_tower import image_processor, train_tower
from siqvl.tiny_base.words import lines

PARTS = ("vision", "language")
TOKENIZER_ROWS = 4000


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default="recipes/tiny_base")
@click.option("--part", type=click.Choice(PARTS), multiple=True, default=PARTS)
@click.option("--seed", default=0)
@click.option("--vocabulary", default=1024, help="tokens, special ones included")
@click.option("--tower-steps", default=600)
@click.option("--language-steps", default=4000)
@click.option("--tower-batch", default=64, help="pictures a step")
@click.option("--language-batch", default=32, help="rows a step")
def main(
    out: Path,
    part: tuple[str, ...],
    seed: int,
    vocabulary: int,
    tower_steps: int,
    language_steps: int,
    tower_batch: int,
    language_batch: int,
) -> None:
    """Train the tiny base parts and save each as an ordinary Hugging Face directory."""
    if "vision" in part:
        tower, scores = train_tower(seed, tower_steps, tower_batch)
        tower.save_pretrained(out / "vision")
        image_processor().save_pretrained(out / "vision")
        _write_scores(out / "vision", scores)
    if "language" in part:
        rows = (text_row(index, seed) for index in range(TOKENIZER_ROWS))
        texts = (
            message["content"] for row in rows for message in row["prompt"] + row["completion"]
        )
        tokenizer = train_tokenizer([*texts, *lines()], vocabulary)
        processor = SiQVLProcessor(
            image_processor=image_processor(),
            tokenizer=tokenizer,
            num_image_tokens=1,  # no picture is encoded here
            chat_template=chat_template(""),
        )
        model, answers_right = train_language(
            processor, len(tokenizer), seed, language_steps, language_batch
        )
        model.save_pretrained(out / "language")
        tokenizer.save_pretrained(out / "language")
        _write_scores(out / "language", answers_right)


def _write_scores(directory: Path, scores: dict[str, float]) -> None:
    content = json.dumps({name: round(value, 4) for name, value in scores.items()}, indent=2)
    (directory / "scores.json").write_text(content + "\n", encoding="utf-8")
    click.echo(f"{directory}: {content}")


if __name__ == "__main__":
    main()
