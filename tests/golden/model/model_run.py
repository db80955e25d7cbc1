"""A model in plain PyTorch: a prefill that records every layer's queries and keys, and one decode step against caches of any
shape. Used by make_model_cases.py and ../long/make_long_cases.py; shares no code with the server."""
import math
import os
import sys

import torch
from transformers import AutoModelForCausalLM

END_TOKEN = 2


def load(path, dtype=torch.float32):
    torch.set_grad_enabled(False)
    folder, name = os.path.split(os.path.abspath(path))
    return AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32).eval().to(dtype)


def modeling(model):
    """The module of transformers that the model's code is in."""
    return sys.modules[type(model).__module__]


class Prefill:
    """One prompt through the model. layers[l]: q [Hq, n, d] and k [Hkv, n, d] rotated, raw_k before, v [Hkv, n, d]; logits
    [n, V]. With `rows` the logits of the newest rows only, and their queries; with `query_rows` another number of queries (0: all)."""

    def __init__(self, model, prompt, rows=0, query_rows=None):
        code, queries = modeling(model), rows if query_rows is None else query_rows
        rotate, recorded = code.apply_rotary_pos_emb, []

        def record(q, k, *args, **kwargs):
            turned = rotate(q, k, *args, **kwargs)
            recorded.append((turned[0][0, :, -queries:].clone(), turned[1][0], k[0]))
            return turned

        code.apply_rotary_pos_emb = record
        try:
            out = model(torch.tensor([prompt]), use_cache=True, logits_to_keep=rows)
        finally:
            code.apply_rotary_pos_emb = rotate
        self.n = len(prompt)
        self.logits = out.logits[0]
        self.layers = [dict(q=q, k=k, raw_k=raw, v=cache.values[0])
                       for (q, k, raw), cache in zip(recorded, out.past_key_values.layers)]


class LayerCache:
    """One layer's lanes, each as long as it is: positions[h], keys[h] and values[h] [length, d]."""

    def __init__(self, layer, kept, relative=False):
        self.positions = [list(lane) for lane in kept]
        self.relative = relative  # keys are held unrotated and turned by their index whenever they are used
        self.keys = [keys[lane] for keys, lane in zip(layer["raw_k" if relative else "k"], self.positions)]
        self.values = [values[lane] for values, lane in zip(layer["v"], self.positions)]

    def remove(self, h, slot):
        del self.positions[h][slot]
        for of in (self.keys, self.values):
            of[h] = torch.cat([of[h][:slot], of[h][slot + 1:]])

    def append(self, position, key, value):
        """key and value [Hkv, 1, d]"""
        for h, lane in enumerate(self.positions):
            lane.append(position)
            self.keys[h], self.values[h] = torch.cat([self.keys[h], key[h]]), torch.cat([self.values[h], value[h]])


def rotated(model, x, angles):
    """x [heads, rows, d] turned by angles [rows]."""
    cos, sin = model.model.rotary_emb(x, torch.tensor([angles]))
    return modeling(model).apply_rotary_pos_emb(x[None], x[None], cos, sin)[0][0]


def decode(model, caches, token, position, hooks=None):
    """One token against the layers' caches, which grow. hooks.before_write(l, cache, position) may remove one entry a lane,
    hooks.after_attend(l, cache, query [Hq, d], probabilities[h] [G, length]) sees the step's attention. -> logits [V]."""
    config, base = model.config, model.model
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    x = base.embed_tokens(torch.tensor([[token]]))
    for l, (layer, cache) in enumerate(zip(base.layers, caches)):
        h, attention = layer.input_layernorm(x), layer.self_attn
        q, k, v = (project(h).view(count, 1, -1) for project, count in
                   ((attention.q_proj, heads), (attention.k_proj, kv_heads), (attention.v_proj, kv_heads)))
        if hooks:
            hooks.before_write(l, cache, position)
        if cache.relative:
            cache.append(position, k, v)
            q = rotated(model, q, [len(cache.positions[0]) - 1])
            keys = [rotated(model, lane[None], list(range(len(lane))))[0] for lane in cache.keys]
        else:
            cache.append(position, rotated(model, k, [position]), v)
            q, keys = rotated(model, q, [position]), cache.keys
        p = [(queries @ lane.T / math.sqrt(q.shape[-1])).softmax(-1) for queries, lane in zip(q[:, 0].chunk(kv_heads), keys)]
        if hooks:
            hooks.after_attend(l, cache, q[:, 0], p)
        x = x + attention.o_proj(torch.cat([weights @ lane for weights, lane in zip(p, cache.values)]).reshape(1, 1, -1))
        x = x + layer.mlp(layer.post_attention_layernorm(x))
    return model.lm_head(base.norm(x))[0, 0]


def top20(logits):
    values, ids = logits.topk(20)
    return [[int(i), round(float(v), 4)] for v, i in zip(values, ids)]


def continuation(model, caches, prefill, limit, hooks=None, ignore_end=False):
    """Greedy tokens, the first from the full prefill, with the margin between the best two logits at each."""
    logits, tokens, margins, second = prefill.logits[-1], [], [], None
    while len(tokens) < limit:
        best = logits.topk(2)
        tokens.append(int(best.indices[0]))
        margins.append(round(float(best.values[0] - best.values[1]), 4))
        if len(tokens) == limit and ignore_end or tokens[-1] == END_TOKEN and not ignore_end:
            break
        logits = decode(model, caches, tokens[-1], prefill.n + len(tokens) - 1, hooks)
        second = second or top20(logits)
    return {"greedy": tokens, "margins": margins, "second_logits": second}
