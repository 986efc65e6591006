"""The file that docs/evaluation.md has for VLMEvalKit, up to what VLMEvalKit itself does with it.

Of VLMEvalKit there are only the two names that the file imports: it is no package of an index.
"""

import re
import sys
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest

from siqvl.data import sources
from siqvl.data.schema import RowKind
from siqvl.errors import UserError
from siqvl.generation.completions import complete, prompt_item
from siqvl.recipe import Source

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
(FILE,) = re.findall(r"^```python\n(.*?)^```$", PAGE.split("\n## VLMEvalKit\n")[1], re.S | re.M)


class BaseModel:
    """As far as a model sees it: `generate` hands a list of parts on to `generate_inner`."""


@pytest.fixture
def added(checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    """What the file adds to VLMEvalKit's models, made as `run.py` makes it."""
    config, base = ModuleType("vlmeval.config"), ModuleType("vlmeval.vlm.base")
    config.supported_VLM, base.BaseModel = {}, BaseModel
    for name, module in {
        "vlmeval": ModuleType("vlmeval"),
        "vlmeval.config": config,
        "vlmeval.vlm": ModuleType("vlmeval.vlm"),
        "vlmeval.vlm.base": base,
    }.items():
        monkeypatch.setitem(sys.modules, name, module)
    exec(compile(FILE, "run_siqvl.py", "exec"), {"__name__": "run_siqvl"})
    ((name, made),) = config.supported_VLM.items()
    assert name == "SiQ-VL"
    assert isinstance(made, partial)
    assert issubclass(made.func, BaseModel)
    return made(checkpoint=checkpoint, max_new_tokens=12)


def test_it_answers_messages_as_our_evaluation_does(added, loaded, tmp_path: Path) -> None:
    source = Source(kind="shapes", subsets=["vqa"], max_samples=3)
    rows = list(sources.rows(source, RowKind.EVALUATION, 0))
    paths = []
    for number, row in enumerate(rows):
        paths.append(str(tmp_path / f"{number}.png"))
        row["images"][0].save(paths[-1])

    def text(words):
        return {"type": "text", "value": words}

    def image(number):
        return {"type": "image", "value": paths[number]}

    marked = {
        "question": "Is <image> like <image>?",
        "images": [row["images"][0] for row in rows[:2]],
    }
    asked = [([image(n), text(row["question"])], row) for n, row in enumerate(rows)]
    asked.append(
        ([text("Is "), image(0), text(" like "), image(1), text("?")], {**marked, "id": "m"})
    )
    asked.append(([text("What is red?")], {"id": "t", "question": "What is red?", "images": []}))
    for message, row in asked:
        (expected,) = complete(*loaded, [prompt_item(row, loaded[1])], max_new_tokens=12)
        assert added.generate_inner(message, dataset="D") == expected.text


def test_a_video_is_refused(added) -> None:
    assert added.allowed_types == ["text", "image"]
    assert added.INTERLEAVE
    with pytest.raises(UserError, match="cannot be read"):
        added.generate_inner([{"type": "image", "value": "clip.mp4"}], dataset="D")


def test_it_goes_on_to_run_py_of_the_folder_it_is_started_in(
    added, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run.py").write_text(
        "from vlmeval.config import supported_VLM\n"
        "if __name__ == '__main__':\n"
        "    open('said', 'w').write(','.join(supported_VLM))\n"
    )
    monkeypatch.chdir(tmp_path)
    exec(compile(FILE, "run_siqvl.py", "exec"), {"__name__": "__main__"})
    assert (tmp_path / "said").read_text() == "SiQ-VL"
