"""Who hears how a scheduled pipeline has ended: the recipe's addresses, on the compiled plan."""

from typing import Any

import pytest
from flyteidl.core.execution_pb2 import WorkflowExecution as Phase
from flytekit import LaunchPlan
from flytekit.configuration import Image, ImageConfig, SerializationSettings
from flytekit.tools.translator import get_serializable

from siqvl.errors import UserError
from siqvl.recipe import Recipe
from siqvl.recipe.cluster.notify import Notify
from tasks.contracts import TINY
from workflows.full_pipeline import full_pipeline
from workflows.scheduled import _notifications, scheduled

IMAGE = Image("default", "registry/default", "1")
IMAGES = [Image(name, "registry/siqvl", "1") for name in ("data", "training", "evaluation")]
SETTINGS = SerializationSettings(
    image_config=ImageConfig(default_image=IMAGE, images=IMAGES),
    project="siqvl",
    domain="development",
    version="v1",
)


def compiled(name: str, **notify: Any) -> list[Any]:
    """The notifications of a launch plan as FlyteAdmin gets them."""
    notifications = _notifications(Notify(**notify))
    plan = LaunchPlan.get_or_create(
        full_pipeline, name=name, default_inputs={"recipe": TINY}, notifications=notifications
    )
    spec = get_serializable({}, SETTINGS, plan).spec.to_flyte_idl()
    return list(spec.entity_metadata.notifications)


def test_nobody_is_told_where_no_address_is_given() -> None:
    spec = get_serializable({}, SETTINGS, scheduled).spec.to_flyte_idl()
    assert not spec.entity_metadata.notifications


def test_each_kind_has_its_addresses_and_the_ends_that_are_told() -> None:
    email, slack, pager = compiled(
        "told",
        email=["ada@example.org", "team@example.org"],
        slack=["channel-x@example.slack.com"],
        pagerduty=["service@example.pagerduty.com"],
    )
    assert list(email.email.recipients_email) == ["ada@example.org", "team@example.org"]
    assert list(slack.slack.recipients_email) == ["channel-x@example.slack.com"]
    assert list(pager.pager_duty.recipients_email) == ["service@example.pagerduty.com"]
    for one in (email, slack, pager):
        assert list(one.phases) == [Phase.FAILED, Phase.TIMED_OUT, Phase.ABORTED]


def test_the_ends_are_the_recipes() -> None:
    (email,) = compiled("other ends", email=["ada@example.org"], phases=["succeeded"])
    assert list(email.phases) == [Phase.SUCCEEDED]


@pytest.mark.parametrize(
    ("notify", "key"),
    [
        ({"email": ["ada"]}, "compute.notify.email.0"),
        ({"slack": ["#channel"]}, "compute.notify.slack.0"),
        ({"pagerduty": ["a@b"]}, "compute.notify.pagerduty.0"),
        ({"email": ["a@example.org, b@example.org"]}, "compute.notify.email.0"),
        ({"phases": ["running"]}, "compute.notify.phases.0"),
        ({"phases": []}, "compute.notify.phases"),
        ({"mail": []}, "compute.notify.mail"),
    ],
)
def test_what_is_no_address_or_no_end_is_named(notify: dict[str, Any], key: str) -> None:
    content = TINY.model_dump(mode="json")
    content["compute"]["notify"] = notify
    with pytest.raises(UserError, match=f"`{key}`"):
        Recipe.model_validate(content)


def test_a_recipe_of_before_is_stored_as_it_was() -> None:
    content = TINY.model_dump(mode="json")
    assert not {"notify", "waiting_hours"} & content["compute"].keys()
    assert Recipe.model_validate(content).hash() == TINY.hash()
