#!/usr/bin/env python3
"""Makes golden values of the default model independently of this project: transformers and PyTorch in float32.

    python3 make_model_cases.py MODEL.gguf            # compares with the committed files and says how far apart they are
    python3 make_model_cases.py MODEL.gguf --write    # writes them anew (prompts.json stays)

Needs: pip install torch transformers gguf accelerate. The selections follow docs/policies.md: scores of the last 8 prompt
queries, softmax over all columns, summed over the rows, mean over a group's query heads, max-pooled with kernel 7; budgets of
pyramidkv as exact fractions. The first new token comes from the full prefill, later ones use the compressed cache.
"""
import argparse
import json
import math
import os
from fractions import Fraction

import torch
from transformers import AutoModelForCausalLM
from transformers.models.llama import modeling_llama

HERE = os.path.dirname(os.path.abspath(__file__))
WINDOW, KERNEL, BETA, NEW_TOKENS, END_TOKEN = 8, 7, 20, {"full": 48, "kept": 32}, 2
CASES = [("gpl3_text", 64), ("gpl3_text", 256), ("gpl2_chat", 128), ("needles_chat", 128), ("lgpl_long", 128)]


class Recorder:
    """Keeps the rotated queries and keys of every layer of one prefill."""

    def __init__(self):
        self.rotate = modeling_llama.apply_rotary_pos_emb
        self.layers = []

    def __enter__(self):
        def record(q, k, *args, **kwargs):
            q, k = self.rotate(q, k, *args, **kwargs)
            self.layers.append((q[0], k[0]))
            return q, k

        modeling_llama.apply_rotary_pos_emb = record
        return self

    def __exit__(self, *_):
        modeling_llama.apply_rotary_pos_emb = self.rotate


def pyramid(budget, layers, n):
    """Entries per layer, window included; the sum is exactly budget x layers."""
    if n <= budget:
        return [n] * layers
    past = Fraction(budget - WINDOW)
    top = past / BETA
    bottom = 2 * past - top
    if bottom > n - WINDOW:
        bottom, top = Fraction(n - WINDOW), 2 * past - (n - WINDOW)
    line = [bottom - (bottom - top) * l / (layers - 1) for l in range(layers)]
    whole = [math.floor(x) for x in line]
    by_remainder = sorted(range(layers), key=lambda l: (whole[l] - line[l], l))
    for l in by_remainder[: int(past * layers) - sum(whole)]:
        whole[l] += 1
    return [x + WINDOW for x in whole]


