#!/usr/bin/env python3
"""Makes the expected budgets and selections of tests/unit/policy, independently of the server: plain Python, fractions.

Usage: python3 make_budget_cases.py ../unit/policy   (writes budget_cases.inc, selection_cases.inc and score_cases.inc there)

Budgets: entries per layer, window included, for the pyramid's two allocations (docs/policies.md). Selections: kept
slots of one KV head whose two query heads and keys are small pseudo-random matrices; of the window policies in every
variant, of the others with their scores.
"""
import math
import pathlib
import sys
from fractions import Fraction

WINDOW = 8


def exact_pyramid(layers, budget, window, beta, tokens):
    """A straight line of fractions from the lowest to the highest layer, rounded by largest remainder."""
    if tokens <= budget:
        return [tokens] * layers
    if layers == 1:
        return [budget]
    mean = Fraction(budget - window)
    lowest = min(2 * mean - mean / beta, Fraction(tokens - window))
    highest = 2 * mean - lowest
    line = [lowest + (highest - lowest) * Fraction(layer, layers - 1) for layer in range(layers)]
    whole = [math.floor(value) for value in line]
    missing = int(mean) * layers - sum(whole)
    for layer in sorted(range(layers), key=lambda l: (whole[l] - line[l], l))[:missing]:
        whole[layer] += 1
    return [value + window for value in whole]


