"""Only what pyproject.toml cannot say: the wheel carries programs of this platform, for any Python 3."""
import os

from setuptools import Distribution, setup

try:
    from setuptools.command.bdist_wheel import bdist_wheel  # setuptools 70.1 and later
except ImportError:
    from wheel.bdist_wheel import bdist_wheel

if not os.path.exists("libreplica/libreplica.so"):
    raise SystemExit("libreplica.so is missing: make the wheel with packaging/python/build.sh BUILD_DIR OUT_DIR")


class BinaryDistribution(Distribution):
    def has_ext_modules(self):
        return True


class Wheel(bdist_wheel):
    def get_tag(self):
        return ("py3", "none") + super().get_tag()[2:]


setup(distclass=BinaryDistribution, cmdclass={"bdist_wheel": Wheel})
