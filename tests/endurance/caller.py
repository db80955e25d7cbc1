"""How those who mean harm call the server: any bytes, by any method."""
import concurrent.futures
import http.client
import json
import socket
import time

import grpc
from pyramidkv.v1 import generation_pb2


def request(prompt="hello", max_tokens=4, **fields):
    message = generation_pb2.GenerateRequest(prompt=prompt, **fields)
    message.sampling.max_tokens, message.sampling.ignore_eos = max_tokens, True
    return message


def code_of(call, *arguments, **options):
    """OK, or the name of the code; anything else than an answer of the server is a fault of the caller's."""
    try:
        call(*arguments, **options)
    except grpc.RpcError as error:
        return error.code().name
    return "OK"


def first_of(call):
    """Of a stream its first message, and then it is left."""
    def ask(*arguments, **options):
        stream = call(*arguments, **options)
        next(stream)
        stream.cancel()
    return ask


def is_json(text):
    """As Python has it, but for NaN and the infinite, which JSON does not know."""
    def refuse(word):
        raise ValueError(word)
    try:
        json.loads(text, parse_constant=refuse)
    except ValueError:
        return False
    return True


def at_once(count, work):
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, range(count)))


def eventually(true):
    end = time.monotonic() + 300  # a server under a sanitizer that shares its processors takes minutes
    while not true():
        assert time.monotonic() < end, "it does not come to pass"
        time.sleep(0.05)


class Caller:
    def __init__(self, server):
        self._server, self._generation = server, server.generation
        self.refusal_seconds = []  # of the last one that measured any

    def _raw(self, method, kind="unary_unary"):
        return getattr(self._server.channel, kind)(f"/pyramidkv.v1.{method}", request_serializer=bytes, response_deserializer=bytes)

    def _connect(self, address=""):
        """To OpenAI's API, or where it is said."""
        host, port = (address or self._server.http).split(":")
        return socket.create_connection((host, int(port)), timeout=60)

    def _post(self, path, body):
        connection = http.client.HTTPConnection(self._server.http, timeout=300)
        connection.request("POST", path, body)
        reply = connection.getresponse()
        body = reply.read()
        connection.close()
        return reply.status, body
