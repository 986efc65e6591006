"""The README.md of a published model: measured figures alone, and metadata that the hub reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from siqvl.checkpoint import CheckpointCard
from siqvl.publish.benchmark_table import COLUMNS, BenchmarkRow
from siqvl.publish.evidence import Evidence
from siqvl.publish.licences import UNKNOWN, Ingredient, ingredient, of_the_whole
from siqvl.publish.public_recipe import public_card
from siqvl.publish.stage_table import STAGE_COLUMNS, StageRow, lost_words, stage_rows
from siqvl.publish.weight_sizes import WeightSizes
from siqvl.stages import STAGES

if TYPE_CHECKING:
    from huggingface_hub import ModelCard, ModelCardData

TEMPLATE = Path(__file__).parent / "model_card.md.jinja"
TAGS = ["siqvl", "vision-language-model", "siglip", "custom_code"]
TYPE_COLUMNS = ["type", "n", "score", "95 % interval", "best other"]
NOT_MEASURED = (
    "What it says about people, in other languages than those of its data, or of pictures unlike "
    "those of its data, was not measured; neither was any bias.",
    "It writes what is likely, not what is true: an answer may be wrong and sound right.",
)


@dataclass(frozen=True)
class Published:
    """What a card is written about.

    Attributes:
        folder: of the repository, with all its files but the card.
        evidence: what is known of the checkpoint.
        licence: given by who publishes; None: that of the parts.
        reference: what loads the model: a hub id, or a place to be filled in.
        files: name, bytes and sha256 of every file that the card lists.
    """

    folder: Path
    evidence: Evidence
    licence: str | None
    reference: str
    files: Sequence[tuple[str, int, str]]

    @property
    def card(self) -> CheckpointCard:
        """Return the checkpoint's card."""
        return self.evidence.card

    @property
    def public_evidence(self) -> Evidence:
        """Return what is known, without places of the machine that trained."""
        lineage = [public_card(one) for one in self.evidence.lineage]
        return replace(self.evidence, lineage=lineage)


def model_card(about: Published) -> ModelCard:
    """Write the card; every figure is of the evidence, the configuration or the files."""
    from huggingface_hub import ModelCard

    parts = _parts(about.card)
    licence, why = of_the_whole(about.licence, [one for _, one in parts])
    evidence = about.public_evidence
    stages, benchmarks = stage_rows(evidence), _benchmarks(evidence)
    data_sets = _data_sets(stage_rows(about.evidence))  # by their places, which are not shown
    config = json.loads((about.folder / "config.json").read_text(encoding="utf-8"))
    sizes = WeightSizes.of(about.folder)
    family = config["text_config"]["model_type"]
    metadata = _metadata(about, licence, [one for _, one in parts], data_sets, benchmarks, family)
    text = _rendered(
        card_data=metadata.to_yaml(),
        title=about.reference.rpartition("/")[2],
        summary=_summary(about.card, parts, family),
        control=about.card.control.words if about.card.control else None,
        benchmarks=benchmarks,
        score_table=_table(COLUMNS, [row.cells for row in benchmarks], left=1),
        tables={row.score.benchmark: _table(TYPE_COLUMNS, row.types, left=1) for row in benchmarks},
        prompts={row.score.benchmark: fenced(row.score.prompt) for row in benchmarks},
        places=" and ".join(about.evidence.places),
        checkpoint=about.card,
        stages=stages,
        stage_table=_table(STAGE_COLUMNS, [row.cells for row in stages], left=3),
        lost=lost_words(evidence),
        data_sets=data_sets,
        size_table=_table(["part", "parameters"], _size_rows(sizes), left=1),
        model=_shapes(about, config, sizes),
        limits=_limits(benchmarks),
        licence_words=_licence_words(licence, why),
        parts=parts,
        versions={name: version(name).partition("+")[0] for name in ("torch", "transformers")},
        reference=about.reference,
        files=[(name, f"{size:,}", digest) for name, size, digest in about.files],
    )
    return ModelCard(text)


def _rendered(**values: Any) -> str:
    """The card's text: Markdown, not HTML, so that nothing is escaped as on pages."""
    from jinja2 import Environment, StrictUndefined

    options = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    return options.from_string(TEMPLATE.read_text(encoding="utf-8")).render(values)


