"""One registry, one way to say what is wrong with a source."""

import pytest

from siqvl.data import sources
from siqvl.data.schema import RowKind
from siqvl.data.sources.base import Items, SourceAdapter
from siqvl.errors import UserError
from siqvl.recipe import Source


def test_every_adapter_fits_the_protocol():
    assert {"a_okvqa", "easy_vqa", "finevision", "gqa", "llava", "llava_cot"} < set(sources.SOURCES)
    for adapter in sources.SOURCES.values():
        assert isinstance(adapter, SourceAdapter)


def test_an_unknown_kind_lists_the_known_ones():
    with pytest.raises(UserError) as error:
        sources.check(Source(kind="coco"), RowKind.SFT)
    known = ", ".join(sorted(sources.SOURCES))
    assert error.value.message == f"unknown source kind `coco`; known kinds: {known}"


def test_a_kind_of_row_the_source_does_not_have(tmp_path):
    with pytest.raises(UserError) as error:
        sources.check(Source(kind="finevision", path=str(tmp_path)), RowKind.PREFERENCE)
    assert error.value.message == "source `finevision` has no preference rows, only sft"


@pytest.mark.parametrize("kind", sorted({*sources.SOURCES} - {"shapes", "gqa"}))
def test_paths(kind, tmp_path, monkeypatch):
    kinds = sources.SOURCES[kind].kinds
    row_kind = RowKind.SFT if RowKind.SFT in kinds else RowKind.PREFERENCE
    monkeypatch.delenv("NO_SUCH_PLACE", raising=False)
    checks = {
        "${NO_SUCH_PLACE}/data": f"source `{kind}`: path ${{NO_SUCH_PLACE}}/data needs the "
        "environment variable NO_SUCH_PLACE, which is not set; export NO_SUCH_PLACE=<folder> and "
        "try again",
        f"{tmp_path}/none": f"source `{kind}`: {tmp_path}/none does not exist; correct `path`",
    }
    for path, message in checks.items():
        with pytest.raises(UserError) as error:
            sources.check(Source(kind=kind, path=path), row_kind)
        assert error.value.message == message
    with pytest.raises(UserError, match=f"source `{kind}` needs a `path`"):
        sources.check(Source(kind=kind), row_kind)
    with pytest.raises(UserError, match=f"source `{kind}`: {tmp_path} (has|holds) (no|neither) "):
        sources.check(Source(kind=kind, path=str(tmp_path)), row_kind)


def test_an_adapter_of_another_package(monkeypatch):
    class Foreign:
        kinds = frozenset({RowKind.SFT})

        def check(self, source, kind):
            pass

        def rows(self, source, kind, seed):
            return Items(3, lambda index: {"id": str(index)})

    class Entry:
        name = "foreign"

        def load(self):
            return Foreign

    def entry_points(group):
        assert group == "siqvl.sources"
        return [Entry()]

    monkeypatch.setattr(sources, "entry_points", entry_points)
    sources.check(Source(kind="foreign"), RowKind.SFT)
    assert len(list(sources.rows(Source(kind="foreign"), RowKind.SFT, 0))) == 3
    with pytest.raises(UserError, match=r"known kinds: .*, foreign, "):
        sources.check(Source(kind="coco"), RowKind.SFT)


def test_samples_of_a_known_number_are_a_seeded_choice_in_order(monkeypatch):
    class Hundred:
        kinds = frozenset({RowKind.SFT})

        def rows(self, source, kind, seed):
            return Items(100, lambda index: {"id": index})

    monkeypatch.setitem(sources.SOURCES, "hundred", Hundred())

    def chosen(seed, count):
        found = sources.rows(Source(kind="hundred", max_samples=count), RowKind.SFT, seed)
        return [row["id"] for row in found]

    assert chosen(0, 10) == chosen(0, 10) == sorted(set(chosen(0, 10)))
    assert chosen(0, 10) != chosen(1, 10)
    assert len(chosen(1, 10)) == 10
    assert chosen(0, 100) == chosen(0, 1000) == list(range(100))


def test_items_are_a_sequence():
    items = Items(5, lambda index: {"id": index})
    assert [row["id"] for row in items] == [0, 1, 2, 3, 4]
    assert items[-1] == {"id": 4}
    assert items[1:3] == [{"id": 1}, {"id": 2}]
    with pytest.raises(IndexError):
        items[5]


def test_no_heavy_module_is_imported_by_the_registry():
    """Tasks import it at their top, and `pyflyte run --help` has to be quick.

    numpy and pyarrow cost nothing there: pyflyte itself has imported them by then.
    """
    import subprocess
    import sys

    program = (
        "import sys; import flytekit.clis.sdk_in_container.pyflyte; before = set(sys.modules);"
        "import siqvl.data.preparation.prepare, siqvl.data.schema, siqvl.data.sources;"
        "heavy = {'torch', 'transformers', 'datasets', 'mlflow', 'PIL', 'numpy', 'pyarrow', 'trl'};"
        "print(sorted(heavy & set(sys.modules) - before))"
    )
    environment = {"PYTHONPATH": ":".join(path for path in sys.path if path), "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.strip() == "[]"
