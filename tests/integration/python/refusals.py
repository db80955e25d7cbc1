"""What a server says of a call that it refuses, as plain grpcio sees it: shared by the tests beside it."""
import time
import unittest

import grpc
from pyramidkv.v1 import error_details_pb2, stats_pb2

# Those that pass by themselves: whoever gets one is told when to come back.
PASSING = {"KEY_LIMIT", "QUEUE_FULL", "OUT_OF_MEMORY", "LOADING", "DRAINING", "TOO_MANY_WATCHERS"}
PROVOKED = set()  # reasons that a test has asked for and got


class Refusal:
    def __init__(self, error):
        trailers = dict(error.trailing_metadata() or ())
        self.code, self.reason, self.fields, self.figures, self.retry = error.code().name, "", [], {}, 0
        self.pushback = trailers.get("grpc-retry-pushback-ms")
        for item in error_details_pb2.ErrorStatus.FromString(trailers.get("grpc-status-details-bin", b"")).details:
            kind = item.type_url.rsplit(".", 1)[-1]
            detail = getattr(error_details_pb2, kind).FromString(item.value)
            if kind == "ErrorInfo":
                assert detail.domain == "pyramidkv"
                self.reason, self.figures = detail.reason, dict(detail.metadata)
            elif kind == "BadRequest":
                self.fields = [violation.field for violation in detail.field_violations]
            elif kind == "RetryInfo":
                self.retry = detail.retry_delay.seconds + detail.retry_delay.nanos / 1e9


def refusal_of(call, *arguments, **options):
    """None: it was not refused."""
    try:
        call(*arguments, **options)
    except grpc.RpcError as error:
        return Refusal(error)
    return None


class RefusalTest(unittest.TestCase):
    def assert_refusal(self, refusal, code, reason, field=None, figures=()):
        """All that the contract says of it: which field, which figures, and whether it is worth coming back."""
        self.assertIsNotNone(refusal, "the call did not fail")
        self.assertEqual((refusal.code, refusal.reason), (code, reason))
        self.assertEqual(refusal.fields, [field] if field else [])
        self.assertEqual(set(refusal.figures), set(figures))
        self.assertEqual(refusal.retry > 0, reason in PASSING)
        self.assertEqual(refusal.pushback, str(int(refusal.retry * 1000)) if refusal.retry else None)
        PROVOKED.add(reason)
        return refusal

    def eventually(self, condition):
        for _ in range(2400):
            if condition():
                return
            time.sleep(0.05)
        self.fail("what was waited for does not come")

    @staticmethod
    def stats(server):
        return server.stats.GetStats(stats_pb2.GetStatsRequest()).stats
