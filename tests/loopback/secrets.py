"""Secrets: what a task's security context asks for, as Flyte's webhook hands it to a pod.

Flyte's secrets are optional (seen on 1.16.8: `secretKeyRef` with `optional: true`): where a cluster
has none of the name, the pod runs without.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from flyteidl.core import security_pb2, tasks_pb2

from .records import Failure

PREFIX = "_FSEC_"


def secret_variables(
    template: tasks_pb2.TaskTemplate, secrets: Mapping[str, str], folder: Path
) -> dict[str, str]:
    """Variables for a pod; what is not asked for as a variable is written below `folder`.

    Args:
        secrets: what the cluster has, by `group/key`.
    """
    asked = template.security_context.secrets
    if not asked:
        return {}
    variables = {"FLYTE_SECRETS_ENV_PREFIX": PREFIX, "FLYTE_SECRETS_DEFAULT_DIR": str(folder)}
    for secret in asked:
        value = _value(template, secret, secrets)
        if value is None:
            continue
        if secret.mount_requirement == security_pb2.Secret.ENV_VAR:
            variables[f"{PREFIX}{secret.group}_{secret.key}".upper()] = own = value
        else:
            path = folder / secret.group.lower() / secret.key.lower()
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(value)
            own = str(path)
        if secret.env_var:
            variables[secret.env_var] = own
    return variables


def _value(
    template: tasks_pb2.TaskTemplate, secret: security_pb2.Secret, secrets: Mapping[str, str]
) -> str | None:
    name = f"{secret.group}/{secret.key}"
    if not (secret.group and secret.key):
        raise Failure("SecretInvalid", f"the secret {name} of {template.id.name} is half a name")
    return secrets.get(name)
