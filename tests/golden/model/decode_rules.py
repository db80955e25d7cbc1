"""Evictions of the TOTAL scope, from docs/policies.md: a lane grows to its cap, then one entry goes before each new one
is written. Used by make_model_cases.py; shares no code with the server.

Caps are the budgets of a prompt of n + max_tokens; where all lanes share, what the lane got. The entry with the lowest score
goes, among equals the larger position, and never a sink or one of the newest `window` positions, the one about to be written
included.
"""
import math

import numpy as np
import torch

import funnel_rules
import prompt_rules as rules
from model_run import LayerCache


class Evictor:
    """Hooks of model_run.decode for one case, of whose prompt `chosen` was kept. scores[l][h] maps positions to scores, larger
    stays."""

    def __init__(self, case, prefill, chosen, model):
        self.case, self.n, self.model = case, prefill.n, model
        self.kv_heads = prefill.layers[0]["k"].shape[0]
        self.window = rules.window_of(case)
        self.caps = [c["caps"] for c in chosen]
        self.margin = [[math.inf if m is None else m for m in c["margin"]] for c in chosen]
        self.caches, self.scores, self.unit_sums, self.ring = [], [], [], []
        scored = self.n - self.window if self.refreshes() else self.n
        for layer, c in zip(prefill.layers, chosen):
            assert all(len(lane) < self.n for lane in c["kept"]), "every lane is cut in these cases"
            scores = c["mass"] if case["policy"] == "h2o" else c["scores"]
            self.caches.append(LayerCache(layer, c["kept"], case.get("position_mode") == "CACHE_RELATIVE"))
            self.scores.append([{j: row[j] for j in kept if j < scored} for row, kept in zip(scores, c["kept"])])
            self.unit_sums.append(rules.cosines(layer["k"])[1])
            self.ring.append(layer["q"][:, -self.observed():])

    def refreshes(self):
        return self.case["policy"] in ("snapkv", "pyramidkv", "tova", "funnel")

    def observed(self):
        return 1 if self.case["policy"] == "tova" else rules.parameter(self.case, "window")

    def before_write(self, l, cache, position):
        if self.refreshes() and position > self.n and (position - self.n) % self.case["interval_tokens"] == 0:
            self.refresh(l, cache)
        full = [h for h, lane in enumerate(cache.positions) if len(lane) == self.caps[l][h]]
        if self.refreshes() and not all(self.candidates(l, h, cache, position) for h in full):
            self.refresh(l, cache)
        for h in full:
            lane = self.candidates(l, h, cache, position)
            ranks = {j: self.rank(self.scores[l][h][j], position - j) for j in lane}
            if not lane:  # not even now: the oldest goes
                ranks = {min(j for j in cache.positions[h] if j >= rules.sinks_of(self.case)): 0}
            goes = min(ranks, key=lambda j: (ranks[j], -j))
            assert goes <= position - self.window
            self.margin[l][h] = min(self.margin[l][h], self.distance(goes, ranks))
            self.scores[l][h].pop(goes, None)
            cache.remove(h, cache.positions[h].index(goes))

    def rank(self, score, queries):
        """`queries` could see the entry."""
        return score / queries if rules.parameter(self.case, "score") == "MEAN" else score

    def candidates(self, l, h, cache, position):
        return [j for j in cache.positions[h] if rules.sinks_of(self.case) <= j <= position - self.window and j in self.scores[l][h]]

    def distance(self, goes, ranks):
        """How near another entry is to going instead; see prompt_rules.cut_margin."""
        if self.case["policy"] == "streaming_llm":
            return math.inf
        pooled, lowest = rules.is_pooled(self.case), ranks[goes]
        above = min((r for j, r in ranks.items() if r > lowest or not pooled and j != goes), default=math.inf)
        return (above - lowest) / rules.scale_of(self.case, lowest)

    def refresh(self, l, cache):
        """The newest queries against the layer's entries, ascending by position; the newest entries get no score."""
        queries = self.ring[l].chunk(self.kv_heads)
        if self.case["policy"] == "tova":  # all heads together, so all lanes are alike
            whole = rules.attention_sums(self.ring[l], torch.stack(cache.keys), 1).mean(0)
            scores = [whole[:-1].tolist()] * self.kv_heads
        elif self.case["policy"] == "funnel":
            o = funnel_rules.output_projections(self.model)[l]
            scores = [self.funnel_scores(*lane) for lane in zip(queries, cache.keys, cache.values, np.split(o, self.kv_heads, 1))]
        else:
            scores = [self.window_scores(q, keys) for q, keys in zip(queries, cache.keys)]
        self.scores[l] = [dict(zip(lane, row)) for lane, row in zip(cache.positions, scores)]

    def window_scores(self, queries, keys):
        past = len(keys) - queries.shape[1]
        if past <= 0:
            return []
        mass = rules.attention_sums(queries, keys[None], queries.shape[1]).mean(0, keepdim=True)
        return rules.pooled(mass[:, :past], rules.parameter(self.case, "kernel"))[0].tolist()

    def funnel_scores(self, queries, keys, values, o):
        if len(keys) <= queries.shape[1]:
            return []
        lane = dict(q=queries.float().numpy(), k=keys[None].float().numpy(), v=values[None].float().numpy(), o=o)
        return funnel_rules.scores_anew(lane).tolist()

    def after_attend(self, l, cache, query, probabilities):
        """Ring, sums and scores of the entry just written."""
        policy, position = self.case["policy"], cache.positions[0][-1]
        if self.refreshes():
            self.ring[l] = torch.cat([self.ring[l], query[:, None]], 1)[:, -self.observed():]
        elif policy == "streaming_llm":
            for scores in self.scores[l]:
                scores[position] = position
        elif policy == "h2o":
            for scores, lane, p in zip(self.scores[l], cache.positions, probabilities):
                for j, mass in zip(lane, p.double().mean(0).tolist()):
                    scores[j] = scores.get(j, 0) + mass
        elif policy == "l2norm":
            for scores, keys in zip(self.scores[l], cache.keys):
                scores[position] = -float(keys[-1].norm())
        elif policy == "keydiff":
            newest = torch.stack([keys[-1] for keys in cache.keys])
            unit = newest / newest.norm(dim=-1, keepdim=True)
            self.unit_sums[l] = self.unit_sums[l] + unit
            total = self.unit_sums[l]
            for scores, value in zip(self.scores[l], ((unit * total).sum(-1) / total.norm(dim=-1)).tolist()):
                scores[position] = -value
