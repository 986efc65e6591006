"""What whole-number weights cost: an exported model's score beside PyTorch's on one benchmark.

    python -m benchmarks.onnx_weights --checkpoint CHECKPOINT --data BENCHMARKS \\
        --benchmark multistep-reasoned

Every weight format is exported anew, answers all questions greedily, and is compared with the
model's own answers question by question. BENCHMARKS is a folder that `data_prep --stage evaluation`
prepared.
"""

from __future__ import annotations

import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import click
import numpy as np

from siqvl.text_table import text_table

HEAD = ("weights", "MB", "right", "95 % interval", "− torch", "95 % interval", "alike", "answers/s")


@click.command()
@click.option("--checkpoint", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--data", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--benchmark", default="vqa", show_default=True)
@click.option("--batch-size", default=64, show_default=True)
@click.option("--threads", default=1, show_default=True)
def main(checkpoint: Path, data: Path, benchmark: str, batch_size: int, threads: int) -> None:
    """Prints a line for PyTorch and for each weight format."""
    from siqvl.checkpoint import read_card
    from siqvl.evaluation.benchmarks.benchmark_rows import load_questions

    recipe = read_card(checkpoint).todays_recipe()
    asked = {one.name: one for one in recipe.evaluation.benchmarks}[benchmark]
    questions = load_questions(asked, data)
    click.echo(
        f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {threads} thread(s), "
        f"{len(questions.rows):,} questions of {benchmark}"
    )
    rows = [HEAD]
    torch_texts, seconds = by_torch(checkpoint, questions, batch_size, threads)
    exact = judged(questions, torch_texts)
    size = sum(file.stat().st_size for file in checkpoint.glob("*.safetensors"))
    rows.append(line("torch fp32", size, exact, exact, torch_texts, torch_texts, seconds))
    for weights in ("fp32", "int8", "int4"):
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "model"
            size = exported(checkpoint, out, weights)
            texts, seconds = by_onnx(out, checkpoint, questions, batch_size, threads)
        scores = judged(questions, texts)
        rows.append(line(f"onnx {weights}", size, scores, exact, texts, torch_texts, seconds))
    click.echo("\n".join(text_table(rows, left=(0,))))


def exported(checkpoint: Path, out: Path, weights: Any) -> int:
    """Exports, and returns the bytes of the graphs."""
    from siqvl.publish.onnx.export_onnx import export_onnx

    export_onnx(checkpoint, out, weights)
    return sum(file.stat().st_size for file in out.glob("*.onnx*"))


def by_torch(
    checkpoint: Path, questions: Any, batch_size: int, threads: int
) -> tuple[list[str], float]:
    """The project's own loop, as evaluations answer."""
    import torch

    from siqvl.evaluation.asking.greedy_answers import question_of, suffix_of
    from siqvl.generation.completions import complete, load_to_answer, prompt_item

    torch.set_num_threads(threads)
    model, processor = load_to_answer(checkpoint, "eager")
    benchmark = questions.benchmark
    begin = time.monotonic()
    texts: list[str] = []
    with torch.inference_mode():
        for start in range(0, len(questions.rows), batch_size):
            items = []
            for row, images in pictured(questions, start, batch_size):
                asked = conversation_row(row, question_of(row, benchmark), images)
                items.append(prompt_item(asked, processor, suffix=suffix_of(row, benchmark)))
            done = complete(model, processor, items, max_new_tokens=benchmark.max_new_tokens)
            texts += [one.text for one in done]
    return texts, time.monotonic() - begin


def by_onnx(
    folder: Path, checkpoint: Path, questions: Any, batch_size: int, threads: int
) -> tuple[list[str], float]:
    """The same prompts, token by token, through onnxruntime."""
    from siqvl.evaluation.asking.greedy_answers import question_of, suffix_of
    from siqvl.generation.completions import prompt_item
    from siqvl.model import SiQVLProcessor
    from siqvl.publish.onnx.onnx_model import OnnxModel

    processor = SiQVLProcessor.from_pretrained(checkpoint, local_files_only=True)
    model, benchmark = OnnxModel(folder, threads), questions.benchmark
    begin = time.monotonic()
    texts: list[str] = []
    for start in range(0, len(questions.rows), batch_size):
        items = []
        for row, images in pictured(questions, start, batch_size):
            asked = conversation_row(row, question_of(row, benchmark), images)
            items.append(prompt_item(asked, processor, suffix=suffix_of(row, benchmark)))
        ids, mask = padded([item["input_ids"] for item in items])
        pictures = [image for item in items for image in item["images"]]
        pixels = processor.image_processor(images=pictures, return_tensors="np")["pixel_values"]
        written = model.write(ids, mask, np.asarray(pixels), benchmark.max_new_tokens)
        decoded = processor.batch_decode([one.ids for one in written], skip_special_tokens=True)
        texts += [text.strip() for text in decoded]
    return texts, time.monotonic() - begin


def pictured(questions: Any, start: int, count: int) -> list[tuple[dict, list]]:
    """Rows with their decoded pictures."""
    end = min(start + count, len(questions.rows))
    return [
        (questions.rows[number], questions.dataset[number]["images"])
        for number in range(start, end)
    ]


def conversation_row(row: dict, question: str, images: list) -> dict:
    """A question in the form that prompts are encoded from."""
    from siqvl.data.encode import shown_with

    return shown_with({**row, "question": question}, len(images)) | {"images": images}


def padded(prompts: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Prompts of unequal length, padded on the left, and their mask."""
    longest = max(map(len, prompts))
    ids, mask = (np.zeros((len(prompts), longest), np.int64) for _ in range(2))
    for number, prompt in enumerate(prompts):
        ids[number, longest - len(prompt) :] = prompt
        mask[number, longest - len(prompt) :] = 1
    return ids, mask


def judged(questions: Any, texts: list[str]) -> np.ndarray:
    """The score of each answer, by the benchmark's scorer."""
    from siqvl.evaluation.scoring.extraction import extract_answer
    from siqvl.evaluation.scoring.scorers import scorer

    benchmark = questions.benchmark
    judge = scorer(benchmark.scorer, official=benchmark.official)
    return np.array(
        [
            judge.score(
                extract_answer(text, benchmark.answer_marker),
                row["answers"],
                row["choices"],
                type=row["type"],
                by_letter=benchmark.letters,
            )
            for row, text in zip(questions.rows, texts, strict=True)
        ]
    )


def line(
    name: str,
    size: int,
    scores: np.ndarray,
    exact: np.ndarray,
    texts: list[str],
    torch_texts: list[str],
    seconds: float,
) -> tuple[str, ...]:
    """A row of the table."""
    from siqvl.evaluation.scoring.intervals import bootstrap_interval, paired_interval
    from siqvl.number_formats import percent, points, span

    low, high = bootstrap_interval(scores)
    alike = float(np.mean([a == b for a, b in zip(texts, torch_texts, strict=True)]))
    return (
        name,
        f"{size / 1e6:.1f}",
        percent(float(scores.mean())),
        f"{percent(low)} – {percent(high)}",
        points(float((scores - exact).mean()), 2),
        span(paired_interval(scores, exact)),
        percent(alike),
        f"{len(texts) / seconds:,.0f}",
    )


if __name__ == "__main__":
    main()
