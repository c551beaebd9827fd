// The kafkajs client of the matrix: `matrix.js BOOTSTRAP PREFIX [CASE...]` or
// `matrix.js traffic BOOTSTRAP TOPIC SECONDS [GRACE]`.
'use strict'

const {
  Kafka, CompressionTypes, CompressionCodecs, ConfigResourceTypes, logLevel, PartitionAssigners,
} = require('kafkajs')
const snappy = require('kafkajs-snappy')
const lz4 = require('lz4-napi')
const zstd = require('@bokuweb/zstd-wasm')
const events = require('./events')
const { security } = require('./security')
const { traffic, pause } = require('./traffic')

const CASE_LIMIT_MS = 90000
const GROUP_LIMIT_MS = 40000

CompressionCodecs[CompressionTypes.Snappy] = snappy
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: async (encoder) => lz4.compressFrame(encoder.buffer),
  decompress: async (buffer) => lz4.decompressFrame(buffer),
})
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async (encoder) => Buffer.from(zstd.compress(encoder.buffer)),
  decompress: async (buffer) => Buffer.from(zstd.decompress(buffer)),
})
const CODECS = {
  none: CompressionTypes.None, gzip: CompressionTypes.GZIP, snappy: CompressionTypes.Snappy,
  lz4: CompressionTypes.LZ4, zstd: CompressionTypes.ZSTD,
}

class Skip extends Error {}

// Stock client settings: nothing in them knows of a proxy.
const connect = (bootstrap, clientId = 'matrix') => new Kafka({
  clientId, brokers: bootstrap.split(','), logLevel: logLevel.NOTHING, requestTimeout: 10000,
  connectionTimeout: 3000, retry: { initialRetryTime: 100, maxRetryTime: 1000, retries: 10 },
  ...security(),
})

// The broker's error by its protocol name, or `none`.
async function errorOf(attempt) {
  try {
    await attempt()
    return 'none'
  } catch (error) {
    return nameOf(error)
  }
}

function nameOf(error) {
  if (error.type) return error.type
  const inner = (error.errors && error.errors[0]) || (error.groups && error.groups[0].error)
    || (error.partitions && error.partitions[0].error) || error.originalError || error.cause
  return inner && inner !== error ? nameOf(inner) : `${error.name}: ${error.message}`
}

// Metadata follows an admin call a moment later: asks again for up to ten seconds.
async function until(attempt, want) {
  let got = await attempt()
  for (let i = 0; i < 100 && got !== want; i++) {
    await pause(100)
    got = await attempt()
  }
  return got
}

class Matrix {
  constructor(bootstrap, prefix) {
    this.bootstrap = bootstrap
    this.prefix = prefix
    this.kafka = connect(bootstrap)
    this.readers = 0
    this.cases = {}
    for (const codec of Object.keys(CODECS)) this.addProduce(codec, 'acks=all', -1, false)
    this.addProduce('none', 'acks=0', 0, false)
    this.addProduce('none', 'acks=1', 1, false)
    this.addProduce('lz4', 'acks=1', 1, false)
    this.addProduce('none', 'idempotent', -1, true)
    this.addProduce('zstd', 'idempotent', -1, true)
    this.cases['produce/missing-topic'] = (facts) => this.missingTopic(facts)
    this.cases['produce/too-large'] = (facts) => this.tooLarge(facts)
    this.cases['group/classic'] = (facts) => this.group(facts)
    this.lacks('group/consumer', 'kafkajs has no group.protocol=consumer (KIP-848)')
    this.lacks('group/share', 'kafkajs has no share consumer (KIP-932)')
    this.cases['transaction/commit-abort'] = (facts) => this.commitAbort(facts)
    this.cases['transaction/offsets'] = (facts) => this.transactionOffsets(facts)
    this.cases['transaction/fenced'] = (facts) => this.fenced(facts)
    for (const name of Object.getOwnPropertyNames(Matrix.prototype)) {
      if (name.startsWith('admin_')) {
        this.cases[`admin/${name.slice(6).replace(/_/g, '-')}`] = (facts) => this[name](facts)
      }
    }
  }

  lacks(name, reason) {
    this.cases[name] = () => { throw new Skip(reason) }
  }

  async start() {
    await zstd.init()
    this.admin = this.kafka.admin()
    await this.admin.connect()
  }

