"""What setup.cfg has no words for: the send loop in C. Where it can't be compiled, towerbus is installed without it."""

from setuptools import Extension, setup

setup(
    ext_modules=[Extension("towerbus.wire._eager", ["towerbus/wire/_eager.c"], py_limited_api=True, optional=True)],
)
