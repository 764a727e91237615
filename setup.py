"""What pyproject.toml cannot say: a wheel also holds train/, sample/ and configs/, for the command `ssd`."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

COPIED = {"train": "*.py", "sample": "*.py", "configs": "**/*.yaml"}


class BuildWithScripts(build_py):
    """Copies them into ssd/scripts/, where `ssd.commands.console` looks first; an editable install needs no copy."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for folder, pattern in COPIED.items():
            for file in sorted(Path(folder).glob(pattern)):
                target = Path(self.build_lib, "ssd", "scripts", file)
                self.mkpath(str(target.parent))
                self.copy_file(str(file), str(target))


setup(cmdclass={"build_py": BuildWithScripts})
