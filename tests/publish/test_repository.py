"""A published folder: what is in it, what must not be, and that it works without this package."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image

from siqvl.checkpoint import CARD, content_hash, verify_checkpoint
from siqvl.errors import UserError
from siqvl.evaluation.scoring.scores import Scores
from siqvl.model import load_checkpoint
from siqvl.publish.evidence import EvaluationFolder
from siqvl.publish.fresh_load import answer_elsewhere
from siqvl.publish.publication import Publication, Target, Wanted, publish
from siqvl.publish.repository_check import check_repository
from siqvl.recipe import Stage
from tests.model.tiny_siqvl import encode
from tests.publish.conftest import PROMPT, STORE, Run, scored

WEIGHTS = "model.safetensors"


@pytest.fixture
def made(run: Run, tmp_path: Path) -> Publication:
    return publish(run.checkpoint(), Wanted(Target(None, tmp_path / "tiny"), load=False))


@pytest.fixture
def folder(made: Publication, tmp_path: Path) -> Path:
    return tmp_path / "tiny"


def test_it_is_the_checkpoint_and_still_verified(run: Run, folder: Path) -> None:
    """All files that the checkpoint's card names, byte for byte, so that siqvl takes it, too."""
    card = run.cards[Stage.VQA_SFT]
    assert card.files
    for name, digest in card.files.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    assert content_hash(folder) == card.hash
    assert verify_checkpoint(folder).hash == card.hash
    own = {*card.files, CARD, "history.json"}
    assert {path.name for path in folder.iterdir()} == own | {"README.md", "scores.json"}


def test_what_the_hub_puts_beside_it_is_no_content(folder: Path) -> None:
    """Of a folder that huggingface_hub fetched a repository to; anything else is."""
    before = content_hash(folder)
    (folder / ".gitattributes").write_text("*.safetensors filter=lfs")
    (folder / ".cache" / "huggingface").mkdir(parents=True)
    (folder / ".cache" / "huggingface" / "README.md.metadata").write_text("x")
    assert content_hash(folder) == before
    verify_checkpoint(folder)
    (folder / "more.json").write_text("{}")
    with pytest.raises(UserError, match=r"more\.json was added"):
        verify_checkpoint(folder)


def test_the_metadata_is_what_the_hub_reads(folder: Path) -> None:
    data = ModelCard.load(folder / "README.md").data
    assert (data.library_name, data.pipeline_tag) == ("transformers", "image-text-to-text")
    assert data.license == "apache-2.0"  # of both parts, by the README above them
    (result,) = data.eval_results
    assert (result.metric_value, result.metric_type) == (68.7, "exact_match")
    assert (result.dataset_name, result.dataset_split) == ("vqa", "test")
    assert result.metric_args["interval_95"] == [66.7, 70.7]
    assert result.metric_args["baselines"] == {"no_picture": 26.2, "question_only": 29.0}


def test_benchmarks_of_one_source_stay_apart(run: Run, tmp_path: Path) -> None:
    """huggingface_hub writes results that share type, config and split below the first one's
    name."""
    card = run.cards[Stage.VQA_SFT]
    one, other = (scored(card.hash, name, right) for name, right in (("a", 0.5), ("b", 0.6)))
    both = one.model_copy(update={"scores": [*one.scores, *other.scores]})
    both.write(tmp_path)
    out = tmp_path / "out"
    publish(run.checkpoint(), Wanted(Target(None, out), load=False, evaluations=[tmp_path]))
    found = ModelCard.load(out / "README.md").data.eval_results
    assert {one.dataset_name: one.metric_value for one in found} == {
        "a": 50.0,
        "b": 60.0,
        "vqa": 68.7,
    }


def test_the_card_says_what_was_measured(folder: Path) -> None:
    text = (folder / "README.md").read_text()
    row = (
        "| vqa | 2,000 | **68.7 %** | 66.7 % – 70.7 % | 26.2 % | – | – | 29.0 % | – | "
        "+39.7 (+37.1 … +42.1) |"
    )
    assert row in text
    assert "| how\\|many | 400 | 30.2 % |" in text or "| how\\|many | 400 | 30.3 % |" in text
    assert f"````text\n{PROMPT}\n````" in text  # as it was, whatever is in it
    assert "`" + "e" * 64 + "`" in text
    for title in ("projector alignment", "VQA SFT"):
        assert re.search(rf"^\| {title} \| `[0-9a-f]{{12}}` \|", text, re.MULTILINE)
    assert "fingerprint of the prepared rows `" + "0" * 64 in text
    assert "fingerprint of the prepared rows `" + "1" * 64 in text
    assert "siqvl chat tiny" in text
    assert "`how|many` of `vqa`" in text


