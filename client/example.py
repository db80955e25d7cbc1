#!/usr/bin/env python3
"""Asks a running server about a file, under a cache budget, with nothing but grpcio: example.py FILE QUESTION [HOST:PORT]

The README shows how to make the stubs it imports with protoc; python3 -m grpc_tools.protoc of PyPI's grpcio-tools makes them too.
"""
import sys

import grpc
from pyramidkv.v1 import cache_pb2, generation_pb2, generation_pb2_grpc

path, question = sys.argv[1:3]
address = sys.argv[3] if len(sys.argv) > 3 else "127.0.0.1:50051"
with open(path, encoding="utf-8") as file:
    document = file.read()

request = generation_pb2.GenerateRequest(
    chat=generation_pb2.ChatInput(messages=[generation_pb2.ChatMessage(role="user", content=document + "\n\n" + question)]),
    sampling=generation_pb2.SamplingParams(temperature=0, max_tokens=64),
    cache_policy=cache_pb2.CachePolicy(
        pyramidkv=cache_pb2.PyramidKvPolicy(), budget=cache_pb2.CacheBudget(tokens=256)))

with grpc.insecure_channel(address) as channel:
    try:
        for event in generation_pb2_grpc.GenerationServiceStub(channel).GenerateStream(request):
            if event.HasField("delta"):
                print(event.delta.text, end="", flush=True)
            elif event.HasField("end"):
                cache = event.end.cache
                print(f"\n{event.end.usage.prompt_tokens} prompt tokens; a full cache would hold {cache.full_bytes} bytes, "
                      f"this one held {cache.held_bytes}, at most {cache.peak_bytes}; saved {cache.saved_bytes}")
    except grpc.RpcError as error:
        sys.exit(f"{error.code().name}: {error.details()}")