  async create(topic, partitions, config = {}, replicas = 1) {
    const configEntries = Object.entries(config).map(([name, value]) => ({ name, value }))
    const one = { topic, numPartitions: partitions, replicationFactor: replicas, configEntries }
    return this.admin.createTopics({ topics: [one], waitForLeaders: false })
  }

  // Creates a topic of this run, waits until its leaders answer, gives its full name.
  async topic(name, partitions, config) {
    const topic = this.prefix + name
    await this.create(topic, partitions, config)
    const ends = async () => (await this.admin.fetchTopicOffsets(topic)).length
    await until(async () => { try { return await ends() } catch { return -1 } }, partitions)
    return topic
  }

  async with(client, work) {
    await client.connect()
    try {
      return await work(client)
    } finally {
      await client.disconnect()
    }
  }

  send(topic, texts, partitions, producer) {
    const messages = texts.map((value, i) => ({ value, partition: i % partitions }))
    if (producer) return producer.send({ topic, messages })
    return this.with(this.kafka.producer(), (own) => own.send({ topic, messages }))
  }

  // Reads a topic from its start until `want` records came, and a moment longer.
  async readAll(topic, want, options = {}) {
    const groupId = `${this.prefix}reader.${this.readers++}`
    const stock = { groupId, maxWaitTimeInMs: 100, heartbeatInterval: 500, rebalanceTimeout: 5000 }
    return this.with(this.kafka.consumer({ ...stock, ...options }), async (consumer) => {
      await consumer.subscribe({ topics: [topic], fromBeginning: true })
      const records = []
      await consumer.run({
        autoCommit: false,
        eachMessage: async ({ partition, message }) => { records.push({ partition, ...message }) },
      })
      for (const end = Date.now() + 20000; records.length < want && Date.now() < end;) await pause(20)
      await pause(300)
      return records
    })
  }

  // Produce

  addProduce(codec, how, acks, idempotent) {
    const name = `produce/${codec}/${how}`
    this.cases[name] = async (facts) => {
      const topic = await this.topic(name.replace(/\//g, '.').replace('=', '-'), events.PARTITIONS)
      const producer = this.kafka.producer(idempotent ? { idempotent, maxInFlightRequests: 1 } : {})
      const messages = Array.from({ length: events.COUNT }, (_, i) => events.event(i))
      const answers = await this.with(producer, (own) =>
        own.send({ topic, acks, compression: CODECS[codec], messages }))
      facts.answers = answers.map((a) => [a.partition, a.errorCode, a.baseOffset]).sort()
      events.same(facts, await this.readAll(topic, events.COUNT), events.COUNT)
    }
  }

  async missingTopic(facts) {
    const producer = this.kafka.producer({ allowAutoTopicCreation: false, retry: { retries: 1 } })
    facts.error = await this.with(producer, (own) => errorOf(() =>
      own.send({ topic: `${this.prefix}user.nowhere`, messages: [{ value: 'x' }] })))
  }

  async tooLarge(facts) {
    const topic = await this.topic('user.small', 1, { 'max.message.bytes': '2000' })
    await this.with(this.kafka.producer(), async (producer) => {
      facts.large = await errorOf(() => producer.send({ topic, messages: [{ value: Buffer.alloc(5000) }] }))
      const answers = await producer.send({ topic, messages: [{ value: Buffer.alloc(50) }] })
      facts.small = answers[0].baseOffset
    })
  }

  // Groups

  async member(groupId, topic, name, seen, after) {
    const consumer = connect(this.bootstrap, name).consumer({
      groupId, sessionTimeout: 10000, heartbeatInterval: 500, rebalanceTimeout: 10000,
      maxWaitTimeInMs: 100, partitionAssigners: [PartitionAssigners.roundRobin],
    })
    const one = { consumer, owned: [] }
    consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
      one.owned = payload.memberAssignment[topic] || []
    })
    await consumer.connect()
    await consumer.subscribe({ topics: [topic], fromBeginning: true })
    await consumer.run({
      autoCommit: false,
      eachMessage: async ({ partition, message }) => {
        seen.add(message.value.toString())
        after[partition] = String(BigInt(message.offset) + 1n)
      },
    })
    return one
  }

