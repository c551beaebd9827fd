// The OAuth server of the lab: oidc-provider with settings for Kafka, on loopback.
//
//   issuer.mjs PORT SETTINGS.json
//
// SETTINGS: `modules` the folder that holds node_modules; `lifetime` of an access token in seconds;
// `algorithm` that signs them (RS256, ES256); `clients`: `id` with a `secret` or with `jwks` (public
// keys, for private_key_jwt), `tokens: "opaque"` for a client whose tokens are not JWTs, and
// `bound: true` for one whose tokens are bound to the certificate it must show (RFC 8705); `tls`:
// `cert`, `key` and `clientCa` (files) for https.
//
// Every access token has the audience and the scope `kafka`. `POST /roll` signs with a new key from
// then on and publishes the old one too, `POST /roll?forget` publishes the new one alone. A line on
// standard output tells of each token granted.
import { generateKeyPairSync, randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import http from 'node:http'
import https from 'node:https'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'

const [port, file] = process.argv.slice(2)
const settings = { algorithm: 'RS256', lifetime: 300, ...JSON.parse(readFileSync(file)) }
const library = join(settings.modules, 'node_modules/oidc-provider/lib/index.js')
const { Provider } = await import(pathToFileURL(library))
const scheme = settings.tls ? 'https' : 'http'
const issuer = `${scheme}://127.0.0.1:${port}`
const say = (line) => console.log(JSON.stringify(line))

// What is kept outlives the rolling of keys.
const kept = new Map()
class Store {
  constructor(kind) { this.key = (id) => `${kind} ${id}` }
  async upsert(id, what) { kept.set(this.key(id), what) }
  async find(id) { return kept.get(this.key(id)) }
  async findByUid() {}
  async findByUserCode() {}
  async consume() {}
  async destroy(id) { kept.delete(this.key(id)) }
  async revokeByGrantId() {}
}

// A client in the library's words.
function client({ id, secret, jwks, tokens, bound }) {
  return {
    client_id: id, grant_types: ['client_credentials'], redirect_uris: [], response_types: [],
    scope: 'kafka', 'urn:kordon:tokens': tokens ?? 'jwt',
    tls_client_certificate_bound_access_tokens: Boolean(bound),
    ...(secret
      ? { client_secret: secret, token_endpoint_auth_method: 'client_secret_basic' }
      : { jwks, token_endpoint_auth_method: 'private_key_jwt' }),
  }
}

function newKey() {
  const rsa = settings.algorithm === 'RS256'
  const { privateKey } = rsa
    ? generateKeyPairSync('rsa', { modulusLength: 2048 })
    : generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const kid = randomUUID()
  return { ...privateKey.export({ format: 'jwk' }), use: 'sig', alg: settings.algorithm, kid }
}

// The first key signs; all of them are published at /jwks.
function provider(keys) {
  const made = new Provider(issuer, {
    clients: settings.clients.map(client),
    extraClientMetadata: { properties: ['urn:kordon:tokens'] },
    clientDefaults: { id_token_signed_response_alg: settings.algorithm },
    enabledJWA: { clientAuthSigningAlgValues: ['RS256', 'ES256', 'PS256', 'EdDSA'] },
    adapter: Store,
    ttl: { ClientCredentials: settings.lifetime },
    jwks: { keys },
    scopes: ['kafka'],
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      introspection: { enabled: true, allowedPolicy: () => true },
      mTLS: {
        enabled: true, certificateBoundAccessTokens: true,
        getCertificate: (ctx) => {
          const shown = ctx.req.socket.getPeerX509Certificate?.()
          return shown && ctx.req.socket.authorized ? shown : undefined
        },
      },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => 'urn:kafka',
        getResourceServerInfo: (ctx, resource, who) => ({
          scope: 'kafka', audience: 'kafka', accessTokenTTL: settings.lifetime,
          accessTokenFormat: who['urn:kordon:tokens'],
          jwt: { sign: { alg: settings.algorithm } },
        }),
      },
    },
  })
  made.on('grant.success', (ctx) => say({ granted: ctx.oidc.client.clientId }))
  made.on('grant.error', (ctx, error) => say({ refused: error.error, why: error.error_description }))
  made.on('server_error', (ctx, error) => console.error(error))
  return made
}

let keys = [newKey()]
let answer = provider(keys).callback()

function handle(request, response) {
  const path = request.url
  if (request.method !== 'POST' || !path.startsWith('/roll')) return answer(request, response)
  keys = path.endsWith('forget') ? [newKey()] : [newKey(), ...keys]
  answer = provider(keys).callback()
  say({ rolled: keys[0].kid })
  response.writeHead(204).end()
}

const server = settings.tls
  ? https.createServer({
    cert: readFileSync(settings.tls.cert), key: readFileSync(settings.tls.key),
    ...(settings.tls.clientCa && {
      ca: readFileSync(settings.tls.clientCa), requestCert: true, rejectUnauthorized: false,
    }),
  }, handle)
  : http.createServer(handle)
server.listen(Number(port), '127.0.0.1', () => say({ listens: issuer }))
