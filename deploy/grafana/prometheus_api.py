"""The few calls of Prometheus' HTTP API that checking and drawing need."""
import json
import math
import time
import urllib.error
import urllib.parse
import urllib.request


class Prometheus:
    def __init__(self, url, seconds=0, step=1):
        """Ranges are the last `seconds` before now, in steps of `step` seconds."""
        self.url = url.rstrip("/")
        self.step = step
        self.end = time.time()
        self.start = self.end - seconds

    def _get(self, path, **parameters):
        address = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(address, timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            if error.code == 503:  # it is still starting, and says so in plain words
                raise
            raise ValueError(json.load(error)["error"]) from error

    def range(self, expr):
        """[(labels, [(time, value)...])...] with the values that are numbers; a series without any is left out."""
        series = []
        for row in self._get("query_range", query=expr, start=self.start, end=self.end, step=self.step)["result"]:
            points = [(at, float(value)) for at, value in row["values"] if math.isfinite(float(value))]
            if points:
                series.append((row["metric"], points))
        return sorted(series, key=lambda entry: sorted(entry[0].items()))

    def instant(self, expr):
        """[(labels, value)...] now."""
        return [(row["metric"], float(row["value"][1])) for row in self._get("query", query=expr)["result"]]

    def rules(self):
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]
