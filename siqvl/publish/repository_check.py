"""Whether a published folder is whole: all that it names is there, and nothing that should not be.

It is judged by its files alone, as somebody would who has fetched it.
"""

from __future__ import annotations

import ast
import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from siqvl.checkpoint import CARD, verify_checkpoint
from siqvl.errors import UserError, one_line
from siqvl.evaluation.scoring.scores import SCORES, Scores
from siqvl.files import file_sha256
from siqvl.publish.benchmark_table import share
from siqvl.publish.licences import README, front_matter
from siqvl.publish.public_recipe import is_local
from siqvl.publish.weight_sizes import WeightSizes, weights_head

#: What a checkpoint is made of; weights as pickles, links and programs are refused.
SUFFIXES = {".json", ".jinja", ".md", ".py", ".safetensors", ".txt"}
#: Vocabularies hold all kinds of words, such as `/home`.
VOCABULARIES = {"tokenizer.json", "vocab.json", "merges.txt", "added_tokens.json"}
FILE_ROW = re.compile(r"^\| `([^`]+)` \| ([\d,]+) \| `([0-9a-f]{64})` \|$", re.MULTILINE)
LOCAL_PATH = re.compile(
    r"(?<![\w./:~-])(?:/(?:home|root|tmp|Users|mnt|media|srv|scratch|data|work|workspace|var|opt)/"
    r"|~/|[A-Za-z]:\\\\?(?=\w)|file:/)[\w.~@%+-]*"
)
SECRETS = {
    "a Hugging Face token": re.compile(r"\bhf_[A-Za-z0-9]{30,}"),
    "an AWS key": re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    "a GitHub token": re.compile(r"\bgh[opsur]_[A-Za-z0-9]{36,}|\bgithub_pat_\w{40,}"),
    "an API key": re.compile(r"\bsk-[A-Za-z0-9_-]{20,}"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "a password in an address": re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s/:@\"']+:[^\s/@\"']+@"),
}


def check_repository(folder: Path) -> None:
    """Check files, sizes, hashes, code, metadata and texts of a folder that is to be published.

    Raises:
        UserError: something is missing, is another than is said, or must not be published.
    """
    complaints = [*_files(folder), *_code(folder)]
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            complaints += _private(path, str(path.relative_to(folder)))
    complaints += _agreement(folder)
    if complaints:
        more = f", and {len(complaints) - 5} more" if len(complaints) > 5 else ""
        raise UserError(f"not published: {'; '.join(complaints[:5])}{more}")
    verify_checkpoint(folder)


def _files(folder: Path) -> Iterator[str]:
    """What the card lists beside what is there."""
    there = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    for name, path in sorted(there.items()):
        if path.is_symlink() or path.suffix not in SUFFIXES or name.startswith("."):
            yield f"{name} is no file of a model"
    listed = {
        name: (int(size.replace(",", "")), digest)
        for name, size, digest in FILE_ROW.findall(_readme(folder))
    }
    for name in sorted(there.keys() - listed.keys() - {README}):
        yield f"{name} is not listed in {README}"
    for name, (size, digest) in listed.items():
        if name not in there:
            yield f"{name}, which {README} lists, is missing"
        elif (there[name].stat().st_size, file_sha256(there[name])) != (size, digest):
            yield f"{name} is another than {README} lists"


def _readme(folder: Path) -> str:
    path = folder / README
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _code(folder: Path) -> Iterator[str]:
    """The modules that `auto_map` names, with the classes, and what they import of each other."""
    for name in ("config.json", "processor_config.json"):
        for auto, target in (_json(folder / name).get("auto_map") or {}).items():
            module, _, wanted = str(target).rpartition(".")
            yield from _module(folder, module, wanted, f"{auto} in {name}", set())


def _module(
    folder: Path, module: str, wanted: str | None, named_by: str, seen: set[str]
) -> Iterator[str]:
    path = folder / f"{module}.py"
    if not path.is_file():
        yield f"{path.name}, which {named_by} needs, is missing"
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    classes = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    if wanted and wanted not in classes:
        yield f"{path.name} has no class {wanted}, which {named_by} names"
    seen.add(module)
    for target, beside in _imported(tree):
        if beside and target not in seen:
            yield from _module(folder, target, None, path.name, seen)
        elif not beside and target.partition(".")[0] == "siqvl":
            yield f"{path.name} imports {target}, which is not published with it"


