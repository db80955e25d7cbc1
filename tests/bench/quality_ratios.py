#!/usr/bin/env python3
"""Ratios of mean KL between policies over the same texts, from pkv-quality --json: `python3 quality_ratios.py FILE [BASE]`.

For every budget and policy: mean KL, and its ratio to the mean KL of BASE (snapkv) with a 95 % interval by bootstrap over the
texts, both sides drawn together. Markdown."""
import collections
import json
import random
import sys

DRAWS = 10_000


def interval(pairs, rng):
    """Of sum(a) / sum(b) over texts drawn with replacement."""
    ratios = []
    for _ in range(DRAWS):
        drawn = [pairs[rng.randrange(len(pairs))] for _ in pairs]
        ratios.append(sum(a for a, _ in drawn) / sum(b for _, b in drawn))
    ratios.sort()
    return ratios[int(0.025 * DRAWS)], ratios[int(0.975 * DRAWS)]


def main():
    base = sys.argv[2] if len(sys.argv) > 2 else "snapkv"
    kl = collections.defaultdict(dict)  # (budget, policy) -> text -> KL
    with open(sys.argv[1], encoding="utf-8") as file:
        for row in map(json.loads, file):
            if "policy" in row and row["text"] != "mean" and not row["policy"].startswith("control"):
                kl[row["budget"], row["policy"]][row["text"]] = row["kl_mean"]
    print(f"| budget | policy | texts | mean KL | to {base} | 95 % |\n|---|---|---|---|---|---|")
    for (budget, policy), texts in kl.items():
        pairs = [(value, kl[budget, base][text]) for text, value in texts.items()]
        mean = sum(a for a, _ in pairs) / len(pairs)
        ratio = sum(a for a, _ in pairs) / sum(b for _, b in pairs)
        low, high = interval(pairs, random.Random(1))
        print(f"| {budget} | {policy} | {len(pairs)} | {mean:.4f} | {ratio:.2f} | {low:.2f} to {high:.2f} |")


if __name__ == "__main__":
    main()
