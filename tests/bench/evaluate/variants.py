"""What single choices are worth at equal bytes: every variant against what it was, on the documents and in the settings of the divergence above.
"""
import divergence
from divergence import interval, mean, ratio

FUNNELS = ("funnel", "funnel_w16", "funnel_w8", "funnel_refit", "funnel_w16_refit", "funnel_w8_refit")


def choices(dtype):
    """Windows of `funnel` of 32, 16 and 8, each without and with refitted values, in one entry format beside `snapkv` and `h2o` in f16."""
    funnels = tuple(f"{name} {dtype}" for name in FUNNELS)
    changes = tuple((name, funnels[0]) for name in funnels[1:])
    return f"## Choices of `funnel`, {dtype}", ("snapkv", "h2o", *funnels), (*((name, "snapkv") for name in ("h2o", *funnels)), *changes)


# Part: (what it is about, variants, pairs (changed, as it was) whose ratio says what the change is worth).
PARTS = {
    "windows": ("## Windows of 8 and 32", ("snapkv", "snapkv_w32", "pyramidkv", "pyramidkv_w32"),
                (("snapkv_w32", "snapkv"), ("pyramidkv_w32", "pyramidkv"), ("pyramidkv", "snapkv"), ("pyramidkv_w32", "snapkv_w32"),
                 ("pyramidkv_w32", "snapkv"))),
    "refit": ("## Refitted values", ("funnel k8v4", "funnel_refit k8v4", "funnel f16", "funnel_refit f16"),
              (("funnel_refit k8v4", "funnel k8v4"), ("funnel_refit f16", "funnel f16"))),
    "funnel_global": ("## `funnel` without a table", ("funnel f16", "funnel_global f16", "funnel k8v4", "funnel_global k8v4", "snapkv"),
                      (("funnel_global f16", "funnel f16"), ("funnel_global k8v4", "funnel k8v4"), ("funnel_global f16", "snapkv"),
                       ("funnel_global k8v4", "snapkv"))),
    "funnel_f16": choices("f16"),
    "funnel_k8v4": choices("k8v4"),
}


def measure(part, folder, head_dim, budgets, settings):
    return divergence.measure(folder / f"{part}.jsonl", head_dim, budgets, PARTS[part][1], settings)


def cell(rows, base):
    low, high = interval(rows, base)
    return f"{ratio(rows, base):.2f} [{low:.2f}, {high:.2f}]"


def page(part, table):
    """Markdown: mean KL of every variant, and the ratios of the changes."""
    title, policies, changes = PARTS[part]
    head = " | ".join(f"{setting}, {budget}" for setting, budget in table)
    rule = "|---" * (len(table) + 1) + "|"
    lines = [f"{title}\n", f"| mean KL | {head} |", rule]
    lines += [f"| `{policy}` | " + " | ".join(f"{mean(rows[policy], 'kl'):.4f}" for rows in table.values()) + " |" for policy in policies]
    lines += ["", f"| ratio to what it was, 95 % | {head} |", rule]
    lines += [f"| `{new}` to `{old}` | " + " | ".join(cell(rows[new], rows[old]) for rows in table.values()) + " |" for new, old in changes]
    return "\n".join(lines)
