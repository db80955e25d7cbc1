"""What the policy `funnel` keeps of a prompt, from docs/policies.md, in NumPy over a model's own queries, keys and values. Used by
make_model_cases.py and ../long/make_long_cases.py; shares no code with the server.

A case is a dict as in prompt_rules.py: policy "funnel", budget, and where they differ from DEFAULTS allocation ("TABLE" or "GLOBAL")
and pins. Scores are compared in float64; products of queries and keys are float32, as the model's are.
"""
import math
from fractions import Fraction

import numpy as np

import prompt_rules

DEFAULTS = {"window": 32, "sinks": 4, "observed_rows": 256, "allocation": "TABLE", "pins": []}
SCORING_ROWS, POOL, FLOOR, BETA = 8, 5, 0.2, 20


def parameter(case, name):
    return case.get(name, DEFAULTS[name])


# ---- lane tables ------------------------------------------------------------------------------------------------------------
def read_table(path):
    """-> {keep: shares [layers, kv_heads]}"""
    with open(path) as file:
        lines = [line.split() for line in file if line.strip() and not line.startswith("#")]
    layers = next(int(words[1]) for words in lines if words[0] == "layers")
    starts = [i for i, words in enumerate(lines) if words[0] == "keep"]
    return {float(lines[i][1]): np.array(lines[i + 1: i + 1 + layers], dtype=np.float64) for i in starts}


def shares_at(table, keep):
    keeps = sorted(table)
    if keep <= keeps[0] or keep >= keeps[-1]:
        return table[keeps[0] if keep <= keeps[0] else keeps[-1]]
    high = next(k for k in keeps if k >= keep)
    low = keeps[keeps.index(high) - 1]
    part = math.log(keep / low) / math.log(high / low)
    return table[low] + part * (table[high] - table[low])


def table_budgets(table, budget, n, always):
    """Entries of every lane [layers, kv_heads]; their sum is exactly budget x lanes."""
    shares = shares_at(table, budget / n)
    shares = np.maximum(shares / shares.mean(), FLOOR)
    weights = (shares / shares.mean()).ravel()
    rest, most = (budget - always) * weights.size, n - always
    line, full = np.zeros(weights.size), np.zeros(weights.size, bool)
    while True:
        line[full] = most
        line[~full] = weights[~full] / weights[~full].sum() * (rest - most * full.sum())
        over = (line > most) & ~full
        if not over.any():
            break
        full |= over
    entries = np.array(prompt_rules.rounded(list(line), rest))
    return (entries + always).reshape(shares.shape)


def raised(budgets, floor):
    """Lanes below what is always kept get that from those above, in proportion to their surplus."""
    flat = [int(b) for b in budgets.ravel()]
    surplus, missing = sum(max(b - floor, 0) for b in flat), sum(max(floor - b, 0) for b in flat)
    if missing == 0:
        return budgets
    line = [floor + Fraction(max(b - floor, 0) * (surplus - missing), surplus) for b in flat]
    return np.array(prompt_rules.rounded(line, sum(flat))).reshape(budgets.shape)


