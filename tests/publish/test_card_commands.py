"""What a model card tells a reader to run, run."""

import re
from pathlib import Path

import pytest
import torch

from docs.model_card import page_of
from siqvl.publish.publication import Target, Wanted, publish
from tests.model.tiny_siqvl import picture
from tests.publish.conftest import Run


@pytest.fixture
def blocks(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The card's Python, in the folder that holds the published one."""
    made = publish(run.checkpoint(), Wanted(Target(None, tmp_path / "tiny"), load=False))
    monkeypatch.chdir(tmp_path)
    return re.findall(r"^```python\n(.*?)^```$", made.card, re.DOTALL | re.MULTILINE)


def test_load_and_fine_tune(blocks: list[str]) -> None:
    load, tune = blocks
    names: dict = {"image": picture(0), "question": "what?"}
    exec(load, names)
    assert isinstance(names["answer"], str)
    before = {name: weight.clone() for name, weight in names["model"].named_parameters()}
    said = {"role": "assistant", "content": "a red square"}
    row = {"prompt": [{"role": "user", "content": "what?"}], "completion": [said]}
    names["rows"] = _rows([row | {"images": [picture(seed)]} for seed in range(2)])
    exec(tune, names)
    after = dict(names["model"].named_parameters())
    same = {name for name in before if torch.equal(before[name], after[name].cpu())}
    assert {name for name in same if "vision_tower" not in name} == set()
    assert all("vision_tower" in name for name in same)
    assert same


def test_the_card_is_rendered_as_on_the_hub(run: Run, tmp_path: Path) -> None:
    """By the script that makes its picture: tables are tables, and a prompt is no HTML."""
    made = publish(run.checkpoint(), Wanted(Target(None, tmp_path / "tiny"), load=False))
    page = page_of(made.card)
    assert "<summary>metadata</summary>" in page
    assert "<strong>68.7 %</strong>" in page
    assert "<h2>Scores</h2>" in page
    assert "&lt;b&gt;it&lt;/b&gt;" in page
    assert "<b>it</b>" not in page


def _rows(rows: list[dict]):
    from datasets import Dataset, Features, List, Value
    from datasets import Image as ImageFeature

    turn = List({"role": Value("string"), "content": Value("string")})
    features = Features({"prompt": turn, "completion": turn, "images": List(ImageFeature())})
    return Dataset.from_list(rows, features=features)
