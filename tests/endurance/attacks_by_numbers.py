"""Every number that a client can send, at its extremes."""
import concurrent.futures
import math

from caller import Caller, code_of, first_of, is_json, request
from extremes import NO_NUMBERS, NUMBERS, PLACE, json_body, json_places, wire_values
from pyramidkv.v1 import cache_pb2, generation_pb2, stats_pb2

# Fields of the HTTP API that are numbers, or hold them; of cache_policy every one that the contract has.
HTTP_FIELDS = [{name: PLACE} for name in (
    "temperature", "top_p", "frequency_penalty", "presence_penalty", "seed", "max_tokens", "max_completion_tokens", "n", "best_of", "top_k", "min_p",
    "repetition_penalty", "min_tokens", "priority", "truncate_prompt_tokens", "stream_interval_tokens")] + [
    {"stop_token_ids": [PLACE]}, {"logit_bias": {"5": PLACE}}, {"logit_bias": {PLACE: 1}}]
HTTP_PLACES = {"/v1/completions": [{"logprobs": PLACE}, {"prompt": [5, PLACE]}, *HTTP_FIELDS,
                                   *({"cache_policy": policy} for policy in json_places(cache_pb2.CachePolicy.DESCRIPTOR))],
               "/v1/chat/completions": [{"logprobs": True, "top_logprobs": PLACE}, *HTTP_FIELDS]}
HTTP_PROMPTS = {"/v1/completions": {"prompt": "some words to read"}, "/v1/chat/completions": {"messages": [{"role": "user", "content": "some words"}]}}


class AttacksByNumbers(Caller):
    def numbers_at_their_extremes(self):
        words = "some words to read, and some more of them"
        prompt, chat = request(words, 2), generation_pb2.TokenizeRequest()
        chat.chat.messages.add(role="user", content=words)
        comparison = generation_pb2.CompareRequest(request=prompt, policies=[cache_pb2.CachePolicy(snapkv=cache_pb2.SnapKvPolicy())])
        comparison.request.sampling.temperature = 0
        generate, stats = (lambda name: self._raw(f"GenerationService/{name}")), (lambda name, kind: self._raw(f"StatsService/{name}", kind))
        asked = []
        for call, base in ((generate("Generate"), prompt), (generate("Compare"), comparison),
                           (generate("EstimateCache"), generation_pb2.EstimateCacheRequest(prompt_tokens=100, max_tokens=10)),
                           (generate("Tokenize"), generation_pb2.TokenizeRequest(text=words)), (generate("Tokenize"), chat),
                           (generate("Detokenize"), generation_pb2.DetokenizeRequest(token_ids=[5])),
                           (stats("GetStats", "unary_unary"), stats_pb2.GetStatsRequest()), (first_of(stats("WatchStats", "unary_stream")), stats_pb2.WatchStatsRequest())):
            asked += [(call, f"{base.DESCRIPTOR.name}.{path}={value}", value, base.SerializeToString() + data) for path, value, data in wire_values(base.DESCRIPTOR)]
        def ask(one):
            call, name, value, data = one
            code = code_of(call, data, timeout=300)
            return code, "" if code in ("INVALID_ARGUMENT", "UNIMPLEMENTED") or code == "OK" and math.isfinite(value) else f"{name}: {code}"
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            codes, wrong = zip(*pool.map(ask, asked))
        assert not any(wrong), [name for name in wrong if name][:20]
        return f"{len(codes)} requests, {codes.count('OK')} answered"

    def numbers_over_http(self):
        asked = [(path, fields, literal) for path, places in HTTP_PLACES.items() for fields in places for literal in (*NUMBERS, *NO_NUMBERS)]
        def ask(one):
            path, fields, literal = one
            base = HTTP_PROMPTS[path] | {"ignore_eos": True} | ({} if "max_completion_tokens" in fields else {"max_tokens": 2})
            status, body = self._post(path, json_body(base | fields, literal))
            taken = status == 200 and b'"usage"' in body and (literal in NUMBERS or fields.get("logit_bias") == {PLACE: 1})
            return status, "" if is_json(body) and (taken or status == 400) else f"{fields} with {literal[:40]}: {status} {body[:200]}"
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            statuses, wrong = zip(*pool.map(ask, asked))
        assert not any(wrong), [what for what in wrong if what][:20]
        taken = [(path, fields) for (path, fields, _), status in zip(asked, statuses) if status == 200]
        unread = [(path, fields) for path, fields, _ in asked if "cache_policy" not in fields and (path, fields) not in taken]
        assert not unread, unread  # no number at all was right
        return f"{len(statuses)} requests, {statuses.count(200)} answered"
