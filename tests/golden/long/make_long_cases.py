#!/usr/bin/env python3
"""Makes golden values of the second model (scripts/fetch_model qwen2.5-coder-0.5b) independently of this project: transformers
and PyTorch in float32, prompts of up to 30,000 tokens.

    python3 make_long_cases.py MODEL.gguf          # compares with the committed files and says how far apart they are
    ... --write            # writes them anew (prompts.json stays)
    ... --only TEXT,...    # only files, or cases, whose name contains one of these

Needs: pip install torch transformers gguf accelerate; 12 GB of memory and an hour for everything; of processor time text_16k alone takes nine minutes and
text_30k twelve. Files, of which those under model/ have the form that ../model/make_model_cases.py describes:
  text/tokens.jsonl            texts of ../text/tokens.jsonl in this model's tokens
  text/chats.json              conversations through the model's own chat template
  model/prompts.json           `text`: licences of /usr/share/common-licenses, 30,000 tokens; `chat`: a short conversation
  model/full.json              per case: log-probability of the last ROWS - 1 tokens, logits, greedy tokens with the full cache
  model/kept_CASE_POLICY.json  what one policy keeps (funnel at 16k, GLOBAL at 2k, pyramidkv at 30k, where the queries of funnel are 2.6 GB)
  model/recall.json            per kept_ file: [layer][kv_head]
"""
import argparse
import json
import pathlib
import sys
import unicodedata

import torch
from transformers import AutoTokenizer
from transformers.utils import logging

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "model"))
import make_model_cases
import model_run

LICENCES = ("GPL-3", "LGPL-2.1", "MPL-1.1", "GFDL-1.3", "MPL-2.0", "GPL-2")
CASES = {"chat": ("chat", None), "text_2k": ("text", 2000), "text_16k": ("text", 16000), "text_30k": ("text", 30000)}
KEPT = {"text_2k": {"policy": "funnel", "allocation": "GLOBAL"}, "text_16k": {"policy": "funnel"}, "text_30k": {"policy": "pyramidkv"}}
BUDGET, ROWS, NEW_TOKENS = 128, 257, 16
TEXTS_APART = 3  # every third text is enough

USER, SYSTEM = {"role": "user"}, {"role": "system"}
CHATS = [
    [{**USER, "content": "Hello!"}],
    [{**SYSTEM, "content": "You answer in one word."}, {**USER, "content": "  Which language is this: « où êtes-vous ? »\n"}],
    [{**USER, "content": "def f(x):\n    return x"}, {"role": "assistant", "content": "It returns x."}, {**USER, "content": "12345?"}],
    [{**SYSTEM, "content": "Be brief.\n"}, {**USER, "content": "\n\nx"}, {"role": "assistant", "content": ""}, {**USER, "content": "日本語"}],
]


class Files:
    """Compares with the committed files, or writes them."""

    def __init__(self, options):
        self.options = options

    def wants(self, name):
        return any(part in name for part in self.options.only.split(","))

    def give(self, name, value, part=None, lines=False):
        path = HERE / name
        read = (lambda text: [json.loads(line) for line in text.splitlines()]) if lines else json.loads
        old = read(path.read_text()) if path.exists() else None
        if self.options.write:
            if part is not None:
                value = {**(old or {}), part: value}
            rows = value if lines else [value]
            path.write_text("".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows))
        elif old is None or part is not None and part not in old:
            print(f"{name} {part or ''}: no such file or part")
        elif name.startswith("model/"):
            make_model_cases.compare(part or name, value, old if part is None else old[part])
        else:
            print(f"{name}: equal {value == old}")


def make_prompts(tokenizer):
    text = "".join(pathlib.Path("/usr/share/common-licenses", name).read_text() for name in LICENCES)
    chat = [{**USER, "content": "Write a Python function that reverses a string, and nothing else."}]
    return {"text": tokenizer.encode(text)[: max(n or 0 for _, n in CASES.values())],
            "chat": tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)}


def make_tokens(tokenizer):
    """Texts in NFC, which this project does not bring about."""
    texts = [json.loads(line)["text"] for line in (HERE.parent / "text" / "tokens.jsonl").read_text().splitlines()[::TEXTS_APART]]
    return [{"text": text, "ids": tokenizer.encode(text)} for text in texts if unicodedata.is_normalized("NFC", text)]


def make_chats(tokenizer):
    return [{"messages": chat, "text": tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False),
             "ids": tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)} for chat in CHATS]


def full_case(model, prompt_name, prefill, prompt):
    rows = len(prefill.logits)
    nll = -prefill.logits[:-1].log_softmax(-1).gather(1, torch.tensor(prompt)[-rows + 1:, None]).double().sum()
    everything = [list(range(prefill.n))] * prefill.layers[0]["k"].shape[0]
    caches = [model_run.LayerCache(layer, everything) for layer in prefill.layers]
    return {"prompt": prompt_name, "tokens": prefill.n, "nll_rows": rows, "nll_sum": round(float(nll), 4),
            "last_logits": model_run.top20(prefill.logits[-1]),
            **model_run.continuation(model, caches, prefill, NEW_TOKENS, ignore_end=True)}


def kept_case(model, prompt_name, policy, prefill, table):
    """-> what is kept, and the recall."""
    case = {**policy, "budget": BUDGET}
    chosen = make_model_cases.select_prompt(case, prefill, model, table, prefill.n)
    return ({"prompt": prompt_name, "tokens": prefill.n, **case, "kept": [c["kept"] for c in chosen],
             "cut_margin": make_model_cases.short(c["margin"] for c in chosen)},
            [[round(r, 6) for r in c["recall"]] for c in chosen])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    files = Files(options)
    logging.disable_progress_bar()
    path = pathlib.Path(options.model).absolute()
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    prompts_path = HERE / "model" / "prompts.json"
    if not prompts_path.exists():
        files.give("model/prompts.json", make_prompts(tokenizer))
    prompts = json.loads(prompts_path.read_text())
    if files.wants("text/tokens.jsonl"):
        files.give("text/tokens.jsonl", make_tokens(tokenizer), lines=True)
    if files.wants("text/chats.json"):
        files.give("text/chats.json", make_chats(tokenizer))
    if not any(map(files.wants, CASES)):
        return
    model = model_run.load(options.model)
    table = HERE / "../../../config/lane_tables" / path.with_suffix(".lanes").name
    for case, (prompt_name, count) in filter(lambda item: files.wants(item[0]), CASES.items()):
        prompt = prompts[prompt_name][:count]
        policy = KEPT.get(case)
        prefill = model_run.Prefill(model, prompt, rows=min(ROWS, len(prompt)), query_rows=0 if policy and policy["policy"] == "funnel" else None)
        files.give("model/full.json", full_case(model, prompt_name, prefill, prompt), case)
        if policy:
            kept, recall = kept_case(model, prompt_name, policy, prefill, table)
            name = f"kept_{case}_{'_'.join(policy.values()).lower()}"
            files.give(f"model/{name}.json", kept)
            files.give("model/recall.json", recall, name)


if __name__ == "__main__":
    main()
