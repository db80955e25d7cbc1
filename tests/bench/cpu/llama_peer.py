#!/usr/bin/env python3
"""Rates of llama.cpp (PyPI's llama-cpp-python) on a file, as one line of JSON; a process of its own, so that nothing else runs
beside it. With --quantize FILE it writes MODEL to it as Q4_0 instead, which llama.cpp repacks for the CPU it runs on.

    llama_peer.py MODEL.gguf [--threads N] [--prompts 1,512] [--decode 48] [--sequences 16] [--sequence-tokens 2048] [--plain]
"""
import argparse
import ctypes
import json
import sys
import time

import llama_cpp as llama
import numpy

BATCH = 2048


def silence():
    callback = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)
    llama.llama_log_set(callback, None)
    return callback  # to be kept as long as llama.cpp may log


class Context:
    """One context of a model with flash attention and its f16 cache, fed with random tokens."""

    def __init__(self, model, threads, tokens, sequences=1):
        settings = llama.llama_context_default_params()
        settings.n_ctx, settings.n_seq_max = tokens * sequences, sequences
        settings.n_batch, settings.n_ubatch = BATCH, 512
        settings.n_threads = settings.n_threads_batch = threads
        settings.flash_attn_type = 1
        settings.kv_unified = False
        self.context = llama.llama_init_from_model(model, settings)
        self.batch = llama.llama_batch_init(BATCH, 0, 1)
        self.rng = numpy.random.default_rng(0)
        self.memory = llama.llama_get_memory(self.context)

    def close(self):
        llama.llama_batch_free(self.batch)
        llama.llama_free(self.context)

    def run(self, rows):
        """rows: (position, sequence, whether its logits are wanted)."""
        batch = self.batch
        batch.n_tokens = len(rows)
        tokens = self.rng.integers(100, 40000, len(rows))
        for i, (position, sequence, wanted) in enumerate(rows):
            batch.token[i], batch.pos[i], batch.logits[i] = int(tokens[i]), position, wanted
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
        if llama.llama_decode(self.context, batch) != 0:
            sys.exit("llama_decode failed")

    def read(self, tokens):
        """Reads a prompt into sequence 0 of an empty memory and returns its seconds."""
        llama.llama_memory_clear(self.memory, True)
        begin = time.perf_counter()
        for first in range(0, tokens, BATCH):
            end = min(first + BATCH, tokens)
            self.run([(position, 0, position == tokens - 1) for position in range(first, end)])
        return time.perf_counter() - begin

    def generate(self, position, count, sequences=1):
        begin = time.perf_counter()
        for i in range(count):
            self.run([(position + i, sequence, True) for sequence in range(sequences)])
        return time.perf_counter() - begin


def rates(model, options):
    prompts = [int(count) for count in options.prompts.split(",")]
    context = Context(model, options.threads, max(prompts + [256]) + options.decode)
    context.read(256)
    result = {}
    for prompt in prompts:
        reading = context.read(prompt)
        result[str(prompt)] = {"prefill": prompt / reading, "decode": options.decode / context.generate(prompt, options.decode)}
    context.close()
    return result


def rate_of_many(model, options):
    """Tokens a second of all sequences together. One prompt is read and copied to the others."""
    context = Context(model, options.threads, options.sequence_tokens + options.decode + 2, options.sequences)
    context.read(options.sequence_tokens)
    for sequence in range(1, options.sequences):
        llama.llama_memory_seq_cp(context.memory, 0, sequence, -1, -1)
    context.generate(options.sequence_tokens, 1, options.sequences)  # makes the copies
    seconds = context.generate(options.sequence_tokens + 1, options.decode, options.sequences)
    context.close()
    return options.sequences * options.decode / seconds


def quantize(source, target, threads):
    settings = llama.llama_model_quantize_default_params()
    settings.ftype, settings.allow_requantize, settings.nthread = llama.LLAMA_FTYPE_MOSTLY_Q4_0, True, threads
    if llama.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(settings)) != 0:
        sys.exit("llama.cpp could not write " + target)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--prompts", default="512")
    parser.add_argument("--decode", type=int, default=48)
    parser.add_argument("--sequences", type=int, default=0)
    parser.add_argument("--sequence-tokens", type=int, default=2048)
    parser.add_argument("--plain", action="store_true", help="without repacked weights")
    parser.add_argument("--quantize")
    options = parser.parse_args()
    silent = silence()
    if options.quantize:
        return quantize(options.model, options.quantize, options.threads)
    settings = llama.llama_model_default_params()
    settings.use_extra_bufts = not options.plain
    model = llama.llama_model_load_from_file(options.model.encode(), settings)
    if model is None:
        sys.exit("llama.cpp cannot load " + options.model)
    result = {"version": "llama-cpp-python " + llama.__version__, "runs": rates(model, options)}
    if options.sequences:
        result["many"] = rate_of_many(model, options)
    print(json.dumps(result))
    del silent


if __name__ == "__main__":
    main()