def window_scores(q, k):
    """q [Hq, n, d], k [Hkv, n, d] -> pooled scores [Hkv, n - W]."""
    heads, n, d = q.shape
    group = heads // k.shape[0]
    logits = q[:, -WINDOW:] @ k.repeat_interleave(group, 0).transpose(1, 2) / math.sqrt(d)
    later = torch.arange(n)[None, :] > torch.arange(n - WINDOW, n)[:, None]
    mass = logits.masked_fill(later, -math.inf).softmax(-1).sum(1)[:, : n - WINDOW]
    mass = mass.view(k.shape[0], group, -1).mean(1)
    return torch.nn.functional.max_pool1d(mass[None], KERNEL, 1, KERNEL // 2)[0]


def select(scores, count):
    """Best `count`, smaller position first among equals; and how near the cut is to being another one."""
    order = sorted(range(len(scores)), key=lambda j: (-scores[j], j))
    kept, dropped = order[:count], order[count:]
    if not kept or not dropped:
        return sorted(kept), None
    cut = scores[kept[-1]]
    below = max((scores[j] for j in dropped if scores[j] < cut), default=None)
    margin = (cut - below) / cut if below is not None else math.inf
    if scores[dropped[0]] == cut:
        above = min((scores[j] for j in kept if scores[j] > cut), default=None)
        margin = min(margin, (above - cut) / cut if above is not None else math.inf)
    return sorted(kept), margin


def decode(model, cache, token, position):
    """One token against per-layer caches [(k, v)] of their own lengths, which grow. -> logits [V]."""
    config, base = model.config, model.model
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    x = base.embed_tokens(torch.tensor([[token]]))
    cos, sin = base.rotary_emb(x, torch.tensor([[position]]))
    for l, layer in enumerate(base.layers):
        h = layer.input_layernorm(x)
        attention = layer.self_attn
        split = lambda y, count: y.view(1, 1, count, -1).transpose(1, 2)
        q, k = modeling_llama.apply_rotary_pos_emb(
            split(attention.q_proj(h), heads), split(attention.k_proj(h), kv_heads), cos, sin)
        v = split(attention.v_proj(h), kv_heads)
        cache[l] = (torch.cat([cache[l][0], k[0]], 1), torch.cat([cache[l][1], v[0]], 1))
        keys, values = (t.repeat_interleave(heads // kv_heads, 0) for t in cache[l])
        p = (q[0] @ keys.transpose(1, 2) / math.sqrt(q.shape[-1])).softmax(-1)
        x = x + attention.o_proj((p @ values).transpose(0, 1).reshape(1, 1, -1))
        x = x + layer.mlp(layer.post_attention_layernorm(x))
    return model.lm_head(base.norm(x))[0, 0]


def top20(logits):
    values, ids = logits.topk(20)
    return [[int(i), round(float(v), 4)] for v, i in zip(values, ids)]


def continuation(model, cache, first_logits, n, limit):
    logits, tokens, margins, second = first_logits, [], [], None
    while len(tokens) < limit:
        best = logits.topk(2)
        tokens.append(int(best.indices[0]))
        margins.append(round(float(best.values[0] - best.values[1]), 4))
        if tokens[-1] == END_TOKEN:
            break
        logits = decode(model, cache, tokens[-1], n + len(tokens) - 1)
        second = second or top20(logits)
    return {"greedy": tokens, "margins": margins, "second_logits": second}


def full_case(model, prompt):
    ids = torch.tensor([prompt])
    with Recorder() as recorder:
        out = model(ids, use_cache=True)
    logits = out.logits[0]
    nll = -logits[:-1].log_softmax(-1).gather(1, ids[0, 1:, None]).double().sum()
    cache = [(layer.keys[0], layer.values[0]) for layer in out.past_key_values.layers]
    case = {"tokens": len(prompt), "nll_sum": round(float(nll), 4), "last_logits": top20(logits[-1])}
    case.update(continuation(model, list(cache), logits[-1], len(prompt), NEW_TOKENS["full"]))
    return case, recorder.layers, cache, logits[-1]


def kept_case(model, policy, budget, layers, cache, last_logits):
    n = cache[0][0].shape[1]
    budgets = pyramid(budget, len(cache), n) if policy == "pyramidkv" else [budget] * len(cache)
    kept, cut_margin, small = [], [], []
    for (q, k), (keys, values), count in zip(layers, cache, budgets):
        lanes = [select(scores.tolist(), count - WINDOW) for scores in window_scores(q, k)]
        kept.append([chosen + list(range(n - WINDOW, n)) for chosen, _ in lanes])
        cut_margin.append([margin for _, margin in lanes])
        index = torch.tensor(kept[-1])[:, :, None].expand(-1, -1, keys.shape[-1])
        small.append((keys.gather(1, index), values.gather(1, index)))
    case = {"policy": policy, "budget": budget, "kept": kept, "cut_margin": cut_margin}
    case.update(continuation(model, small, last_logits, n, NEW_TOKENS["kept"]))
    return case


def compare(name, mine, theirs):
    if "nll_sum" in mine:
        relative = abs(mine["nll_sum"] - theirs["nll_sum"]) / theirs["nll_sum"]
        largest = max(abs(a[1] - b[1]) for a, b in zip(mine["last_logits"], theirs["last_logits"]))
        print(f"{name}: nll relative {relative:.1e}, last logits {largest:.1e}, greedy equal {mine['greedy'] == theirs['greedy']}")
        return
    lanes = [(a == b, m) for ka, kb, ms in zip(mine["kept"], theirs["kept"], theirs["cut_margin"]) for a, b, m in zip(ka, kb, ms)]
    clear = [same for same, margin in lanes if margin is None or margin > 1e-4]
    print(f"{name}: lanes equal {sum(s for s, _ in lanes)}/{len(lanes)}, of those with a clear cut {sum(clear)}/{len(clear)}, "
          f"greedy equal {mine['greedy'] == theirs['greedy']}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    folder, name = os.path.split(os.path.abspath(options.model))
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32).eval()
    with open(os.path.join(HERE, "prompts.json")) as file:
        prompts = json.load(file)

    def finish(path, value, committed):
        if options.write:
            with open(os.path.join(HERE, path), "w") as file:
                json.dump(value, file)
        else:
            committed()

    full = {}
    for prompt_name, prompt in prompts.items():
        full[prompt_name], layers, cache, last = full_case(model, prompt)
        if not options.write:
            compare(prompt_name, full[prompt_name], json.load(open(os.path.join(HERE, "full.json")))[prompt_name])
        for policy in ("snapkv", "pyramidkv"):
            for budget in (b for p, b in CASES if p == prompt_name):
                case = {"prompt": prompt_name, **kept_case(model, policy, budget, layers, cache, last)}
                path = f"kept_{prompt_name}_{policy}_{budget}.json"
                finish(path, case, lambda: compare(path, case, json.load(open(os.path.join(HERE, path)))))
    finish("full.json", full, lambda: None)


if __name__ == "__main__":
    main()
