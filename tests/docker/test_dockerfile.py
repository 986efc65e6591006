"""What can be told of the images without building them."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from flytekit.tools.ignore import DockerIgnore
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
#: What is only in the lock of `gpu`: PyTorch with what it needs of CUDA and for torch.compile.
GPU_ALONE = re.compile(r"torch|triton|setuptools|(cuda|nvidia)-.*")


def instructions() -> list[str]:
    """The Dockerfile's instructions, each on one line."""
    joined = re.sub(r"\\\n\s*", " ", re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE))
    return [line for line in joined.splitlines() if line.strip()]


def locked(target: str) -> dict[str, tuple[str, list[str]]]:
    """Version and hashes of every package in a lock."""
    text = (ROOT / "docker" / f"{target}.lock").read_text()
    found = {}
    for entry in re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)[1:]:
        name, version = re.match(r"(\S+)==(\S+)", entry).groups()
        found[canonicalize_name(name)] = (
            version,
            re.findall(r"--hash=(sha256:[0-9a-f]{64})", entry),
        )
    return found


def from_index(target: str) -> dict[str, str]:
    """Packages that the image installs without the lock."""
    pinned = re.findall(r"\b(torch)==([\d.]+)", DOCKERFILE)
    return dict(pinned) if target == "cpu" else {}


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_each_dependency_is_locked_at_a_version_it_admits(target: str) -> None:
    versions = {name: version for name, (version, _) in locked(target).items()} | from_index(target)
    for text in PROJECT["dependencies"]:
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        assert name in versions, f"{name} is not in docker/{target}.lock: run `make lock`"
        assert requirement.specifier.contains(versions[name]), f"{text}: run `make lock`"


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_each_locked_package_has_hashes_and_no_place(target: str) -> None:
    assert all(hashes for _, hashes in locked(target).values())
    text = (ROOT / "docker" / f"{target}.lock").read_text()
    for line in text.splitlines():
        assert re.match(r"[a-z0-9-]+==\S+ \\$| {4}--hash=sha256:[0-9a-f]{64}| *#|$", line), line
    assert not re.search(r"://|@ |--(index|extra|find|trusted)", text)


def test_the_locks_agree() -> None:
    cpu, gpu = locked("cpu"), locked("gpu")
    assert cpu.items() <= gpu.items()
    assert all(GPU_ALONE.fullmatch(name) for name in gpu.keys() - cpu.keys())
    assert not any(GPU_ALONE.fullmatch(name) for name in cpu)


def test_nothing_is_installed_that_is_not_pinned() -> None:
    for line in instructions():
        for command in re.findall(r"pip\b[^&]*\binstall\b[^&]*", line):
            assert "--no-deps" in command
            assert "--only-binary :all:" in command
            pins = re.findall(r"\s([a-z]+)==[\d.]+", command)
            assert pins == ["torch"] or re.search(r"--require-hashes -r \S+\.lock", command)
        assert "apt-get" not in line
        assert "curl" not in line


def test_images_run_as_a_numeric_user_and_have_no_health_check() -> None:
    words = [line.split() for line in instructions()]
    users = [rest[0] for word, *rest in words if word == "USER"]
    assert users == ["1000:1000"]
    assert not any(word in ("HEALTHCHECK", "EXPOSE", "VOLUME") for word, *_ in words)


def test_final_stages_take_the_venv_before_the_code_and_nothing_else() -> None:
    stages = re.split(r"^(?=FROM )", "\n".join(instructions()), flags=re.MULTILINE)[1:]
    for target in ("cpu", "gpu"):
        [stage] = [
            stage for stage in stages if re.match(rf"FROM runtime AS {target}$", stage, re.M)
        ]
        assert stage.splitlines()[1:] == [
            f"COPY --from={target}-dependencies /opt/venv /opt/venv",
            "COPY --from=code --chown=1000:1000 / /root/",
        ]


def test_metadata_names_the_package_and_shadows_nothing(tmp_path: Path) -> None:
    script = ROOT / "docker" / "metadata.py"
    subprocess.run([sys.executable, script, ROOT / "pyproject.toml", tmp_path], check=True)
    ask = "import importlib.metadata as m; print(m.version('siqvl'))"
    told = subprocess.run(
        [sys.executable, "-S", "-c", ask],
        env={"PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.strip() == PROJECT["version"]
    assert [path.name for path in tmp_path.iterdir()] == [f"siqvl-{PROJECT['version']}.dist-info"]


@pytest.mark.parametrize(
    "path",
    [
        ".git/config",
        ".env",
        "siqvl/.env",
        "siqvl/.env.local",
        "mlflow.db",
        "recipes/mlflow.db-wal",
        "outputs/tiny/x",
        "siqvl/__pycache__/a.pyc",
        "id_rsa",
        "tests/conftest.py",
        ".venv/bin/python",
        "docker/Dockerfile",
    ],
)
def test_the_context_leaves_out(path: str) -> None:
    assert DockerIgnore(ROOT).is_ignored(path)


@pytest.mark.parametrize("folder", ["siqvl", "tasks", "workflows", "recipes"])
def test_the_context_holds_all_that_is_tracked_below(folder: str) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = ["git", "ls-files", folder]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert names
    ignore = DockerIgnore(ROOT)
    assert not [name for name in names.splitlines() if ignore.is_ignored(name)]
