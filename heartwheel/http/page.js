"use strict";
// The status page: asks /status.json once a second and draws. Whatever comes from input is set as
// text, never as markup.

const KEPT_MS = 15 * 60_000;
const SVG = "http://www.w3.org/2000/svg";
const $ = (id) => document.getElementById(id);

let points = {time_ms: []};
let startedMs = 0;
let minutes = 5;
let answeredAt = 0;
let now = {};

// Numbers as they are read.

const whole = new Intl.NumberFormat("en", {maximumFractionDigits: 0});
const some = new Intl.NumberFormat("en", {maximumFractionDigits: 1});
const count = (n) => (n === null || n === undefined ? "-" : whole.format(n));
const rate = (n) => (n < 10 ? some : whole).format(n);
function seconds(s) {
  if (s === null || s === undefined) return "-";
  if (s < 0.01) return `${(s * 1000).toFixed(1)} ms`;
  if (s < 1) return `${Math.round(s * 1000)} ms`;
  if (s < 100) return `${s.toFixed(s < 10 ? 1 : 0)} s`;
  if (s < 6000) return `${Math.round(s / 60)} min`;
  return s < 172_800 ? `${some.format(s / 3600)} h` : `${some.format(s / 86_400)} d`;
}
function bytes(n) {
  const step = n < 1e3 ? 0 : n < 1e6 ? 1 : n < 1e9 ? 2 : 3;
  return `${some.format(n / 1000 ** step)} ${["B", "kB", "MB", "GB"][step]}`;
}
const moment = (ms) => new Date(ms).toLocaleTimeString("en-GB");
const date = (ms) => (ms === null ? "none, it times out before" : new Date(ms).toLocaleString("en-GB"));

// Building blocks.

function element(name, kind, ...children) {
  const made = document.createElement(name);
  if (kind) made.className = kind;
  made.append(...children);
  return made;
}
function drawn(name, attributes, text = "") {
  const made = document.createElementNS(SVG, name);
  for (const key in attributes) made.setAttribute(key, attributes[key]);
  made.textContent = text;
  return made;
}
const row = (...cells) => element("tr", "", ...cells);
const cell = (text, kind = "") => element("td", kind, text === null ? "-" : String(text));
const head = (...names) =>
  row(...names.map((n) => element("th", n.startsWith("#") ? "number" : "", n.replace("#", ""))));
const facts = (pairs) =>
  pairs.flatMap(([name, value]) => [element("dt", "", name), element("dd", "", String(value))]);

// Charts.

const CHARTS = [
  {title: "Active sessions", show: count, series: [["active", "active"]]},
  {title: "Heartbeats per second", show: rate, series: [["heartbeats", "heartbeats"]]},
  {title: "Events per second", show: rate, series: [["starts", "starts"], ["ends", "ends"]]},
  {title: "Event to acknowledged", show: seconds,
    series: [["event_p50_s", "p50"], ["event_p99_s", "p99"]]},
  {title: "Heartbeat lateness", show: seconds,
    series: [["heartbeat_p50_s", "p50"], ["heartbeat_p99_s", "p99"]]},
  {title: "Clock lag", show: seconds, series: [["clock_lag_s", "slowest lane"]]},
];
const KINDS = ["one", "two"];

for (const chart of CHARTS) {
  chart.svg = drawn("svg", {role: "img", "aria-label": chart.title});
  chart.tip = element("div", "tip");
  chart.tip.hidden = true;
  chart.keys = chart.series.map((_, n) => element("span", `key ${KINDS[n]}`));
  const top = element("header", "", element("h2", "", chart.title), ...chart.keys);
  chart.card = element("article", "card chart", top, chart.svg, chart.tip);
  chart.svg.addEventListener("pointermove", (event) => {
    chart.at = event.clientX - chart.svg.getBoundingClientRect().left;
    draw(chart);
  });
  chart.svg.addEventListener("pointerleave", () => {
    chart.at = undefined;
    draw(chart);
  });
  $("charts").append(chart.card);
}

// The least of some round numbers times a power of ten that is at least n.
function roundUp(n) {
  const power = 10 ** Math.floor(Math.log10(n));
  return power * [1, 2, 3, 4, 5, 6, 8, 10].find((step) => step * power >= n * 0.9999);
}

