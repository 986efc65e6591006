"""A Flyte cluster on loopback: a test double that real `pyflyte` clients can talk to.

It speaks the part of FlyteAdmin's protocol that `pyflyte run --remote`, `register` and `launchplan`
use, keeps blobs in an S3-compatible store, and runs each task by the container arguments of its own
registered template: in an empty folder, with a clean environment, handing everything over by s3://
addresses. So it shows that code is shipped whole, that inputs and outputs cross processes, and that
retries, caching, checkpoints and failure handling are wired up.

It counts attempts, limits time and words failures as Flyte 1.16.8 was seen to (`attempts.py`,
`tasks.py`, `outcome.py`); what stands in Flyte's source alone is marked (read). Pods can be lost in
each of the ways that a cluster has: `pod.kill()`, `run_out_of_memory()`, `drain()`, `vanish()`.

What it does not show: it is not FlytePropeller. It checks no types at registration, schedules
nothing on hardware, applies no resource limits, has no login and no TLS. Pods that run as processes
share this machine's interpreter and its installed packages; with `ContainerPods` they run in the
image instead.

    with Cluster(images={"train": "registry/train:1"}) as cluster:
        subprocess.run(
            ["pyflyte", "-c", str(cluster.config_file), "run", "--remote", "--wait", …],
            env=cluster.environment(),
        )
        (execution,) = cluster.executions
        assert execution.succeeded
"""
