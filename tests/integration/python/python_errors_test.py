"""Every refusal of the contract, one by one, as plain grpcio sees it: code, reason, field, figures, and when to come back."""
import os
import re
import unittest

from real_server import SOURCE
from refusals import PROVOKED


class Reasons(unittest.TestCase):
    def test_every_reason_that_there_is_was_provoked(self):
        with open(os.path.join(SOURCE, "server", "api", "errors.h"), encoding="utf-8") as header:
            reasons = set(re.findall(r'^inline constexpr std::string_view k\w+ = "([A-Z_]+)";', header.read(), re.MULTILINE))
        self.assertIn("BAD_INPUT", reasons)
        self.assertEqual(PROVOKED, reasons)


def load_tests(loader, own, _):
    provoking = loader.loadTestsFromNames(("errors_of_requests", "errors_of_limits", "errors_of_servers"))
    return unittest.TestSuite((provoking, own))


if __name__ == "__main__":
    unittest.main()
