// A real browser: Debian's Chromium, driven by playwright-core.
//
// One JSON object on standard input: { scenario, chromium, screenshots, … }; one on standard output:
// what the scenario saw. The test that started it judges.

import { mkdirSync } from 'node:fs';
import { createInterface } from 'node:readline';

import { chromium } from 'playwright-core';

const LAUNCH = [
  // The tests may run as root, where Chromium's own sandbox does not start.
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

const PATIENCE = 60_000;

const SCENARIOS = {
  // `portcullis demo`, as somebody tries it who has just installed it.
  async demo({ context, shoot, origin }) {
    const page = await context.newPage();
    const heading = () => page.locator('h1').innerText();
    const choose = async (login) => {
      await page.locator(`button[name=login][value="${login}"]`).click();
      await page.waitForURL(`${origin}/**`);
    };
    const seen = {};
    await page.goto(`${origin}/`);
    seen.provider = await page.locator('body').innerText();
    await shoot(page, 'provider');
    await choose('alice');
    seen.application = await page.locator('body').innerText();
    seen.url = page.url();
    seen.cookies = await context.cookies(origin);
    await shoot(page, 'application');
    await page.goto(`${origin}/admin/`);
    seen.forbidden = await page.locator('body').innerText();
    await shoot(page, 'forbidden');
    await page.goto(`${origin}/public/`);
    seen.public = await page.locator('body').innerText();
    await shoot(page, 'public');
    await page.goto(`${origin}/`);
    await page.getByRole('button', { name: /sign out/i }).click();
    await page.waitForURL(`${origin}/oauth2/signed_out**`);
    seen.signedOut = await page.locator('body').innerText();
    await shoot(page, 'signed-out');

    await page.goto(`${origin}/admin/`);
    await choose('bob');
    seen.admin = await heading();
    await shoot(page, 'admin');
    await page.goto(`${origin}/optional/`);
    seen.optional = await heading();
    await context.clearCookies();
    await page.goto(`${origin}/`);
    await choose('');
    seen.refused = await page.locator('body').innerText();
    await shoot(page, 'refused');
    await page.emulateMedia({ colorScheme: 'dark' });
    await shoot(page, 'refused-dark');
    return seen;
  },

  // The certified provider's flow in two tabs at once.
  async two_tabs({ context, shoot, origin, paths }) {
    const [one, two] = [await context.newPage(), await context.newPage()];
    await Promise.all([one.goto(origin + paths[0]), two.goto(origin + paths[1])]);
    await shoot(one, 'provider-form');
    for (const [tab, name] of [[two, 'second'], [one, 'first']]) {
      await tab.getByLabel('Name').fill('alice');
      await tab.getByLabel('Password').fill('alice');
      await tab.getByRole('button', { name: 'Sign in' }).click();
      await tab.waitForURL(`${origin}/**`);
      await shoot(tab, `application-${name}-tab`);
    }
    const landed = [one.url(), two.url()];
    const told = [await json(one), await json(two)];
    const cookies = await context.cookies(origin);
    const protocol = await two.evaluate(() => performance.getEntriesByType('navigation')[0].nextHopProtocol);
    const socket = await two.evaluate(talk);

    await one.goto(`${origin}/oauth2/sign_out`);
    await shoot(one, 'provider-sign-out');
    await one.getByRole('button', { name: 'Sign out' }).click();
    await one.waitForURL(`${origin}/oauth2/signed_out**`);
    await shoot(one, 'signed-out');
    const signedOut = await one.locator('h1').innerText();
    await two.reload();
    const after = await two.locator('h1').innerText();
    const left = await context.cookies(origin);
    return { landed, told, cookies, protocol, socket, signedOut, after, left };
  },

  // Somebody who is found by an address: a form, and the way to another site behind it.
  async by_address({ context, shoot, origin, path, unknown, address }) {
    const page = await context.newPage();
    const errors = [];
    page.on('console', (message) => errors.push(message.text()));
    const type = async (text) => {
      await page.getByLabel('E-mail address').fill(text);
      await page.getByRole('button', { name: 'Continue', exact: true }).click();
    };
    await page.goto(origin + path);
    // A browser gives the focus when it first draws the page, which may be after it was loaded.
    const focused = await (await page.waitForFunction(() => document.activeElement.id)).jsonValue();
    for (const colorScheme of ['light', 'dark']) {
      await page.emulateMedia({ colorScheme });
      await shoot(page, `fresh-${colorScheme}`);
    }
    await type(unknown);
    const alert = await page.getByRole('alert').innerText();
    const described = await page.getByLabel('E-mail address').getAttribute('aria-describedby');
    for (const colorScheme of ['light', 'dark']) {
      await page.emulateMedia({ colorScheme });
      await shoot(page, `unknown-${colorScheme}`);
    }
    await page.setViewportSize({ width: 320, height: 640 });
    await shoot(page, 'unknown-narrow');
    const inspected = await page.evaluate(inspect);
    await page.setViewportSize({ width: 1280, height: 720 });
    await type(address);
    await page.getByLabel('Password').fill('alice');
    const hinted = new URL(page.url()).origin;
    await page.getByLabel('Name').fill('alice');
    await page.getByRole('button', { name: 'Sign in' }).click();
    await page.waitForURL(`${origin}/page**`);
    return {
      focused,
      alert,
      described,
      inspected,
      hinted,
      landed: page.url(),
      errors: errors.filter((text) => /Content.Security|Refused/i.test(text)),
    };
  },

  // Each page at each address, in light and dark, with what assistive technology needs.
  async pages({ context, shoot, origin, paths }) {
    const seen = [];
    for (const [name, path] of Object.entries(paths)) {
      const page = await context.newPage();
      const errors = [];
      page.on('console', (message) => errors.push(message.text()));
      const response = await page.goto(origin + path);
      for (const colorScheme of ['light', 'dark']) {
        await page.emulateMedia({ colorScheme });
        await shoot(page, `${name}-${colorScheme}`);
      }
      await page.setViewportSize({ width: 320, height: 640 });
      await shoot(page, `${name}-narrow`);
      seen.push({
        name,
        status: response.status(),
        errors: errors.filter((text) => /Content.Security|Refused/i.test(text)),
        ...(await page.evaluate(inspect)),
      });
      await page.close();
    }
    return { seen };
  },
};

// Runs in the page: what a WebSocket says to a word.
function talk() {
  return new Promise((resolve) => {
    const socket = new WebSocket(`wss://${location.host}/ws`);
    socket.onopen = () => socket.send('hello');
    socket.onmessage = (message) => resolve(message.data);
    socket.onerror = () => resolve('an error');
    socket.onclose = () => resolve('closed');
  });
}

// Runs in the page.
function inspect() {
  const body = getComputedStyle(document.body);
  return {
    lang: document.documentElement.lang,
    title: document.title,
    headings: document.querySelectorAll('h1').length,
    main: document.querySelectorAll('main').length,
    scripts: document.scripts.length,
    styled: body.fontFamily !== '' && body.fontFamily !== 'Times New Roman' && !/^serif$/.test(body.fontFamily),
    overflows: document.documentElement.scrollWidth > document.documentElement.clientWidth,
    text: document.body.innerText,
  };
}

async function json(page) {
  return JSON.parse(await page.locator('body').innerText());
}

async function run(task) {
  mkdirSync(task.screenshots, { recursive: true });
  const browser = await chromium.launch({ executablePath: task.chromium, args: LAUNCH });
  try {
    const context = await browser.newContext({ ignoreHTTPSErrors: true });
    context.setDefaultTimeout(PATIENCE);
    let count = 0;
    const shoot = (page, name) => {
      count += 1;
      const number = String(count).padStart(2, '0');
      return page.screenshot({ path: `${task.screenshots}/${task.scenario}-${number}-${name}.png`, fullPage: true });
    };
    return await SCENARIOS[task.scenario]({ ...task, context, shoot });
  } finally {
    await browser.close();
  }
}

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const task = JSON.parse((await lines.next()).value);
const result = await run(task).catch((error) => ({ error: String(error.stack ?? error) }));
process.stdout.write(`${JSON.stringify(result)}\n`, () => process.exit(0));