  async group(facts) {
    const topic = await this.topic('workflow.requested.classic', 4)
    const groupId = `${this.prefix}ai-service-group.classic`
    const texts = (from, to) => Array.from({ length: to - from }, (_, i) => `event-${from + i}`)
    await this.send(topic, texts(0, 40), 4)
    const seen = new Set()
    const after = {}
    const end = Date.now() + GROUP_LIMIT_MS
    const wait = async (done) => { while (!done() && Date.now() < end) await pause(20) }
    const commit = (one, offsets) => one.consumer.commitOffsets(
      one.owned.filter((p) => offsets[p]).map((p) => ({ topic, partition: p, offset: offsets[p] })))

    const first = await this.member(groupId, topic, 'first', seen, after)
    await wait(() => seen.size >= 40)
    facts.alone = first.owned.length
    facts.readAlone = seen.size
    await commit(first, after)
    const second = await this.member(groupId, topic, 'second', seen, after)
    await wait(() => first.owned.length === 2 && second.owned.length === 2)
    facts.shared = [first.owned.length, second.owned.length]
    await this.send(topic, texts(40, 60), 4)
    await wait(() => seen.size >= 60)
    facts.readShared = seen.size
    const described = (await this.admin.describeGroups([groupId])).groups[0]
    facts.described = [described.errorCode, described.state, described.protocolType,
      described.protocol, described.members.map((m) => m.clientId).sort()]
    for (const one of [first, second]) {
      await commit(one, after)
      await one.consumer.disconnect()
    }
    await this.send(topic, texts(60, 68), 4)
    const resumed = new Set()
    const third = await this.member(groupId, topic, 'third', resumed, after)
    await wait(() => resumed.size >= 8)
    await commit(third, after)
    await third.consumer.disconnect()
    facts.resumed = [...resumed].sort()
    const offsets = await this.admin.fetchOffsets({ groupId, topics: [topic] })
    facts.committed = offsets[0].partitions.map((p) => [p.partition, p.offset]).sort()
    if (seen.size !== 60 || resumed.size !== 8) {
      throw new Error(`read ${seen.size} of 60 events in the group, ${resumed.size} of 8 after it`)
    }
  }

  // Transactions

  transactional(name) {
    return this.kafka.producer({
      transactionalId: this.prefix + name, idempotent: true, maxInFlightRequests: 1,
      transactionTimeout: 30000,
    })
  }

  async commitAbort(facts) {
    const topic = await this.topic('saga.started', 3)
    const texts = (name) => Array.from({ length: 10 }, (_, i) => `${name}/${i}`)
    await this.with(this.transactional('saga'), async (producer) => {
      for (const name of ['kept', 'dropped', 'kept-too']) {
        const transaction = await producer.transaction()
        await this.send(topic, texts(name), 3, transaction)
        await (name === 'dropped' ? transaction.abort() : transaction.commit())
      }
    })
    for (const [isolation, want] of [['read_committed', 20], ['read_uncommitted', 30]]) {
      const options = { readUncommitted: isolation === 'read_uncommitted' }
      const records = await this.readAll(topic, want, options)
      const names = {}
      for (const record of records) {
        const name = record.value.toString().split('/')[0]
        names[name] = (names[name] || 0) + 1
      }
      facts[isolation] = Object.fromEntries(Object.entries(names).sort())
      if (records.length !== want) throw new Error(`${isolation} saw ${records.length} of ${want}`)
    }
  }

  async transactionOffsets(facts) {
    const source = await this.topic('saga.requested', 3)
    const target = await this.topic('saga.compensated', 3)
    const groupId = `${this.prefix}saga-service`
    await this.send(source, Array.from({ length: 10 }, (_, i) => `request-${i}`), 3)
    const seen = await this.readAll(source, 10)
    await this.with(this.transactional('saga-offsets'), async (producer) => {
      const transaction = await producer.transaction()
      const messages = seen.map(({ partition, value }) => ({ partition, value }))
      await transaction.send({ topic: target, messages })
      const partitions = [4, 3, 3].map((offset, partition) => ({ partition, offset: String(offset) }))
      await transaction.sendOffsets({ consumerGroupId: groupId, topics: [{ topic: source, partitions }] })
      await transaction.commit()
    })
    const offsets = async () => JSON.stringify((await this.admin.fetchOffsets({ groupId, topics: [source] }))[0]
      .partitions.map((p) => [p.partition, p.offset]).sort())
    facts.committed = await until(offsets, '[[0,"4"],[1,"3"],[2,"3"]]')
    facts.copied = (await this.readAll(target, 10)).length
    if (facts.copied !== 10) throw new Error(`copied ${facts.copied} of 10`)
  }

