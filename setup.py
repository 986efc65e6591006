"""Puts recipes/ into the package; `siqvl.recipe.reading.shipped` finds an installed one there.

All else that a build needs to know stands in pyproject.toml.
"""

from pathlib import Path
from shutil import copytree, ignore_patterns, rmtree

from setuptools import setup
from setuptools.command.build_py import build_py


class WithRecipes(build_py):
    """Builds the package with a copy of the recipes and of the small weights beside them."""

    def run(self) -> None:
        if self.editable_mode:  # a checkout has them already
            super().run()
            return
        rmtree(self.build_lib, ignore_errors=True)  # what an earlier build left would go along
        super().run()
        folder = Path(self.build_lib, "siqvl", "recipes")
        copytree("recipes", folder, ignore=ignore_patterns(".*", "mlflow.db*", "outputs"))


setup(cmdclass={"build_py": WithRecipes})
