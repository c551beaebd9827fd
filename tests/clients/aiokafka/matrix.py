"""The aiokafka client of the matrix: `matrix.py BOOTSTRAP PREFIX [CASE...]` or
`matrix.py traffic BOOTSTRAP TOPIC SECONDS [GRACE]`."""

import asyncio
import base64
import json
import logging
import os
import ssl
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import events  # noqa: E402
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition  # noqa: E402
from aiokafka.abc import AbstractTokenProvider  # noqa: E402
from aiokafka.admin import (  # noqa: E402
    AIOKafkaAdminClient,
    NewPartitions,
    NewTopic,
    RecordsToDelete,
)
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType  # noqa: E402
from aiokafka.errors import KafkaError, for_code  # noqa: E402

LIMIT = 40


class Tokens(AbstractTokenProvider):
    """Client credentials at a token endpoint; a token serves until most of its life is over."""

    def __init__(self, told):
        self.told, self.answer, self.until = told, None, 0

    async def token(self):
        if time.monotonic() >= self.until:
            loop = asyncio.get_running_loop()
            self.answer = await loop.run_in_executor(None, self.ask)
            self.until = time.monotonic() + 0.8 * self.answer["expires_in"]
        return self.answer["access_token"]

    def ask(self):
        credentials = f"{self.told['ID']}:{self.told['SECRET']}".encode()
        form = {"grant_type": "client_credentials", "scope": self.told["SCOPE"]}
        request = urllib.request.Request(
            self.told["TOKEN_URL"], urllib.parse.urlencode(form).encode(),
            {"Authorization": "Basic " + base64.b64encode(credentials).decode()})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)


def security():
    """How the client proves who it is, as the environment says; its own stock settings."""
    kind, told = events.security()
    if kind == "plaintext":
        return {}
    context = ssl.create_default_context(cafile=told["CA"])
    if kind == "mtls":
        context.load_cert_chain(told["CERT"], told["KEY"])
        return {"security_protocol": "SSL", "ssl_context": context}
    return {"security_protocol": "SASL_SSL", "ssl_context": context,
            "sasl_mechanism": "OAUTHBEARER", "sasl_oauth_token_provider": Tokens(told)}


def name_of(code):
    return for_code(code).__name__


async def error_of(attempt):
    """The client's name for the broker's error, or `none`."""
    try:
        await attempt()
        return "none"
    except KafkaError as refused:
        return type(refused).__name__


async def until(attempt, want):
    """Metadata follows an admin call a moment later: asks again for up to ten seconds."""
    got = await attempt()
    for _ in range(100):
        if got == want:
            break
        await asyncio.sleep(0.1)
        got = await attempt()
    return got


