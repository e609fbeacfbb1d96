// A provider that nobody here wrote: the OpenID-certified `oidc-provider`, on loopback.
//
// One JSON object a line on standard input, one answer a line on standard output. The first line is
// the settings, the lines after it are commands (see COMMANDS); the process ends with its input, so
// that no provider outlives the test that started it.

import { generateKeyPairSync } from 'node:crypto';
import http from 'node:http';
import https from 'node:https';
import { createInterface } from 'node:readline';

import { Provider } from 'oidc-provider';

// What sign-in says of each account. The password is the account's name.
const ACCOUNTS = {
  alice: {
    name: 'Alice Example',
    preferred_username: 'alice',
    email: 'alice@example.test',
    email_verified: true,
    groups: ['staff', 'wiki-admins'],
  },
  bob: {
    name: 'Bob Example',
    preferred_username: 'bob',
    email: 'bob@example.test',
    email_verified: false,
    groups: ['staff'],
  },
  // Everything that is awkward in a header.
  carol: {
    name: 'Carol Ölander',
    preferred_username: 'carol ö',
    email: 'carol@exämple.test',
    email_verified: true,
    groups: ['a,b', 'größe', 'staff'],
  },
};

// The storage that outlives a change of keys: every Provider object uses this one.
const records = new Map();
const members = new Map();

class Storage {
  constructor(model) {
    this.model = model;
  }

  key(id) {
    return `${this.model}:${id}`;
  }

  async upsert(id, payload, expiresIn) {
    const expires = expiresIn ? Date.now() + expiresIn * 1000 : Infinity;
    records.set(this.key(id), { payload, expires });
    if (payload.grantId) {
      members.set(payload.grantId, [...(members.get(payload.grantId) ?? []), this.key(id)]);
    }
  }

  live(key) {
    const record = records.get(key);
    return record && record.expires > Date.now() ? record.payload : undefined;
  }

  async find(id) {
    return this.live(this.key(id));
  }

  async findByUid(uid) {
    for (const [key, { payload }] of records) {
      if (key.startsWith(`${this.model}:`) && payload.uid === uid) return this.live(key);
    }
    return undefined;
  }

  async consume(id) {
    const payload = this.live(this.key(id));
    if (payload) payload.consumed = Math.floor(Date.now() / 1000);
  }

  async destroy(id) {
    records.delete(this.key(id));
  }

  async revokeByGrantId(grantId) {
    for (const key of members.get(grantId) ?? []) records.delete(key);
    members.delete(grantId);
  }
}

function newKey() {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  return { ...privateKey.export({ format: 'jwk' }), use: 'sig', alg: 'RS256' };
}

const page = (title, body) =>
  `<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>${title}</title></head><body><h1>${title}</h1>${body}</body></html>`;

function loginForm(action) {
  return page(
    'Certified provider: sign in',
    `<form method="post" action="${action}">
      <label>Name <input name="login" autofocus></label>
      <label>Password <input name="password" type="password"></label>
      <button type="submit">Sign in</button>
    </form>`,
  );
}

