"""Needles in a haystack: one sentence with a number, put at some depth of a long text, asked for at its end. Every policy cuts the
same prompt; an answer that holds the number is a find. Heat maps over depth and length.
"""
import random

from client import Records, ask
from documents import held_out

COLOURS = ("amber", "azure", "coral", "crimson", "emerald", "indigo", "ivory", "lilac", "maroon", "olive",
           "orange", "pearl", "purple", "ruby", "scarlet", "silver", "teal", "turquoise", "violet", "yellow")
POLICIES = ("funnel:12.5%", "funnel:12.5%::f16", "snapkv:12.5%", "pyramidkv:12.5%", "h2o:12.5%", "ada_snapkv:12.5%", "streaming_llm:12.5%")
ANSWER_TOKENS = 24
BYTES_PER_TOKEN = 3.6  # of these documents, about; lengths are said as they were measured


def haystack(most_bytes):
    """Lines of the documents, again from the first one where they are not enough."""
    lines = [line for _, text, _ in held_out() for line in text.splitlines() if line.strip()]
    taken, size = [], 0
    while size < most_bytes:
        for line in lines:
            if size >= most_bytes:
                break
            taken.append(line)
            size += len(line.encode()) + 1
    return taken


def needle(index):
    code = random.Random(index).randrange(10_000, 100_000)
    return COLOURS[index % len(COLOURS)], str(code)


def prompt(tokens, index, depth):
    """A text of about so many tokens with needle `index` at `depth` (0 to 1) of its lines, and the question for it."""
    colour, code = needle(index)
    lines = haystack(int(tokens * BYTES_PER_TOKEN))
    lines.insert(round(depth * len(lines)), f"The access code of the {colour} door is {code}.")
    return "\n".join(lines), f"What is the access code of the {colour} door? Answer with the number.", code


def measure(path, lengths, depths):
    """{length: [{"tokens", "depth", "found": {policy: bool}}]}"""
    records, table = Records(path), {}
    for length in lengths:
        for index in range(depths):
            depth = index / max(depths - 1, 1)

            def once():
                text, question, code = prompt(length, index, depth)
                reply = ask("compare", "--policies", ",".join(["full", *POLICIES]), "--max-tokens", str(ANSWER_TOKENS), "--question", question, text=text)
                answers = [reply["baseline"]["choices"][0], *reply["comparisons"]]
                return {"tokens": reply["baseline"]["usage"]["promptTokens"], "found": [code in answer.get("text", "") for answer in answers]}
            record = records.measure(f"{length} {index} of {depths}", once)
            found = dict(zip(("full", *POLICIES), record["found"]))
            print(f"needle {index + 1} of {depths} in {record['tokens']} tokens: {', '.join(name for name, hit in found.items() if hit) or 'nobody'}", flush=True)
            table.setdefault(length, []).append({"tokens": record["tokens"], "depth": depth, "found": found})
    return table


def page(table):
    lines = ["| tokens | needles | " + " | ".join(f"`{policy}`" for policy in ("full", *POLICIES)) + " |", "|---" * (len(POLICIES) + 3) + "|"]
    for rows in table.values():
        finds = [sum(row["found"][policy] for row in rows) for policy in ("full", *POLICIES)]
        lines.append(f"| {rows[0]['tokens']} | {len(rows)} | " + " | ".join(map(str, finds)) + " |")
    return "\n".join(lines)


def verdicts(table):
    """Lines that say at every length whether `funnel` finds at least as often as the full cache less one."""
    lines = ["| demand | tokens | full | `funnel` | |", "|---|---|---|---|---|"]
    for rows in table.values():
        full, funnel = (sum(row["found"][policy] for row in rows) for policy in ("full", POLICIES[0]))
        lines.append(f"| at 12.5 % as often as full less one | {rows[0]['tokens']} | {full} | {funnel} | {'met' if funnel >= full - 1 else '**missed**'} |")
    return "\n".join(lines)


def draw(table, path):
    """A heat map for each policy: depth downwards, length to the right."""
    import matplotlib
    matplotlib.use("svg")
    from matplotlib import pyplot
    figure, axes = pyplot.subplots(1, len(POLICIES) + 1, figsize=(2 + 1.3 * (len(POLICIES) + 1), 3.6), sharey=True, layout="constrained")
    for axis, policy in zip(axes, ("full", *POLICIES)):
        rows = list(table.values())
        axis.imshow([[of_length[i]["found"][policy] for of_length in rows] for i in range(len(rows[0]))], aspect="auto", vmin=0, vmax=1, cmap="RdYlGn")
        axis.set_title(policy.replace(":", "\n", 1), fontsize=8)
        axis.set_xticks(range(len(rows)), [f"{of_length[0]['tokens'] / 1000:.1f}k" for of_length in rows], fontsize=7)
        axis.set_yticks(range(len(rows[0])), [f"{100 * row['depth']:.0f} %" for row in rows[0]], fontsize=7)
    axes[0].set_ylabel("depth of the needle")
    figure.savefig(path, metadata={"Date": None})