class Matrix:
    def __init__(self, bootstrap, prefix):
        self.bootstrap, self.prefix, self.cases = bootstrap, prefix, {}
        for codec in (None, "gzip", "snappy", "lz4", "zstd"):
            self.add_produce(codec, "all", False)
        self.add_produce(None, 0, False)
        self.add_produce(None, 1, False)
        self.add_produce("lz4", 1, False)
        self.add_produce(None, "all", True)
        self.add_produce("zstd", "all", True)
        self.add("produce/missing-topic", self.missing_topic)
        self.add("produce/too-large", self.too_large)
        self.add("group/classic", self.classic)
        self.lacks("group/consumer", "aiokafka has no group.protocol=consumer (KIP-848)")
        self.lacks("group/share", "aiokafka has no share consumer (KIP-932)")
        self.add("transaction/commit-abort", self.commit_abort)
        self.add("transaction/offsets", self.transaction_offsets)
        self.add("transaction/fenced", self.fenced)
        for name in dir(self):
            if name.startswith("admin_"):
                self.add("admin/" + name[6:].replace("_", "-"), getattr(self, name))

    def add(self, name, case):
        self.cases[name] = lambda facts: asyncio.run(self.within(case, facts))

    async def within(self, case, facts):
        self.admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap, **security())
        await self.admin.start()
        try:
            await case(facts)
        finally:
            await self.admin.close()

    def lacks(self, name, reason):
        def case(facts):
            raise events.Skip(reason)
        self.cases[name] = case

    def producer(self, **extra):
        extra = {"linger_ms": 5, "request_timeout_ms": 10000, **extra}
        return AIOKafkaProducer(bootstrap_servers=self.bootstrap, **security(), **extra)

    def consumer(self, *topics, **extra):
        extra = {"auto_offset_reset": "earliest", "enable_auto_commit": False, **extra}
        return AIOKafkaConsumer(*topics, bootstrap_servers=self.bootstrap, fetch_max_wait_ms=100,
                                **security(), **extra)

    async def topic(self, name, partitions, **config):
        """Creates a topic of this run, waits until its leaders answer, gives its full name."""
        name = self.prefix + name
        await self.create(name, partitions, config)
        places = [TopicPartition(name, p) for p in range(partitions)]
        async with self.consumer() as consumer:
            await until(lambda: error_of(lambda: consumer.end_offsets(places)), "none")
        return name

    async def create(self, name, partitions, config, replicas=1):
        new = NewTopic(name, partitions, replicas, topic_configs=config)
        answer = await self.admin.create_topics([new])
        return name_of(answer.topic_errors[0][1])

    async def send(self, topic, texts, partitions, producer=None):
        own = producer or self.producer(acks="all")
        if not producer:
            await own.start()
        for i, text in enumerate(texts):
            await own.send(topic, text.encode(), partition=i % partitions)
        await own.flush()
        if not producer:
            await own.stop()

    async def send_events(self, producer, topic):
        sent = []
        for i in range(events.COUNT):
            event = events.event(i)
            event["timestamp_ms"] = event.pop("timestamp")
            sent.append(await producer.send(topic, **event))
        return [await answer for answer in sent]

    async def read_all(self, topic, want, **extra):
        async with self.consumer(**extra) as consumer:
            while not consumer.partitions_for_topic(topic):
                await consumer._client.force_metadata_update()
                await consumer.topics()
            places = [TopicPartition(topic, p) for p in consumer.partitions_for_topic(topic)]
            consumer.assign(places)
            await consumer.seek_to_beginning(*places)
            records, end = [], time.monotonic() + 20
            while len(records) < want and time.monotonic() < end:
                records += await self.poll(consumer, 200)
            return records + await self.poll(consumer, 300)

    @staticmethod
    async def poll(consumer, ms):
        batches = await consumer.getmany(timeout_ms=ms)
        return [{
            "partition": record.partition, "offset": record.offset, "key": record.key,
            "value": record.value, "timestamp": record.timestamp, "headers": record.headers,
        } for batch in batches.values() for record in batch]

    # Produce

    def add_produce(self, codec, acks, idempotent):
        name = f"produce/{codec or 'none'}/" + ("idempotent" if idempotent else f"acks={acks}")

        async def case(facts):
            topic = await self.topic(name.replace("/", ".").replace("=", "-"), events.PARTITIONS)
            async with self.producer(compression_type=codec, acks=acks, max_request_size=2000000,
                                     enable_idempotence=idempotent) as producer:
                answers = await self.send_events(producer, topic)
                await producer.flush()
                if acks != 0:
                    facts["lastOffsets"] = {f"p{a.partition}": a.offset for a in answers}
            events.same(facts, await self.read_all(topic, events.COUNT), events.COUNT)

        self.add(name, case)

    async def missing_topic(self, facts):
        async with self.producer(request_timeout_ms=2000) as producer:
            facts["error"] = await error_of(
                lambda: producer.send_and_wait(self.prefix + "user.nowhere", b"x"))

    async def too_large(self, facts):
        topic = await self.topic("user.small", 1, **{"max.message.bytes": "2000"})
        async with self.producer(acks="all") as producer:
            facts["large"] = await error_of(lambda: producer.send_and_wait(topic, b"\0" * 5000))
            facts["small"] = (await producer.send_and_wait(topic, b"\0" * 50)).offset

    # Groups

    async def classic(self, facts):
        topic = await self.topic("workflow.requested.classic", 4)
        group = self.prefix + "ai-service-group.classic"
        await self.send(topic, [f"event-{i}" for i in range(40)], 4)
        member = lambda name: self.consumer(topic, group_id=group, client_id=name,
                                            heartbeat_interval_ms=500, session_timeout_ms=10000)
        seen, after, end = set(), {}, time.monotonic() + LIMIT

        async def collect(one, into):
            for record in await self.poll(one, 100):
                into.add(record["value"].decode())
                place = TopicPartition(topic, record["partition"])
                after[place] = record["offset"] + 1

        first, second, third = member("first"), member("second"), member("third")
        await first.start()
        while len(seen) < 40 and time.monotonic() < end:
            await collect(first, seen)
        facts["alone"], facts["readAlone"] = len(first.assignment()), len(seen)
        await first.commit()
        joining = asyncio.create_task(second.start())
        while not joining.done() and time.monotonic() < end:
            await collect(first, seen)
        await joining
        sizes = lambda: [len(first.assignment()), len(second.assignment())]
        while sizes() != [2, 2] and time.monotonic() < end:
            await collect(first, seen)
            await collect(second, seen)
        facts["shared"] = sizes()
        await self.send(topic, [f"event-{i}" for i in range(40, 60)], 4)
        while len(seen) < 60 and time.monotonic() < end:
            await collect(first, seen)
            await collect(second, seen)
        facts["readShared"] = len(seen)
        described = (await self.admin.describe_consumer_groups([group]))[0].groups[0]
        facts["described"] = [name_of(described[0]), described[2], described[3], described[4],
                              sorted(m[1] if isinstance(m[1], str) else m[2] for m in described[5])]
        for one in (first, second):
            await one.commit({p: after[p] for p in one.assignment() if p in after})
        await first.stop()
        await second.stop()
        await self.send(topic, [f"event-{i}" for i in range(60, 68)], 4)
        resumed, end = set(), time.monotonic() + LIMIT
        await third.start()
        while len(resumed) < 8 and time.monotonic() < end:
            await collect(third, resumed)
        facts["resumed"] = sorted(resumed)
        await third.commit()
        await third.stop()
        offsets = await self.admin.list_consumer_group_offsets(group)
        facts["committed"] = sorted((p.partition, o.offset) for p, o in offsets.items())
        assert len(seen) == 60, f"read {len(seen)} of 60 events in the group"
        assert len(resumed) == 8, f"resumed with {len(resumed)} of 8 events"

    # Transactions

    def transactional(self, name):
        return self.producer(transactional_id=self.prefix + name)

    async def commit_abort(self, facts):
        topic = await self.topic("saga.started", 3)
        async with self.transactional("saga") as producer:
            for name in ("kept", "dropped", "kept-too"):
                await producer.begin_transaction()
                await self.send(topic, [f"{name}/{i}" for i in range(10)], 3, producer)
                if name == "dropped":
                    await producer.abort_transaction()
                else:
                    await producer.commit_transaction()
        for isolation, want in (("read_committed", 20), ("read_uncommitted", 30)):
            records = await self.read_all(topic, want, isolation_level=isolation)
            names = [r["value"].decode().split("/")[0] for r in records]
            facts[isolation] = {name: names.count(name) for name in sorted(set(names))}
            assert len(records) == want, f"{isolation} saw {len(records)} of {want}"

    async def transaction_offsets(self, facts):
        source = await self.topic("saga.requested", 3)
        target = await self.topic("saga.compensated", 3)
        group = self.prefix + "saga-service"
        await self.send(source, [f"request-{i}" for i in range(10)], 3)
        async with self.consumer(source, group_id=group) as consumer, \
                self.transactional("saga-offsets") as producer:
            records, end = [], time.monotonic() + 20
            while len(records) < 10 and time.monotonic() < end:
                records += await self.poll(consumer, 200)
            async with producer.transaction():
                for record in records:
                    await producer.send(target, record["value"], partition=record["partition"])
                offsets = {p: await consumer.position(p) for p in consumer.assignment()}
                await producer.send_offsets_to_transaction(offsets, group)

            async def committed():
                return sorted([(p.partition, await consumer.committed(p) or 0)
                               for p in consumer.assignment()])

            # The marker that makes them visible follows the answer a moment later.
            facts["committed"] = await until(committed, [(0, 4), (1, 3), (2, 3)])
        copied = await self.read_all(target, 10, isolation_level="read_committed")
        facts["copied"] = len(copied)
        assert len(copied) == 10, f"copied {len(copied)} of 10"

    async def fenced(self, facts):
        topic = await self.topic("saga.fenced", 3)
        old = self.transactional("saga-fenced")
        await old.start()
        await old.begin_transaction()
        await self.send(topic, [f"old-{i}" for i in range(10)], 3, old)
        async with self.transactional("saga-fenced") as young, young.transaction():
            await self.send(topic, [f"young-{i}" for i in range(10)], 3, young)
        facts["error"] = await error_of(old.commit_transaction)
        try:
            await old.stop()
        except KafkaError:
            pass
        facts["seen"] = len(await self.read_all(topic, 10, isolation_level="read_committed"))

    # Admin

    async def admin_create_topic(self, facts):
        name, bad = self.prefix + "ai.created", self.prefix + "ai.bad"
        facts["created"] = await self.create(name, 3, {"retention.ms": "604800000"})
        facts["again"] = await self.create(name, 3, {})
        facts["badName"] = await self.create("a b", 3, {})
        facts["badConfig"] = await self.create(bad, 3, {"no.such": "1"})
        facts["badReplication"] = await self.create(bad, 3, {}, 30)

    async def admin_list_topics(self, facts):
        name = await self.topic("ai.listed", 2)
        facts["listed"] = [t for t in await self.admin.list_topics() if t == name]

    async def admin_describe_topics(self, facts):
        name = await self.topic("ai.described", 3)
        described = await self.admin.describe_topics([name, self.prefix + "ai.missing"])
        for topic in sorted(described, key=lambda t: t["topic"]):
            facts[topic["topic"]] = [name_of(topic["error_code"]), sorted(
                (p["partition"], len(p["replicas"]), len(p["isr"]), p["leader"])
                for p in topic["partitions"])]

    async def admin_describe_cluster(self, facts):
        cluster = await self.admin.describe_cluster()
        facts["cluster"] = cluster.get("cluster_id")
        facts["nodes"] = sorted(b["node_id"] for b in cluster["brokers"])
        facts["controller"] = cluster["controller_id"] in facts["nodes"]

    async def configs(self, kind, name):
        resource = ConfigResource(kind, name)
        answer = (await self.admin.describe_configs([resource]))[0].resources[0]
        return name_of(answer[0]), {entry[0]: entry[1] for entry in answer[4]}

    async def admin_describe_configs(self, facts):
        name = await self.topic("ai.configured", 1)
        for kind, what in ((ConfigResourceType.TOPIC, name), (ConfigResourceType.BROKER, "1")):
            error, entries = await self.configs(kind, what)
            # Addresses differ through a proxy; everything else must not.
            texts = sorted((k, v) for k, v in entries.items()
                           if "listeners" not in k and "quorum" not in k)
            facts[kind.name] = [error, len(entries), events.digest(texts)]
        missing = await self.configs(ConfigResourceType.TOPIC, self.prefix + "ai.missing")
        facts["missing"] = missing[0]

    async def admin_alter_configs(self, facts):
        name = await self.topic("ai.altered", 1)

        async def alter(value):
            resource = ConfigResource(ConfigResourceType.TOPIC, name, {"retention.ms": value})
            return name_of((await self.admin.alter_configs([resource]))[0].resources[0][0])

        async def now():
            return (await self.configs(ConfigResourceType.TOPIC, name))[1]["retention.ms"]

        facts["altered"] = await alter("86400000")
        facts["set"] = await until(now, "86400000")
        facts["bad"] = await alter("soon")

    async def admin_groups(self, facts):
        topic = await self.topic("ai.grouped", 2)
        group = self.prefix + "bronze-processor"
        await self.send(topic, [f"event-{i}" for i in range(10)], 2)
        async with self.consumer(topic, group_id=group) as consumer:
            records, end = [], time.monotonic() + 20
            while len(records) < 10 and time.monotonic() < end:
                records += await self.poll(consumer, 200)
            await consumer.commit()
            listed = await self.admin.list_consumer_groups()
            facts["listed"] = [list(g) for g in listed if g[0] == group]
            facts["coordinator"] = await self.admin.find_coordinator(group)
        described = (await self.admin.describe_consumer_groups([group]))[0].groups[0]
        facts["empty"] = [name_of(described[0]), described[2], len(described[5])]

    async def admin_list_offsets(self, facts):
        topic = await self.topic("ai.offsets", 3)
        async with self.producer(acks="all") as producer:
            await self.send_events(producer, topic)
        place = TopicPartition(topic, 1)
        async with self.consumer() as consumer:
            facts["earliest"] = list((await consumer.beginning_offsets([place])).values())
            facts["latest"] = list((await consumer.end_offsets([place])).values())
            found = (await consumer.offsets_for_times({place: events.FIRST_MS + 30}))[place]
            facts["byTime"] = [found.offset, found.timestamp]

    async def admin_delete_records(self, facts):
        topic = await self.topic("ai.cut", 3)
        async with self.producer(acks="all") as producer:
            await self.send_events(producer, topic)
        place = TopicPartition(topic, 2)
        low = await self.admin.delete_records({place: RecordsToDelete(before_offset=7)})
        facts["low"] = list(low.values())
        facts["beyond"] = await error_of(
            lambda: self.admin.delete_records({place: RecordsToDelete(before_offset=700)}))
        facts["left"] = len(await self.read_all(topic, 53))

    async def admin_create_partitions(self, facts):
        topic = await self.topic("ai.grown", 2)

        async def grow(total):
            await self.admin.create_partitions({topic: NewPartitions(total)})

        async def count():
            return len((await self.admin.describe_topics([topic]))[0]["partitions"])

        await grow(5)
        facts["partitions"] = await until(count, 5)
        facts["shrink"] = await error_of(lambda: grow(3))

    async def admin_delete_topic(self, facts):
        topic = await self.topic("ai.deleted", 2)

        async def delete():
            answer = await self.admin.delete_topics([topic])
            return name_of(answer.topic_error_codes[0][1])

        async def describe():
            return name_of((await self.admin.describe_topics([topic]))[0]["error_code"])

        facts["deleted"] = await delete()
        facts["after"] = await until(describe, "UnknownTopicOrPartitionError")
        facts["again"] = await delete()