  async fenced(facts) {
    const topic = await this.topic('saga.fenced', 3)
    const whole = async (producer, name) => {
      const transaction = await producer.transaction()
      await this.send(topic, Array.from({ length: 10 }, (_, i) => `${name}/${i}`), 3, transaction)
      await transaction.commit()
    }
    await this.with(this.transactional('saga-fenced'), async (old) => {
      await whole(old, 'old')
      await this.with(this.transactional('saga-fenced'), (young) => whole(young, 'young'))
      facts.error = await errorOf(() => whole(old, 'late'))
    })
    facts.seen = (await this.readAll(topic, 20)).length
  }

  // Admin

  async admin_create_topic(facts) {
    const name = `${this.prefix}ai.created`
    const bad = `${this.prefix}ai.bad`
    facts.created = await this.create(name, 3, { 'retention.ms': '604800000' })
    facts.again = await this.create(name, 3)
    facts.badName = await errorOf(() => this.create('a b', 3))
    facts.badConfig = await errorOf(() => this.create(bad, 3, { 'no.such': '1' }))
    facts.badReplication = await errorOf(() => this.create(bad, 3, {}, 30))
  }

  async admin_list_topics(facts) {
    const name = await this.topic('ai.listed', 2)
    facts.listed = (await this.admin.listTopics()).filter((topic) => topic === name)
  }

  async admin_describe_topics(facts) {
    const name = await this.topic('ai.described', 3)
    const { topics } = await this.admin.fetchTopicMetadata({ topics: [name] })
    facts.partitions = topics[0].partitions.map((p) =>
      [p.partitionId, p.leader, p.replicas, p.isr, p.partitionErrorCode]).sort()
    facts.missing = await errorOf(() =>
      connect(this.bootstrap).admin().fetchTopicMetadata({ topics: [`${this.prefix}ai.missing`] }))
  }

  async admin_describe_cluster(facts) {
    const cluster = await this.admin.describeCluster()
    facts.cluster = cluster.clusterId
    facts.nodes = cluster.brokers.map((b) => b.nodeId).sort()
    facts.controller = facts.nodes.includes(cluster.controller)
  }

  async configs(type, name) {
    const answer = await this.admin.describeConfigs({ includeSynonyms: false, resources: [{ type, name }] })
    return answer.resources[0].configEntries
  }

  async admin_describe_configs(facts) {
    const name = await this.topic('ai.configured', 1)
    // Addresses differ through a proxy; everything else must not.
    const sum = (entries) => [entries.length, events.digest(entries
      .filter((e) => !e.configName.includes('listeners') && !e.configName.includes('quorum'))
      .map((e) => [e.configName, e.configValue, e.readOnly, e.isSensitive]).sort())]
    facts.topic = sum(await this.configs(ConfigResourceTypes.TOPIC, name))
    facts.broker = sum(await this.configs(ConfigResourceTypes.BROKER, '1'))
    facts.missing = await errorOf(() => this.configs(ConfigResourceTypes.TOPIC, `${this.prefix}ai.missing`))
  }

  async admin_alter_configs(facts) {
    const name = await this.topic('ai.altered', 1)
    const alter = (value) => this.admin.alterConfigs({
      validateOnly: false,
      resources: [{ type: ConfigResourceTypes.TOPIC, name, configEntries: [{ name: 'retention.ms', value }] }],
    })
    const now = async () => (await this.configs(ConfigResourceTypes.TOPIC, name))
      .find((e) => e.configName === 'retention.ms').configValue
    await alter('86400000')
    facts.set = await until(now, '86400000')
    facts.bad = await errorOf(() => alter('soon'))
  }

