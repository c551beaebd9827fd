// How the client proves who it is, as the environment says; its own stock settings.
'use strict'

const fs = require('fs')

const told = (name) => process.env[`CLIENT_${name}`]
const text = (name) => fs.readFileSync(told(name), 'utf8')

// Client credentials at a token endpoint. kafkajs authenticates again when ten seconds of a session
// are left, and at every request where a session begins shorter than that, which brokers refuse
// within a second: a token is handed out while it is young.
let held = { until: 0 }
async function oauthBearerProvider() {
  if (Date.now() >= held.until) {
    const answer = await fetch(told('TOKEN_URL'), {
      method: 'POST',
      headers: {
        Authorization: `Basic ${Buffer.from(`${told('ID')}:${told('SECRET')}`).toString('base64')}`,
      },
      body: new URLSearchParams({ grant_type: 'client_credentials', scope: told('SCOPE') }),
    })
    if (!answer.ok) throw new Error(`the token endpoint answered ${answer.status}`)
    const { access_token: value, expires_in: seconds } = await answer.json()
    held = { value, until: Date.now() + 200 * seconds }
  }
  return { value: held.value }
}

function security() {
  const kind = told('SECURITY') || 'plaintext'
  if (kind === 'plaintext') return {}
  if (kind === 'mtls') return { ssl: { ca: [text('CA')], cert: text('CERT'), key: text('KEY') } }
  return { ssl: { ca: [text('CA')] }, sasl: { mechanism: 'oauthbearer', oauthBearerProvider } }
}

module.exports = { security }