async def traffic(bootstrap, topic, seconds, grace):
    """Numbered events (acks=all, idempotent) while a group reads them; then what was lost."""
    acknowledged, consumed, errors, done = set(), set(), {}, asyncio.Event()
    stock = {"bootstrap_servers": bootstrap, "request_timeout_ms": 5000, "retry_backoff_ms": 100,
             **security()}

    async def read():
        consumer = AIOKafkaConsumer(
            topic, group_id=topic + ".reader", auto_offset_reset="earliest",
            session_timeout_ms=10000, heartbeat_interval_ms=1000, auto_commit_interval_ms=1000,
            fetch_max_wait_ms=100, metadata_max_age_ms=5000, **stock)
        await consumer.start()
        end = None
        while end is None or (time.monotonic() < end and acknowledged - consumed):
            try:
                for batch in (await consumer.getmany(timeout_ms=100)).values():
                    consumed.update(int(record.value) for record in batch)
            except KafkaError as error:
                print(f"consumer: {error!r}", file=sys.stderr)
                await asyncio.sleep(0.1)
            if done.is_set() and end is None:
                end = time.monotonic() + grace

    def delivered(number, answer):
        if answer.cancelled() or answer.exception():
            name = "cancelled" if answer.cancelled() else type(answer.exception()).__name__
            errors[name] = errors.get(name, 0) + 1
        else:
            acknowledged.add(number)

    reader = asyncio.create_task(read())
    producer = AIOKafkaProducer(enable_idempotence=True, acks="all", linger_ms=5,
                                metadata_max_age_ms=5000, **stock)
    await producer.start()
    sent, start, flow = 0, time.monotonic(), events.Flow(seconds)

    async def send(number):
        answer = await producer.send(topic, b"%d" % number)
        answer.add_done_callback(lambda answer: delivered(number, answer))

    # A full buffer holds `send` back until a broker answers: not longer than the producing lasts.
    while flow.goes_on(acknowledged, consumed):
        while sent < (time.monotonic() - start) * events.PER_SECOND and flow.goes_on(acknowledged, consumed):
            try:
                await asyncio.wait_for(send(sent), 2)
            except (KafkaError, asyncio.TimeoutError) as error:
                errors[type(error).__name__] = errors.get(type(error).__name__, 0) + 1
            sent += 1
        await asyncio.sleep(0.005)
    try:
        await asyncio.wait_for(producer.flush(), grace)
    except asyncio.TimeoutError:
        pass
    done.set()
    await asyncio.wait([reader], timeout=grace + 5)
    events.traffic_report(topic, sent, set(acknowledged), set(consumed), errors)
    os._exit(0)


def main(words):
    logging.disable(logging.ERROR)
    if words[0] == "traffic":
        asyncio.run(traffic(words[1], words[2], int(words[3]),
                            int(words[4]) if len(words) > 4 else 45))
    events.run(Matrix(words[0], words[1]).cases, words[2:])
    os._exit(0)


main(sys.argv[1:])
