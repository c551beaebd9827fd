// Numbered events (acks=all, idempotent) while a group reads them; then what was lost.
'use strict'

const fs = require('fs')

const PER_SECOND = 100
const BATCH_MAX = 100
const PARTITIONS = 3

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

async function traffic(kafka, topic, seconds, grace) {
  const acknowledged = new Set()
  const consumed = new Set()
  const errors = {}
  const retry = { initialRetryTime: 100, maxRetryTime: 1000, retries: 60 }
  const consumer = kafka.consumer({
    groupId: `${topic}.reader`, sessionTimeout: 10000, heartbeatInterval: 1000,
    maxWaitTimeInMs: 100, metadataMaxAge: 5000, retry,
  })
  const reading = (async () => {
    await consumer.connect()
    await consumer.subscribe({ topics: [topic], fromBeginning: true })
    await consumer.run({
      autoCommitInterval: 1000,
      eachMessage: async ({ message }) => { consumed.add(Number(message.value.toString())) },
    })
  })().catch((error) => console.error('consumer:', error.message))

  const producer = kafka.producer({
    idempotent: true, maxInFlightRequests: 1, metadataMaxAge: 5000, retry,
  })
  await producer.connect()
  let sent = 0
  const waiting = []
  const start = Date.now()
  const produce = async (until) => {
    while (waiting.length > 0 && Date.now() < until) {
      // One partition for each call: a retry of kafkajs leaves out what moved to a broker that
      // has answered for the same call already, and still reports success.
      const partition = waiting[0] % PARTITIONS
      const ids = waiting.filter((id) => id % PARTITIONS === partition).slice(0, BATCH_MAX)
      const taken = new Set(ids)
      waiting.splice(0, waiting.length, ...waiting.filter((id) => !taken.has(id)))
      try {
        const messages = ids.map((id) => ({ value: String(id), partition }))
        await producer.send({ topic, acks: -1, messages })
        ids.forEach((id) => acknowledged.add(id))
      } catch (error) {
        const name = error.type || error.name
        errors[name] = (errors[name] || 0) + ids.length
      }
    }
  }
  let busy = Promise.resolve()
  let idle = true
  let told = false
  // The harness ends the producing by making the file named in TRAFFIC_STOP.
  const stopped = () => process.env.TRAFFIC_STOP && fs.existsSync(process.env.TRAFFIC_STOP)
  while (Date.now() - start < seconds * 1000 && !stopped()) {
    if (!told && acknowledged.size > 0 && consumed.size > 0) {
      told = true
      console.log(JSON.stringify({ flows: sent }))
    }
    for (; sent < ((Date.now() - start) / 1000) * PER_SECOND; sent++) waiting.push(sent)
    if (idle && waiting.length > 0) {
      idle = false
      busy = produce(Infinity).finally(() => { idle = true })
    }
    await pause(10)
  }
  await Promise.race([busy.then(() => produce(Date.now() + grace * 1000)), pause(grace * 1000)])
  const missing = () => [...acknowledged].filter((id) => !consumed.has(id)).sort((a, b) => a - b)
  for (const end = Date.now() + grace * 1000; missing().length > 0 && Date.now() < end;) {
    await pause(50)
  }
  const refused = Object.values(errors).reduce((sum, count) => sum + count, 0)
  console.log(JSON.stringify({
    traffic: topic, sent, acknowledged: acknowledged.size, consumed: consumed.size, refused,
    errors, missing: missing().slice(0, 20), ids: ranges([...acknowledged]),
  }))
  void reading
  process.exit(0)
}

// Numbers as `0-41,43`.
function ranges(ids) {
  const spans = []
  for (const id of ids.sort((a, b) => a - b)) {
    const last = spans[spans.length - 1]
    if (last && last[1] === id - 1) last[1] = id
    else spans.push([id, id])
  }
  return spans.map(([from, to]) => (from === to ? `${from}` : `${from}-${to}`)).join(',')
}

module.exports = { traffic, pause }
