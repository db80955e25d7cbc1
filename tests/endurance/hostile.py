"""Everything that a client can do to harm others, one attack after another, each beside a neighbour that reads its stream:
hostile.py [--untimed] [ATTACK...]. After each everything has to be back. --untimed: all but times is checked."""
import argparse
import math
import os
import signal
import subprocess
import sys
import threading
import time

from attacks import SETTINGS, Attacks
from caller import code_of, eventually, request
from judgement import TRIES, Times, fault_of, told
from watched_server import WatchedServer

ATTACKS = [name for kind in reversed(Attacks.mro()) for name in vars(kind) if not name.startswith("_")]


class Neighbour:
    """One whose stream has begun."""

    def __init__(self, address):
        self.process = subprocess.Popen([sys.executable, os.path.join(os.path.dirname(__file__), "neighbour.py"), address], stdout=subprocess.PIPE, text=True)
        self.lost, self._times = "", []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        eventually(lambda: self._times or self.lost)

    def _read(self):
        for line in self.process.stdout:
            if line.startswith("LOST"):
                self.lost = line.strip()
            self._times.append(float(line) if line[0].isdigit() else None)

    def goes_on(self):
        """Waits for a further token."""
        had = len(self._times)
        eventually(lambda: any(self._times[had:]) or self.lost)

    def gaps(self, begin):
        """(largest, median) seconds between two tokens of one stream, the later of them after `begin`."""
        times = list(self._times)
        gaps = sorted(b - a for a, b in zip(times, times[1:]) if a and b and begin <= b)
        return (gaps[-1], gaps[len(gaps) // 2]) if gaps else (math.inf, math.inf)

    def stop(self):
        self.process.kill()
        self.process.wait()
        self._reader.join()


class Try:
    """Of one attack: what it came to, the neighbour's gaps meanwhile, and what is amiss."""

    def __init__(self, server, attack):
        self.faults = []
        neighbour = Neighbour(server.address)
        begin = time.monotonic()
        try:
            self.what = attack()
            neighbour.goes_on()
        except Exception as error:  # pylint: disable=broad-except
            self.what = repr(error)
            self.faults.append(self.what)
        self.seconds = time.monotonic() - begin
        self.gap, self.median = neighbour.gaps(begin)
        neighbour.stop()
        if neighbour.lost:
            self.faults.append(f"the neighbour: {neighbour.lost}")
        self.faults += server.rest()


def in_mid_stream(server):
    """SIGTERM: what streams ends in order, or with a code that says to go elsewhere."""
    calls = [server.generation.GenerateStream(request("hello", 40)) for _ in range(4)]
    for call in calls:
        next(call)
    server.process.send_signal(signal.SIGTERM)
    return [code_of(list, call) for call in calls]


def wait():
    time.sleep(8)
    return "quiet"


def told_of(tries, times):
    refusals = f", refusals up to {told([one.refusal for one in times])}" if times[0].refusal else ""
    return f"largest gap {told([one.gap for one in times])}, median {tries[0].median * 1000:.1f} ms{refusals}, {tries[0].seconds:.1f} s: {tries[0].what}"


def run(server, names, timed):
    """Sentences about what is amiss."""
    attacks, faults = Attacks(server), []
    if timed:
        quiet = Try(server, wait)
        print(f"{'(nobody)':28} {told_of([quiet], [Times(quiet.gap)])}")
    for name in names:
        print(f"{name:28} ", end="", flush=True)  # first of all, for who ends the server
        tries, times = [], []
        while not tries or timed and times[0].too_long() and len(tries) < TRIES:
            attacks.refusal_seconds = []
            tries.append(Try(server, getattr(attacks, name)))
            times.append(Times(tries[-1].gap, max(attacks.refusal_seconds, default=0)))
            faults += [f"{name}: {fault}" for fault in tries[-1].faults]
        if timed and (fault := fault_of(times)):
            faults.append(f"{name}: {fault}")
        print(told_of(tries, times), flush=True)
    faults += server.faults
    codes = in_mid_stream(server)
    print("(SIGTERM in mid-stream)", codes)
    if not set(codes) <= {"OK", "UNAVAILABLE"}:
        faults.append(f"SIGTERM in mid-stream: {codes}")
    if (code := server.process.wait(timeout=60)) != 0:
        faults.append(f"the server ended with {code}")
    return faults


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("attacks", nargs="*", metavar="ATTACK", default=ATTACKS)
    parser.add_argument("--untimed", action="store_true")
    options = parser.parse_args()
    if wrong := set(options.attacks) - set(ATTACKS):
        parser.error(f"no such attack: {', '.join(wrong)}; there are {', '.join(ATTACKS)}")
    server = WatchedServer(*SETTINGS)
    try:
        faults = run(server, options.attacks, not options.untimed)
    finally:
        server.process.kill()  # where it has not ended
    for fault in faults[:30]:
        print("FAULT:", fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
