"""PyTorch on the shapes of scripts/gpu_check's benchmarks: prefill attention (SDPA, which picks its kernel), decode attention over a cache of
the same bytes, a bfloat16 product, and a copy. One line of JSON each, with random numbers; needs torch and a GPU."""
import json
import time

import torch
import torch.nn.functional as functional

SHAPES = {"llama-3.2-1b": (32, 8, 64), "llama-3-8b": (32, 8, 128)}  # query heads, KV heads, head size


def seconds(work, runs=5):
    """The shortest of several runs by the device's clock."""
    work()
    best = float("inf")
    for _ in range(runs):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        work()
        end.record()
        torch.cuda.synchronize()
        best = min(best, begin.elapsed_time(end) / 1e3)
    return best


def tell(**row):
    print(json.dumps(row), flush=True)


def tensor(*shape):
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16)


def ceilings():
    a, b = tensor(8192, 8192), tensor(8192, 8192)
    tell(what="bfloat16 product 8192^3", teraflops=2 * 8192**3 / seconds(lambda: a @ b) / 1e12)
    source = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    tell(what="copy of 1 GiB, read and written", gigabytes_per_second=2 * source.numel() / seconds(lambda: target.copy_(source)) / 1e9)


def prefill(name, tokens):
    q_heads, kv_heads, size = SHAPES[name]
    q = tensor(1, q_heads, tokens, size)
    k, v = (tensor(1, kv_heads, tokens, size).repeat_interleave(q_heads // kv_heads, 1) for _ in range(2))
    time_taken = seconds(lambda: functional.scaled_dot_product_attention(q, k, v, is_causal=True), runs=2)
    tell(what="prefill attention, one layer", shape=name, tokens=tokens, teraflops=2 * q_heads * size * tokens**2 / time_taken / 1e12)


def decode(name, tokens, sequences):
    q_heads, kv_heads, size = SHAPES[name]
    group = q_heads // kv_heads
    q = tensor(sequences * kv_heads, 1, group, size)  # grouped heads as rows: every cache entry is read once
    k, v = tensor(sequences * kv_heads, 1, tokens, size), tensor(sequences * kv_heads, 1, tokens, size)
    time_taken = seconds(lambda: functional.scaled_dot_product_attention(q, k, v))
    tell(what="decode attention, one layer", shape=name, tokens=tokens, sequences=sequences,
         gigabytes_per_second=2 * k.numel() * k.element_size() / time_taken / 1e9)


def main():
    start = time.monotonic()
    tell(torch=torch.__version__, device=torch.cuda.get_device_name())
    ceilings()
    for name in SHAPES:
        for tokens in (8192, 32768):
            for sequences in (1, 8, 32, 64):
                decode(name, tokens, sequences)
        for tokens in (8192, 32768, 131072):
            if time.monotonic() - start < 45:
                prefill(name, tokens)


if __name__ == "__main__":
    main()