function draw(chart) {
  const width = chart.svg.clientWidth, height = chart.svg.clientHeight;
  if (!width || !points.time_ms.length) return;
  const times = points.time_ms, end = times[times.length - 1], begin = end - minutes * 60_000;
  const first = Math.max(0, times.findIndex((t) => t >= begin));
  let most = 0;
  for (const [name] of chart.series) for (const v of points[name].slice(first)) most = Math.max(most, v);
  const top = roundUp(most * 1.05 || 1);
  const left = 46, bottom = height - 18;
  const x = (t) => left + ((t - begin) / (end - begin)) * (width - left - 4);
  const y = (v) => bottom - (v / top) * (bottom - 8);
  const parts = [];
  for (const share of [0, 0.5, 1]) {
    const level = y(top * share);
    parts.push(drawn("line", {x1: left, x2: width, y1: level, y2: level, class: "grid"}));
    const label = share ? chart.show(top * share) : "0";
    parts.push(drawn("text", {x: left - 6, y: level + 4, "text-anchor": "end"}, label));
  }
  for (const [share, anchor] of [[0, "start"], [0.5, "middle"], [1, "end"]]) {
    const at = x(begin + share * (end - begin));
    const label = moment(begin + share * (end - begin));
    parts.push(drawn("text", {x: at, y: height - 3, "text-anchor": anchor}, label));
  }
  chart.series.forEach(([name], n) => {
    const runs = [];
    for (let i = first; i < times.length; i++) {
      const gap = i === first || points[name][i - 1] === null || times[i] - times[i - 1] > 5000;
      if (points[name][i] === null) continue;
      if (gap) runs.push([]);
      runs[runs.length - 1].push(`${x(times[i]).toFixed(1)},${y(points[name][i]).toFixed(1)}`);
    }
    for (const run of runs) {
      const from = run[0].split(",")[0], to = run[run.length - 1].split(",")[0];
      const line = `M${run.join("L")}`;
      if (chart.series.length === 1) {
        parts.push(drawn("path", {d: `${line}L${to},${bottom}L${from},${bottom}Z`, class: "area"}));
      }
      parts.push(drawn("path", {d: line, class: `line ${KINDS[n]}`}));
    }
  });
  chart.tip.hidden = chart.at === undefined;
  if (chart.at !== undefined) parts.push(...point(chart, x, y, first));
  chart.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  chart.svg.replaceChildren(...parts);
  chart.series.forEach(([name, label], n) => {
    const last = chart.show(points[name][points[name].length - 1]);
    chart.keys[n].textContent = chart.series.length === 1 ? last : `${label} ${last}`;
  });
}

// The values under the pointer.
function point(chart, x, y, first) {
  const times = points.time_ms;
  let near = first;
  for (let i = first; i < times.length; i++) {
    if (Math.abs(x(times[i]) - chart.at) < Math.abs(x(times[near]) - chart.at)) near = i;
  }
  const at = x(times[near]), width = chart.svg.clientWidth;
  const lines = chart.series.map(([name, label]) => `${label} ${chart.show(points[name][near])}`);
  chart.tip.textContent = [moment(times[near]), ...lines].join("\n");
  chart.tip.style.left = `${at < width / 2 ? at + 24 : at - chart.tip.offsetWidth}px`;
  const bottom = chart.svg.clientHeight - 18;
  const dots = chart.series.flatMap(([name], n) => {
    const value = points[name][near];
    if (value === null) return [];
    return [drawn("circle", {cx: at, cy: y(value), r: 3.5, class: `dot ${KINDS[n]}`})];
  });
  return [drawn("line", {x1: at, x2: at, y1: 8, y2: bottom, class: "cross"}), ...dots];
}

// What is now.

const sum = (values) => Object.values(values).reduce((a, b) => a + b, 0);
const last = (name) => points[name]?.[points[name].length - 1];

function tile(label, value, below = "", kind = "") {
  return element("div", "tile", element("span", "", label), element("b", kind, value),
    element("small", "", below));
}

