"""The packages of the wheel: those below aim/, and the configs, which travel inside as aim.configs."""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["aim", "aim.*"]), "aim.configs"])
