#!/usr/bin/env python3
"""Sums up test runs. usage: count_tests.py CHECKS_PASSED CHECKS_FAILED [LastTest.log ...]
Prints 'N passed, N failed, N skipped': every cmocka test of every program counts, other programs
count as one, and as skipped when they pass and say 'skipped: why'.
"""

import re
import sys

HEAD = re.compile(r"^\d+/\d+ Testing: .*$", re.M)


def count(log):
    passed = failed = skipped = 0
    for body in HEAD.split(log)[1:]:
        ok = len(re.findall(r"^\[\s+OK \] ", body, re.M))
        skip = len(set(re.findall(r"^\[  SKIPPED \] (?!\d)(\S+)", body, re.M)))
        bad = len(set(re.findall(r"^\[  FAILED  \] (?!\d)(\S+)", body, re.M)))
        if not re.search(r"^Test Passed\.$", body, re.M):
            bad = max(bad, 1)
        elif not ok + skip + bad:
            left_out = re.search(r"^skipped\b", body, re.M)
            ok, skip = (0, 1) if left_out else (1, 0)
        passed, failed, skipped = passed + ok, failed + bad, skipped + skip
    return passed, failed, skipped


def main():
    totals = [int(sys.argv[1]), int(sys.argv[2]), 0]
    for path in sys.argv[3:]:
        with open(path, encoding="utf-8", errors="replace") as f:
            for i, n in enumerate(count(f.read())):
                totals[i] += n
    print("{} passed, {} failed, {} skipped".format(*totals))
    return 1 if totals[1] else 0


if __name__ == "__main__":
    sys.exit(main())
