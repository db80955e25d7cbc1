"""A client that only reads its stream, one after another: neighbour.py ADDRESS. A line for every token: when it came, by the clock
that all processes share; an empty line where a stream ended."""
import sys
import time

import grpc
from pyramidkv.v1 import generation_pb2, generation_pb2_grpc


def main(address):
    generation = generation_pb2_grpc.GenerationServiceStub(grpc.insecure_channel(address))
    request = generation_pb2.GenerateRequest(prompt="Count: one, two, three,")
    request.sampling.max_tokens, request.sampling.ignore_eos, request.sampling.temperature = 1500, True, 0
    while True:
        try:
            for event in generation.GenerateStream(request):
                if event.HasField("delta"):
                    print(time.monotonic(), flush=True)
        except grpc.RpcError as error:
            print("LOST", error.code().name, error.details(), flush=True)
            return
        print(flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
