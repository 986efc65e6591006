"""How lmms-eval finds SiQ-VL: what can be told without it, and the rest where it is installed.

`tests/integration/test_lmms_eval.py` runs the whole command in an environment of its own.
"""

import sys
import tomllib
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

without_it = pytest.mark.skipif(
    find_spec("lmms_eval") is None,
    reason="lmms-eval is not installed: it comes with pip install 'siqvl[lmms-eval]'",
)


def manifest_maker():
    ((name, value),) = PROJECT["entry-points"]["lmms_eval.models"].items()
    assert name == "siqvl"
    module, _, attribute = value.partition(":")
    __import__(module)
    return getattr(sys.modules[module], attribute)


def test_the_entry_point_names_what_makes_a_manifest_of_both_models(monkeypatch):
    """Whose classes are where it says."""
    registry = ModuleType("lmms_eval.models.registry_v2")
    registry.ModelManifest = SimpleNamespace  # the names of its fields are those of 0.7.3
    monkeypatch.setitem(sys.modules, "lmms_eval.models.registry_v2", registry)
    manifest = manifest_maker()()
    assert manifest.model_id == "siqvl"
    for path in (manifest.chat_class_path, manifest.simple_class_path):
        module, _, name = path.rpartition(".")
        source = Path(find_spec(module).origin).read_text(encoding="utf-8")
        assert f"\nclass {name}(" in source


def test_registering_imports_no_model_library():
    """lmms-eval loads every entry point whichever model is asked for."""
    source = Path(find_spec("siqvl.harness.lmms_registration").origin).read_text(encoding="utf-8")
    imports = [line for line in source.splitlines() if line.startswith(("import ", "from "))]
    assert imports == ["from __future__ import annotations", "from typing import Any"]


def test_the_extra_pins_the_version_whose_protocol_this_is():
    extra = PROJECT["optional-dependencies"]["lmms-eval"]
    assert extra == ["lmms-eval==0.7.3", "torchvision==0.28.0", "filelock<4.3"]
    assert "torch==2.13.0" in PROJECT["dependencies"]


@without_it
def test_lmms_eval_takes_the_manifest():
    from lmms_eval.models.registry_v2 import ModelRegistryV2

    registry = ModelRegistryV2()
    registry.load_entrypoint_manifests()
    assert [one.name for one in entry_points(group="lmms_eval.models")] == ["siqvl"]
    for simple, name in ((False, "SiQVLChat"), (True, "SiQVLSimple")):
        found = registry.get_model_class("siqvl", force_simple=simple)
        assert (found.__name__, found.is_simple) == (name, simple)
