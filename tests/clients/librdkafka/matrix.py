"""The librdkafka client of the matrix (confluent-kafka): `matrix.py BOOTSTRAP PREFIX [CASE...]`
or `matrix.py traffic BOOTSTRAP TOPIC SECONDS [GRACE]`."""

import os
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import events  # noqa: E402
from confluent_kafka import (  # noqa: E402
    AcknowledgeType,
    Consumer,
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaException,
    Producer,
    ShareConsumer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka import admin as kadmin  # noqa: E402

LIMIT = 40


def security():
    """How the client proves who it is, as the environment says; its own stock settings."""
    kind, told = events.security()
    if kind == "plaintext":
        return {}
    if kind == "mtls":
        return {"security.protocol": "SSL", "ssl.ca.location": told["CA"],
                "ssl.certificate.location": told["CERT"], "ssl.key.location": told["KEY"]}
    return {"security.protocol": "SASL_SSL", "ssl.ca.location": told["CA"],
            "sasl.mechanism": "OAUTHBEARER", "sasl.oauthbearer.method": "oidc",
            "sasl.oauthbearer.token.endpoint.url": told["TOKEN_URL"],
            "sasl.oauthbearer.client.id": told["ID"],
            "sasl.oauthbearer.client.secret": told["SECRET"],
            "sasl.oauthbearer.scope": told["SCOPE"]}


def error_of(attempt):
    """The broker's error by its protocol name, or `none`."""
    try:
        attempt()
        return "none"
    except KafkaException as refused:
        return refused.args[0].name()


def until(attempt, want):
    """Metadata follows an admin call a moment later: asks again for up to ten seconds."""
    got = attempt()
    for _ in range(100):
        if got == want:
            break
        time.sleep(0.1)
        got = attempt()
    return got


class Matrix:
    def __init__(self, bootstrap, prefix):
        self.bootstrap, self.prefix, self.cases = bootstrap, prefix, {}
        self.admin = kadmin.AdminClient(self.stock())
        for codec in ("none", "gzip", "snappy", "lz4", "zstd"):
            self.add_produce(codec, "all", False)
        self.add_produce("none", "0", False)
        self.add_produce("none", "1", False)
        self.add_produce("lz4", "1", False)
        self.add_produce("none", "all", True)
        self.add_produce("zstd", "all", True)
        self.cases["produce/missing-topic"] = self.missing_topic
        self.cases["produce/too-large"] = self.too_large
        self.cases["group/classic"] = lambda facts: self.group(facts, "classic")
        self.cases["group/consumer"] = lambda facts: self.group(facts, "consumer")
        self.cases["group/share"] = self.share
        self.cases["transaction/commit-abort"] = self.commit_abort
        self.cases["transaction/offsets"] = self.transaction_offsets
        self.cases["transaction/fenced"] = self.fenced
        for name in dir(self):
            if name.startswith("admin_"):
                self.cases["admin/" + name[6:].replace("_", "-")] = getattr(self, name)

    def stock(self, **extra):
        """Stock client settings: nothing in them knows of a proxy."""
        settings = {"bootstrap.servers": self.bootstrap, "socket.timeout.ms": 10000, **security()}
        settings.update({name.replace("_", "."): value for name, value in extra.items()})
        return settings

    def producer(self, **extra):
        extra = {"linger_ms": 5, "message_timeout_ms": 20000, **extra}
        return Producer(self.stock(**extra))

    def consumer(self, **extra):
        extra = {"group_id": self.prefix + "reader", "auto_offset_reset": "earliest",
                 "enable_auto_commit": False, "fetch_wait_max_ms": 100, **extra}
        return Consumer(self.stock(**extra))

    def topic(self, name, partitions, **config):
        """Creates a topic of this run, waits until its leaders answer, gives its full name."""
        name = self.prefix + name
        new = kadmin.NewTopic(name, partitions, 1, config=config)
        self.admin.create_topics([new])[name].result()
        ends = {TopicPartition(name, p): kadmin.OffsetSpec.latest() for p in range(partitions)}
        ask = lambda: [f.result() for f in self.admin.list_offsets(dict(ends)).values()]
        until(lambda: error_of(ask), "none")
        return name

    def send(self, producer, topic, texts, partitions):
        for i, text in enumerate(texts):
            producer.produce(topic, text.encode(), partition=i % partitions)
        assert producer.flush(20) == 0, "not everything was sent"

    def read_all(self, topic, want, **extra):
        consumer = self.consumer(**extra)
        try:
            metadata = consumer.list_topics(topic, 10)
            consumer.assign([TopicPartition(topic, p, 0) for p in metadata.topics[topic].partitions])
            records, end = [], time.monotonic() + 20
            while len(records) < want and time.monotonic() < end:
                records += self.poll(consumer, 0.2)
            return records + self.poll(consumer, 0.3)
        finally:
            consumer.close()

    @staticmethod
    def poll(consumer, seconds):
        records = []
        for message in consumer.consume(500, seconds):
            if message.error():
                raise KafkaException(message.error())
            records.append({
                "partition": message.partition(), "offset": message.offset(),
                "key": message.key(), "value": message.value(),
                "timestamp": message.timestamp()[1], "headers": message.headers() or [],
            })
        return records

    # Produce

    def add_produce(self, codec, acks, idempotent):
        name = f"produce/{codec}/" + ("idempotent" if idempotent else f"acks={acks}")

        def case(facts):
            topic = self.topic(name.replace("/", ".").replace("=", "-"), events.PARTITIONS)
            producer = self.producer(compression_type=codec, acks=acks,
                                     enable_idempotence=idempotent, message_max_bytes=2000000)
            offsets, failures = {}, []

            def delivered(error, message):
                if error:
                    failures.append(error.name())
                else:
                    offsets[f"p{message.partition()}"] = message.offset()

            for i in range(events.COUNT):
                producer.produce(topic, on_delivery=delivered, **events.event(i))
            assert producer.flush(20) == 0, "not everything was sent"
            if acks != "0":
                facts["lastOffsets"] = offsets
            assert not failures, failures
            events.same(facts, self.read_all(topic, events.COUNT), events.COUNT)

        self.cases[name] = case

    def missing_topic(self, facts):
        failures = []
        producer = self.producer(topic_metadata_propagation_max_ms=1000)
        producer.produce(self.prefix + "user.nowhere", b"x",
                         on_delivery=lambda error, _: failures.append(error and error.name()))
        producer.flush(20)
        facts["errors"] = failures

    def too_large(self, facts):
        topic = self.topic("user.small", 1, **{"max.message.bytes": "2000"})
        producer, seen = self.producer(acks="all"), []

        def delivered(error, message):
            seen.append(error.name() if error else message.offset())

        for size in (5000, 50):
            producer.produce(topic, b"\0" * size, on_delivery=delivered)
            producer.flush(20)
        facts["answers"] = seen

    # Groups

    def member(self, group, protocol, client):
        extra = {"group_protocol": protocol, "client_id": client}
        if protocol == "classic":
            extra.update(heartbeat_interval_ms=500, session_timeout_ms=10000)
        return self.consumer(group_id=group, **extra)

    def group(self, facts, protocol):
        topic = self.topic("workflow.requested." + protocol, 4)
        group = self.prefix + "ai-service-group." + protocol
        producer = self.producer(acks="all")
        self.send(producer, topic, [f"event-{i}" for i in range(40)], 4)
        first, second = (self.member(group, protocol, name) for name in ("first", "second"))
        seen, after, end = set(), {}, time.monotonic() + LIMIT

        def collect(member, into):
            for record in self.poll(member, 0.1):
                into.add(record["value"].decode())
                after[record["partition"]] = record["offset"] + 1

        first.subscribe([topic])
        while len(seen) < 40 and time.monotonic() < end:
            collect(first, seen)
        facts["alone"], facts["readAlone"] = len(first.assignment()), len(seen)
        first.commit(asynchronous=False)
        second.subscribe([topic])
        sizes = lambda: [len(first.assignment()), len(second.assignment())]
        while sizes() != [2, 2] and time.monotonic() < end:
            collect(first, seen)
            collect(second, seen)
        facts["shared"] = sizes()
        self.send(producer, topic, [f"event-{i}" for i in range(40, 60)], 4)
        while len(seen) < 60 and time.monotonic() < end:
            collect(first, seen)
            collect(second, seen)
        facts["readShared"] = len(seen)
        described = self.admin.describe_consumer_groups([group])[group].result()
        facts["state"], facts["type"] = described.state.name, described.type.name
        facts["clients"] = sorted(m.client_id for m in described.members)
        facts["assignor"] = described.partition_assignor
        for member in (first, second):
            member.commit(offsets=[TopicPartition(topic, p.partition, after[p.partition])
                                   for p in member.assignment()], asynchronous=False)
            member.close()
        self.send(producer, topic, [f"event-{i}" for i in range(60, 68)], 4)
        third, resumed, end = self.member(group, protocol, "third"), set(), time.monotonic() + LIMIT
        third.subscribe([topic])
        while len(resumed) < 8 and time.monotonic() < end:
            collect(third, resumed)
        facts["resumed"] = sorted(resumed)
        third.commit(asynchronous=False)
        third.close()
        listed = self.admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])
        facts["committed"] = {f"p{p.partition}": p.offset
                              for p in sorted(listed[group].result().topic_partitions)}
        assert len(seen) == 60, f"read {len(seen)} of 60 events in the group"
        assert len(resumed) == 8, f"resumed with {len(resumed)} of 8 events"

    def share(self, facts):
        topic, group = self.topic("workflow.requested.share", 4), self.prefix + "ai-service-group.share"
        entry = kadmin.ConfigEntry("share.auto.offset.reset", "earliest",
                                   incremental_operation=kadmin.AlterConfigOpType.SET)
        resource = kadmin.ConfigResource(kadmin.ConfigResource.Type.GROUP, group,
                                         incremental_configs=[entry])
        [f.result() for f in self.admin.incremental_alter_configs([resource]).values()]
        self.send(self.producer(acks="all"), topic, [f"event-{i}" for i in range(40)], 4)
        stock = self.stock(group_id=group, share_acknowledgement_mode="explicit")
        members = [ShareConsumer(stock), ShareConsumer(stock)]
        accepted, released, deliveries, end = set(), set(), {}, time.monotonic() + LIMIT
        for member in members:
            member.subscribe([topic])
        while len(accepted) < 40 and time.monotonic() < end:
            for member in members:
                for message in member.poll(0.3):
                    assert not message.error(), message.error()
                    text = message.value().decode()
                    deliveries[text] = deliveries.get(text, 0) + 1
                    refuse = text.endswith("7") and text not in released
                    kind = AcknowledgeType.RELEASE if refuse else AcknowledgeType.ACCEPT
                    member.acknowledge(message, kind)
                    (released if refuse else accepted).add(text)
                failures = [str(e) for e in member.commit_sync(10).values() if e]
                assert not failures, failures
        for member in members:
            member.close()
        facts["accepted"], facts["released"] = len(accepted), sorted(released)
        facts["twice"] = sorted(text for text, count in deliveries.items() if count == 2)
        assert len(accepted) == 40, f"accepted {len(accepted)} of 40 events"

    # Transactions

    def transactional(self, name):
        producer = self.producer(transactional_id=self.prefix + name)
        producer.init_transactions(20)
        return producer

    def commit_abort(self, facts):
        topic = self.topic("saga.started", 3)
        producer = self.transactional("saga")
        for name in ("kept", "dropped", "kept-too"):
            producer.begin_transaction()
            self.send(producer, topic, [f"{name}/{i}" for i in range(10)], 3)
            if name == "dropped":
                producer.abort_transaction(20)
            else:
                producer.commit_transaction(20)
        for isolation, want in (("read_committed", 20), ("read_uncommitted", 30)):
            records = self.read_all(topic, want, isolation_level=isolation)
            names = [r["value"].decode().split("/")[0] for r in records]
            facts[isolation] = {name: names.count(name) for name in sorted(set(names))}
            assert len(records) == want, f"{isolation} saw {len(records)} of {want}"

    def transaction_offsets(self, facts):
        source, target = self.topic("saga.requested", 3), self.topic("saga.compensated", 3)
        self.send(self.producer(acks="all"), source, [f"request-{i}" for i in range(10)], 3)
        consumer = self.consumer(group_id=self.prefix + "saga-service")
        consumer.subscribe([source])
        records, end = [], time.monotonic() + 20
        while len(records) < 10 and time.monotonic() < end:
            records += self.poll(consumer, 0.2)
        producer = self.transactional("saga-offsets")
        producer.begin_transaction()
        for record in records:
            producer.produce(target, record["value"], partition=record["partition"])
        offsets = consumer.position(consumer.assignment())
        producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata(), 20)
        producer.commit_transaction(20)
        facts["committed"] = sorted((p.partition, p.offset)
                                    for p in consumer.committed(consumer.assignment(), 20))
        consumer.close()
        copied = self.read_all(target, 10, isolation_level="read_committed")
        facts["copied"] = len(copied)
        assert len(copied) == 10, f"copied {len(copied)} of 10"

    def fenced(self, facts):
        topic = self.topic("saga.fenced", 3)
        old = self.transactional("saga-fenced")
        old.begin_transaction()
        self.send(old, topic, [f"old-{i}" for i in range(10)], 3)
        young = self.transactional("saga-fenced")
        young.begin_transaction()
        self.send(young, topic, [f"young-{i}" for i in range(10)], 3)
        young.commit_transaction(20)
        facts["error"] = error_of(lambda: old.commit_transaction(20))
        facts["seen"] = len(self.read_all(topic, 10, isolation_level="read_committed"))

    # Admin

    def admin_create_topic(self, facts):
        name = self.prefix + "ai.created"

        def create(topic, replicas=1, **config):
            new = kadmin.NewTopic(topic, 3, replicas, config=config)
            self.admin.create_topics([new])[topic].result()

        facts["created"] = error_of(lambda: create(name, **{"retention.ms": "604800000"}))
        facts["again"] = error_of(lambda: create(name))
        facts["badName"] = error_of(lambda: create("a b"))
        facts["badConfig"] = error_of(lambda: create(self.prefix + "ai.bad", **{"no.such": "1"}))
        facts["badReplication"] = error_of(lambda: create(self.prefix + "ai.bad", 30))

    def admin_list_topics(self, facts):
        name = self.topic("ai.listed", 2)
        metadata = self.admin.list_topics(timeout=10)
        facts["brokers"] = sorted(metadata.brokers)
        facts["cluster"] = metadata.cluster_id
        facts["partitions"] = sorted(metadata.topics[name].partitions)

    def admin_describe_topics(self, facts):
        name = self.topic("ai.described", 3)
        answers = self.admin.describe_topics(TopicCollection([name, self.prefix + "ai.missing"]),
                                             include_authorized_operations=True)
        described = answers[name].result()
        facts["internal"] = described.is_internal
        facts["operations"] = sorted(o.name for o in described.authorized_operations)
        facts["partitions"] = [(p.id, len(p.replicas), len(p.isr), p.leader is not None)
                               for p in described.partitions]
        facts["missing"] = error_of(answers[self.prefix + "ai.missing"].result)

    def admin_describe_cluster(self, facts):
        cluster = self.admin.describe_cluster(include_authorized_operations=True).result()
        facts["cluster"] = cluster.cluster_id
        facts["nodes"] = sorted(n.id for n in cluster.nodes)
        facts["controller"] = cluster.controller.id in facts["nodes"]
        facts["operations"] = sorted(o.name for o in cluster.authorized_operations)

    def admin_describe_configs(self, facts):
        name = self.topic("ai.configured", 1)
        kind = kadmin.ConfigResource.Type
        resources = [kadmin.ConfigResource(kind.TOPIC, name), kadmin.ConfigResource(kind.BROKER, "1")]
        asked = [self.admin.describe_configs([resource]) for resource in resources]
        for resource, answer in (pair for answers in asked for pair in answers.items()):
            entries = answer.result()
            # Addresses differ through a proxy; everything else must not.
            texts = sorted((e.name, e.value, e.source, e.is_read_only) for e in entries.values()
                           if "listeners" not in e.name and "quorum" not in e.name)
            facts[resource.restype.name] = [len(entries), events.digest(texts)]
        missing = [kadmin.ConfigResource(kind.TOPIC, self.prefix + "ai.missing")]
        facts["missing"] = error_of(lambda: [f.result() for f in
                                             self.admin.describe_configs(missing).values()])

    def admin_alter_configs(self, facts):
        name = self.topic("ai.altered", 1)
        kind = kadmin.ConfigResource.Type.TOPIC

        def alter(operation, value):
            entry = kadmin.ConfigEntry("retention.ms", value, incremental_operation=operation)
            resource = kadmin.ConfigResource(kind, name, incremental_configs=[entry])
            [f.result() for f in self.admin.incremental_alter_configs([resource]).values()]

        def now():
            answers = self.admin.describe_configs([kadmin.ConfigResource(kind, name)])
            return [f.result() for f in answers.values()][0]["retention.ms"].value

        alter(kadmin.AlterConfigOpType.SET, "86400000")
        facts["set"] = until(now, "86400000")
        facts["bad"] = error_of(lambda: alter(kadmin.AlterConfigOpType.SET, "soon"))
        alter(kadmin.AlterConfigOpType.DELETE, None)
        facts["deleted"] = until(now, "604800000")

    def admin_groups(self, facts):
        topic, group = self.topic("ai.grouped", 2), self.prefix + "bronze-processor"
        self.send(self.producer(acks="all"), topic, [f"event-{i}" for i in range(10)], 2)
        consumer, records, end = self.consumer(group_id=group), [], time.monotonic() + 20
        consumer.subscribe([topic])
        while len(records) < 10 and time.monotonic() < end:
            records += self.poll(consumer, 0.2)
        consumer.commit(asynchronous=False)
        listed = self.admin.list_consumer_groups().result().valid
        facts["listed"] = [(g.state.name, g.type.name) for g in listed if g.group_id == group]
        delete = lambda: self.admin.delete_consumer_groups([group])[group].result()
        facts["deleteActive"] = error_of(delete)
        consumer.close()
        described = self.admin.describe_consumer_groups([group])[group].result()
        facts["empty"] = [described.state.name, len(described.members)]
        change = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 0, 3)])
        self.admin.alter_consumer_group_offsets([change])[group].result()
        left = self.admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])
        facts["left"] = sorted((p.partition, p.offset) for p in left[group].result().topic_partitions)
        facts["deleted"] = error_of(delete)
        facts["again"] = error_of(delete)

    def admin_list_offsets(self, facts):
        topic, producer = self.topic("ai.offsets", 3), self.producer(acks="all")
        for i in range(events.COUNT):
            producer.produce(topic, **events.event(i))
        producer.flush(20)
        specs = {"earliest": kadmin.OffsetSpec.earliest(), "latest": kadmin.OffsetSpec.latest(),
                 "maxTime": kadmin.OffsetSpec.max_timestamp(),
                 "byTime": kadmin.OffsetSpec.for_timestamp(events.FIRST_MS + 30)}
        for name, spec in specs.items():
            answer = self.admin.list_offsets({TopicPartition(topic, 1): spec},
                                             isolation_level=IsolationLevel.READ_COMMITTED)
            found = [f.result() for f in answer.values()][0]
            facts[name] = [found.offset, found.timestamp]

    def admin_delete_records(self, facts):
        topic, producer = self.topic("ai.cut", 3), self.producer(acks="all")
        for i in range(events.COUNT):
            producer.produce(topic, **events.event(i))
        producer.flush(20)
        cut = lambda offset: [f.result() for f in self.admin.delete_records(
            [TopicPartition(topic, 2, offset)]).values()][0]
        facts["low"] = cut(7).low_watermark
        facts["beyond"] = error_of(lambda: cut(700))
        # Offset 0 is gone in the partition that was cut: the reset policy finds the first left.
        facts["left"] = len(self.read_all(topic, 53))

    def admin_create_partitions(self, facts):
        topic = self.topic("ai.grown", 2)
        grow = lambda total: self.admin.create_partitions(
            [kadmin.NewPartitions(topic, total)])[topic].result()
        grow(5)
        facts["partitions"] = until(
            lambda: len(self.admin.list_topics(topic, 10).topics[topic].partitions), 5)
        facts["shrink"] = error_of(lambda: grow(3))

    def admin_delete_topic(self, facts):
        topic = self.topic("ai.deleted", 2)
        delete = lambda: self.admin.delete_topics([topic])[topic].result()
        delete()
        describe = lambda: self.admin.describe_topics(TopicCollection([topic]))[topic].result()
        facts["after"] = until(lambda: error_of(describe), "UNKNOWN_TOPIC_OR_PART")
        facts["again"] = error_of(delete)


