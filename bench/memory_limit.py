#!/usr/bin/env python3
"""Runs a command in a memory control group of its own, and says what it took.

    memory_limit.py BYTES COMMAND [ARGUMENT...]        BYTES such as 680M or 2G; needs the right to make control groups (root)

The group's limit covers everything: program, buffers, page cache of the files it reads (which the system drops under pressure). Files
named by the arguments leave the page cache first: pages that others have read would not count. Works with control groups of
version 1 and 2. On standard error, after the command: the most the group held, and how often pages of
files had to be read from the disk (major faults).
"""
import os
import resource
import subprocess
import sys
import time

ROOT = "/sys/fs/cgroup"


def parse_bytes(text):
    """"680M" -> 713031680."""
    units = {"K": 2**10, "M": 2**20, "G": 2**30}
    scale = units.get(text[-1:].upper(), 1)
    return int(float(text[:-1] if scale > 1 else text) * scale)


class Group:
    """A control group that goes away with the process."""

    def __init__(self, limit):
        v1 = os.path.isdir(f"{ROOT}/memory")
        self.path = f"{ROOT}/memory/dil-{os.getpid()}" if v1 else f"{ROOT}/dil-{os.getpid()}"
        self.limit_file, self.peak_file = ("memory.limit_in_bytes", "memory.max_usage_in_bytes") if v1 else ("memory.max", "memory.peak")
        if not v1:
            self.write_at(ROOT, "cgroup.subtree_control", "+memory")
        os.mkdir(self.path)
        self.write_at(self.path, self.limit_file, str(limit))

    @staticmethod
    def write_at(folder, name, text):
        with open(os.path.join(folder, name), "w") as f:
            f.write(text)

    def enter(self):
        self.write_at(self.path, "cgroup.procs", str(os.getpid()))

    def peak(self):
        with open(os.path.join(self.path, self.peak_file)) as f:
            return int(f.read())

    def remove(self):
        for _ in range(50):  # the last page is given back a moment after the process
            try:
                os.rmdir(self.path)
                return
            except OSError:
                time.sleep(0.1)


def forget(arguments):
    """Takes the files among the arguments out of the page cache."""
    for path in filter(os.path.isfile, arguments):
        with open(path, "rb") as f:
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main():
    if len(sys.argv) < 3 or sys.argv[1] in ("-h", "--help"):
        print(__doc__)
        return 0 if len(sys.argv) == 2 else 2
    limit = parse_bytes(sys.argv[1])
    group = Group(limit)
    forget(sys.argv[3:])
    try:
        done = subprocess.run(sys.argv[2:], preexec_fn=group.enter)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        print(f"memory group: at most {group.peak() / 1e6:.0f} MB of {limit / 1e6:.0f} MB; resident at most {used.ru_maxrss * 1024 / 1e6:.0f} MB, "
              f"{used.ru_majflt} major faults", file=sys.stderr)
    finally:
        group.remove()
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
