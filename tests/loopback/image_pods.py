"""Pods that find in their folder what their image holds and nobody ships."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .pods import Launcher, Pod

#: What `.flyteignore` keeps from being shipped, and the recipes name.
NOT_SHIPPED = "recipes/tiny_base"


@dataclass
class ImagePods:
    """Pods that find what is never shipped, or with `image` the code too, under theirs.

    Args:
        checkout: what the image was built from.
        processes: which starts them.
    """

    checkout: Path
    processes: Launcher
    image: bool = False

    def start(self, pod: Pod) -> subprocess.Popen[bytes]:
        if self.image:
            shutil.copytree(self.checkout, pod.work, dirs_exist_ok=True)
        else:
            shutil.copytree(self.checkout / NOT_SHIPPED, pod.work / NOT_SHIPPED, dirs_exist_ok=True)
        return self.processes.start(pod)

    def kill(self, pod: Pod) -> None:
        self.processes.kill(pod)

    def terminate(self, pod: Pod) -> None:
        self.processes.terminate(pod)