function configuration(settings, keys) {
  return {
    adapter: Storage,
    clients: settings.clients,
    jwks: { keys },
    cookies: { keys: ['one secret for the tests'] },
    scopes: ['openid', 'offline_access', 'profile', 'email', 'groups'],
    claims: {
      openid: ['sub'],
      profile: ['name', 'preferred_username'],
      email: ['email', 'email_verified'],
      groups: ['groups'],
    },
    // Claims of scopes come from userinfo, as with most providers, not in the ID token.
    conformIdTokenClaims: true,
    pkce: { required: () => true },
    ttl: {
      AccessToken: settings.access_token_ttl ?? 3600,
      RefreshToken: 86400,
      IdToken: 3600,
      Session: 86400,
      Grant: 86400,
      Interaction: 600,
    },
    // Without `offline_access` too, as most providers do. A token that comes twice takes all of its grant back.
    issueRefreshToken: async (_ctx, client) => client.grantTypeAllowed('refresh_token'),
    rotateRefreshToken: true,
    // It does not call loopback addresses unless told that they are meant.
    fetch: (url, options) => globalThis.fetch(url, { ...options, dispatcher: undefined }),
    features: {
      devInteractions: { enabled: false },
      mTLS: settings.client_authority
        ? {
            enabled: true,
            tlsClientAuth: true,
            getCertificate: (ctx) => ctx.socket.getPeerX509Certificate(),
            certificateAuthorized: (ctx) => ctx.socket.authorized,
            certificateSubjectMatches: (ctx, property, expected) =>
              property === 'tls_client_auth_san_dns' && ctx.socket.getPeerX509Certificate().checkHost(expected) === expected,
          }
        : { enabled: false },
      pushedAuthorizationRequests: {
        enabled: true,
        requirePushedAuthorizationRequests: settings.requires_pushed_requests ?? false,
      },
      backchannelLogout: { enabled: true },
      rpInitiatedLogout: {
        enabled: settings.end_session ?? true,
        logoutSource(ctx, form) {
          ctx.body = page(
            'Certified provider: sign out',
            `${form}<button type="submit" form="op.logoutForm" name="logout" value="yes">Sign out</button>`,
          );
        },
        postLogoutSuccessSource(ctx) {
          ctx.body = page('Certified provider: signed out', '');
        },
      },
    },
    clientAuthMethods: [...new Set(settings.clients.map((client) => client.token_endpoint_auth_method))],
    interactions: { url: (_ctx, interaction) => `${new URL(settings.issuer).pathname.replace(/\/$/, '')}/interaction/${interaction.uid}` },
    findAccount: (_ctx, id) => account(id),
    loadExistingGrant,
    renderError(ctx, out) {
      ctx.type = 'html';
      ctx.body = page('Certified provider: error', `<pre id="error">${JSON.stringify(out).replaceAll('<', '&lt;')}</pre>`);
    },
  };
}

function account(id) {
  const claims = ACCOUNTS[id];
  return claims && { accountId: id, claims: () => ({ sub: id, ...claims }) };
}

// Nobody is asked for consent: a provider of one company and its own applications.
async function loadExistingGrant(ctx) {
  const { client, provider, session, params } = ctx.oidc;
  const known = session.grantIdFor(client.clientId);
  const grant = (known && (await provider.Grant.find(known))) ?? new provider.Grant({ accountId: session.accountId, clientId: client.clientId });
  grant.addOIDCScope(params.scope);
  await grant.save();
  return grant;
}

// `/auth/UID?…` and `/auth?…` are both `auth`; `/session/end` is itself.
function endpoint(target) {
  const path = target.split('?')[0].slice(1);
  const [first] = path.split('/');
  return ['auth', 'interaction'].includes(first) ? first : path;
}

async function readForm(request) {
  let body = '';
  for await (const chunk of request) body += chunk;
  return new URLSearchParams(body);
}

class CertifiedProvider {
  counts = {};
  lastTokenRequest = null;
  revokedGrants = 0;
  tokenDelay = 0;

  constructor(settings) {
    this.settings = settings;
    this.mount = new URL(settings.issuer).pathname.replace(/\/$/, '');
    this.keys = [newKey()];
    this.sockets = new Set();
    this.rebuild();
  }

  rebuild() {
    this.provider = new Provider(this.settings.issuer, configuration(this.settings, this.keys));
    this.provider.on('server_error', (_ctx, error) => console.error(error));
    this.provider.on('grant.revoked', () => { this.revokedGrants += 1; });
    this.answer = this.provider.callback();
  }

  async listen() {
    const { tls, port } = this.settings;
    const handler = (request, response) =>
      this.handle(request, response).catch((error) => {
        console.error(error);
        response.writeHead(500).end();
      });
    this.server = tls ? https.createServer(this.tls(), handler) : http.createServer(handler);
    this.server.on('connection', (socket) => {
      this.sockets.add(socket);
      socket.on('close', () => this.sockets.delete(socket));
    });
    await new Promise((resolve, reject) => {
      this.server.once('error', reject).listen(port, '127.0.0.1', resolve);
    });
  }

