#!/usr/bin/env python3
"""Rates of PyTorch on the same weights in bfloat16 (transformers, SDPA; oneDNN takes AMX or AVX-512 where they are), as one line of
JSON; needs torch, transformers and gguf.

    torch_peer.py MODEL.gguf [--threads N] [--prompts 512,2048] [--decode 16]
"""
import argparse
import json
import os
import time

import torch
from transformers import AutoModelForCausalLM


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--prompts", default="512")
    parser.add_argument("--decode", type=int, default=16)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    folder, file = os.path.split(os.path.abspath(options.model))
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.bfloat16, attn_implementation="sdpa").eval()
    runs = {}
    with torch.no_grad():
        model(torch.randint(100, 40000, (1, 256)), logits_to_keep=1)
        for prompt in map(int, options.prompts.split(",")):
            begin = time.perf_counter()
            out = model(torch.randint(100, 40000, (1, prompt)), use_cache=True, logits_to_keep=1)
            middle = time.perf_counter()
            for _ in range(options.decode):
                out = model(torch.tensor([[200]]), past_key_values=out.past_key_values, use_cache=True)
            end = time.perf_counter()
            runs[str(prompt)] = {"prefill": prompt / (middle - begin), "decode": options.decode / (end - middle)}
    print(json.dumps({"version": "PyTorch " + torch.__version__, "runs": runs}))


if __name__ == "__main__":
    main()
