"""What hostile.py makes of its times, and the numbers it sends, without a server."""
import math
import unittest

from extremes import NO_NUMBERS, NUMBERS, PLACE, json_body, json_places, wire_values
from judgement import Memory, Times, fault_of, told
from pyramidkv.v1 import cache_pb2, generation_pb2, stats_pb2


class JudgementTest(unittest.TestCase):
    def test_one_try_that_is_quick_is_enough(self):
        self.assertEqual(fault_of([Times(0.1, 0.05)]), "")
        self.assertEqual(fault_of([Times(0.3), Times(0.2), Times(0.1)]), "")

    def test_where_every_try_is_slow_all_are_told(self):
        self.assertIn("102 ms; again 130, 101 (100 are allowed)", fault_of([Times(0.102), Times(0.13), Times(0.101)]))
        self.assertIn("51 ms; again 3 (50 are allowed)", fault_of([Times(0.01, 0.051), Times(0.2, 0.003)]))
        self.assertNotEqual(fault_of([Times(math.inf)]), "")

    def test_times_of_one_try_and_of_several(self):
        self.assertEqual(told([0.0123]), "12 ms")
        self.assertEqual(told([0.102, 0.017, 0.021]), "102 ms; again 17, 21")


class MemoryTest(unittest.TestCase):
    def test_what_grows_all_the_time_is_a_leak(self):
        self.assertEqual(Memory([250e6] * 60).faults(), [])
        self.assertEqual(Memory([250e6 + 50_000 * second for second in range(60)]).faults(), [])
        self.assertEqual(len(Memory([250e6 + 100_000 * second for second in range(60)]).faults()), 1)
        self.assertEqual(len(Memory([250e6 + 10_000 * second for second in range(600)]).faults()), 1)

    def test_what_grows_at_once_is_none_unless_it_is_much(self):
        self.assertEqual(Memory([250e6 + 4e6 * (second > 30) + 4e6 * (second > 50) for second in range(60)]).faults(), [])
        self.assertEqual(len(Memory([250e6 + 9e6 * (second > 50) for second in range(60)]).faults()), 1)

    def test_the_warm_up_counts_for_nothing(self):
        self.assertEqual(Memory([250e6 + 1e6 * min(second, 20) for second in range(60)]).faults(), [])


class ExtremesTest(unittest.TestCase):
    def sent(self, kind, path):
        """Of every value of one field, the message that a server reads from it."""
        return {str(value): kind.FromString(data) for at, value, data in wire_values(kind.DESCRIPTOR) if at == path}

    def test_values_arrive_where_they_belong(self):
        requests = self.sent(generation_pb2.GenerateRequest, "sampling.temperature")
        self.assertTrue(math.isnan(requests["nan"].sampling.temperature))
        self.assertEqual(requests["inf"].sampling.temperature, math.inf)
        intervals = self.sent(stats_pb2.WatchStatsRequest, "interval.seconds")
        self.assertEqual(intervals[str(2**63)].interval.seconds, -2**63)
        comparisons = self.sent(generation_pb2.CompareRequest, "policies.snapkv.window_tokens")
        self.assertEqual(comparisons[str(2**32 - 1)].policies[0].snapkv.window_tokens, 2**32 - 1)
        lists = self.sent(generation_pb2.DetokenizeRequest, "token_ids")
        self.assertEqual(list(lists["16777216"].token_ids), [2**24])

    def test_maps_have_extreme_keys_and_values(self):
        biases = self.sent(generation_pb2.GenerateRequest, f"sampling.logit_bias.[{2**32 - 1}]")
        self.assertEqual(biases["inf"].sampling.logit_bias, {2**32 - 1: math.inf})

    def test_json_has_the_literal_in_its_place(self):
        self.assertEqual(json_body({"n": 1, "prompt": [5, PLACE]}, "NaN"), '{"n": 1, "prompt": [5, NaN]}')
        self.assertEqual(json_body({"logit_bias": {PLACE: 1}}, "-1"), '{"logit_bias": {"-1": 1}}')
        places = list(json_places(cache_pb2.CachePolicy.DESCRIPTOR))
        self.assertIn({"snapkv": {"window_tokens": PLACE}}, places)
        self.assertIn({"pins": [{"end": PLACE}]}, places)

    def test_no_literal_is_in_both_lists(self):
        self.assertFalse(set(NUMBERS) & set(NO_NUMBERS))


if __name__ == "__main__":
    unittest.main()
