"""A time of day that is set back by an hour, for one process only: a library that is loaded before the C library."""

from __future__ import annotations

import subprocess

import pytest

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>
#include <unistd.h>
/* The clock is set once there is a file `set-back` in the directory of the process. */
int clock_gettime(clockid_t id, struct timespec *at) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int done = real(id, at);
    if (id == CLOCK_REALTIME && access("set-back", F_OK) == 0) at->tv_sec -= 3600;
    return done;
}
"""


def library(directory):
    """Make the library; returns its path, for `LD_PRELOAD`. The test is skipped where there is no C compiler."""
    (directory / "set_back.c").write_text(SOURCE)
    command = ["cc", "-shared", "-fPIC", "-o", "set_back.so", "set_back.c", "-ldl"]
    try:
        subprocess.run(command, cwd=directory, check=True)
    except FileNotFoundError:
        pytest.skip("there is no C compiler")
    return str(directory / "set_back.so")
