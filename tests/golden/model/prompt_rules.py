"""What each cache policy keeps of a prompt, from docs/policies.md, in plain PyTorch and exact fractions. Used by
make_model_cases.py; shares no code with the server.

A case is a dict: policy, budget (entries per lane, window included) or min_recall, and what differs from DEFAULTS. "Best" is
by score, larger first, then the smaller position.
"""
import math
from fractions import Fraction

import torch

DEFAULTS = {"window": 8, "kernel": 7, "beta": 20, "sinks": 4, "floor": 0.2, "score": "SUM", "observed_rows": 256, "allocation": "TABLE",
            "pins": []}
WIDE_WINDOW = 32  # of funnel
ROWS = 256  # queries of a tile of the whole attention matrix


def parameter(case, name):
    wide = name == "window" and case.get("policy") == "funnel"
    return case.get(name, WIDE_WINDOW if wide else DEFAULTS[name])


def window_of(case):
    """Newest entries that are always kept."""
    return {"h2o": case.get("budget", 0) // 2, "tova": 1}.get(case["policy"], parameter(case, "window"))


def sinks_of(case):
    """First entries that are always kept."""
    return parameter(case, "sinks") if case["policy"] in ("streaming_llm", "funnel") else 0


def always_kept(case, n):
    return set(range(n - window_of(case), n)) | set(range(sinks_of(case))) | set(pinned(case, n))


# ---- budgets ----------------------------------------------------------------------------------------------------------------
def rounded(line, total):
    """Whole parts, what is missing to `total` one by one to the largest remainders, among equals to the lower layer."""
    whole = [math.floor(x) for x in line]
    for l in sorted(range(len(line)), key=lambda l: (whole[l] - line[l], l))[: total - sum(whole)]:
        whole[l] += 1
    return whole


def pyramid(case, layers, n):
    budget, window = case["budget"], parameter(case, "window")
    if n <= budget:
        return [n] * layers
    past = Fraction(budget - window)
    top = past / parameter(case, "beta")
    bottom = 2 * past - top
    if bottom > n - window:
        bottom, top = Fraction(n - window), 2 * past - (n - window)
    line = [bottom - (bottom - top) * l / (layers - 1) for l in range(layers)]
    return [x + window for x in rounded(line, int(past * layers))]


def pinned(case, n):
    """Pinned positions outside the window, ascending."""
    return sorted({j for begin, end in parameter(case, "pins") for j in range(begin, end) if j < n - parameter(case, "window")})


def raised(budgets, floor):
    """Those below the floor get what they lack from those above, in proportion to their surplus; the sum stays."""
    surplus = sum(max(b - floor, 0) for b in budgets)
    deficit = sum(max(floor - b, 0) for b in budgets)
    if deficit == 0:
        return budgets
    line = [floor + Fraction(max(b - floor, 0) * (surplus - deficit), surplus) for b in budgets]
    return rounded(line, sum(budgets))


def layer_averages(case, layers, n):
    """Entries per lane of each layer, where nothing is pinned; the sum is exactly budget x layers."""
    if case["policy"] not in ("pyramidkv", "ada_pyramidkv"):
        return [min(case["budget"], n)] * layers
    return pyramid(case, layers, n)


def layer_budgets(case, layers, n):
    """Likewise with room for pins."""
    return raised(layer_averages(case, layers, n), parameter(case, "window") + len(pinned(case, n)))


# ---- scores -----------------------------------------------------------------------------------------------------------------
def attention_sums(q, k, rows, positions=None):
    """Column sums [Hq, columns], float64, of the softmax rows of q [Hq, rows, d] over k [Hkv, columns, d]. The last query
    sees all columns, each query before it one column less."""
    heads, _, d = q.shape
    keys, columns = k.repeat_interleave(heads // k.shape[0], 0), k.shape[1]
    sums = torch.zeros(heads, columns, dtype=torch.float64)
    for begin in range(columns - rows, columns, ROWS):
        end = min(begin + ROWS, columns)
        logits = q[:, begin - columns: end - columns or None] @ keys[:, :end].transpose(1, 2) / math.sqrt(d)
        later = torch.arange(end)[None, :] > torch.arange(begin, end)[:, None]
        sums[:, :end] += logits.masked_fill(later, -math.inf).softmax(-1).double().sum(1)
    return sums


def group_mean(sums, kv_heads):
    return sums.view(kv_heads, -1, sums.shape[-1]).mean(1)


def pooled(mass, kernel):
    return torch.nn.functional.max_pool1d(mass[None], kernel, 1, kernel // 2)[0]


def cosines(k):
    """[Hkv, n] of every key to the sum of the lane's unit-length keys, and that sum [Hkv, d]."""
    unit = k / k.norm(dim=-1, keepdim=True)
    total = unit.sum(1)
    return (unit @ total[:, :, None])[:, :, 0] / total.norm(dim=-1, keepdim=True), total


def observe(case, layer):
    """-> mass [Hkv, n] of which recall is a share (None where no attention is observed), scores [Hkv, n] larger is better."""
    q, k, policy = layer["q"], layer["k"], case["policy"]
    kv_heads, n, window = k.shape[0], k.shape[1], parameter(case, "window")
    if policy == "streaming_llm":
        return None, torch.arange(n).expand(kv_heads, n).double()
    if policy == "l2norm":
        return None, -k.norm(dim=-1)
    if policy == "keydiff":
        return None, -cosines(k)[0]
    if policy == "h2o":
        mass = group_mean(attention_sums(q, k, n), kv_heads)
        seen = n - torch.arange(n)
        return mass, mass / seen if parameter(case, "score") == "MEAN" else mass
    if policy == "tova":
        mass = attention_sums(q, k, 1).mean(0, keepdim=True).expand(kv_heads, n)
        return mass, mass
    mass = group_mean(attention_sums(q, k, window), kv_heads)
    scores = torch.full_like(mass, -math.inf)
    scores[:, : n - window] = pooled(mass[:, : n - window], parameter(case, "kernel"))
    return mass, scores


# ---- selections -------------------------------------------------------------------------------------------------------------
def is_pooled(case):
    """Pooling makes copies of one float. Without it equal scores are two results that happen to be rounded alike, as the key
    lengths of a token that occurs twice are in the lowest layer: a near tie like others."""
    return case["policy"] in ("snapkv", "pyramidkv", "ada_snapkv", "ada_pyramidkv", "funnel")


def scale_of(case, score):
    """What margins are relative to; a cosine's are absolute."""
    return 1 if case["policy"] == "keydiff" or score == 0 else abs(score)


def cut_margin(case, kept, dropped, scores):
    """How near the cut (scores best first) is to being another one: distance to the next score below; among copies of one
    float to the next distinct one, and where the cut splits them also to the next one above."""
    if not kept or not dropped or case["policy"] == "streaming_llm":
        return None
    cut = scores[kept[-1]]
    below = max((scores[j] for j in dropped if scores[j] < cut or not is_pooled(case)), default=-math.inf)
    margin = (cut - below) / scale_of(case, cut)
    if is_pooled(case) and scores[dropped[0]] == cut:
        above = min((scores[j] for j in kept if scores[j] > cut), default=math.inf)
        margin = min(margin, (above - cut) / scale_of(case, cut))
    return margin


def ranked(scores, always):
    """Positions that may go, the best first; equals by position."""
    return sorted((j for j in range(len(scores)) if j not in always), key=lambda j: (-scores[j], j))


def select_lane(case, n, budget, scores, mass):
    """-> kept positions ascending, cut margin, and with min_recall how near the recall of one entry more or less is to it."""
    always = always_kept(case, n)
    order = ranked(scores, always)
    count, recall_margin = budget and budget - len(always), None
    if "min_recall" in case:
        count, recall_margin = smallest_count(case["min_recall"], always, order, mass)
    return sorted(always | set(order[:count])), cut_margin(case, order[:count], order[count:], scores), recall_margin


def smallest_count(recall, always, order, mass):
    total, held, before = sum(mass), sum(mass[j] for j in always), -math.inf
    for count, column in enumerate(order + [None]):
        if held / total >= recall or column is None:
            return count, min(abs(held / total - recall), recall - before)
        before = held / total
        held += mass[column]


def select_layer(case, layer, budget):
    """-> a dict of lists, one value a lane: kept, margin, recall_margin, recall (or None), and mass and scores [Hkv][n]."""
    mass, scores = observe(case, layer)
    kv_heads, n = layer["k"].shape[:2]
    rows = scores.tolist()
    masses = mass.tolist() if mass is not None else [None] * kv_heads
    lanes = [select_lane(case, n, budget, rows[h], masses[h]) for h in range(kv_heads)]
    kept, margin, recall_margin = (list(values) for values in zip(*lanes))
    recall = None if mass is None else [sum(masses[h][j] for j in kept[h]) / sum(masses[h]) for h in range(kv_heads)]
    return dict(kept=kept, margin=margin, recall_margin=recall_margin, recall=recall, mass=masses, scores=rows)


def select_prompt(case, prefill, span):
    """`span`: tokens that the budget is for; the prompt's, and with scope TOTAL those of the answer too. caps: what each lane may
    hold in that scope."""
    layers, kv_heads = len(prefill.layers), prefill.layers[0]["k"].shape[0]
    budgets = layer_budgets(case, layers, span) if "budget" in case else [None] * layers
    return [dict(select_layer(case, layer, budget), caps=[budget] * kv_heads) for layer, budget in zip(prefill.layers, budgets)]
