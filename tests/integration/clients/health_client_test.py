"""grpc.health.v1.Health of the server program as the protocol's own client sees it, of the package grpcio-health-checking."""
import signal
import unittest

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from served import ServedTest

READY = ("", "pyramidkv.v1.GenerationService", "pyramidkv.v1.ModelService", "pyramidkv.v1.StatsService")
Status = health_pb2.HealthCheckResponse


class HealthTest(ServedTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.channel = grpc.insecure_channel(cls.address)
        cls.health = health_pb2_grpc.HealthStub(cls.channel)

    @classmethod
    def tearDownClass(cls):
        cls.channel.close()
        super().tearDownClass()

    def check(self, service):
        return self.health.Check(health_pb2.HealthCheckRequest(service=service)).status

    def watch(self, service):
        call = self.health.Watch(health_pb2.HealthCheckRequest(service=service))
        self.addCleanup(call.cancel)
        return call


class HealthClientTest(HealthTest):
    def test_what_is_served(self):
        for service in (*READY, "live"):
            self.assertEqual(self.check(service), Status.SERVING, service)
            self.assertEqual(next(self.watch(service)).status, Status.SERVING, service)

    def test_an_unknown_service_is_told_which_there_are(self):
        with self.assertRaises(grpc.RpcError) as raised:
            self.check("pyramidkv.v1.Generation")
        self.assertEqual(raised.exception.code(), grpc.StatusCode.NOT_FOUND)
        for name in ("pyramidkv.v1.Generation", "live", *READY):
            self.assertIn(f'"{name}"', raised.exception.details())
        self.assertNotIn("grpc-status-details-bin", dict(raised.exception.trailing_metadata()))
        self.assertEqual(next(self.watch("pyramidkv.v1.Generation")).status, Status.SERVICE_UNKNOWN)


class EndingServerTest(HealthTest):
    def test_who_watches_hears_the_end(self):
        ready, live = self.watch(""), self.watch("live")
        self.assertEqual((next(ready).status, next(live).status), (Status.SERVING, Status.SERVING))
        self.process.send_signal(signal.SIGTERM)
        for watch in (ready, live):
            self.assertEqual(next(watch).status, Status.NOT_SERVING)
            with self.assertRaises(grpc.RpcError) as raised:
                next(watch)
            self.assertEqual(raised.exception.code(), grpc.StatusCode.UNAVAILABLE)
            trailers = dict(raised.exception.trailing_metadata())
            info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
            details = status_pb2.Status.FromString(trailers["grpc-status-details-bin"]).details
            self.assertEqual([detail.Unpack(info) or detail.Unpack(retry) for detail in details], [True, True])
            self.assertEqual(info.reason, "DRAINING")
            self.assertEqual(trailers["grpc-retry-pushback-ms"], str(retry.retry_delay.ToMilliseconds()))
        self.assertEqual(self.process.wait(timeout=60), 0)


if __name__ == "__main__":
    unittest.main()
