"""What each policy costs the answer at equal bytes, on documents that nothing was tuned on (held_out.json): mean KL, and its ratio to that of
`snapkv` with a window of 8 and f16 entries, with a 95 % interval over the documents. What is equal are the bytes of the entries kept of the
prompt, positions with them: k8v4 entries are smaller, so more of them are kept. What reports bill at the end has the answer's entries, partly
filled pages and bookkeeping in it; "billed" is its ratio to `snapkv` in f16.

Three settings. Visible: document and question are the prompt, and the policies see both when they cut. Hidden: they cut behind the
document, and the question comes later. Plain: the document alone goes on. Every policy is fed the answer of the full cache.
"""
import random

from client import Records, ask
from documents import held_out

SETTINGS = ("visible", "hidden", "plain")
# Bytes are those of so many f16 entries a lane: a share of the prompt's, or a number.
BUDGETS = ("20%", "12.5%", "128")
POLICIES = ("snapkv", "pyramidkv", "h2o", "ada_snapkv", "ada_pyramidkv", "funnel f16", "snapkv k8v4", "funnel k8v4")
ANSWER_TOKENS = 48
POSITION_BYTES = 4
DRAWS = 10_000


def notation(policy, budget, head_dim):
    """The policy with its budget as `compare --policies` takes it. Smaller entries: more of them in the same bytes."""
    name, _, dtype = policy.partition(" ")
    dtype = dtype or "f16"
    f16 = 4 * head_dim + POSITION_BYTES
    entry = f16 if dtype == "f16" else head_dim + head_dim // 2 + 2 + 2 * (head_dim // 32) + POSITION_BYTES
    more = f16 / entry
    amount = f"{float(budget[:-1]) * more:.4f}%" if budget.endswith("%") else str(int(int(budget) * more))
    return f"{name}:{amount}::{dtype}"


def compare(setting, text, question, policies):
    form = {"visible": ["--question", question], "hidden": ["--question", question, "--hide-question"], "plain": ["--raw", "--ignore-eos"]}[setting]
    return ask("compare", "--policies", ",".join(["full", *policies]), "--max-tokens", str(ANSWER_TOKENS), *form, text=text)


def figures(reply):
    """Of every policy: mean KL behind what everybody was given, agreement, bytes at the end, share of attention."""
    rows = []
    for one in reply["comparisons"]:
        cache = one["cache"]
        rows.append({
            "kl": one.get("klMean", 0), "top1": one.get("top1Agreement", 0), "same": one["firstDivergence"] == -1,
            "bytes": int(cache["allocatedBytes"]) + int(cache["auxiliaryBytes"]), "peak": int(cache["peakBytes"]),
            "recall": cache.get("recall", {}).get("mean"), "entries": cache["budgetTokens"]})
    return rows


def measure(path, head_dim, budgets, policies=POLICIES, settings=SETTINGS):
    """{(setting, budget): {policy: [figures by document]}}"""
    records, table = Records(path), {}
    for budget in budgets:
        for setting in settings:
            for name, text, question in held_out():
                def once():
                    reply = compare(setting, text, question, [notation(policy, budget, head_dim) for policy in policies])
                    return {"tokens": reply["baseline"]["usage"]["promptTokens"], "policies": figures(reply)}
                record = records.measure(f"{setting} {budget} {name}", once)
                print(f"{setting} {budget} {name}: {record['tokens']} tokens", flush=True)
                for policy, row in zip(policies, record["policies"]):
                    table.setdefault((setting, budget), {}).setdefault(policy, []).append(row)
    return table


def ratio(rows, base):
    return sum(row["kl"] for row in rows) / sum(row["kl"] for row in base)


def bootstrap(count, statistic):
    """95 % of `statistic` of so many documents drawn with replacement, which it is given as indices."""
    rng = random.Random(1)
    drawn = sorted(statistic([rng.randrange(count) for _ in range(count)]) for _ in range(DRAWS))
    return drawn[int(0.025 * DRAWS)], drawn[int(0.975 * DRAWS)]


def interval(rows, base):
    """95 % of the ratio of means, both sides drawn together."""
    return bootstrap(len(rows), lambda chosen: ratio([rows[i] for i in chosen], [base[i] for i in chosen]))


def against(rows, base):
    """Two cells of a table."""
    low, high = interval(rows, base)
    return f"{ratio(rows, base):.2f} | {low:.2f} to {high:.2f}"


def mean(rows, key):
    values = [row[key] for row in rows if row[key] is not None]
    return sum(values) / len(values) if values else None


def page(table):
    """Markdown: a table of every setting."""
    lines = []
    for setting in SETTINGS:
        lines += [f"### Question {setting}" if setting != "plain" else "### Plain text", "",
                  "| bytes of | policy | entries a lane | MiB at the end | billed | mean KL | to snapkv f16 | 95 % | to snapkv of its format | 95 % | top-1 | same answer | recall |",
                  "|---|---|---|---|---|---|---|---|---|---|---|---|---|"]
        for budget in (budget for of_setting, budget in table if of_setting == setting):
            rows = table[setting, budget]
            for policy, of_policy in rows.items():
                recall = mean(of_policy, "recall")
                alike = rows["snapkv k8v4" if policy.endswith("k8v4") else "snapkv"]
                lines.append(
                    f"| {budget} f16 | `{policy}` | {mean(of_policy, 'entries'):.0f} | {mean(of_policy, 'bytes') / 2**20:.2f} "
                    f"| {mean(of_policy, 'bytes') / mean(rows['snapkv'], 'bytes'):.2f} "
                    f"| {mean(of_policy, 'kl'):.4f} | {against(of_policy, rows['snapkv'])} | {against(of_policy, alike)} "
                    f"| {100 * mean(of_policy, 'top1'):.1f} % | {sum(row['same'] for row in of_policy)} of {len(of_policy)} "
                    f"| {'-' if recall is None else f'{recall:.3f}'} |")
        lines.append("")
    return "\n".join(lines)


def verdicts(table, demands):
    """Lines that say which demand on a ratio is met. `demands`: {(policy, base): {setting: {budget: ratio}}}"""
    lines = ["| demand | setting | bytes of | asked | measured | |", "|---|---|---|---|---|---|"]
    for (policy, base), of_setting in demands.items():
        for setting, of_budget in of_setting.items():
            for budget, most in of_budget.items():
                if (setting, budget) not in table:
                    continue
                rows = table[setting, budget]
                measured = ratio(rows[policy], rows[base])
                lines.append(f"| `{policy}` to `{base}` | {setting} | {budget} | {most:.2f} | {measured:.2f} | {'met' if measured <= most else '**missed**'} |")
    return "\n".join(lines)