function showTiles() {
  const platforms = Object.entries(now.active).sort().map(([name, n]) => `${name} ${count(n)}`);
  const rejected = sum(now.rejected);
  $("tiles").replaceChildren(
    tile("Active sessions", count(sum(now.active)), platforms.join(" · ")),
    tile("Heartbeats per second", rate(last("heartbeats") ?? 0), `${count(now.heartbeats)} in all`),
    tile("Events per second", rate((last("starts") ?? 0) + (last("ends") ?? 0)),
      `${count(sum(now.events))} in all`),
    tile("Event to acknowledged", seconds(last("event_p99_s")), `p99; p50 ${seconds(last("event_p50_s"))}`),
    tile("Heartbeat lateness", seconds(last("heartbeat_p99_s")),
      `p99; p50 ${seconds(last("heartbeat_p50_s"))}`),
    tile("Dead letters", count(rejected),
      Object.entries(now.rejected).filter(([, n]) => n).map(([name, n]) => `${name.replaceAll("_", " ")} ${count(n)}`).join(" · "),
      last("dead_letters") ? "warn" : ""),
  );
}

const STATES = {live: "good", behind: "bad", restoring: "warn", waiting: "warn", elsewhere: "none"};

function showTables() {
  $("lanes").replaceChildren(head("lane", "state", "#sessions", "#lag"), ...now.lanes.map((lane) =>
    row(cell(lane.lane),
      cell(lane.state === "elsewhere" ? `process ${lane.process}, ${lane.address}` : lane.state,
        STATES[lane.state]),
      cell(lane.active === undefined ? "-" : count(lane.active), "number"),
      cell(seconds(lane.lag_s), "number"))));
  $("platforms").replaceChildren(head("platform", "#sessions", "#starts", "#ends", "#no end"),
    ...now.platforms.map(({platform, active, events, outcomes}) => row(cell(platform, "text"),
      ...[active, events.GameStart, events.GameEnd, outcomes.timed_out + outcomes.went_silent].map(
        (n) => cell(count(n), "number")))));
  $("topics").replaceChildren(head("topic", "#silent for"),
    ...Object.entries(now.input_silence).sort().map(([topic, s]) =>
      row(cell(topic, "text"), cell(seconds(s), "number"))));
  $("input").replaceChildren(head("partition", "#records to read"), ...now.consumer_lag.map((part) =>
    row(cell(`${part.topic}/${part.partition}`, "text"), cell(count(part.records), "number"))));
  $("outcomes").replaceChildren(...facts(
    Object.entries(now.outcomes).map(([name, n]) => [name.replaceAll("_", " "), count(n)])));
  const snapshot = now.snapshot;
  $("store").replaceChildren(...facts([
    ["last snapshot", snapshot.age_s === null ? "none yet" : `${seconds(snapshot.age_s)} ago`],
    ["one every", seconds(now.limits.snapshot_s)],
    ["time of one, p99", seconds(snapshot.p99_s)],
    ["written since the start", bytes(snapshot.bytes)],
    ["rows stored", `${count(snapshot.store_keys)}, ${bytes(snapshot.store_bytes)}`],
    ["records on their way to Kafka", count(now.sink_queue)],
    ["memory, processor", `${bytes(last("memory_bytes") ?? 0)}, ${(last("cores") ?? 0).toFixed(2)} cores`],
  ]));
  const letters = now.dead_letters.map((letter) => row(
    cell(moment(letter.time_ms)),
    cell(`${letter.topic}/${letter.partition} @ ${letter.offset}`, "text"),
    cell(letter.reason.replaceAll("_", " "), "warn"),
    cell(letter.detail, "text"),
    cell(`${letter.key ?? "no key"}: ${letter.value ?? "no value"}`, "code")));
  const none = row(cell("none since the start", "none"));
  $("letters").replaceChildren(
    ...(letters.length ? [head("timestamp", "where", "reason", "detail", "key: value"), ...letters] : [none]));
}

function showShards(shards) {
  $("shards-card").hidden = !shards.length;
  const all = (name) => sum(shards.map((one) => one[name] ?? 0));
  const numbers = (one) => [cell(count(one.active), "number"), cell(count(one.heartbeats), "number")];
  const state = (one) => (!one.answers ? cell("does not answer", "bad")
    : one.ready ? cell("ready", "good") : cell(one.reason, "warn"));
  const total = {active: all("active"), heartbeats: all("heartbeats")};
  $("shards").replaceChildren(head("shard", "state", "#sessions", "#heartbeats/s", "#lag"),
    ...shards.map((one) => row(cell(one.shard), state(one), ...numbers(one), cell(seconds(one.lag_s), "number"))),
    row(cell("all"), cell(""), ...numbers(total), cell("")));
}

