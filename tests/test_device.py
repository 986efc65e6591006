"""Cores, threads, kernels and peaks, on machines that are described by files and answers."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from siqvl import device
from siqvl.device import (
    answering_attention,
    describe,
    resolve_attention,
    set_up,
    usable_cores,
)
from siqvl.errors import UserError
from siqvl.recipe import Recipe
from siqvl.training.figures.peak_flops import peak_flops, published_peak

ROOT = Path(__file__).parents[1]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch):
    """A Linux machine: its siblings by core, the CPUs of this process, its cgroup's files."""

    def build(cores: list[list[int]], cpus: set[int], **cgroup: str) -> None:
        for siblings in cores:
            for cpu in siblings:
                folder = tmp_path / f"cpu/cpu{cpu}/topology"
                folder.mkdir(parents=True)
                (folder / "thread_siblings_list").write_text(",".join(map(str, siblings)) + "\n")
        for name, text in cgroup.items():
            path = tmp_path / "cgroup" / name.replace("__", "/").replace("max", ".max")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        monkeypatch.setattr(device, "CPUS", tmp_path / "cpu")
        monkeypatch.setattr(device, "CGROUP", tmp_path / "cgroup")
        monkeypatch.setattr("os.sched_getaffinity", lambda process: cpus, raising=False)

    return build


HYPERTHREADED = [[0, 4], [1, 5], [2, 6], [3, 7]]


def test_threads_of_one_core_count_once(machine) -> None:
    machine(HYPERTHREADED, set(range(8)))
    assert usable_cores() == 4


def test_affinity_counts(machine) -> None:
    machine(HYPERTHREADED, {0, 1, 5})
    assert usable_cores() == 2


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("250000 100000\n", 2), ("max 100000\n", 4), ("50000 100000\n", 1), ("900000 100000\n", 4)],
)
def test_a_container_may_not_use_all_cores(machine, limit, expected) -> None:
    machine(HYPERTHREADED, set(range(8)), cpumax=limit)
    assert usable_cores() == expected


@pytest.mark.parametrize(("limit", "expected"), [("300000\n", 3), ("-1\n", 4)])
def test_old_cgroups(machine, limit, expected) -> None:
    both = {"cpu__cpu.cfs_quota_us": limit, "cpu__cpu.cfs_period_us": "100000\n"}
    machine(HYPERTHREADED, set(range(8)), **both)
    assert usable_cores() == expected


def test_an_unknown_topology_counts_cpus(machine) -> None:
    machine([], {0, 1, 2})
    assert usable_cores() == 3


@pytest.fixture
def recipe() -> Recipe:
    return Recipe.load(ROOT / "recipes" / "tiny.yaml")


@pytest.fixture
def threads(monkeypatch) -> Iterator[list[int]]:
    """What torch is told, in place of telling it."""
    told: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", told.append)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    kinds = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [kind.allow_tf32 for kind in kinds]
    yield told
    for kind, allowed in zip(kinds, before, strict=True):
        kind.allow_tf32 = allowed


def with_hardware(recipe: Recipe, **values: object) -> Recipe:
    content = recipe.model_dump(mode="json")
    content["hardware"] |= values
    return Recipe.model_validate(content)


def test_processes_share_the_cores(machine, recipe, threads, monkeypatch) -> None:
    machine(HYPERTHREADED, set(range(8)))
    set_up(recipe, "fp32")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    set_up(recipe, "fp32")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "16")
    set_up(recipe, "fp32")
    assert threads == [4, 1, 1]


def test_who_names_a_number_of_threads_gets_it(machine, recipe, threads, monkeypatch) -> None:
    machine(HYPERTHREADED, set(range(8)))
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    set_up(recipe, "fp32")
    assert threads == []  # torch has read it itself
    set_up(with_hardware(recipe, threads=2), "fp32")
    assert threads == [2]


def test_fp32_is_not_rounded_to_tf32(recipe, threads) -> None:
    flags = torch.backends.cuda.matmul, torch.backends.cudnn
    for precision, rounded in (("bf16", True), ("fp32", False), ("fp16", True)):
        set_up(recipe, precision)
        assert [one.allow_tf32 for one in flags] == [rounded, rounded]


@pytest.fixture
def gpu(monkeypatch):
    def build(*, capability=(9, 0), flash: bool = True, name: str = "NVIDIA H200") -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: name)
        monkeypatch.setattr(device, "find_spec", lambda package: object() if flash else None)

    return build


@pytest.fixture
def cpu(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_automatic_attention_on_a_gpu(gpu) -> None:
    gpu()
    assert resolve_attention("auto", "bf16") == "flash_attention_2"
    assert resolve_attention("auto", "bf16", masked=True) == "sdpa"
    assert resolve_attention("auto", "fp32") == "sdpa"
    assert resolve_attention("flex_attention", "bf16") == "flex_attention"
    gpu(capability=(7, 5))
    assert resolve_attention("auto", "fp16") == "sdpa"
    gpu(flash=False)
    assert resolve_attention("auto", "bf16") == "sdpa"


def test_automatic_attention_on_a_cpu(cpu) -> None:
    assert resolve_attention("auto", "bf16") == "sdpa"
    assert resolve_attention("eager", "fp32") == "eager"
    for name in ("flash_attention_2", "flex_attention"):
        with pytest.raises(UserError, match=f"model.attention: {name}.* GPU.*; use auto"):
            resolve_attention(name, "bf16")


def test_answers_are_written_in_fp32() -> None:
    names = ["auto", "sdpa", "eager", "flash_attention_2", "flex_attention"]
    assert [answering_attention(name) for name in names] == [
        "sdpa",
        "sdpa",
        "eager",
        "sdpa",
        "sdpa",
    ]


@pytest.mark.parametrize(
    ("has", "precision", "said"),
    [
        ({"flash": False}, "bf16", "flash-attn, which is not installed"),
        ({"capability": (7, 5)}, "fp16", "Ampere"),
        ({}, "fp32", "precision is fp32"),
    ],
)
def test_flash_attention_that_cannot_run_is_refused(gpu, has, precision, said) -> None:
    gpu(**has)
    with pytest.raises(UserError, match=said):
        resolve_attention("flash_attention_2", precision)


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA H200", 989),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H100 NVL", 835.5),
        ("NVIDIA A100-SXM4-40GB", 312),
        ("NVIDIA A100 80GB PCIe", 312),
        ("NVIDIA L40S", 362),
        ("NVIDIA L40", 181),
        ("NVIDIA L4", 121),
        ("NVIDIA A10G", 70),
        ("NVIDIA A10", 125),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None),
        ("Tesla T4", 65.0),
        ("Tesla P100-PCIE-16GB", None),
    ],
)
def test_published_peaks(name, tflops) -> None:
    assert published_peak(name) == (None if tflops is None else tflops * 1e12)


def test_the_recipes_peak_comes_first(gpu, recipe) -> None:
    gpu()
    assert peak_flops(recipe, "bf16") == 989e12
    assert peak_flops(recipe, "fp32") is None  # what is published is for 16 bits
    assert peak_flops(with_hardware(recipe, peak_tflops=0.5), "fp32") == 0.5e12


def test_a_cpu_has_no_published_peak(cpu, recipe) -> None:
    assert peak_flops(recipe, "bf16") is None


def test_the_machine_in_one_line(cpu) -> None:
    line = describe()
    assert "\n" not in line
    assert f"threads: {torch.get_num_threads()}" in line
    assert "bfloat16" in line
