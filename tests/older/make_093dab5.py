"""What `make_093dab5.sh` runs by the code of 093dab5, in an empty folder that it fills.

It imports that commit's modules, by the names they had then: today's code never imports this file.
"""

# ruff: noqa: I001  # it sorts by which of these modules there are today

import base64
import io
import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import pandas as pd
import pyarrow.parquet as pq
import torch
from PIL import Image, ImageDraw
from transformers import (
    Qwen2Config,
    Qwen2ForCausalLM,
    SiglipImageProcessor,
    SiglipVisionConfig,
    SiglipVisionModel,
    TrainerCallback,
)

from siqvl.bootstrap.corpus import text_row
from siqvl.bootstrap.tokenizer import train_tokenizer
from siqvl.data.prepare import prepare
from siqvl.evaluation.benchmarks import prepare_benchmarks
from siqvl.evaluation.evaluate import evaluate
from siqvl.evaluation.predictions import PREDICTIONS
from siqvl.model.assemble import load_checkpoint
from siqvl.recipe import Recipe, Stage
from siqvl.tracking.models import Registry
from siqvl.tracking.promote import make_candidate, promote
from siqvl.tracking.runs import end_run, start_run
from siqvl.training import run
from siqvl.training.history import read_history
from siqvl.training.run import train_stage
from siqvl.training.stages import STAGES
from tests.small_recipe import small_recipe

VOCABULARY = 320
SIDE = 32  # of a picture as the tower reads it
STEPS = 6
INTERRUPTED = 3  # steps that the resumable state has done
LOGITS = 32  # that are noted of each checkpoint, the first ones of the next token
QUESTION = "what color is the square?"
STORE = "store.db"


def make_parts(folder: Path) -> None:
    """Write a tower and a language model of random weights, and a tokenizer."""
    torch.manual_seed(0)
    vision = SiglipVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=SIDE,
        patch_size=8,
        vision_use_head=False,
    )
    SiglipVisionModel(vision).save_pretrained(folder / "vision")
    SiglipImageProcessor(size={"height": SIDE, "width": SIDE}).save_pretrained(folder / "vision")

    rows = [text_row(index, seed=0) for index in range(200)]
    texts = [turn["content"] for row in rows for turn in row["prompt"] + row["completion"]]
    tokenizer = train_tokenizer(texts, VOCABULARY)
    tokenizer.save_pretrained(folder / "language")
    language = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        initializer_range=0.2,  # wide, so that no two tokens are about as likely
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        pad_token_id=tokenizer.pad_token_id,
    )
    Qwen2ForCausalLM(language).save_pretrained(folder / "language")


def make_recipe() -> Recipe:
    """The tests' small recipe on those parts; every path in it is relative."""
    content = small_recipe(Path()).model_dump(mode="json")
    content |= {"name": "older"}
    content["model"] |= {"vision": "parts/vision", "language": "parts/language"}
    content["tracking"] |= {"uri": f"sqlite:///{STORE}", "model_name": "older"}
    content["serving"] |= {"max_new_tokens": 8}
    for stage in content["stages"].values():
        stage |= {"max_steps": STEPS, "saving_steps": INTERRUPTED, "learning_rate": 1e-3}
    return Recipe.model_validate(content)


