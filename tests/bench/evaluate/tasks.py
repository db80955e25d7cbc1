"""Tasks in the manner of LongBench on documents that every Debian has, question behind the document, scored against what the document itself
says. Lookup: one of fourteen facts that stand between its lines, by its word. Copy: the line that follows a given one. Code: the next line of a
module of Python's library. Class: which of two kinds a line is of, after forty examples. Lookup and class: the answer holds the word; copy and
code: similarity of characters to the line, as LongBench scores code.
"""
import difflib
import random

from client import Records, ask
from documents import held_out

POLICIES = ("funnel:12.5%", "funnel:12.5%::f16", "snapkv:12.5%", "pyramidkv:12.5%", "h2o:12.5%", "ada_snapkv:12.5%", "streaming_llm:12.5%")
PER_TASK = 12
ANSWER_TOKENS = 32
WORDS = ("anchor", "basket", "candle", "dragon", "engine", "falcon", "garden", "hammer", "island", "jacket", "kettle", "ladder", "magnet", "needle")


def holds(answer, expected):
    return float(expected.lower() in answer.lower())


def similarity(answer, expected):
    lines = [line for line in answer.splitlines() if line.strip()] or [""]
    return difflib.SequenceMatcher(None, lines[0].strip(), expected.strip()).ratio()


def lines_of(index):
    return [line for line in held_out()[index][1].splitlines() if len(line.strip()) > 20]


def lookup(index):
    rng = random.Random(index)
    words = rng.sample(WORDS, len(WORDS))
    facts = {word: str(rng.randrange(10_000, 100_000)) for word in words}
    lines = lines_of(index)
    for at, (word, room) in enumerate(facts.items()):
        lines.insert((at + 1) * len(lines) // (len(facts) + 1), f"The {word} is kept in room {room}.")
    asked = words[index % len(words)]
    return "\n".join(lines), f"In which room is the {asked} kept? Answer with the number.", facts[asked], holds


def copy(index):
    lines = lines_of(index)
    at = next(i for i in range(len(lines) // 3, len(lines)) if lines.count(lines[i]) == 1)
    return "\n".join(lines), f"Which line comes straight after this one: {lines[at].strip()}", lines[at + 1], similarity


def code(index):
    modules = [text for name, text, _ in held_out() if name.endswith(".py")]
    lines = modules[index % len(modules)].splitlines()
    at = max(i for i in range(len(lines) * (index + 2) // (PER_TASK + 2)) if len(lines[i].strip()) > 20)
    return "\n".join(lines[:at]) + "\n", None, lines[at], similarity


def classification(index):
    rng = random.Random(index)
    kinds = {"tool": WORDS[:7], "beast": ("badger", "camel", "donkey", "ferret", "giraffe", "heron", "iguana")}
    examples = []
    for _ in range(40):
        kind = rng.choice(sorted(kinds))
        examples.append(f"There is a {rng.choice(kinds[kind])} in room {rng.randrange(100, 1000)}. Kind: {kind}")
    kind = rng.choice(sorted(kinds))
    return "\n".join(examples) + f"\nThere is a {rng.choice(kinds[kind])} in room 7. Kind:", None, kind, holds


TASKS = {"lookup": lookup, "copy": copy, "code": code, "class": classification}


def measure(path):
    """{task: [{policy: score} by document]}"""
    records, table = Records(path), {}
    for name, task in TASKS.items():
        for index in range(PER_TASK):
            text, question, expected, score = task(index)

            def once():
                form = ["--question", question] if question else ["--raw", "--ignore-eos"]
                reply = ask("compare", "--policies", ",".join(["full", *POLICIES]), "--max-tokens", str(ANSWER_TOKENS), *form, text=text)
                answers = [reply["baseline"]["choices"][0], *reply["comparisons"]]
                return {"scores": [score(answer.get("text", ""), expected) for answer in answers]}
            row = dict(zip(("full", *POLICIES), records.measure(f"{name} {index}", once)["scores"]))
            print(f"{name} {index}: full {row['full']:.2f}", flush=True)
            table.setdefault(name, []).append(row)
    return table


def page(table):
    policies = ("full", *POLICIES)
    lines = ["| task | documents | " + " | ".join(f"`{policy}`" for policy in policies) + " |", "|---" * (len(policies) + 2) + "|"]
    means = {name: [100 * sum(row[policy] for row in rows) / len(rows) for policy in policies] for name, rows in table.items()}
    lines += [f"| {name} | {len(table[name])} | " + " | ".join(f"{mean:.0f}" for mean in of_policy) + " |" for name, of_policy in means.items()]
    average = [sum(column) / len(means) for column in zip(*means.values())]
    lines.append(f"| mean | {sum(map(len, table.values()))} | " + " | ".join(f"{mean:.0f}" for mean in average) + " |")
    return "\n".join(lines)
