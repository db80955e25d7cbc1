"""What lanes keep that share entries by their scores, from docs/policies.md: those of a layer with `ada_snapkv` and `ada_pyramidkv`,
and the cut itself, which `funnel` with GLOBAL makes through all lanes of a model. Used by make_model_cases.py; shares no code with
the server.
"""
from fractions import Fraction

import prompt_rules as rules


def shared_cut(case, scores, always, sure, free):
    """-> kept positions and margins of lanes: of lane i the best sure[i] entries, and the `free` best of all others together, equals by
    lane, then rank. A lane's margin is the distance of its nearest entry to the cut, relative to the score there."""
    orders = [rules.ranked(row, always) for row in scores]
    counts, lanes = list(sure), {}  # distances to the cut; of copies of the score at the cut: None
    candidates = sorted((-scores[i][j], i, rank) for i, order in enumerate(orders) for rank, j in enumerate(order) if rank >= sure[i])
    for _, i, _ in candidates[:free]:
        counts[i] += 1
    if 0 < free < len(candidates):
        last, below = -candidates[free - 1][0], -candidates[free][0]
        for place, (score, i, _) in enumerate(candidates):
            distance = -score - below if place < free else last + score
            lanes.setdefault(i, set()).add(distance / last if distance > 0 else None)
    nearest = min((d for distances in lanes.values() for d in distances if d is not None), default=None)
    margins = []
    for i, (order, row) in enumerate(zip(orders, scores)):
        distances = {nearest if d is None else d for d in lanes.get(i, ())}
        if counts[i] == sure[i]:
            distances.add(rules.cut_margin(case, order[:counts[i]], order[counts[i]:], row))
        margins.append(min((d for d in distances if d is not None), default=None))
    return [sorted(always | set(order[:count])) for order, count in zip(orders, counts)], margins


def select_layer(case, layer, average, total):
    """As prompt_rules.select_layer(). `average`: a lane's entries before pins were made room for; the layer has `total`."""
    mass, scores = rules.observe(case, layer)
    (kv_heads, n), window = layer["k"].shape[:2], rules.parameter(case, "window")
    always = rules.always_kept(case, n)
    least = window + int(Fraction(str(rules.parameter(case, "floor"))) * (average - window))
    sure = [max(least - len(always), 0)] * kv_heads
    masses = mass.tolist()
    kept, margin = shared_cut(case, scores.tolist(), always, sure, total - kv_heads * len(always) - sum(sure))
    recall = [sum(row[j] for j in lane) / sum(row) for row, lane in zip(masses, kept)]
    return dict(kept=kept, margin=margin, recall=recall)


def select_prompt(case, prefill):
    """As prompt_rules.select_prompt(), with scope PROMPT."""
    averages, kv_heads = rules.layer_averages(case, len(prefill.layers), prefill.n), prefill.layers[0]["k"].shape[0]
    totals = rules.raised([kv_heads * average for average in averages], kv_heads * len(rules.always_kept(case, prefill.n)))
    return [select_layer(case, *of) for of in zip(prefill.layers, averages, totals)]