class Interrupt(TrainerCallback):
    """Ends a run before the step that follows its state."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **options: Any) -> None:
        if state.global_step == INTERRUPTED:
            raise KeyboardInterrupt


def make_stage(recipe: Recipe, stage: Stage, output: Path) -> Path:
    """Train a stage on its prepared rows, from the checkpoint of the stage before."""
    parent = STAGES[stage].parent
    checkpoint = Path("checkpoints", parent) if parent else None
    train_stage(stage, recipe, data=Path("data", stage), checkpoint=checkpoint, output=output)
    return output


def make_state(recipe: Recipe, stage: Stage) -> str:
    """Interrupt a run of a stage; a copy of its state has to end in the straight run's weights.

    Returns:
        The folder that the state is in.
    """
    build = run._build_trainer

    def doomed(*arguments: Any) -> Any:
        trainer = build(*arguments)
        trainer.add_callback(Interrupt())
        return trainer

    run._build_trainer = doomed
    try:
        make_stage(recipe, stage, Path("interrupted", stage))
    except KeyboardInterrupt:
        run._build_trainer = build
    (work,) = Path("interrupted").iterdir()
    shutil.copytree("interrupted", "resumed")
    again = make_stage(recipe, stage, Path("resumed", stage))
    weights = [folder / "model.safetensors" for folder in (again, Path("checkpoints", stage))]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    steps = [read_history(path.parent)[:INTERRUPTED] for path in weights]
    assert steps[0] != steps[1], "their clocks tell the runs apart: it has not continued"
    shutil.rmtree("resumed")
    return str(work)


def make_model(recipe: Recipe, report: Path) -> str:
    """Register the last checkpoint and make it the champion.

    Returns:
        The folder of its model, in MLflow's format.
    """
    log = start_run(recipe, "dpo")
    registry = Registry(log.uri, recipe.tracking.model_name)
    number = registry.register(log, Path("checkpoints", Stage.DPO))
    make_candidate(log, registry, number, report)
    outcome = promote(registry, number, report, None)
    assert outcome.moved, outcome.sentence
    end_run(log, "FINISHED")
    (folder,) = Path("mlruns").rglob("MLmodel")
    return str(folder.parent)


def keep_store() -> None:
    """The store as SQL text, in which `@HERE@` stands for the folder."""
    with closing(sqlite3.connect(STORE)) as store:
        text = "\n".join(store.iterdump())
    Path("store.sql").write_text(text.replace(str(Path.cwd()), "@HERE@"))
    Path(STORE).unlink()


def picture(color: str) -> Image.Image:
    image = Image.new("RGB", (40, 30), "white")
    ImageDraw.Draw(image).rectangle((8, 6, 24, 22), fill=color)
    return image


def request() -> list[dict[str, str]]:
    """Rows that the served model is asked."""
    rows = []
    for color in ("red", "blue", "green"):
        stream = io.BytesIO()
        picture(color).save(stream, "PNG")
        image = base64.b64encode(stream.getvalue()).decode()
        rows.append({"image": image, "question": QUESTION})
    return rows


def logits(checkpoint: Path) -> list[float]:
    """Of the token that follows a question about a red square."""
    model, processor = load_checkpoint(checkpoint, attn_implementation="eager")
    turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}
    text = processor.apply_chat_template([turn], tokenize=False, add_generation_prompt=True)
    inputs = processor(images=[picture("red")], text=text, return_tensors="pt")
    with torch.inference_mode():
        last = model.eval()(**inputs).logits[0, -1, :LOGITS]
    return [round(value, 6) for value in last.tolist()]


def answers(report: Path) -> dict[str, str]:
    """What the model wrote to each question of the benchmark."""
    lines = pq.read_table(report / PREDICTIONS).to_pylist()
    return {line["id"]: line["generation"] for line in lines if line["player"] == "picture"}


def main() -> None:
    make_parts(Path("parts"))
    recipe = make_recipe()
    Path("recipe.json").write_text(recipe.model_dump_json(indent=1))
    for stage in Stage:
        options = {"data": recipe.data, "seed": recipe.seed}
        prepare(recipe.stage(stage).sources, STAGES[stage].rows, Path("data", stage), **options)
        make_stage(recipe, stage, Path("checkpoints", stage))
    state = make_state(recipe, Stage.VQA_SFT)
    prepare_benchmarks(recipe, Path("data", "evaluation"))
    report = Path("reports", Stage.DPO)
    scores = evaluate(
        recipe,
        checkpoint=Path("checkpoints", Stage.DPO),
        data=Path("data", "evaluation"),
        out=report,
    )
    model = make_model(recipe, report)
    served = mlflow.pyfunc.load_model(model).predict(pd.DataFrame(request()))
    keep_store()
    shutil.rmtree(recipe.output_dir)  # caches
    expected = {
        "state": {"folder": state, "step": INTERRUPTED, "steps": STEPS},
        "logits": {stage: logits(Path("checkpoints", stage)) for stage in Stage},
        "metrics": scores.metrics(),
        "evaluation": answers(report),
        "model": model,
        "request": request(),
        "served": served.to_dict(orient="records"),
    }
    Path("expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
