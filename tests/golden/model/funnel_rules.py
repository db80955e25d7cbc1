"""What the policy `funnel` keeps of a prompt, from docs/policies.md, in NumPy over a model's own queries, keys and values. Used by
make_model_cases.py and ../long/make_long_cases.py; shares no code with the server.

A case is a dict as in prompt_rules.py: policy "funnel", budget, and where they differ from its DEFAULTS allocation ("TABLE" or "GLOBAL")
and pins. Scores are compared in float64; products of queries and keys are float32, as the model's are.
"""
import math

import numpy as np

import prompt_rules
import sharing_rules
from prompt_rules import parameter

SCORING_ROWS, POOL, FLOOR, BETA = 8, 5, 0.2, 20


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
    """Entries of every lane, layer after layer; their sum is exactly budget x lanes."""
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
    return [entries + always for entries in prompt_rules.rounded(list(line), rest)]


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


def turned_queries(q, rows, inverse_frequencies):
    """[Hq, rows, d]"""
    return np.stack([turned_query(q[:, row], position - row, inverse_frequencies) if position != row else q[:, row]
                     for row, position in rows], 1)


def attention(queries, k, last):
    """Softmax over all columns [Hq, rows, n] of queries [Hq, rows, d]; row i sees the columns up to last[i]."""
    logits = queries @ np.repeat(k, len(queries) // len(k), 0).transpose(0, 2, 1)
    logits = logits.astype(np.float64) / math.sqrt(k.shape[-1])
    for i, column in enumerate(last):
        logits[:, i, column + 1:] = -np.inf
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def output_projections(model):
    """[D, Hq * d] of every layer"""
    return [block.self_attn.o_proj.weight.detach().float().numpy() for block in model.model.layers]


def output_lengths(layer):
    """[Hq, n]: |v_j W_o| by every query head's part of the output projection [D, Hq * d]."""
    heads, _, d = layer["q"].shape
    values = np.repeat(layer["v"], heads // layer["v"].shape[0], 0)
    return np.stack([np.linalg.norm(values[h].astype(np.float64) @ layer["o"][:, h * d: (h + 1) * d].T.astype(np.float64), axis=-1)
                     for h in range(heads)])


def pooled(rows):
    padded = np.pad(rows, ((0, 0), (POOL // 2, POOL // 2)), constant_values=-np.inf)
    return np.max([padded[:, i: i + rows.shape[1]] for i in range(POOL)], axis=0)


def set_scores(p, lengths, kv_heads, past):
    """Of the first `past` entries [Hkv, past] by the attention [Hq, rows, n] of one set of rows."""
    squares = (np.square(p).mean(1) * np.square(lengths)).reshape(kv_heads, -1, p.shape[-1])
    return pooled(np.sqrt(squares.mean(1))[:, :past])


def observe(case, layer, inverse_frequencies):
    """-> mass [Hkv, n] of which recall is a share, scores [Hkv, n - W]."""
    kv_heads, n, _ = layer["k"].shape
    turned, newest = observed_rows(case, n)
    narrow, lengths = parameter(case, "allocation") == "TABLE", output_lengths(layer)
    mass, sets = 0, []
    for rows in (turned, newest[-SCORING_ROWS:] if narrow else newest):
        p = attention(turned_queries(layer["q"], rows, inverse_frequencies), layer["k"], [position for _, position in rows])
        mass = mass + p.sum(1)
        sets.append(set_scores(p, lengths, kv_heads, n - parameter(case, "window")))
    if narrow:
        sets = [scores / scores.mean(-1, keepdims=True) for scores in sets]
    return mass.reshape(kv_heads, -1, n).mean(1), np.maximum(*sets)


# ---- while tokens are generated ----------------------------------------------------------------------------------------------
def scores_anew(lane):
    """Scores [c - W] of a lane's entries, ascending by position, by its newest W queries alone: q [G, W, d], k and v [1, c, d], o."""
    rows, entries = lane["q"].shape[1], lane["k"].shape[1]
    p = attention(lane["q"], lane["k"], range(entries - rows, entries))
    return set_scores(p, output_lengths(lane), 1, entries - rows)[0]


# ---- selections -------------------------------------------------------------------------------------------------------------
def by_table(case, scores, budgets, always):
    """-> kept and margins of lanes"""
    kept, margins = [], []
    for row, budget in zip(scores, budgets):
        order, count = prompt_rules.ranked(row, always), budget - len(always)
        kept.append(sorted(always | set(order[:count])))
        margins.append(prompt_rules.cut_margin(case, order[:count], order[count:], row))
    return kept, margins


def by_all_scores(case, scores, layers, span, always):
    """Likewise. Every lane has its guaranteed best, and the best of all lanes together the rest."""
    kv_heads, unpinned = len(scores) // layers, parameter(case, "sinks") + parameter(case, "window")
    pyramid = prompt_rules.pyramid({"budget": case["budget"], "window": unpinned, "beta": BETA}, layers, span)
    guaranteed = [max(len(always), unpinned + (entries - unpinned) // 5) - len(always) for entries in pyramid]
    sure = [entries for entries in guaranteed for _ in range(kv_heads)]
    return sharing_rules.shared_cut(case, scores, always, sure, (case["budget"] - len(always)) * len(scores) - sum(sure))


def select_prompt(case, prefill, model, table, span):
    """As prompt_rules.select_prompt(). `table`: the path of the model's lane table."""
    frequencies = model.model.rotary_emb.inv_freq.numpy()
    observed = []
    for layer, o in zip(prefill.layers, output_projections(model)):
        arrays = {name: layer[name].float().numpy() for name in "qkv"}
        observed.append(observe(case, {**arrays, "o": o}, frequencies))
    layers, kv_heads = len(observed), len(observed[0][0])
    scores, always = [row for _, rows in observed for row in rows.tolist()], prompt_rules.always_kept(case, prefill.n)
    if parameter(case, "allocation") == "TABLE":
        unpinned = parameter(case, "sinks") + parameter(case, "window")
        caps = prompt_rules.raised(table_budgets(read_table(table), case["budget"], span, unpinned), len(always))
        kept, margins = by_table(case, scores, caps, always)
    else:
        kept, margins = by_all_scores(case, scores, layers, span, always)
        caps = [len(lane) for lane in kept]
    recalls = [float(row[lane].sum() / row.sum()) for row, lane in zip((row for mass, _ in observed for row in mass), kept)]
    lanes = dict(kept=kept, margin=margins, recall=recalls, scores=scores, caps=caps)
    return [{name: values[l * kv_heads: (l + 1) * kv_heads] for name, values in lanes.items()} for l in range(layers)]
