"""Every form in which Flyte was seen to tell of a failure becomes a sentence that helps."""

import pytest
from flytekit.bin.entrypoint import get_traceback_str
from flytekit.exceptions.user import FlyteUserRuntimeException

from siqvl.errors import UserError
from siqvl.recipe import Recipe
from siqvl.recipe.compute import Kind
from tasks.contracts import TINY
from tasks.failure_reasons import Cause, accounts, sentence

POD = "f7d0c9e4-n0-0-dn6-2"
LOG = "{'loss': 1.2}\nERROR:asyncio:Unclosed client session\nloading rows\n"


def died(code: int, reason: str = "Error", pod: str = POD, log: str = LOG) -> str:
    """As `DemystifyFailure` of Flyte 1.16.8 writes it: seen."""
    return (
        f"Pod failed. No message received from kubernetes.\r\n[{pod}] terminated with exit code "
        f"({code}). Reason [{reason}]. Message: \n{log}."
    )


def exhausted(message: str, kind: str = "SYSTEM", most: int = 3) -> str:
    return f"[{most}/{most}] currentAttempt done. Last Error: {kind}::{message}"


def recipe(**training: object) -> Recipe:
    content = TINY.model_dump(mode="json")
    content["compute"]["training"] = {"memory": "12Gi", "retries": 2, **training}
    return Recipe.model_validate(content)


def told(message: str, kind: Kind | None = Kind.TRAINING, **training: object) -> str:
    (account,) = accounts(message)
    return sentence(account, "vqa_sft", kind, recipe(**training))


@pytest.mark.parametrize("code", [137, 247])
def test_out_of_memory_names_the_recipes_memory(code: int) -> None:
    message = exhausted(died(code, "OOMKilled"), "USER")
    assert told(message) == (
        "vqa_sft ran out of its 12Gi of memory, in all 3 attempts: raise compute.training.memory "
        "or lower batch_size"
    )
    (account,) = accounts(message)
    assert (account.cause, account.pod, account.attempts) == (Cause.OUT_OF_MEMORY, POD, 3)
    of_evaluation = told(message, Kind.EVALUATION)
    assert of_evaluation.endswith("compute.evaluation.memory or lower evaluation.batch_size")
    assert told(message, Kind.DATA).endswith("raise compute.data.memory")
    assert "its memory" in told(message, None)


@pytest.mark.parametrize(
    ("most", "words"), [(1, " in its only attempt:"), (2, " in both attempts:"), (7, ", in all 7")]
)
def test_attempts_are_counted(most: int, words: str) -> None:
    assert f"12Gi of memory{words}" in told(exhausted(died(137, "OOMKilled"), "USER", most))


@pytest.mark.parametrize("code", [137, 247])
def test_a_killed_pod(code: int) -> None:
    said = told(exhausted(died(code)))
    assert said.startswith(
        f"vqa_sft was killed from outside (exit code {code}), in all 4 attempts: if its node was "
        "short of memory, raise compute.training.memory, or ask for a higher "
        "max-node-retries-system-failures"
    )
    spot = told(exhausted(died(code)), interruptible=True)
    assert "in all 4 attempts: set compute.training.interruptible to false, or ask" in spot


def test_a_deleted_pod() -> None:
    message = exhausted(f"object [siqvl-development/{POD}] terminated in the background, manually")
    (account,) = accounts(message)
    assert (account.cause, account.pod) == (Cause.DELETED, POD)
    assert told(message).startswith(
        "vqa_sft had its pod deleted, as a drain and a spot node that is taken back do, in all 4"
    )


def test_a_pod_that_is_gone() -> None:
    message = exhausted(
        f'resource not found, name [siqvl-development/{POD}]. reason: pods "{POD}" not found'
    )
    (account,) = accounts(message)
    assert (account.cause, account.pod) == (Cause.GONE, POD)
    assert told(message).startswith("vqa_sft lost its pod together with the node, in all 4")


@pytest.mark.parametrize(("workers", "words"), [(1, "a worker"), (3, "3 of its workers")])
def test_workers_that_are_lost(workers: int, words: str) -> None:
    message = exhausted(
        f"Job failed:\n\tPyTorchJobFailed - PyTorchJob {POD} is failed because {workers} Worker "
        "replica(s) failed.",
        "USER",
    )
    (account,) = accounts(message)
    assert (account.cause, account.pod) == (Cause.WORKER, POD)
    assert told(message).startswith(f"vqa_sft lost {words}, in all 3 attempts: raise compute.")
    assert "compute.training.retries for more attempts" in told(message)


