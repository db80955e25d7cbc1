"""Evictions of the TOTAL scope, from docs/policies.md: a lane grows to its cap, then one entry goes before each new one
is written. Used by make_model_cases.py; shares no code with the server.

Caps are the budgets of a prompt of n + max_tokens. The entry with the lowest score goes, among equals the larger
position, and never one of the newest `window` positions, the one about to be written included.
"""
import math

import torch

import prompt_rules as rules
from model_run import LayerCache


class Evictor:
    """Hooks of model_run.decode for one case. scores[l][h] maps positions to scores, larger stays."""

    def __init__(self, case, prefill):
        self.case, self.n = case, prefill.n
        self.kv_heads = prefill.layers[0]["k"].shape[0]
        self.window = rules.window_of(case)
        layers = len(prefill.layers)
        self.caps = rules.layer_budgets(case, layers, prefill.n + case["max_tokens"])
        self.caches, self.scores, self.unit_sums, self.ring = [], [], [], []
        self.cut, self.margin = [], []
        for layer, cap in zip(prefill.layers, self.caps):
            assert cap < prefill.n, "every layer is cut in these cases"
            chosen = rules.select_layer(case, layer, cap)
            scores = chosen["mass"] if case["policy"] == "h2o" else chosen["scores"]
            self.cut.append(chosen["kept"])
            self.margin.append([math.inf if m is None else m for m in chosen["margin"]])
            self.caches.append(LayerCache(layer, chosen["kept"], case.get("position_mode") == "CACHE_RELATIVE"))
            self.scores.append([{j: row[j] for j in kept} for row, kept in zip(scores, chosen["kept"])])
            self.unit_sums.append(rules.cosines(layer["k"])[1])
            self.ring.append(layer["q"][:, -self.observed():])
        if self.refreshes():
            for lanes in self.scores:
                for scores in lanes:
                    for j in range(self.n - self.window, self.n):
                        del scores[j]

    def refreshes(self):
        return self.case["policy"] in ("snapkv", "pyramidkv", "tova")

    def observed(self):
        return 1 if self.case["policy"] == "tova" else rules.parameter(self.case, "window")

    def before_write(self, l, cache, position):
        if self.refreshes() and position > self.n and (position - self.n) % self.case["interval_tokens"] == 0:
            self.refresh(l, cache)
        if cache.length() < self.caps[l]:
            return
        candidates = [self.candidates(l, h, cache, position) for h in range(self.kv_heads)]
        if self.refreshes() and not all(candidates):
            self.refresh(l, cache)
            candidates = [self.candidates(l, h, cache, position) for h in range(self.kv_heads)]
        slots = []
        for h, lane in enumerate(candidates):
            ranks = {j: self.rank(self.scores[l][h][j], position - j) for j in lane}
            if not lane:  # not even now: the oldest goes
                ranks = {min(cache.positions[h]): 0}
            goes = min(ranks, key=lambda j: (ranks[j], -j))
            assert goes <= position - self.window
            self.margin[l][h] = min(self.margin[l][h], self.distance(goes, ranks))
            self.scores[l][h].pop(goes, None)
            slots.append(cache.positions[h].index(goes))
        cache.remove(slots)

    def rank(self, score, queries):
        """`queries` could see the entry."""
        return score / queries if rules.parameter(self.case, "score") == "MEAN" else score

    def candidates(self, l, h, cache, position):
        sinks = rules.parameter(self.case, "sinks") if self.case["policy"] == "streaming_llm" else 0
        return [j for j in cache.positions[h] if sinks <= j <= position - self.window and j in self.scores[l][h]]

    def distance(self, goes, ranks):
        """How near another entry is to going instead; see prompt_rules.cut_margin."""
        if self.case["policy"] == "streaming_llm":
            return math.inf
        pooled, lowest = rules.is_pooled(self.case), ranks[goes]
        above = min((r for j, r in ranks.items() if r > lowest or not pooled and j != goes), default=math.inf)
        return (above - lowest) / rules.scale_of(self.case, lowest)

    def refresh(self, l, cache):
        """The newest queries against the layer's entries, ascending by position; the newest entries get no score."""
        queries = self.ring[l]
        rows = queries.shape[1]
        sums = rules.attention_sums(queries, cache.keys, rows)
        past = cache.length() - rows
        if self.case["policy"] == "tova":
            scores = sums.mean(0, keepdim=True).expand(self.kv_heads, -1)
        else:
            scores = rules.group_mean(sums, self.kv_heads)
            if past > 0:
                scores = rules.pooled(scores[:, :past], rules.parameter(self.case, "kernel"))
        self.scores[l] = [dict(zip(lane[:past], row[:past].tolist())) for lane, row in zip(cache.positions, scores)]

    def after_attend(self, l, cache, query, probabilities):
        """Ring, sums and scores of the entry just written."""
        policy, position = self.case["policy"], cache.positions[0][-1]
        if self.refreshes():
            self.ring[l] = torch.cat([self.ring[l], query[:, None]], 1)[:, -self.observed():]
        elif policy == "streaming_llm":
            for scores in self.scores[l]:
                scores[position] = position
        elif policy == "h2o":
            added = rules.group_mean(probabilities.double(), self.kv_heads).tolist()
            for scores, lane, row in zip(self.scores[l], cache.positions, added):
                for j, mass in zip(lane, row):
                    scores[j] = scores.get(j, 0) + mass
        elif policy == "l2norm":
            for scores, norm in zip(self.scores[l], cache.keys[:, -1].norm(dim=-1).tolist()):
                scores[position] = -norm
        elif policy == "keydiff":
            unit = cache.keys[:, -1] / cache.keys[:, -1].norm(dim=-1, keepdim=True)
            self.unit_sums[l] = self.unit_sums[l] + unit
            total = self.unit_sums[l]
            for scores, value in zip(self.scores[l], ((unit * total).sum(-1) / total.norm(dim=-1)).tolist()):
                scores[position] = -value