  // Clients may show a certificate, of this authority or of any other: the provider judges.
  tls() {
    const { tls, client_authority: ca } = this.settings;
    const own = { cert: tls.certificate, key: tls.key };
    return ca ? { ...own, ca, requestCert: true, rejectUnauthorized: false } : own;
  }

  async close() {
    const closed = new Promise((resolve) => this.server.close(resolve));
    for (const socket of this.sockets) socket.destroy();
    await closed;
  }

  async handle(request, response) {
    const below = this.below(request.url);
    if (below === undefined) {
      response.writeHead(404).end('not below the issuer');
      return;
    }
    const name = endpoint(below);
    this.counts[name] = (this.counts[name] ?? 0) + 1;
    if (name === 'token') {
      this.note(request);
      this.delay(response);
    }
    const login = below.match(/^\/interaction\/([\w-]+)$/);
    if (login) {
      await this.interaction(request, response, `${this.mount}${below}`);
      return;
    }
    request.originalUrl = request.url;
    request.url = below;
    await this.answer(request, response);
  }

  below(url) {
    if (!url.startsWith(`${this.mount}/`)) return undefined;
    return url.slice(this.mount.length);
  }

  // What the client showed of itself at the token endpoint, without the secret.
  note(request) {
    let body = '';
    request.on('data', (chunk) => { body += chunk; });
    request.on('end', () => {
      this.lastTokenRequest = {
        authorization: (request.headers.authorization ?? '').split(' ')[0],
        parameters: [...new URLSearchParams(body).keys()].sort(),
      };
    });
  }

  // What was asked for is done at once, and told late.
  delay(response) {
    const { tokenDelay } = this;
    if (!tokenDelay) return;
    const end = response.end.bind(response);
    response.end = (...body) => setTimeout(() => end(...body), tokenDelay);
  }

  async interaction(request, response, action) {
    if (request.method !== 'POST') {
      await this.provider.interactionDetails(request, response);
      response.writeHead(200, { 'content-type': 'text/html; charset=utf-8' }).end(loginForm(action));
      return;
    }
    const form = await readForm(request);
    const login = form.get('login');
    const result = ACCOUNTS[login] && form.get('password') === login
      ? { login: { accountId: login } }
      : { error: 'access_denied', error_description: 'wrong name or password' };
    await this.provider.interactionFinished(request, response, result, { mergeWithLastSubmission: false });
  }
}

const COMMANDS = {
  // How often each endpoint was called: `{ "token": 1, ".well-known/openid-configuration": 2, … }`.
  async counts(op) {
    return { counts: op.counts, last_token_request: op.lastTokenRequest, revoked_grants: op.revokedGrants };
  },
  // The answers of the token endpoint come this much later.
  async delay_tokens(op, { milliseconds }) {
    op.tokenDelay = milliseconds;
    return {};
  },
  // New signing keys first; the old ones stay published (or go, with `forget`).
  async rotate_keys(op, { forget }) {
    op.keys = [newKey(), ...(forget ? [] : op.keys)];
    op.rebuild();
    return {};
  },
  // Another secret, other keys: what the client is registered with.
  async change_client(op, { client_id, ...metadata }) {
    Object.assign(op.settings.clients.find((client) => client.client_id === client_id), metadata);
    op.rebuild();
    return {};
  },
  // Nobody answers at the port any more.
  async stop(op) {
    await op.close();
    return {};
  },
  async start(op) {
    await op.listen();
    return {};
  },
};

function tell(message) {
  process.stdout.write(`${JSON.stringify(message)}\n`);
}

async function main() {
  const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
  const settings = JSON.parse((await lines.next()).value);
  const op = new CertifiedProvider(settings);
  await op.listen();
  tell({ ready: settings.issuer });
  for await (const line of lines) {
    const { command, ...parameters } = JSON.parse(line);
    tell(await COMMANDS[command](op, parameters));
  }
  process.exit(0);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
