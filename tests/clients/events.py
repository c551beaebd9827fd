"""What the two Python clients share: the records, the case runner, the numbers of the traffic."""

import hashlib
import json
import os
import sys
import threading
import time
import traceback

PARTITIONS = 3
COUNT = 60
FIRST_MS = 1735689600000
PER_SECOND = 100


class Skip(Exception):
    """Ends a case that this client cannot run."""


def value(i):
    """Null, empty, every byte there is, one value larger than a socket buffer, JSON for the rest."""
    if i % 10 == 3:
        return None
    if i % 10 == 4:
        return b""
    if i == 20:
        return bytes((at * 31 + at // 251) & 0xFF for at in range(200_000))
    if i % 10 == 5:
        return bytes(range(256))
    return b'{"event_type":"user.authenticated","org_id":%d,"sequence":%d}' % (i % 5, i)


def event(i):
    """Partition, key, value, headers and timestamp of the record numbered `i`."""
    headers = []
    if i % 4:
        headers = [
            ("event-type", b"user.authenticated"),
            ("trace", b"a%d" % i),
            ("trace", b"b%d" % i),
            ("empty", b""),
        ]
    return {
        "partition": i % PARTITIONS,
        "key": None if i % 7 == 0 else b"org-%d" % (i % 5),
        "value": value(i),
        "headers": headers,
        "timestamp": FIRST_MS + i,
    }


def line(record):
    """One record as text that holds every byte of it."""
    text = lambda b: "null" if b is None else bytes(b).hex()
    parts = [text(record["key"]), text(record["value"]), str(record["timestamp"])]
    parts += [f"{name}={text(content)}" for name, content in record["headers"]]
    return "|".join(parts)


def same(facts, records, sent):
    """Fails unless `records` are exactly the events sent; the digest covers every byte."""
    got, want = {}, {}
    for record in records:
        got.setdefault(record["partition"], []).append(line(record))
    for i in range(sent):
        want.setdefault(event(i)["partition"], []).append(line(event(i)))
    facts["counts"] = {f"p{p}": len(lines) for p, lines in sorted(got.items())}
    facts["digest"] = digest(sorted(got.items()))
    assert got == want, f"the records read are not the records sent: {facts['counts']}"


def digest(thing):
    return hashlib.sha256(repr(thing).encode()).hexdigest()[:16]


def security():
    """What the harness says of security: its kind, and the rest by the names after `CLIENT_`."""
    told = {name[7:]: value for name, value in os.environ.items() if name.startswith("CLIENT_")}
    return told.get("SECURITY", "plaintext"), told


def wanted(name, words):
    return not words or any(name == w or name.startswith(w + "/") for w in words)


def say(answer):
    print(json.dumps(answer), flush=True)


def run(cases, words, limit=90):
    """Runs each case wanted in a thread of its own and prints its line."""
    for name, case in cases.items():
        if not wanted(name, words):
            continue
        facts, outcome, start = {}, {}, time.monotonic()

        def body():
            try:
                case(facts)
                outcome["ok"] = True
            except Skip as skip:
                outcome["skip"] = str(skip)
            except BaseException as failed:
                outcome.update(ok=False, error=f"{type(failed).__name__}: {failed}")
                traceback.print_exc()

        thread = threading.Thread(target=body, daemon=True)
        thread.start()
        thread.join(limit)
        if thread.is_alive():
            outcome.update(ok=False, error=f"did not end in {limit} s")
            stack = sys._current_frames().get(thread.ident)
            if stack:
                traceback.print_stack(stack)
        ms = int((time.monotonic() - start) * 1000)
        say({"case": name, **outcome, "detail": dict(facts), "ms": ms})


def ranges(ids):
    """Numbers as `0-41,43`."""
    spans = []
    for number in sorted(ids):
        if spans and spans[-1][1] == number - 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in spans)


class Flow:
    """Tells the harness once that events flow, and hears from it when to stop producing."""

    def __init__(self, seconds):
        self.end, self.told = time.monotonic() + seconds, False
        self.file = os.environ.get("TRAFFIC_STOP")

    def goes_on(self, acknowledged, consumed):
        if not self.told and acknowledged and consumed:
            self.told = True
            say({"flows": len(acknowledged)})
        stopped = self.file is not None and os.path.exists(self.file)
        return time.monotonic() < self.end and not stopped


def traffic_report(topic, sent, acknowledged, consumed, errors):
    missing = sorted(acknowledged - consumed)
    say({
        "traffic": topic,
        "sent": sent,
        "acknowledged": len(acknowledged),
        "consumed": len(consumed),
        "refused": sum(errors.values()),
        "errors": errors,
        "missing": missing[:20],
        "ids": ranges(acknowledged),
    })
