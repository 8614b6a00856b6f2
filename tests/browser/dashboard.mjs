// The dashboard in a real browser, against a real `replica dashboard` and a database that a program writes to.
//
//   node dashboard.mjs      driven by tests/e2e/dashboard_test.py, which starts the servers
//
// Settings by environment: DASHBOARD_URL, DASHBOARD_USER, DASHBOARD_PASSWORD, DASHBOARD_FOLDER (of the database),
// NODE_MODULES (where playwright-core is), SCREENSHOTS (a folder; empty: none are taken).
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';

const { chromium } = createRequire(`${process.env.NODE_MODULES}/`)('playwright-core');
const { DASHBOARD_URL: url, DASHBOARD_USER: user, DASHBOARD_PASSWORD: password, DASHBOARD_FOLDER: folder } = process.env;
const shots = process.env.SCREENSHOTS;

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync'],
});
const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, timezoneId: 'UTC' });
const page = await context.newPage();
page.setDefaultTimeout(20000);
const complaints = [];
const foreign = [];
// A request that is refused on purpose (no session yet, wrong password) shows in the console too.
page.on('console', (m) => m.type() === 'error' && !/status of 401/.test(m.text()) && complaints.push(m.text()));
page.on('pageerror', (error) => complaints.push(error.stack));
page.on('request', (request) => !request.url().startsWith(url) && !request.url().startsWith('data:')
  && foreign.push(request.url()));

const id = (name) => page.getByTestId(name);
const waitText = (name, pattern) => id(name).filter({ hasText: pattern }).waitFor();
async function step(name, work) {
  await work();
  console.log(`ok ${name}`);
}
async function shot(name) {
  if (shots) await page.screenshot({ path: `${shots}/${name}.png` });
}
async function login(secret) {
  await id('login-user').fill(user);
  await id('login-password').fill(secret);
  await id('login-password').press('Enter');
}

try {
  await step('a wrong password is refused', async () => {
    await page.goto(url);
    await login('wrong password');
    await waitText('login-error', /wrong/i);
    assert.equal(await id('database-card').count(), 0);
  });

  await step('the right one opens the overview', async () => {
    await login(password);
    await id('database-card').first().waitFor();
    await waitText('state', /^streaming$/);
    await shot('overview');
  });

  await step('the session is in an HttpOnly, SameSite cookie', async () => {
    const [cookie] = await context.cookies();
    assert.equal(cookie.httpOnly, true);
    assert.equal(cookie.sameSite, 'Strict');
    assert.equal(await page.evaluate(() => document.cookie), '');
  });

  await step('a database is shown live: TXIDs and charts move', async () => {
    await id('database-card').first().getByRole('link').first().click();
    await waitText('detail', /shop\.db/);
    const committed = async () => Number(await page.locator('[data-f="committed"]').first().innerText());
    await page.waitForFunction(() => Number(document.querySelector('[data-f="committed"]')?.textContent) > 0);
    const before = await committed();
    await page.waitForFunction((n) => Number(document.querySelector('[data-f="committed"]').textContent) > n, before);
    for (const chart of ['chart-lag', 'chart-commits', 'chart-bytes'])
      await id(chart).locator('.curve').first().waitFor({ state: 'attached' }); // a flat line counts as hidden
    assert.match(await id('chart-commits').locator('.chart-value').innerText(), /\/s/);
  });

  for (const depth of ['quick', 'full', 'objects']) {
    await step(`verify ${depth} proves the replica`, async () => {
      await id('verify-depth').selectOption(depth);
      await id('verify-start').click();
      await waitText('verify-result', new RegExp(`The replica is right[\\s\\S]*${depth}`));
    });
  }

  await step('snapshot', async () => {
    await id('snapshot-start').click();
    await waitText('snapshot-result', /Snapshot written/);
  });

  await step('restore to a moment picked with the keyboard', async () => {
    await page.locator('#restore-range').focus();
    for (let i = 0; i < 3; i += 1) await page.keyboard.press('ArrowLeft');
    assert.match(await id('restore-target').inputValue(), /^\d{4}-\d\d-\d\dT/);
    await id('restore-file').fill('picked.db');
    await id('restore-start').click();
    await page.getByText(`${folder}/picked.db`).waitFor();
    await id('restore-confirm').click();
    await waitText('restore-result', /Restored[\s\S]*picked\.db/);
    assert.ok(existsSync(`${folder}/picked.db`));
  });

  await step('a file that is there is never overwritten', async () => {
    await id('restore-start').click();
    await id('restore-confirm').click();
    await waitText('restore-result', /never overwrites/);
  });

  await step('restore to a TXID', async () => {
    await id('restore-target').fill('30');
    await id('restore-file').fill('second.db');
    await id('restore-start').click();
    await id('restore-confirm').click();
    await waitText('restore-result', /second\.db/);
    assert.ok(existsSync(`${folder}/second.db`));
    if (shots) await page.screenshot({ path: `${shots}/database.png`, fullPage: true });
  });

  await step('events and configuration', async () => {
    await waitText('events', /snapshot/);
    await id('config-link').click();
    await waitText('config-table', /REPLICA_SECRET_ACCESS_KEY/);
    const shown = await page.content();
    assert.ok(!shown.includes('a-very-secret-key'), 'secrets are masked');
  });

  await step('a phone in the dark', async () => {
    await page.emulateMedia({ colorScheme: 'dark' });
    await page.setViewportSize({ width: 390, height: 844 });
    await page.goto(`${url}#/db/0`);
    await waitText('state', /^streaming$/);
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= window.innerWidth), 'no sideways scroll');
    await shot('phone-dark');
  });

  await step('keyboard: the first stop skips to the content', async () => {
    await page.goto(`${url}#/`);
    await page.reload();
    await id('database-card').first().waitFor();
    await page.keyboard.press('Tab');
    assert.equal(await page.evaluate(() => document.activeElement.id), 'skip');
  });

  await step('log out', async () => {
    await id('logout').click();
    await id('login-form').waitFor();
    assert.equal((await page.request.get(`${url}api/databases`)).status(), 401);
  });

  // The refused restore answers 409, which the console notes.
  assert.deepEqual(complaints.filter((text) => !/status of 409/.test(text)), []);
  assert.deepEqual(foreign, [], 'no request leaves the server');
} catch (error) {
  console.error(await page.locator('body').innerText().catch(() => ''));
  throw error;
} finally {
  await browser.close();
}
