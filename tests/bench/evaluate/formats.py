"""What an entry format costs where every entry is kept: mean KL from the full cache in f16, with a 95 % interval over the documents, and how often
the best token is the same. The documents are those of the divergence above, with their question in the prompt.
"""
import random

from client import Records
from divergence import DRAWS, compare, figures, mean
from documents import held_out

FORMATS = ("k8v4", "bf16")
MOST = {"k8v4": 0.002}  # mean KL that the design asks for


def measure(path):
    """{format: [figures by document]}"""
    records, table = Records(path), {}
    for name, text, question in held_out():
        def once():
            return figures(compare("visible", text, question, [f"snapkv:100%::{one}" for one in FORMATS]))
        for one, row in zip(FORMATS, records.measure(name, once)):
            table.setdefault(one, []).append(row)
        print(f"formats in {name}", flush=True)
    return table


def interval(rows):
    """95 % of the mean over documents drawn with replacement."""
    rng = random.Random(1)
    drawn = sorted(mean(rng.choices(rows, k=len(rows)), "kl") for _ in range(DRAWS))
    return drawn[int(0.025 * DRAWS)], drawn[int(0.975 * DRAWS)]


def page(table):
    lines = ["| entries | MiB at the end | mean KL | 95 % | top-1 | same answer | asked | |", "|---|---|---|---|---|---|---|---|"]
    for one, rows in table.items():
        kl, (low, high), most = mean(rows, "kl"), interval(rows), MOST.get(one)
        verdict = "- | |" if most is None else f"{most} | {'met' if kl <= most else '**missed**'} |"
        lines.append(f"| `{one}` | {mean(rows, 'bytes') / 2**20:.2f} | {kl:.5f} | {low:.5f} to {high:.5f} | {100 * mean(rows, 'top1'):.1f} % "
                     f"| {sum(row['same'] for row in rows)} of {len(rows)} | {verdict}")
    return "\n".join(lines)
