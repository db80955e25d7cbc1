"""Attention recall, as in the paper's appendix N: which share of the attention that a prompt's last queries pay falls on the entries that a
policy keeps; the mean over layers and heads, and the worst of them. Every policy is judged by the queries that it observes itself: for those of
SnapKV's family the last ones, for `h2o` all, for `funnel` turned ones too, so shares of different families are not to be compared.
"""
from client import Records, ask
from documents import held_out

BUDGETS = (64, 128, 256, 512, 1024)
POLICIES = ("snapkv", "pyramidkv", "ada_snapkv", "ada_pyramidkv", "tova", "h2o", "funnel")


def measure(path):
    """{budget: {policy: [{"mean", "min"} by document]}}"""
    records, table = Records(path), {}
    for budget in BUDGETS:
        for name, text, question in held_out():
            def once():
                policies = ["full", *(f"{policy}:{budget}::f16" for policy in POLICIES)]
                reply = ask("compare", "--policies", ",".join(policies), "--max-tokens", "1", "--question", question, text=text)
                return {"recalls": [{key: one["cache"]["recall"][key] for key in ("mean", "min")} for one in reply["comparisons"]]}
            for policy, recall in zip(POLICIES, records.measure(f"{budget} {name}", once)["recalls"]):
                table.setdefault(budget, {}).setdefault(policy, []).append(recall)
            print(f"recall at {budget} in {name}", flush=True)
    return table


def average(rows, key):
    return sum(row[key] for row in rows) / len(rows)


def page(table):
    lines = ["| entries a lane, f16: mean, worst head | " + " | ".join(f"`{policy}`" for policy in POLICIES) + " |", "|---" * (len(POLICIES) + 1) + "|"]
    for budget, rows in table.items():
        lines.append(f"| {budget} | " + " | ".join(f"{average(rows[policy], 'mean'):.3f}, {average(rows[policy], 'min'):.3f}" for policy in POLICIES) + " |")
    return "\n".join(lines)