def _metadata(
    about: Published,
    licence: str,
    parts: Sequence[Ingredient],
    data_sets: Sequence[Ingredient],
    benchmarks: Sequence[BenchmarkRow],
    family: str,
) -> ModelCardData:
    from huggingface_hub import ModelCardData

    return ModelCardData(
        model_name=about.reference.rpartition("/")[2],
        license=licence,
        library_name="transformers",
        pipeline_tag="image-text-to-text",
        tags=[*TAGS, family],
        base_model=[one.hub_id for one in parts if one.hub_id] or None,
        datasets=[one.hub_id for one in data_sets if one.hub_id] or None,
        eval_results=[row.metadata() for row in benchmarks] or None,
        siqvl={"checkpoint": about.card.hash, "stage": about.card.stage.value},
    )


def _parts(card: CheckpointCard) -> list[tuple[str, Ingredient]]:
    """Tower and language model, by the recipe; a recipe of another day may not name them."""
    model = card.recipe.get("model")
    named = model if isinstance(model, dict) else {}
    found = []
    for name, key in (("vision tower", "vision"), ("language model", "language")):
        if path := named.get(key):
            found.append((name, ingredient(str(path), "model", named.get(f"{key}_revision"))))
        else:
            found.append((name, Ingredient("not recorded", None, UNKNOWN, "the recipe")))
    return found


def _data_sets(stages: Sequence[StageRow]) -> list[Ingredient]:
    """Every data set that has a place; generated rows have none."""
    places: dict[tuple[str, str | None], None] = {}
    for row in stages:
        for source in row.settings.get("sources", []):
            if path := source.get("path"):
                places[str(path), source.get("revision")] = None
    return [ingredient(path, "dataset", revision) for path, revision in places]


def _benchmarks(evidence: Evidence) -> list[BenchmarkRow]:
    if evidence.scores is None:
        return []
    section = evidence.card.recipe.get("evaluation")
    named = section.get("benchmarks", []) if isinstance(section, dict) else []
    asked = {one.get("name"): one for one in named if isinstance(one, dict)}
    return [BenchmarkRow(one, asked.get(one.benchmark, {})) for one in evidence.scores.scores]


def _summary(card: CheckpointCard, parts: Sequence[tuple[str, Ingredient]], family: str) -> str:
    (_, vision), (_, language) = parts
    return (
        f"A vision-language model: a SigLIP tower ({vision.link}), pixel shuffle, one Linear and "
        f"one LayerNorm, and a {family.capitalize()} language model ({language.link}), trained in "
        f"stages by SiQ-VL. This is the checkpoint after **{STAGES[card.stage].title}** of recipe "
        f"`{card.recipe_name}`."
    )


def _shapes(about: Published, config: dict[str, Any], sizes: WeightSizes) -> dict[str, Any]:
    vision, text = config["vision_config"], config["text_config"]
    side = vision["image_size"] // vision["patch_size"] // config["pixel_shuffle_factor"]
    trained = StageRow(about.card).settings.get("max_length")
    return {
        "image_size": vision["image_size"],
        "image_tokens": side * side,
        "context": f"{text['max_position_embeddings']:,}",
        "trained_length": f"{trained:,} tokens" if trained else "a length that was not recorded",
        "bytes": f"{sizes.bytes:,}",
        "dtypes": " and ".join(sizes.dtypes),
    }


def _size_rows(sizes: WeightSizes) -> list[list[str]]:
    rows = [[name.replace("_", " "), f"{count:,}"] for name, count in sizes.parts.items()]
    return [*rows, ["**all**", f"**{sizes.parameters:,}**"]]


def _limits(benchmarks: Sequence[BenchmarkRow]) -> list[str]:
    found = [doubt for row in benchmarks if (doubt := row.doubt)]
    weakest = [
        (one.players["picture"].mean, row.score.benchmark, name)
        for row in benchmarks
        for name, one in row.score.types.items()
    ]
    if weakest:
        share, benchmark, name = min(weakest)
        found.append(
            f"The type of question that it answers worst is `{name}` of `{benchmark}`: "
            f"{100 * share:.1f} %."
        )
    if not benchmarks:
        found.append("Nothing is known of how well it answers.")
    return [*found, *NOT_MEASURED]


def _licence_words(licence: str, why: str) -> str:
    if licence == UNKNOWN:
        return f"**Unknown** ({why}): ask who published this before you use it."
    return f"`{licence}` ({why})."


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> str:
    """A Markdown table whose first `left` columns are aligned on the left, the others right."""
    rules = ["---" if column < left else "---:" for column in range(len(head))]
    lines = [head, rules, *(map(_cell, row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def fenced(text: str) -> str:
    """Return a text as a block of code; its fence is longer than any that the text holds."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}text\n{text}\n{fence}"