def _imported(tree: ast.AST) -> Iterator[tuple[str, bool]]:
    """Every module that code imports, and whether it lies beside it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield node.module or "", bool(node.level)
        elif isinstance(node, ast.Import):
            yield from ((one.name, False) for one in node.names)


def _private(path: Path, name: str) -> Iterator[str]:
    """Paths of a machine and secrets in one file, named without the secret itself."""
    if path.suffix == ".safetensors":
        text = json.dumps(weights_head(path).get("__metadata__") or {})
    else:
        text = path.read_text(encoding="utf-8", errors="replace")
    for what, pattern in SECRETS.items():
        if pattern.search(text):
            yield f"{name} holds {what}"
    if (token := _own_token()) and token in text:
        yield f"{name} holds the Hugging Face token of this machine"
    if name in VOCABULARIES:
        return
    if found := _local_path(path, text):
        yield f"{name} names a path of a machine, {found}"


def _local_path(path: Path, text: str) -> str | None:
    """The first path in a text that is of one machine; any text of a JSON file may be one."""
    if found := LOCAL_PATH.search(text):
        return found[0]
    if path.suffix == ".json":
        with suppress(ValueError):  # whoever reads it will say that it is none
            return next((one for one in _texts(json.loads(text)) if is_local(one)), None)
    home = os.path.expanduser("~")
    return home if len(home) > 1 and f"{home}/" in text else None


def _own_token() -> str | None:
    from huggingface_hub import get_token

    return get_token()


def _texts(value: Any) -> Iterator[str]:
    """Every text among the values of some JSON."""
    inside: Iterable[Any] = ()
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        inside = value.values()
    elif isinstance(value, list):
        inside = value
    for one in inside:
        yield from _texts(one)


def _agreement(folder: Path) -> Iterator[str]:
    """Whether configuration, processor, scores and the card's metadata say the same."""
    config, processor = _json(folder / "config.json"), _json(folder / "processor_config.json")
    card, said = _json(folder / CARD), front_matter(_readme(folder))
    try:
        vision = config["vision_config"]
        side = vision["image_size"] // vision["patch_size"] // config["pixel_shuffle_factor"]
        if processor.get("num_image_tokens") != side * side:
            yield "config.json and processor_config.json differ in the tokens of a picture"
    except (KeyError, TypeError, ZeroDivisionError):
        yield "config.json is not that of a SiQ-VL model"
    named = (said.get("siqvl") or {}).get("checkpoint")
    if named != card.get("hash"):
        yield f"{README} and {CARD} are about different checkpoints"
    try:
        if f"{WeightSizes.of(folder).parameters:,}" not in _readme(folder):
            yield f"{README} has another number of parameters than the weights"
    except UserError as error:
        yield error.message
    yield from _results(folder, said, str(card.get("hash")))


def _results(folder: Path, said: dict[str, Any], checkpoint: str) -> Iterator[str]:
    """The metadata's results beside those of `scores.json`."""
    from huggingface_hub import ModelCard

    data: Any = ModelCard(_readme(folder), ignore_metadata_errors=True).data
    listed = {one.dataset_config: one.metric_value for one in data.eval_results or []}
    if not (folder / SCORES).is_file():
        if listed:
            yield f"{README} has results, but there is no {SCORES}"
        return
    try:
        scores = Scores.read(folder)
    except UserError as error:
        yield one_line(error)
        return
    if scores.checkpoint_hash != checkpoint:
        yield f"{SCORES} is of another checkpoint"
    measured = {one.benchmark: share(one.players["picture"].mean) for one in scores.scores}
    for name in sorted(measured.keys() | listed.keys()):
        if measured.get(name) != listed.get(name):
            yield f"{README} says {listed.get(name)} of `{name}`, {SCORES} {measured.get(name)}"


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