@pytest.mark.parametrize(
    "message",
    [
        exhausted("Dynamic workflow failed", "UNKNOWN", 1),
        exhausted("task execution timeout [1m0s] expired", "USER", 2),
        "Timeout in node",
        "task active timeout [2m0s] expired",
    ],
)
def test_time_outs_of_the_cluster(message: str) -> None:
    (account,) = accounts(message)
    assert account.cause is Cause.TIME
    assert told(message).startswith("vqa_sft was ended by a time-out")
    assert "counts from when a pod is queued" in told(message)


def test_a_pod_that_crashed_is_told_with_the_end_of_its_log() -> None:
    said = told(exhausted(died(139, log="step 1\nFatal Python error: Segmentation fault\n\n")))
    assert said == (
        "vqa_sft ended with exit code 139, in all 4 attempts, and its log ends with "
        '"Fatal Python error: Segmentation fault"'
    )
    assert told(exhausted(died(1, log=""))) == "vqa_sft ended with exit code 1, in all 4 attempts"


def test_the_container_of_a_pod_template_is_no_name_of_a_pod() -> None:
    (account,) = accounts(exhausted(died(137, "OOMKilled", "primary"), "USER"))
    assert account.cause is Cause.OUT_OF_MEMORY


@pytest.mark.parametrize(
    ("words", "key"),
    [
        ("The node was low on resource: ephemeral-storage. Container a was using 2Gi", "disk"),
        ("Pod ephemeral local storage usage exceeds the total limit of containers 1Gi. ", "disk"),
        ("The node was low on resource: memory. Threshold quantity: 100Mi", "memory"),
    ],
)
def test_what_is_evicted_names_what_its_node_was_short_of(words: str, key: str) -> None:
    """Kubernetes' own words, in place of Flyte's for none."""
    message = died(137).replace("Pod failed. No message received from kubernetes.", words)
    for one in (message, words):
        assert told(exhausted(one, "USER")).endswith(f"raise compute.training.{key}")


# Errors that say themselves what they are


def in_pod(error: Exception) -> str:
    try:
        try:
            raise error
        except Exception as raised:
            raise FlyteUserRuntimeException(raised) from raised
    except FlyteUserRuntimeException as wrapped:
        return get_traceback_str(wrapped)


def test_a_user_error_is_its_sentence() -> None:
    message = in_pod(UserError("recipe: no such key"))
    assert message.count("\n") > 5
    assert told(message) == "recipe: no such key"
    assert accounts(message)[0].cause is Cause.ERROR
    assert told(exhausted(message, "USER", 1)) == "recipe: no such key"


def test_another_error_keeps_its_kind_and_all_its_lines() -> None:
    said = told(in_pod(ValueError("first line\n  second line\n")))
    assert said == "ValueError: first line second line"
    assert len(told(in_pod(ValueError("word " * 1000)))) < 1100


def test_what_flytekit_says_on_this_machine() -> None:
    message = (
        "Error encountered while executing 'all_stages':\n"
        "  Error encountered while executing 'promotion':\n  not promoted: 1 of 2 gates failed\n\n"
    )
    assert told(message) == "not promoted: 1 of 2 gates failed"


def test_what_nobody_knows_is_told_as_it_is() -> None:
    message = "[siqvl-x] Back-off pulling image\n  registry/none"
    assert told(message) == "[siqvl-x] Back-off pulling image registry/none"
    assert told(" \n ") == "vqa_sft failed, and Flyte does not say why"


# Elements of a map


def test_an_element_counts_its_own_attempts() -> None:
    element = "f7d0c9e4-n0-0-dn4-0-dn0-0-n1-2"
    message = f"[1]: {exhausted(died(247, 'OOMKilled', element), 'USER')}\n"
    (account,) = accounts(message)
    assert (account.elements, account.pod, account.attempts) == ("1", element, 3)
    assert account.cause is Cause.OUT_OF_MEMORY


def test_elements_that_fail_alike_are_told_once() -> None:
    message = f"[0-1][3]: {in_pod(UserError('no row fits'))}\n[2]: {exhausted(died(137))}\n"
    alike, other = accounts(message)
    assert (alike.cause, alike.elements, alike.said) == (Cause.ERROR, "0-1, 3", "no row fits")
    assert (other.cause, other.elements, other.attempts) == (Cause.KILLED, "2", 4)