def traffic(bootstrap, topic, seconds, grace):
    """Numbered events (acks=all, idempotent) while a group reads them; then what was lost."""
    acknowledged, consumed, errors, done = set(), set(), {}, threading.Event()
    stock = {"bootstrap.servers": bootstrap, "reconnect.backoff.max.ms": 500,
             "socket.timeout.ms": 5000, "log_level": 3, **security()}

    def read():
        consumer = Consumer({**stock, "group.id": topic + ".reader", "session.timeout.ms": 10000,
                             "heartbeat.interval.ms": 1000, "auto.offset.reset": "earliest",
                             "auto.commit.interval.ms": 1000, "fetch.wait.max.ms": 100})
        consumer.subscribe([topic])
        end = None
        while end is None or (time.monotonic() < end and acknowledged - consumed):
            for message in consumer.consume(500, 0.1):
                if not message.error():
                    consumed.add(int(message.value()))
            if done.is_set() and end is None:
                end = time.monotonic() + grace
        # An orderly leave needs a coordinator, which a stopped proxy no longer reaches.
        if not acknowledged - consumed:
            consumer.close()

    def delivered(number, error):
        if error:
            errors[error.name()] = errors.get(error.name(), 0) + 1
        else:
            acknowledged.add(number)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    producer = Producer({**stock, "enable.idempotence": True, "acks": "all", "linger.ms": 5,
                         "message.timeout.ms": max(grace, 6) * 1000})
    sent, start, flow = 0, time.monotonic(), events.Flow(seconds)
    while flow.goes_on(acknowledged, consumed):
        while sent < (time.monotonic() - start) * events.PER_SECOND:
            producer.produce(topic, b"%d" % sent,
                             on_delivery=lambda error, _, number=sent: delivered(number, error))
            sent += 1
        producer.poll(0.005)
    producer.flush(grace)
    done.set()
    reader.join(grace + 5)
    events.traffic_report(topic, sent, set(acknowledged), set(consumed), errors)
    os._exit(0)


def main(words):
    if words[0] == "traffic":
        traffic(words[1], words[2], int(words[3]), int(words[4]) if len(words) > 4 else 45)
    events.run(Matrix(words[0], words[1]).cases, words[2:])
    os._exit(0)


main(sys.argv[1:])