def released_pyramid(layers, budget, window, beta, tokens):
    """The integer rule of the authors' released code. `beta` is a fraction, so that // is exact."""
    if tokens < budget:
        return [tokens] * layers
    mean = budget - window
    if tokens < 2 * mean:
        return [budget] * layers
    low = int(mean // beta)
    high = 2 * mean - low
    if high >= tokens - window:
        high = tokens - window
        low = 2 * mean - high
    step = (high - low) // (layers - 1)
    return [high - layer * step + window for layer in range(layers)]


def budget_requests():
    for layers in (16, 28, 30, 32, 80):
        for budget in (64, 96, 128, 256, 512, 1024, 2048):
            yield layers, budget, WINDOW, "20", 8192
    for tokens in (100, 1000, 2047, 2048, 2049, 3000, 4079, 4080, 4096):
        yield 32, 2048, WINDOW, "20", tokens
    for tokens in (100, 127, 128, 129, 150, 200, 239, 240, 241, 242, 243, 300):
        yield 30, 128, WINDOW, "20", tokens
    for beta in ("1", "2", "2.2", "5", "14", "14.5", "18.000001", "50", "200", "1000000"):
        yield 32, 128, WINDOW, beta, 8192
    for budget in (9, 10, 16, 24, 32, 39, 40, 48):
        yield 32, budget, WINDOW, "20", 8192
    for window, tokens in ((1, 65), (16, 80), (32, 500), (63, 65), (63, 8192)):
        yield 30, 64, window, "20", tokens
    # Equal remainders at the cut of the rounding: halves, of which the lower layers get one more.
    for layers, budget, beta in ((2, 18, "20"), (31, 18, "4"), (11, 33, "2.5"), (61, 28, "1.6")):
        yield layers, budget, WINDOW, beta, 8192


def write_budgets(path):
    with path.open("w") as out:
        print("// Made by tests/golden/make_budget_cases.py: {allocation, L, B, W, beta * 1e6, n, kept per layer}.",
              file=out)
        for name, rule in (("kExact", exact_pyramid), ("kFactory", released_pyramid)):
            for layers, budget, window, beta, tokens in budget_requests():
                kept = rule(layers, budget, window, Fraction(beta), tokens)
                values = ", ".join(map(str, kept))
                millionths = int(Fraction(beta) * 1_000_000)
                print(f"{{PyramidAllocation::{name}, {layers}, {budget}, {window}, {millionths}, {tokens}, "
                      f"{{{values}}}}},", file=out)


def pseudo_random(rows, cols, seed):
    """Rows of numbers in [-1, 1] with four decimals, from the linear congruential generator of ANSI C."""
    state, result = seed, []
    for _ in range(rows):
        row = []
        for _ in range(cols):
            state = (1103515245 * state + 12345) % 2**31
            row.append(round(2 * state / (2**31 - 1) - 1, 4))
        result.append(row)
    return result


def window_mass(queries, keys, window):
    """Attention of the last `window` queries to every key, causal, summed over the queries."""
    mass = [0.0] * len(keys)
    for row in range(len(keys) - window, len(keys)):
        scores = [sum(q * k for q, k in zip(queries[row], key)) / math.sqrt(len(key)) for key in keys[:row + 1]]
        weights = [math.exp(score - max(scores)) for score in scores]
        for column, weight in enumerate(weights):
            mass[column] += weight / math.fsum(weights)
    return mass


def pooled(scores, kernel, kind):
    result = []
    for column in range(len(scores)):
        seen = scores[max(0, column - kernel // 2):column + kernel // 2 + 1]
        result.append(max(seen) if kind == "kMax" else sum(seen) / kernel if kind == "kAvg" else scores[column])
    return result


def toy_lane():
    """Keys of one KV head, and the queries of its two query heads."""
    keys, first, second = (pseudo_random(24, 4, seed) for seed in (7, 11, 13))
    keys[5] = [2.0, -1.0, 1.5, 0.5]  # one key that stands out
    return keys, first, second


def write_selections(path):
    tokens, dims, window = 24, 4, 4
    keys, first, second = toy_lane()
    masses = [window_mass(queries, keys, window) for queries in (first, second)]
    reductions = {"kMean": lambda a, b: (a + b) / 2, "kMax": max, "kSum": lambda a, b: a + b}
    mean = [reductions["kMean"](*pair) for pair in zip(*masses)]

    def matrix(name, rows):
        values = ",\n    ".join(", ".join(f"{value:.4f}f" for value in row) for row in rows)
        return f"constexpr float {name}[] = {{\n    {values}}};\n"

    with path.open("w") as out:
        print("// Made by tests/golden/make_budget_cases.py: keys of one KV head and the queries of its two query heads,\n"
              "// [tokens][dims], and what is kept: {pooling, kernel, group aggregation, B, kept slots, recall}.",
              file=out)
        print(f"constexpr int32_t kTokens = {tokens}, kDims = {dims}, kWindow = {window};", file=out)
        for name, rows in (("kKeys", keys), ("kFirstQueries", first), ("kSecondQueries", second)):
            out.write(matrix(name, rows))
        for name, mass in (("kFirstMass", masses[0]), ("kSecondMass", masses[1])):
            print(f"constexpr double {name}[] = {{{', '.join(f'{value:.12f}' for value in mass)}}};", file=out)
        print("const SelectionCase kSelectionCases[] = {", file=out)
        for kind, kernel in (("kMax", 1), ("kMax", 3), ("kMax", 7), ("kAvg", 5), ("kAvg", 7), ("kNone", 7)):
            for reduction, combine in reductions.items():
                for budget in (5, 12, 17, 23):
                    scores = pooled([combine(*pair) for pair in zip(*masses)][:tokens - window], kernel, kind)
                    best = sorted(range(tokens - window), key=lambda column: (-scores[column], column))
                    kept = sorted(best[:budget - window]) + list(range(tokens - window, tokens))
                    recall = sum(mean[column] for column in kept) / sum(mean)
                    print(f"    {{PoolKind::{kind}, {kernel}, GroupReduce::{reduction}, {budget}, "
                          f"{{{', '.join(map(str, kept))}}}, {recall:.12f}}},", file=out)
        print("};", file=out)


def length(vector):
    return math.sqrt(math.fsum(x * x for x in vector))


def similarity_to_mean(keys):
    """Cosine of every key to the mean of all unit-length keys."""
    unit = [[x / length(key) for x in key] for key in keys]
    mean = [math.fsum(column) / len(keys) for column in zip(*unit)]
    return [sum(x * y for x, y in zip(key, mean)) / length(mean) for key in unit]


def splitmix64(state):
    state = (state + 0x9E3779B97F4A7C15) % 2**64
    state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    state = (state ^ state >> 27) * 0x94D049BB133111EB % 2**64
    return state ^ state >> 31


def draw(seed, layer, kv_head, position):
    """24 bits of a number in [0, 1) for one entry."""
    bits = splitmix64(seed)
    for part in (layer, kv_head, position):
        bits = splitmix64(bits ^ part)
    return bits >> 40


def write_scores(path):
    keys, *queries = toy_lane()
    tokens = len(keys)

    def mean_of_heads(rows):
        return [sum(pair) / 2 for pair in zip(*(window_mass(head, keys, rows) for head in queries))]

    sums = mean_of_heads(tokens)
    means = [value / (tokens - column) for column, value in enumerate(sums)]
    # policy, h2o's score, newest and first entries that are always kept, scores
    rules = [("kH2o", "kSum", 4, 0, sums), ("kH2o", "kMean", 4, 0, means), ("kTova", "kSum", 1, 0, mean_of_heads(1)),
             ("kL2Norm", "kSum", 4, 0, [-length(key) for key in keys]),
             ("kKeyDiff", "kSum", 4, 0, [-value for value in similarity_to_mean(keys)]),
             ("kStreamingLlm", "kSum", 0, 4, list(range(tokens))),
             ("kRandom", "kSum", 4, 2, [draw(5, 3, 0, position) / 2**24 for position in range(tokens)])]
    with path.open("w") as out:
        print("// Made by tests/golden/make_budget_cases.py from the keys and queries of selection_cases.inc: {policy,\n"
              "// score of h2o, window, sinks, scores, {{B, kept slots}, ...}}; random with seed 5 in layer 3.", file=out)
        for policy, variant, window, sinks, scores in rules:
            ranked = sorted(range(sinks, tokens - window), key=lambda column: (-scores[column], column))
            first, newest = list(range(sinks)), list(range(tokens - window, tokens))
            kept = [(budget, first + sorted(ranked[:budget - window - sinks]) + newest) for budget in (7, 12, 17)]
            cases = ", ".join(f"{{{budget}, {{{', '.join(map(str, slots))}}}}}" for budget, slots in kept)
            values = ", ".join(f"{score:.12f}" for score in scores)
            print(f"{{PolicyKind::{policy}, H2oScore::{variant}, {window}, {sinks}, {{{values}}}, {{{cases}}}}},", file=out)


def main():
    folder = pathlib.Path(sys.argv[1])
    write_budgets(folder / "budget_cases.inc")
    write_selections(folder / "selection_cases.inc")
    write_scores(folder / "score_cases.inc")


if __name__ == "__main__":
    main()