# ---- scores -----------------------------------------------------------------------------------------------------------------
def observed_rows(case, n):
    """[(prompt row, position)]: turned ones, and the newest."""
    count, first = min(parameter(case, "observed_rows"), n - 64), min(64, n // 4)
    turned = [(first + k * (n - 1 - first) // (count - 1), n + 37 * k % 64) for k in range(count)]
    return turned, [(row, row) for row in range(n - parameter(case, "window"), n)]


def turned_query(q, by, inverse_frequencies):
    """q [Hq, d], element i and i + d / 2 a pair, rotated by so many more positions."""
    angles = by * np.asarray(inverse_frequencies, np.float64)
    a, b = np.split(q.astype(np.float64), 2, axis=-1)
    return np.concatenate([a * np.cos(angles) - b * np.sin(angles), b * np.cos(angles) + a * np.sin(angles)], -1).astype(np.float32)


def attention(layer, rows, inverse_frequencies):
    """Softmax over all columns [Hq, rows, n] of the rows as they are turned; a row sees what is not behind its position."""
    heads, n, d = layer["q"].shape
    queries = np.stack([turned_query(layer["q"][:, row], position - row, inverse_frequencies) if position != row
                        else layer["q"][:, row] for row, position in rows], 1)
    logits = queries @ np.repeat(layer["k"], heads // layer["k"].shape[0], 0).transpose(0, 2, 1)
    logits = logits.astype(np.float64) / math.sqrt(d)
    for i, (_, position) in enumerate(rows):
        logits[:, i, position + 1:] = -np.inf
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def output_lengths(layer):
    """[Hq, n]: |v_j W_o| by every query head's part of the output projection [D, Hq * d]."""
    heads, _, d = layer["q"].shape
    values = np.repeat(layer["v"], heads // layer["v"].shape[0], 0)
    return np.stack([np.linalg.norm(values[h].astype(np.float64) @ layer["o"][:, h * d: (h + 1) * d].T.astype(np.float64), axis=-1)
                     for h in range(heads)])


def pooled(rows):
    padded = np.pad(rows, ((0, 0), (POOL // 2, POOL // 2)), constant_values=-np.inf)
    return np.max([padded[:, i: i + rows.shape[1]] for i in range(POOL)], axis=0)


def observe(case, layer, inverse_frequencies):
    """-> mass [Hkv, n] of which recall is a share, scores [Hkv, n - W]."""
    kv_heads, n, _ = layer["k"].shape
    turned, newest = observed_rows(case, n)
    by_table, lengths, past = parameter(case, "allocation") == "TABLE", output_lengths(layer), n - parameter(case, "window")
    mass, sets = 0, []
    for rows in (turned, newest[-SCORING_ROWS:] if by_table else newest):
        p = attention(layer, rows, inverse_frequencies)
        mass = mass + p.sum(1)
        squares = (np.square(p).mean(1) * np.square(lengths)).reshape(kv_heads, -1, n)
        sets.append(pooled(np.sqrt(squares.mean(1))[:, :past]))
    if by_table:
        sets = [scores / scores.mean(-1, keepdims=True) for scores in sets]
    return mass.reshape(kv_heads, -1, n).mean(1), np.maximum(*sets)


# ---- selections -------------------------------------------------------------------------------------------------------------
def always_kept(case, n):
    pins = {j for begin, end in parameter(case, "pins") for j in range(begin, end)}
    return set(range(parameter(case, "sinks"))) | pins | set(range(n - parameter(case, "window"), n))


def ranked(scores, always):
    """Positions that may go, the best first; equals by position."""
    return [j for j in np.argsort(-scores, kind="stable").tolist() if j not in always]


def lane_margin(order, count, scores):
    return prompt_rules.cut_margin({"policy": "snapkv"}, order[:count], order[count:], scores)


def select_by_table(scores, budgets, always):
    """-> kept and margins [layers][kv_heads]"""
    kept, margins = [], []
    for layer, layer_budgets in zip(scores, budgets):
        lanes = [(ranked(row, always), int(budget) - len(always), row) for row, budget in zip(layer, layer_budgets)]
        kept.append([sorted(always | set(order[:count])) for order, count, _ in lanes])
        margins.append([lane_margin(*lane) for lane in lanes])
    return kept, margins


def select_globally(case, n, scores, always):
    """Every lane has its guaranteed best, and the best of all lanes together the rest: equals by layer, head, position. A lane's
    margin is the distance of its nearest entry to the cut, relative to the score there."""
    layers, kv_heads, unpinned = len(scores), len(scores[0]), parameter(case, "sinks") + parameter(case, "window")
    pyramid = prompt_rules.pyramid({"budget": case["budget"], "window": unpinned, "beta": BETA}, layers, n)
    guaranteed = [max(len(always), unpinned + (entries - unpinned) // 5) for entries in pyramid]
    free = (case["budget"] * layers - sum(guaranteed)) * kv_heads
    orders = [[ranked(row, always) for row in layer] for layer in scores]
    counts = [[g - len(always)] * kv_heads for g in guaranteed]
    candidates = sorted((-scores[l][h][j], l, h, rank) for l in range(layers) for h in range(kv_heads)
                        for rank, j in enumerate(orders[l][h]) if rank >= counts[l][h])
    last, below = -candidates[free - 1][0], -candidates[free][0]
    lanes = {}  # distances to the cut, smallest; of copies of the score at the cut: None
    for place, (score, l, h, _) in enumerate(candidates):
        counts[l][h] += place < free
        distance = -score - below if place < free else last + score
        lanes.setdefault((l, h), set()).add(distance / last if distance > 0 else None)
    nearest = min(d for distances in lanes.values() for d in distances if d is not None)
    kept, margins = [], []
    for l in range(layers):
        kept.append([sorted(always | set(orders[l][h][: counts[l][h]])) for h in range(kv_heads)])
        margins.append([])
        for h in range(kv_heads):
            distances = {nearest if d is None else d for d in lanes.get((l, h), ())}
            if counts[l][h] + len(always) == guaranteed[l]:
                distances.add(lane_margin(orders[l][h], counts[l][h], scores[l][h]))
            margins[-1].append(min((d for d in distances if d is not None), default=None))
    return kept, margins


def select_prompt(case, prefill, model, table):
    """As prompt_rules.select_prompt(). `table`: the path of the model's lane table."""
    frequencies = model.model.rotary_emb.inv_freq.numpy()
    observed = []
    for layer, block in zip(prefill.layers, model.model.layers):
        arrays = {name: layer[name].float().numpy() for name in "qkv"}
        observed.append(observe(case, {**arrays, "o": block.self_attn.o_proj.weight.detach().float().numpy()}, frequencies))
    scores, always = [row for _, row in observed], always_kept(case, prefill.n)
    if parameter(case, "allocation") == "TABLE":
        unpinned = parameter(case, "sinks") + parameter(case, "window")
        budgets = raised(table_budgets(read_table(table), case["budget"], prefill.n, unpinned), len(always))
        kept, margins = select_by_table(scores, budgets, always)
    else:
        kept, margins = select_globally(case, prefill.n, scores, always)
    recalls = [[float(mass[h, lane].sum() / mass[h].sum()) for h, lane in enumerate(lanes)]
               for (mass, _), lanes in zip(observed, kept)]
    return [dict(kept=k, margin=m, recall=r) for k, m, r in zip(kept, margins, recalls)]
