"""What the peers' benchmarks share: tasks, time, and the figures on standard output."""

import json
import os
import statistics
import sys
import time

QUICK = os.environ.get("PEER_QUICK") == "1"
TUNED = os.environ.get("PEER_TUNED") == "1"
# A tenth and one try each, to see that it works.
TRIES = 1 if QUICK else 3
BLOCK = 64 << 20


def inc(x):
    return x + 1


def inc_list(xs):
    return [x + 1 for x in xs]


def add(a, b):
    return a + b


def touch(data):
    """Reads one byte of each page."""
    return int(data[::4096].sum(dtype="int64"))


def make(size):
    import numpy

    return numpy.full(size, 7, dtype="uint8")


def spin(turns):
    """Counts: the same work wherever and whenever it runs, unlike waiting for a clock."""
    x = 0
    for i in range(turns):
        x = x * 31 + i & 0xFFFF
    return x


def turns_per_us():
    """How far `spin` counts in a microsecond of processor time: the most of some attempts."""
    best = 0.0
    for _ in range(20):
        start = time.thread_time()
        spin(100_000)
        best = max(best, 100_000 / (time.thread_time() - start) / 1e6)
    return best


def scaled(count):
    return count // 10 if QUICK else count


def seconds(run, expected):
    """How long it takes, after which the result is looked at."""
    start = time.perf_counter()
    result = run()
    taken = time.perf_counter() - start
    assert expected(result), "a result is wrong"
    return taken


def median(run, expected):
    return statistics.median(seconds(run, expected) for _ in range(TRIES))


def tree(submit, leaves):
    """The sum of 0..leaves by pairs: `leaves - 1` calls. Gives the last one."""
    level = list(range(leaves))
    while len(level) > 1:
        level = [submit(add, level[i], level[i + 1]) for i in range(0, len(level), 2)]
    return level[0]


def chain(submit, links):
    last = 0
    for _ in range(links):
        last = submit(inc, last)
    return last


class Peer:
    """What is measured the same way of any peer.

    A peer has `submit(function, *arguments)`, `map(function, items)` and `gather(calls)`.
    """

    def __init__(self, name):
        self.name = name
        self.figures = {}

    def put(self, key, value):
        self.figures[key] = value
        print(f"peers: {self.name}: {key} {value:.4g}", file=sys.stderr, flush=True)

    def warm(self):
        self.gather(self.map(inc, range(1000)))
        for x in range(20):
            self.gather([self.submit(inc, x)])

    def roundtrips(self):
        times = sorted(
            seconds(lambda x=x: self.gather([self.submit(inc, x)]), lambda got, x=x: got == [x + 1])
            for x in range(scaled(1000))
        )
        self.put("roundtrip_p50_us", times[len(times) // 2] * 1e6)
        self.put("roundtrip_p99_us", times[len(times) * 99 // 100] * 1e6)

    def maps(self):
        count = scaled(100_000)
        taken = seconds(lambda: self.gather(self.map(inc, range(count))), lambda got: got == list(range(1, count + 1)))
        self.put("map_100k_items_per_s", count / taken)

    def batches(self):
        """By the user's hand: there is no other way to get so many tiny items through."""
        import numpy

        batch = 10_000

        def lists(count):
            results = self.gather(self.map(inc_list, [list(range(i, i + batch)) for i in range(0, count, batch)]))
            return [x for xs in results for x in xs]

        def arrays(count):
            results = self.gather(self.map(inc, [numpy.arange(i, i + batch) for i in range(0, count, batch)]))
            return numpy.concatenate(results)

        if TUNED:
            count = scaled(10_000_000)
            taken = seconds(lambda: arrays(count), lambda got: numpy.array_equal(got, numpy.arange(1, count + 1)))
        else:
            # A tenth: Dask needs minutes for ten million in lists, and its rate is the same.
            count = scaled(1_000_000)
            taken = seconds(lambda: lists(count), lambda got: got == list(range(1, count + 1)))
        self.put("batched_10m_items_per_s", count / taken)

    def graphs(self):
        leaves = 4096
        taken = median(
            lambda: self.gather([tree(self.submit, leaves)]), lambda got: got == [leaves * (leaves - 1) // 2]
        )
        self.put("tree4096_calls_per_s", (leaves - 1) / taken)
        taken = median(lambda: self.gather([chain(self.submit, 1000)]), lambda got: got == [1000])
        self.put("chain1000_calls_per_s", 1000 / taken)

    def efficiency(self, processors=2):
        """Of the processors' time, the part that went into the tasks."""
        speed = turns_per_us()
        for key, us, count in [("eff_100us", 100, 2000), ("eff_1ms", 1000, 1000), ("eff_10ms", 10_000, 200)]:
            count, turns = scaled(count), int(us * speed)
            result = spin(turns)
            taken = median(lambda: self.gather(self.map(spin, [turns] * count)), lambda got: got == [result] * count)
            self.put(key, count * us / 1e6 / processors / taken)

    def run(self):
        self.warm()
        self.roundtrips()
        self.graphs()
        self.efficiency()
        self.bulk()
        self.batches()
        self.maps()
        print(json.dumps(self.figures))