function showState() {
  const silentS = (Date.now() - answeredAt) / 1000;
  const silent = silentS > 3;
  $("main").classList.toggle("stale", silent);
  const state = $("state");
  state.className = `pill ${silent ? "bad" : now.ready ? "good" : ""}`;
  state.textContent = silent ? (answeredAt ? `no answer for ${seconds(silentS)}` : "no answer")
    : now.ready ? "ready" : `not ready: ${now.reason}`;
  document.title = silent ? "✕ Heartwheel" : `${count(sum(now.active))} active · Heartwheel`;
}

function show() {
  const shard = now.shard ? ` · shard ${now.shard}` : "";
  const process = now.processes > 1 ? ` · process ${now.process} of ${now.processes}` : "";
  const up = seconds((now.now_ms - now.started_ms) / 1000);
  $("about").textContent = `version ${now.version}${shard}${process} · up ${up} · ${moment(now.now_ms)}`;
  $("token").hidden = true;
  $("main").hidden = $("range").hidden = false;
  showTiles();
  showTables();
  CHARTS.forEach(draw);
}

// Asking.

function ask(path) {
  const token = sessionStorage.getItem("heartwheel.token");
  const headers = token ? {Authorization: `Bearer ${token}`} : {};
  return fetch(path, {headers, signal: AbortSignal.timeout(5000)});
}

function take(status) {
  if (status.started_ms !== startedMs) points = {time_ms: []};
  startedMs = status.started_ms;
  for (const name in status.history) points[name] = (points[name] ?? []).concat(status.history[name]);
  const end = last("time_ms") ?? 0;
  const old = points.time_ms.findIndex((t) => t > end - KEPT_MS);
  if (old > 0) for (const name in points) points[name].splice(0, old);
  now = status;
  answeredAt = Date.now();
}

async function updateShards() {
  try {
    showShards((await (await ask("/shards.json")).json()).shards);
  } catch (error) {
    // The page says above that there is no answer.
  }
}

async function update() {
  try {
    const answer = await ask(`/status.json?after=${last("time_ms") ?? 0}`);
    if (answer.status === 401) return askToken();
    if (!answer.ok) throw new Error(String(answer.status));
    const status = await answer.json();
    if (startedMs && status.started_ms !== startedMs && last("time_ms")) {
      points = {time_ms: []};  // started again: its whole history is wanted
      startedMs = status.started_ms;
      return update();
    }
    take(status);
    show();
    showState();
    if (status.shard) updateShards();
  } catch (error) {
    showState();
  }
  setTimeout(update, document.hidden ? 10_000 : 1000);
}

function askToken() {
  if (sessionStorage.getItem("heartwheel.token")) $("token-text").textContent = "That is not the token.";
  $("state").textContent = "token needed";
  $("main").hidden = $("range").hidden = true;
  $("token").hidden = false;
  document.querySelector("#token input").focus();
}

$("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const field = document.querySelector("#token input");
  sessionStorage.setItem("heartwheel.token", field.value.trim());
  field.value = "";
  update();
});

$("device-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  let found;
  try {
    found = await (await ask(`/devices/${encodeURIComponent($("device-id").value)}`)).json();
  } catch (error) {
    found = {error: "no answer"};
  }
  $("device").replaceChildren(...facts(found.active ? [
    ["session", found.session_id],
    ["platform", found.platform],
    ["active since", date(found.started_ms)],
    ["next heartbeat", date(found.next_heartbeat_ms)],
    ["times out", date(found.timeout_ms)],
    ["lane", found.lane],
  ] : [[$("device-id").value, found.error]]));
});

for (const button of document.querySelectorAll("nav button")) {
  button.addEventListener("click", () => {
    minutes = Number(button.dataset.minutes);
    for (const other of document.querySelectorAll("nav button")) {
      other.setAttribute("aria-pressed", String(other === button));
    }
    CHARTS.forEach(draw);
  });
}
addEventListener("resize", () => CHARTS.forEach(draw));
update();