  async admin_groups(facts) {
    const topic = await this.topic('ai.grouped', 2)
    const groupId = `${this.prefix}bronze-processor`
    await this.send(topic, Array.from({ length: 10 }, (_, i) => `event-${i}`), 2)
    const seen = new Set()
    const one = await this.member(groupId, topic, 'only', seen, {})
    for (const end = Date.now() + 20000; seen.size < 10 && Date.now() < end;) await pause(20)
    const listed = await this.admin.listGroups()
    facts.listed = listed.groups.filter((g) => g.groupId === groupId).map((g) => g.protocolType)
    facts.deleteActive = await errorOf(() => this.admin.deleteGroups([groupId]))
    await one.consumer.disconnect()
    const state = async () => (await this.admin.describeGroups([groupId])).groups[0].state
    facts.empty = await until(state, 'Empty')
    await this.admin.setOffsets({ groupId, topic, partitions: [{ partition: 0, offset: '3' }] })
    const left = await this.admin.fetchOffsets({ groupId, topics: [topic] })
    facts.left = left[0].partitions.map((p) => [p.partition, p.offset]).sort()
    facts.deleted = await errorOf(() => this.admin.deleteGroups([groupId]))
    facts.again = await errorOf(() => this.admin.deleteGroups([groupId]))
  }

  async filled(name) {
    const topic = await this.topic(name, events.PARTITIONS)
    const messages = Array.from({ length: events.COUNT }, (_, i) => events.event(i))
    await this.with(this.kafka.producer(), (producer) => producer.send({ topic, messages }))
    return topic
  }

  async admin_list_offsets(facts) {
    const topic = await this.filled('ai.offsets')
    const sorted = (offsets) => offsets.map((p) => JSON.stringify(p)).sort()
    facts.offsets = sorted(await this.admin.fetchTopicOffsets(topic))
    facts.byTime = sorted(await this.admin.fetchTopicOffsetsByTimestamp(topic, events.FIRST_MS + 30))
  }

  async admin_delete_records(facts) {
    const topic = await this.filled('ai.cut')
    const cut = (offset) => this.admin.deleteTopicRecords({ topic, partitions: [{ partition: 2, offset }] })
    await cut('7')
    facts.low = (await this.admin.fetchTopicOffsets(topic)).find((p) => p.partition === 2).low
    facts.beyond = await errorOf(() => cut('700'))
    facts.left = (await this.readAll(topic, 53)).length
  }

  async admin_create_partitions(facts) {
    const topic = await this.topic('ai.grown', 2)
    const grow = (count) => this.admin.createPartitions({ topicPartitions: [{ topic, count }] })
    const count = async () =>
      (await this.admin.fetchTopicMetadata({ topics: [topic] })).topics[0].partitions.length
    await grow(5)
    facts.partitions = await until(count, 5)
    facts.shrink = await errorOf(() => grow(3))
  }

  async admin_delete_topic(facts) {
    const topic = await this.topic('ai.deleted', 2)
    await this.admin.deleteTopics({ topics: [topic] })
    const listed = async () => (await this.admin.listTopics()).includes(topic)
    facts.after = await until(listed, false)
    facts.again = await errorOf(() => this.admin.deleteTopics({ topics: [topic] }))
  }

  async run(words) {
    await this.start()
    for (const [name, run] of Object.entries(this.cases)) {
      if (words.length && !words.some((w) => name === w || name.startsWith(`${w}/`))) continue
      const facts = {}
      const outcome = { case: name }
      const start = Date.now()
      let timer
      const late = new Promise((_, reject) => {
        timer = setTimeout(() => reject(new Error(`did not end in ${CASE_LIMIT_MS} ms`)), CASE_LIMIT_MS)
      })
      try {
        await Promise.race([(async () => run(facts))(), late])
        outcome.ok = true
      } catch (error) {
        if (error instanceof Skip) outcome.skip = error.message
        else {
          Object.assign(outcome, { ok: false, error: nameOf(error) })
          console.error(name, error)
        }
      }
      clearTimeout(timer)
      console.log(JSON.stringify({ ...outcome, detail: facts, ms: Date.now() - start }))
    }
  }
}

async function main([first, ...rest]) {
  if (first === 'traffic') {
    const [bootstrap, topic, seconds, grace] = rest
    return traffic(connect(bootstrap), topic, Number(seconds), Number(grace || 45))
  }
  await new Matrix(first, rest[0]).run(rest.slice(1))
  process.exit(0)
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error)
  process.exit(1)
})
