// The records that every produce case sends, and the reading of them back to the last byte.
'use strict'

const crypto = require('crypto')

const PARTITIONS = 3
const COUNT = 60
const FIRST_MS = 1735689600000

// Null, empty, every byte there is, one value larger than a socket buffer, JSON for the rest.
function value(i) {
  if (i % 10 === 3) return null
  if (i % 10 === 4) return Buffer.alloc(0)
  if (i === 20) {
    return Buffer.from({ length: 200000 }, (_, at) => (at * 31 + Math.floor(at / 251)) & 0xff)
  }
  if (i % 10 === 5) return Buffer.from({ length: 256 }, (_, at) => at)
  const event = { event_type: 'user.authenticated', org_id: i % 5, sequence: i }
  return Buffer.from(JSON.stringify(event))
}

function event(i) {
  const headers = i % 4 === 0 ? {} : {
    'event-type': Buffer.from('user.authenticated'),
    trace: [Buffer.from(`a${i}`), Buffer.from(`b${i}`)],
    empty: Buffer.alloc(0),
  }
  return {
    partition: i % PARTITIONS,
    key: i % 7 === 0 ? null : Buffer.from(`org-${i % 5}`),
    value: value(i),
    headers,
    timestamp: String(FIRST_MS + i),
  }
}

const text = (bytes) => (bytes === null ? 'null' : Buffer.from(bytes).toString('hex'))

function line(record) {
  const headers = Object.entries(record.headers || {}).flatMap(([name, values]) =>
    [].concat(values).map((content) => `${name}=${text(content)}`))
  return [text(record.key), text(record.value), record.timestamp, ...headers].join('|')
}

const digest = (thing) =>
  crypto.createHash('sha256').update(JSON.stringify(thing)).digest('hex').slice(0, 16)

function byPartition(records) {
  const lines = {}
  for (const record of records) (lines[`p${record.partition}`] ||= []).push(line(record))
  return Object.fromEntries(Object.entries(lines).sort())
}

// Fails unless the records are exactly the events sent; the digest covers every byte.
function same(facts, records, sent) {
  const got = byPartition(records)
  const want = byPartition(Array.from({ length: sent }, (_, i) => event(i)))
  facts.counts = Object.fromEntries(Object.entries(got).map(([p, lines]) => [p, lines.length]))
  facts.digest = digest(got)
  if (digest(want) !== facts.digest) {
    throw new Error(`the records read are not the records sent: ${JSON.stringify(facts.counts)}`)
  }
}

module.exports = { COUNT, PARTITIONS, FIRST_MS, event, same, digest }