def test_nothing_of_the_machine_is_in_it(run: Run, folder: Path) -> None:
    private = [STORE, str(run.folder), str(Path(__file__).parents[2])]
    for path in folder.iterdir():
        content = path.read_bytes()
        for word in [*private, os.path.expanduser("~") + "/"]:
            assert word.encode() not in content, (path.name, word)
    recipe = json.loads((folder / CARD).read_text())["recipe"]
    assert recipe["model"]["vision"] == "vision"
    assert recipe["tracking"]["uri"] is None
    assert recipe["stages"]["vqa_sft"]["sources"][1]["path"] == "my cats.csv"
    text = (folder / "README.md").read_text()
    assert "- `my cats.csv`, split `train`" in text


def test_scores_of_other_weights_are_not_taken(run: Run, tmp_path: Path) -> None:
    other = Path(shutil.copytree(run.folder, tmp_path / "run"))
    scored("f" * 64).write(other / "evaluation" / Stage.VQA_SFT)
    checkpoint = other / "checkpoints" / Stage.VQA_SFT
    made = publish(checkpoint, Wanted(Target(None, tmp_path / "out"), load=False))
    assert made.evidence.scores is None
    assert "**Not measured**" in made.card
    assert not (tmp_path / "out" / "scores.json").exists()
    assert "model-index" not in made.card
    with pytest.raises(UserError, match="holds scores of another checkpoint"):
        publish(
            checkpoint,
            Wanted(
                Target(None, tmp_path / "again"),
                evaluations=[other / "evaluation" / Stage.VQA_SFT],
            ),
        )
    assert not (tmp_path / "again").exists()


def test_a_lost_parent_is_said_to_be_lost(run: Run, tmp_path: Path) -> None:
    alone = Path(shutil.copytree(run.checkpoint(), tmp_path / "somewhere" / "alone"))
    made = publish(alone, Wanted(Target(None, tmp_path / "out"), load=False))
    parent = run.cards[Stage.PROJECTOR_ALIGNMENT].hash
    assert f"Before it came projector alignment, checkpoint `{parent[:12]}`" in made.card
    assert "0" * 64 not in made.card  # its fingerprint, which nobody told


def test_who_publishes_names_the_licence(run: Run, tmp_path: Path) -> None:
    wanted = Wanted(Target(None, tmp_path / "out"), licence="CC-BY-4.0", load=False)
    assert "\nlicense: cc-by-4.0\n" in publish(run.checkpoint(), wanted).card


def test_a_published_folder_is_published_again(folder: Path, tmp_path: Path) -> None:
    """Its scores come with it, so that a model that was fetched can be passed on."""
    again = publish(folder, Wanted(Target(None, tmp_path / "tiny again"), load=False))
    assert again.evidence.scores == Scores.read(folder)
    assert "From what it was published with" in again.card


def test_an_evaluation_that_is_named_comes_first(run: Run, tmp_path: Path) -> None:
    hash = run.cards[Stage.VQA_SFT].hash
    scored(hash, right=0.5).write(tmp_path)
    assert EvaluationFolder(tmp_path).checkpoint == hash
    wanted = Wanted(Target(None, tmp_path / "out"), evaluations=[tmp_path], load=False)
    assert "**50.0 %**" in publish(run.checkpoint(), wanted).card


@torch.no_grad()
def test_it_answers_alike_in_a_process_without_siqvl(run: Run, folder: Path) -> None:
    found = answer_elsewhere(folder)
    assert found.class_name.startswith("transformers_modules.")
    assert found.class_name.endswith(".SiQVLForConditionalGeneration")
    model, processor = load_checkpoint(run.checkpoint())
    picture = Image.linear_gradient("L").convert("RGB")
    inputs = encode(processor, "What is in the picture?", [picture])
    ids = model.generate(**inputs, max_new_tokens=8, do_sample=False)
    assert found.ids == ids[0, inputs["input_ids"].shape[1] :].tolist()


def test_code_that_needs_siqvl_is_not_published(run: Run, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(run.checkpoint(), tmp_path / "broken"))
    code = broken / "projector.py"
    code.write_text(code.read_text() + "\nimport siqvl.files\n")
    with pytest.raises(UserError, match="without this package it does not load"):
        answer_elsewhere(broken)


def edited(name: str, old: str, new: str) -> Callable[[Path], object]:
    def edit(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1))

    return edit


def added(name: str, content: str = "") -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(content)


SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda folder: (folder / WEIGHTS).unlink(), f"{WEIGHTS}, which README.md lists"),
    "changed": (edited("config.json", '"siqvl"', '"SiQVL"'), "config.json is another than"),
    "more": (added("notes.txt"), "notes.txt is not listed in README.md"),
    "pickle": (added("weights.pt"), r"weights\.pt is no file of a model"),
    "hidden": (added(".env"), r"\.env is no file of a model"),
    "link": (lambda folder: (folder / "l.json").symlink_to("/etc/hosts"), "l.json is no file"),
    "code": (lambda folder: (folder / "projector.py").unlink(), "modeling.py needs, is missing"),
    "class": (
        edited("config.json", "modeling.SiQVLModel", "modeling.Other"),
        "modeling.py has no class Other",
    ),
    "package": (edited("projector.py", "import torch", "import siqvl.x"), "imports siqvl.x"),
    "path": (edited("history.json", "[", '[{"a": "/home/me/x"},'), "names a path of a machine"),
    "odd path": (edited("history.json", "[", '[{"a": "/nfs/x"},'), "names a path of a machine"),
    "windows": (edited("history.json", "[", '[{"a": "C:\\\\me"},'), "names a path of a machine"),
    "token": (
        edited("history.json", "[", '[{"a": "hf_' + "aB3" * 12 + '"},'),
        "a Hugging Face tok",
    ),
    "password": (edited(CARD, '"uri": null', '"uri": "pg://me:x@host/d"'), "a password in an add"),
    "tokens": (
        edited("processor_config.json", '_tokens": 4', '_tokens": 9'),
        "tokens of a picture",
    ),
    "score": (edited("README.md", "value: 68.7", "value: 98.7"), "says 98.7 of `vqa`, scores.json"),
    "results": (lambda folder: (folder / "scores.json").unlink(), "there is no scores.json"),
    "parameters": (
        lambda folder: [edited("README.md", *one)(folder) for one in _other_counts(folder)],
        "another number of parameters",
    ),
    "other": (
        lambda folder: edited("README.md", *_other_hash(folder))(folder),
        "about different checkpoints",
    ),
}


def _other_counts(folder: Path) -> list[tuple[str, str]]:
    count = re.search(r"\*\*([\d,]+)\*\*", (folder / "README.md").read_text())
    assert count
    return [(count[1], "1")]


def _other_hash(folder: Path) -> tuple[str, str]:
    hash = json.loads((folder / CARD).read_text())["hash"]
    return f"checkpoint: {hash}", f"checkpoint: {'a' * 64}"


@pytest.mark.parametrize("damage", SPOILT)
def test_what_is_wrong_with_a_folder_is_found(folder: Path, damage: str) -> None:
    check_repository(folder)
    spoil, sentence = SPOILT[damage]
    spoil(folder)
    with pytest.raises(UserError, match=sentence) as caught:
        check_repository(folder)
    assert "\n" not in caught.value.message
    assert "aB3aB3" not in caught.value.message


def test_the_token_of_this_machine_is_looked_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = "an-odd-token-of-an-organization"
    edited("history.json", "[", f'[{{"a": "{token}"}},')(folder)
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(UserError, match="holds the Hugging Face token of this machine") as caught:
        check_repository(folder)
    assert token not in caught.value.message


def test_a_folder_with_something_else_is_left_alone(run: Run, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="is not empty"):
        publish(run.checkpoint(), Wanted(Target(None, tmp_path)))
    with pytest.raises(UserError, match="is the checkpoint itself"):
        publish(run.checkpoint(), Wanted(Target(None, run.checkpoint())))
    with pytest.raises(UserError, match="lies in the checkpoint"):
        publish(run.checkpoint(), Wanted(Target(None, run.checkpoint() / "hub")))
    assert not (run.checkpoint() / "hub").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_an_earlier_publication_is_replaced(run: Run, folder: Path) -> None:
    publish(run.checkpoint(Stage.PROJECTOR_ALIGNMENT), Wanted(Target(None, folder), load=False))
    assert content_hash(folder) == run.cards[Stage.PROJECTOR_ALIGNMENT].hash
    assert not (folder / "scores.json").exists()


@pytest.mark.parametrize(
    ("text", "repository"),
    [
        ("me/tiny", "me/tiny"),
        ("hf://there/tiny", "there/tiny"),
        ("there/tiny", None),
        ("./me/tiny", None),
        ("tiny", None),
        ("/a/b", None),
        ("a/b/c", None),
    ],
)
def test_what_is_meant_by_a_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, repository: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there").mkdir()
    assert Target.of(text).repository == repository


def test_no_hub_id_is_refused() -> None:
    with pytest.raises(UserError, match="is no hub id"):
        Target.of("hf://tiny")
