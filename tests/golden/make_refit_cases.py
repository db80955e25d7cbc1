#!/usr/bin/env python3
"""Makes the expected values of tests/unit/policy/lane_refit_test.cpp, independently of the server: NumPy in float64.

Usage: python3 make_refit_cases.py ../unit/policy   (writes refit_cases.inc there)

Lanes with fewer and with more entries than there are queries; some queries do not see the newest entries.
"""
import pathlib
import sys

import numpy as np

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE / "model"))
import refit_rules  # pylint: disable=wrong-import-position

SHAPES = ((7, 3, 4), (3, 7, 4), (6, 6, 8), (1, 2, 4), (20, 11, 8), (11, 20, 8))  # queries, entries, head size


def braces(numbers):
    return "{" + ", ".join(f"{x:.9g}" for x in np.ravel(numbers)) + "}"


def case(rng, rows, entries, d):
    def numbers(count, scale):
        return (scale * rng.uniform(-1, 1, (count, d))).astype(np.float32).astype(np.float64)

    values, keys, queries, outputs = numbers(entries, 1), numbers(entries, 1), numbers(rows, 4), numbers(rows, 1)
    unseen = [max(0, min(entries - 1, rows // 3 - 1 - row)) for row in range(rows)]
    expected = refit_rules.refitted(values, keys, queries, outputs, unseen)
    return f"{{{d}, {braces(unseen)}, {', '.join(map(braces, (queries, outputs, keys, values, expected)))}}},"


def main():
    rng = np.random.default_rng(13)
    lines = ["// Made by tests/golden/make_refit_cases.py: {head size, unseen, queries, outputs, keys, values, expected values}."]
    lines += [case(rng, *shape) for shape in SHAPES]
    (pathlib.Path(sys.argv[1]) / "refit_cases.inc").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
