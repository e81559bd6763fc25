"""What pyproject.toml cannot say: models/, which stands outside of the package, is built into it."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithModels(build_py):
    """Puts the bundles of models/ into darkroom/bundles; an editable install reads them where they are."""

    def run(self) -> None:
        """Build the package, then add the bundles; those of an earlier build go."""
        super().run()
        if self.editable_mode:
            return
        bundles = Path(self.build_lib, "darkroom", "bundles")
        shutil.rmtree(bundles, ignore_errors=True)
        for info in Path("models").glob("*/bundle.json"):
            shutil.copytree(info.parent, bundles / info.parent.name)
        for samples in Path("models", "samples").glob("*/"):
            shutil.copytree(samples, bundles / "samples" / samples.name)


setup(cmdclass={"build_py": BuildWithModels})
