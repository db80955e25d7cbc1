#!/usr/bin/env python3
"""Makes tests/unit/model/tiny_cases.inc: logits of the tiny models of the unit tests from transformers, in float32.

Usage: pip install torch transformers gguf accelerate
       pkv-tiny-models FOLDER && python3 make_tiny_cases.py FOLDER > ../unit/model/tiny_cases.inc
A line is {model, {token ids}, {{row, token, logit}, ...}}.
"""
import pathlib
import sys

import torch
import transformers
from gguf import GGUFReader

TOKENS = [(37 * i * i + 11 * i + 5) % 320 for i in range(40)]
ROWS, IDS = (0, 1, 17, 39), range(0, 320, 29)


def load(path):
    config = transformers.AutoConfig.from_pretrained(path.parent, gguf_file=path.name)
    fields = GGUFReader(path).fields
    config.head_dim = fields[config.model_type + ".attention.key_length"].contents()  # not read for every architecture
    return transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, config=config, dtype=torch.float32).eval()


def main():
    torch.set_grad_enabled(False)
    transformers.logging.disable_progress_bar()
    print(f"// Made by tests/golden/make_tiny_cases.py with transformers {transformers.__version__}.")
    for path in sorted(pathlib.Path(sys.argv[1]).glob("*.gguf")):
        logits = load(path)(torch.tensor([TOKENS])).logits[0]
        values = ",".join(f"{{{row},{token},{float(logits[row, token]):.5f}}}" for row in ROWS for token in IDS)
        print(f'{{"{path.stem}",\n {{{",".join(map(str, TOKENS))}}},\n {{{values}}}}},')


main()
