// The page: what is in force, what it was, and whether it can be relied on.

import { chart, minute } from "/static/charts.js";
import { NoKey, ask, forget, keep, listen } from "/static/service.js";

const at = (id) => document.getElementById(id);
const percent = (rate) => (rate === null ? "–" : `${(100 * rate).toFixed(2)} %`);
const times = (value) => `${value.toFixed(2)}x`;
const dollars = (value) => value.toLocaleString("en-US", { maximumFractionDigits: 2 });
let contracts = [], chosen = null, listening = false;

function cell(text, kind) {
  const made = document.createElement("td");
  if (kind) made.className = kind;
  made.textContent = text;
  return made;
}

// What is charged now, and what will be from when on.
function rates(tier) {
  const announced = Date.parse(tier.effective_from) > Date.now() && tier.mmr_in_force !== null;
  return [
    cell(percent(announced ? tier.mmr_in_force : tier.mmr), "number"),
    cell(announced ? `${percent(tier.mmr)} from ${minute(tier.effective_from)}` : "–", "number"),
  ];
}

function banner(status, reason, count = "") {
  const titles = { fallback: "Fallback", stale: "Out of date", empty: "Nothing published", away: "Not answering" };
  at("banner").hidden = status === "ok";
  at("banner").dataset.status = status;
  at("banner-title").textContent = (titles[status] ?? "") + count;
  at("banner-reason").textContent = reason;
}

async function everything(path) {
  let found = [], version = "";
  let after = "";
  do {
    const page = await ask(`${path}&after=${encodeURIComponent(after)}`);
    const own = JSON.stringify(page.publication);
    // a new publication came between two pages: begin again, so that the table is of one
    if (after && own !== version) { found = []; after = ""; continue; }
    version = own;
    found.push(...page.contracts);
    after = page.next;
  } while (after !== null);
  return found;
}

async function refresh() {
  const status = await ask("/v1/status");
  const fallen = status.fallbacks.length ? `: ${status.fallbacks.length} of ${status.contracts} contracts in fallback` : "";
  banner(status.status, status.reason, fallen);
  const publication = status.publication;
  at("publication").textContent = publication
    ? `publication ${publication.number}${publication.revision ? `, revision ${publication.revision}` : ""}, ` +
      `${minute(publication.published_at)}, by ${status.by}: ${status.published_because}`
    : "no publication";
  at("key-form").hidden = true;
  at("content").hidden = false;
  contracts = publication ? await everything("/v1/margins?limit=500&tier=1") : [];
  table();
  if (chosen) await show(chosen);
}

function table() {
  const rows = contracts.flatMap(({ symbol, sides }) => sides.map((side) => row(symbol, side)));
  at("contracts").tBodies[0].replaceChildren(...rows);
  filter();
}

function row(symbol, side) {
  const made = document.createElement("tr");
  const tier = side.tiers[0];
  made.dataset.symbol = symbol;
  made.dataset.status = side.status;
  const name = document.createElement("td");
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = symbol;
  button.setAttribute("aria-label", `${symbol} ${side.side}: show history`);
  button.addEventListener("click", () => choose(symbol));
  name.append(button);
  made.append(
    name, cell(side.side), cell(side.status, side.status), ...rates(tier),
    cell(percent(tier.imr), "number"), cell(times(tier.multiplier), "number"),
    cell(percent(side.forecast), "number"), cell(times(tier.max_leverage), "number"),
    cell(tier.binding_rule),
  );
  return made;
}

function filter() {
  const wanted = at("search").value.trim().toLowerCase();
  const fallen = at("only-fallbacks").checked;
  let count = 0;
  for (const one of at("contracts").tBodies[0].rows) {
    const seen = one.dataset.symbol.toLowerCase().includes(wanted) && (!fallen || one.dataset.status === "fallback");
    one.hidden = !seen;
    count += seen;
    one.setAttribute("aria-current", String(one.dataset.symbol === chosen));
  }
  at("found").textContent = `${count} of ${at("contracts").tBodies[0].rows.length} rows`;
}

async function choose(symbol) {
  chosen = symbol;
  filter();
  await show(symbol);
  at("contract").focus();
}

async function show(symbol) {
  const name = encodeURIComponent(symbol);
  const [margins, monitor, ...pasts] = await Promise.all([
    ask(`/v1/margins/${name}`),
    ask(`/v1/monitor?symbol=${name}`),
    ask(`/v1/history/${name}?side=long`),
    ask(`/v1/history/${name}?side=short`),
  ]);
  // who chose another one meanwhile wants to see that one
  if (symbol !== chosen) return;
  at("contract").hidden = false;
  at("contract-source").textContent = margins.sides.map((side) =>
    `${side.side}: ${side.data_as_of ? `data as of ${minute(side.data_as_of)}` : "no data"}, ${side.model_version || "no model"}`,
  ).join("; ");
  at("contract-title").textContent = symbol;
  const lines = (key, kind) => pasts.map(({ moments }, place) => ({
    name: `${["long", "short"][place]} ${key}`,
    kind: `${["long", "short"][place]} ${kind}`,
    points: moments.map((one) => ({ number: one.number, time: one.published_at, value: one[key], fell: one.status === "fallback" })),
  }));
  at("mmr-chart").replaceChildren(chart([...lines("mmr", "margin"), ...lines("forecast", "forecast")], {
    label: `MMR (line) and forecast (dashed) of ${symbol}, long and short`, format: percent, width: at("mmr-chart").clientWidth,
  }));
  at("multiplier-chart").replaceChildren(chart(lines("multiplier", "margin"), {
    label: `Multiplier of ${symbol}, long and short`, format: times, width: at("multiplier-chart").clientWidth,
  }));
  at("tiers").tBodies[0].replaceChildren(...margins.sides.flatMap((side) => side.tiers.map((tier) => {
    const made = document.createElement("tr");
    made.append(
      cell(side.side), cell(dollars(tier.cap_usd), "number"), ...rates(tier),
      cell(percent(tier.imr), "number"), cell(times(tier.multiplier), "number"),
      cell(dollars(tier.maintenance_amount_usd), "number"), cell(tier.reason),
    );
    return made;
  })));
  at("exceedances").hidden = monitor.coverage.length === 0;
  at("exceedances-absent").textContent = monitor.coverage.length ? "" : monitor.note;
  at("exceedances").tBodies[0].replaceChildren(...monitor.coverage.map((one) => {
    const made = document.createElement("tr");
    made.append(
      cell(one.record), cell(one.side), cell(String(one.level), "number"), cell(dollars(one.known), "number"),
      cell(dollars(one.exceeded), "number"),
      cell(one.exceedance_ratio === null ? "–" : times(one.exceedance_ratio), "number"),
    );
    return made;
  }));
}

async function start() {
  try {
    await refresh();
    if (!listening) {
      listening = true;
      listen(start, (error) => banner("away", `${error.message}; what is shown is what the service said last`));
    }
  } catch (error) {
    if (!(error instanceof NoKey)) return banner("away", error.message);
    // asked for already: who is typing is left in peace
    if (!at("key-form").hidden && sessionStorage.length === 0) return;
    at("key-form").hidden = false;
    at("content").hidden = true;
    at("key-problem").textContent = sessionStorage.length ? error.message : "";
    forget();
    at("key").focus();
  }
}

at("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  keep(at("key").value.trim());
  at("key").value = "";
  start();
});
at("search").addEventListener("input", filter);
at("only-fallbacks").addEventListener("change", filter);
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && !["INPUT", "TEXTAREA"].includes(document.activeElement.tagName)) {
    event.preventDefault();
    at("search").focus();
  }
});
start();
