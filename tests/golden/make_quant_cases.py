#!/usr/bin/env python3
"""Makes tests/unit/quant/quant_cases.inc: random weight blocks and their values from the numpy dequantisers of the `gguf` package.

Usage: pip install gguf numpy && python3 make_quant_cases.py > ../unit/quant/quant_cases.inc
Every field of a block is random; scales and minima are ordinary halves, with one subnormal and one negative among them.
"""
import importlib.metadata

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGML_QUANT_SIZES
from gguf.quants import dequantize

BLOCKS = 3
# Byte offsets of the half-precision fields of one block.
HALVES = {
    Type.F16: [0], Type.BF16: [], Type.Q4_0: [0], Type.Q4_1: [0, 2], Type.Q5_0: [0], Type.Q5_1: [0, 2], Type.Q8_0: [0],
    Type.Q4_K: [0, 2], Type.Q5_K: [0, 2], Type.Q6_K: [208],
}


def halves(rng, index):
    value = np.float16(rng.uniform(0.001, 0.1))
    if index == 1:
        value = np.float16(-value)
    if index == 2:
        value = np.float16(3.3e-6)  # a subnormal half
    return value.view(np.uint16).tobytes()


def main():
    rng = np.random.default_rng(20240611)
    print(f"// Made by tests/golden/make_quant_cases.py with gguf {importlib.metadata.version('gguf')}; float32 bit patterns.")
    for kind, offsets in HALVES.items():
        weights, size = GGML_QUANT_SIZES[kind]
        count = BLOCKS if weights > 1 else 48
        raw = rng.integers(0, 256, (count, size), dtype=np.uint8)
        if kind == Type.BF16:
            raw[:, 1] = rng.integers(0x3C, 0x44, count)  # ordinary exponents
            raw[::3, 1] |= 0x80
        for block in range(count):
            for offset in offsets:
                raw[block, offset:offset + 2] = np.frombuffer(halves(rng, block), np.uint8)
        values = dequantize(raw.reshape(1, -1), kind).astype(np.float32).reshape(-1)
        assert np.isfinite(values).all()
        # The package multiplies in float32 as ggml does, so bit patterns are comparable, not only values.
        print(f'{{"{kind.name}",\n {{{",".join(map(str, raw.reshape(-1)))}}},')
        print(f' {{{",".join(hex(x) for x in values.view(np.uint32))}}}}},')


main()
