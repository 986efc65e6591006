"""The same two tasks as a cluster starts them: code that is newer than the image, over the image's.

`pyflyte run --remote` ships the files it has loaded; `pyflyte-fast-execute` unpacks them in /root.
Here the archive holds one changed file, so a task runs only if all others are still found.
"""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

from flyteidl.core.literals_pb2 import Literal, LiteralMap
from flyteidl.core.types_pb2 import BlobType
from flytekit import FlyteContextManager
from flytekit.configuration import Image, ImageConfig, SerializationSettings
from flytekit.core.base_task import PythonTask
from flytekit.core.type_engine import TypeEngine
from flytekit.core.utils import load_proto_from_file, write_proto_to_file

from tests.integration.image_checks.inside import WORK, Pods, code_of

MARK = ".fast"
CHANGED = "siqvl/version.py"
#: Added to the file of the image, so that every checkpoint says which code wrote it.
CHANGE = f"""

_of_the_image = code_version


def code_version() -> str:
    return _of_the_image() + "{MARK}"
"""
ARCHIVE = f"{WORK}/fast.tar.gz"


def run_stage(pods: Pods, context: Path) -> str:
    """Run both tasks in pods; return the code that the checkpoint names."""
    from siqvl.recipe import Recipe
    from tasks.contracts import Preparation
    from tasks.data_prep import data_prep
    from tasks.projector_alignment import projector_alignment

    _pack(pods.folder, context)
    recipe = Recipe.load(_on_host(pods.folder, context))
    stage = Preparation.PROJECTOR_ALIGNMENT
    given = _literals(data_prep, {"recipe": recipe, "stage": stage})
    data = _run(pods, data_prep, given)
    given = _literals(projector_alignment, {"recipe": recipe})
    checkpoint = _run(pods, projector_alignment, given | {"data": data})
    uri = Path(checkpoint.scalar.blob.uri)
    return code_of(pods.folder / uri.relative_to(WORK))


def _pack(folder: Path, context: Path) -> None:
    changed = folder / "changed.py"
    changed.write_text((context / CHANGED).read_text() + CHANGE)
    with tarfile.open(folder / Path(ARCHIVE).name, "w:gz") as archive:
        archive.add(changed, CHANGED)


def _on_host(folder: Path, context: Path) -> Path:
    """The recipe with the base of the build context; its other paths are read in the pod."""
    recipe = folder / "recipe_on_host.yaml"
    text = (folder / "recipe.yaml").read_text()
    recipe.write_text(text.replace("base: /root/", f"base: {context}/"))
    return recipe


def _literals(task: PythonTask[Any], given: dict[str, Any]) -> dict[str, Literal]:
    """Inputs as Flyte hands them over; those not given have their default, if it is a value."""
    context = FlyteContextManager.current_context()
    interface = task.python_interface.inputs_with_defaults
    literals = {}
    for name, (python_type, default) in interface.items():
        value = given.get(name, default)
        if name in given or name != "data":
            wanted = TypeEngine.to_literal_type(python_type)
            literal = TypeEngine.to_literal(context, value, python_type, wanted)
            literals[name] = literal.to_flyte_idl()
    return literals


def _run(pods: Pods, task: PythonTask[Any], given: dict[str, Literal]) -> Literal:
    """One pod, with plain paths of the mounted folder as its prefixes."""
    name = task.name.rsplit(".", 1)[-1]
    folder = pods.folder / "pods" / name
    folder.mkdir(parents=True)
    for part in ("out", "raw"):
        (folder / part).mkdir()
    for path in (folder.parent, folder, *folder.iterdir()):
        path.chmod(0o777)  # the user of the image is not the one who made them
    write_proto_to_file(LiteralMap(literals=given), str(folder / "inputs.pb"))
    pods.run(f"fast_{name}", *_arguments(task, name), code_writable=True, cwd="/root")
    if not (folder / "out" / "outputs.pb").exists():
        log = (pods.folder / f"fast_{name}.log").read_text()
        raise AssertionError(f"{name} left no outputs:\n{log[-3000:]}")
    output = load_proto_from_file(LiteralMap, str(folder / "out" / "outputs.pb")).literals["o0"]
    assert output.scalar.blob.metadata.type.dimensionality == BlobType.MULTIPART
    return output


def _arguments(task: PythonTask[Any], name: str) -> list[str]:
    """What Flyte puts into the pod, with its places filled in."""
    settings = SerializationSettings(ImageConfig(Image("default", "siqvl", "test")))
    pod = f"{WORK}/pods/{name}"
    places = {
        "{{.input}}": f"{pod}/inputs.pb",
        "{{.outputPrefix}}": f"{pod}/out",
        "{{.rawOutputDataPrefix}}": f"{pod}/raw",
        "{{.checkpointOutputPrefix}}": f"{pod}/checkpoint",
        "{{.prevCheckpointPrefix}}": '""',
    }
    unpack = ["pyflyte-fast-execute", "--additional-distribution", ARCHIVE, "--dest-dir", ".", "--"]
    return unpack + [places.get(word, word) for word in task.get_command(settings)]
