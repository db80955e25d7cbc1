"""What is asked of the figures that hostile.py and soak.py come to."""
import typing

GAP = 0.1  # seconds from one token of the neighbour to the next, at most
REFUSAL = 0.05  # seconds until one of too many requests is refused, at most
TRIES = 3  # of an attack: a host that others share takes time away now and then, a defect does it every time


class Times(typing.NamedTuple):
    """Of one try."""

    gap: float
    refusal: float = 0

    def too_long(self):
        return self.gap > GAP or self.refusal > REFUSAL


def told(seconds):
    """Of all tries: `102 ms; again 17, 21`."""
    first, *again = (f"{1000 * value:.0f}" for value in seconds)
    return f"{first} ms" + (f"; again {', '.join(again)}" if again else "")


def fault_of(tries):
    """A sentence where every try took too long."""
    if not all(times.too_long() for times in tries):
        return ""
    kinds = (("the neighbour waited", GAP, [times.gap for times in tries]), ("a refusal took", REFUSAL, [times.refusal for times in tries]))
    return ", ".join(f"{what} {told(seconds)} ({1000 * allowed:.0f} are allowed)" for what, allowed, seconds in kinds if max(seconds) > allowed)


# Memory of a load that stays the same grows at once where more requests than ever before coincide, which becomes rare, and no more
# for a longer run: so what it may grow by does not depend on the time, and the longer the run, the slower the leak that is found.
ONCE = 8 << 20  # bytes that the last third may hold more than the second
STEADY = 256 << 10  # bytes that most windows may grow by; the kernel counts in steps of half as much
WINDOWS = 8  # of the time after the first third


class Memory:
    """Of a process, as it was seen at even times. The first third is its warm-up."""

    def __init__(self, resident):
        third, after = len(resident) // 3, resident[len(resident) // 3:]
        ends = [after[(len(after) - 1) * i // WINDOWS] for i in range(WINDOWS + 1)]
        self.steady = sorted(b - a for a, b in zip(ends, ends[1:]))[(WINDOWS - 1) // 2]  # more than half of the windows grew by so much
        self.first, self.second, self.last = resident[0], max(resident[third:2 * third]), max(resident[2 * third:])

    def __str__(self):
        return (f"resident: {self.first / 2**20:.1f} MiB at first, {self.second / 2**20:.1f} in the second third, {self.last / 2**20:.1f} in the last; "
                f"most of {WINDOWS} windows grew by {self.steady / 2**10:.0f} KiB or more")

    def faults(self):
        faults = []
        if self.steady > STEADY:
            faults.append(f"memory grows by {self.steady:.0f} bytes in most of {WINDOWS} windows ({STEADY} are allowed)")
        if self.last - self.second > ONCE:
            faults.append(f"memory grew by {self.last - self.second:.0f} bytes from the second third to the last ({ONCE} are allowed)")
        return faults
