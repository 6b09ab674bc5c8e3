// The live page: asks the worker for its state once a second and shows it. Whatever comes from records is
// foreign text and goes through textContent only.
"use strict";

const TICK_MS = 1000;
const PATIENCE_MS = 5000;
const byId = (id) => document.getElementById(id);
const reference = new URL("live/state.json", document.baseURI);

// Numbers -------------------------------------------------------------------------------------------------

const known = (value) => typeof value === "number" && Number.isFinite(value);
const format = (digits) => new Intl.NumberFormat("en-GB", { maximumFractionDigits: digits });
const WHOLE = format(0);
const TENTHS = format(1);
const HUNDREDTHS = format(2);

function count(value) {
  return known(value) ? WHOLE.format(value) : "–";
}

function rate(value) {
  if (!known(value)) return "–";
  return (value >= 100 ? WHOLE : value >= 10 ? TENTHS : HUNDREDTHS).format(value);
}

function decimal(value, digits = 3) {
  return known(value) ? value.toFixed(digits) : "–";
}

function brief(value) {
  return known(value) ? Number(value.toPrecision(4)).toString() : "–";
}

function share(value) {
  return known(value) ? `${TENTHS.format(value * 100)} %` : "–";
}

function utc(ms) {
  return known(ms) ? new Date(ms).toISOString().slice(0, 19).replace("T", " ") : "–";
}

// Elements ------------------------------------------------------------------------------------------------

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function write(id, text) {
  const target = byId(id);
  if (target.textContent !== text) target.textContent = text;
}

function explain(id, text) {
  write(id, text);
  byId(id).hidden = !text;
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

// Charts --------------------------------------------------------------------------------------------------

const CLOCK = { tickformat: "%H:%M:%S", hoverformat: "%H:%M:%S" };
const COLOURS = ["accent", "second", "third", "fourth", "fifth"];

function draw(id, series, waiting, axis, time) {
  const place = byId(id);
  const drawable = series.some((each) => each.y.filter(known).length > 1);
  if (!window.Plotly || !drawable) {
    if (window.Plotly && place.classList.contains("js-plotly-plot")) window.Plotly.purge(place);
    const note = place.querySelector(".empty") ?? place.appendChild(element("p", "empty"));
    if (note.textContent !== waiting) note.textContent = waiting;
    return;
  }
  place.querySelector(":scope > .empty")?.remove();
  const traces = series.map((each, index) => ({
    x: each.x,
    y: each.y,
    name: each.name,
    mode: each.mode ?? "lines",
    line: { color: colour(COLOURS[index % COLOURS.length]), width: 2, shape: "linear" },
    marker: { size: 5 },
    fill: each.fill,
    fillcolor: each.fill ? `${colour("accent")}1f` : undefined,
    hovertemplate: `%{y:${axis.hover}} ${axis.unit}`,
  }));
  const common = { color: colour("soft"), gridcolor: colour("grid"), fixedrange: true, zeroline: false };
  const layout = {
    margin: { l: 48, r: 8, t: 4, b: 22 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: "system-ui, sans-serif", size: 11, color: colour("soft") },
    showlegend: series.length > 1,
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", bgcolor: "rgba(0,0,0,0)" },
    hovermode: "x unified",
    hoverlabel: { bgcolor: colour("card"), bordercolor: colour("line"), font: { color: colour("text") } },
    dragmode: false,
    xaxis: { ...common, type: "date", ...time, nticks: place.clientWidth < 450 ? 4 : 7, tickangle: 0, showgrid: false },
    yaxis: { ...common, nticks: 5, rangemode: "tozero", ...axis.layout },
  };
  if (series.length > 1) layout.margin.t = 22;
  window.Plotly.react(place, traces, layout, { displayModeBar: false, responsive: true });
}

function logarithmic(values) {
  const positive = values.filter((value) => known(value) && value > 0);
  const low = Math.floor(Math.log10(Math.min(...positive, 10)));
  const high = Math.ceil(Math.log10(Math.max(...positive, 10)) + 0.05);
  return { type: "log", range: [low, high], dtick: 1, rangemode: "normal", tickformat: ",d" };
}

function charts(state) {
  const history = state.software.history;
  const at = (history.wall ?? []).map((ms) => new Date(ms));
  const missing = state.charts ?? (window.Plotly ? null : "loading the charts");
  const waiting = missing ?? "Waiting for transactions to be scored here.";
  draw(
    "chart-throughput",
    [{ x: at, y: history.transactions_per_second ?? [], name: "scored", fill: "tozeroy" }],
    waiting,
    { hover: ",.0f", unit: "tx/s", layout: {} },
    CLOCK,
  );
  const p50 = history.latency_p50_ms ?? [];
  const p99 = history.latency_p99_ms ?? [];
  draw(
    "chart-latency",
    [
      { x: at, y: p50, name: "p50" },
      { x: at, y: p99, name: "p99" },
    ],
    waiting,
    { hover: ",.0f", unit: "ms", layout: logarithmic([...p50, ...p99]) },
    CLOCK,
  );
  const past = state.statistics.history;
  draw(
    "chart-precision",
    Object.entries(past.average_precision).map(([role, values]) => ({
      // Without a zone, or it would be shown in the reader's.
      x: past.event_time.map((ms) => utc(ms)),
      y: values,
      name: role.replace("shadow:", ""),
    })),
    missing ?? "Waiting for two reports with matured labels.",
    { hover: ".3f", unit: "", layout: {} },
    { tickformat: "%-d %b", hoverformat: "%Y-%m-%d %H:%M" },
  );
}

// Sections ------------------------------------------------------------------------------------------------

function tiles(software) {
  const now = software.now ?? {};
  write("tps", rate(now.transactions_per_second));
  write("aps", rate(now.alerts_per_second));
  write("p50", rate(now.latency_p50_ms));
  write("p99", rate(now.latency_p99_ms));
  write("lag", count(now.lag_messages));
  write("behind", known(now.lag_seconds) ? `, ${TENTHS.format(now.lag_seconds)} s` : "");
  const unaccounted = software.accounting?.unaccounted;
  write("unaccounted", count(unaccounted));
  byId("accounting").className = `tile ${known(unaccounted) ? (unaccounted === 0 ? "good" : "bad") : ""}`;
  const names = { scored: "scored", duplicate: "duplicates", dead_letters: "dead letters", late: "late, scored all the same", alerts: "alerts" };
  const rows = Object.entries(names).flatMap(([name, title]) => [
    element("dt", "", title),
    element("dd", "", count(software.accounting?.[name])),
  ]);
  byId("counts").replaceChildren(...rows);
}

function models(state) {
  const quality = state.statistics.quality;
  const key = (model) => (model.role === "shadow" ? `shadow:${model.name}` : model.role);
  const here = state.models.map((model) => ({ ...model, key: key(model) }));
  const listed = here.length
    ? here
    : Object.keys(quality).map((role) => ({
        role: role.split(":")[0], name: role.split(":")[1] ?? "", key: role, elsewhere: true,
      }));
  const best = Math.max(...listed.map((model) => quality[model.key]?.average_precision ?? -1));
  const rows = listed.map((model) => {
    const row = element("tr");
    const named = element("td");
    named.append(element("span", "", model.name || "–"), " ");
    if (known(model.version)) named.append(element("span", "v", `v${model.version}`));
    const stateOf = element("td");
    const off = model.off_on > 0;
    stateOf.append(element("span", `dot ${model.elsewhere ? "" : off ? "bad" : "good"}`));
    stateOf.append(model.elsewhere ? "in another worker" : off ? `off on ${model.off_on} of ${model.partitions}` : "on");
    if (off) stateOf.title = model.off_because ?? "";
    const figures = quality[model.key] ?? {};
    const precision = element("td", "n", decimal(figures.average_precision));
    if (known(figures.average_precision) && figures.average_precision === best) precision.classList.add("best");
    row.append(
      element("td", "", model.role), named, stateOf, precision,
      element("td", "n", decimal(figures.roc_auc)), element("td", "n", decimal(figures.calibration_error)),
      element("td", "n", decimal(state.statistics.score_drift[model.key])), element("td", "n", count(model.learned)),
    );
    return row;
  });
  byId("models").replaceChildren(...rows);
  const waiting = state.about.stages.includes("score")
    ? "Waiting for partitions to be assigned."
    : "No model scores in this worker: see the page of one with the score stage. Quality comes with the first report.";
  const unlearned = "AP, AUC and calibration come with the first outcomes that have matured.";
  explain("models-empty", !listed.length ? waiting : Object.keys(quality).length ? "" : unlearned);
}

function alertOf(alert) {
  const row = element("li");
  row.dataset.alert = alert.alert_id;
  const score = element("div", "score", decimal(alert.score));
  score.append(element("small", "", `≥ ${decimal(alert.threshold)}`));
  const what = element("div", "what");
  what.append(element("b", "", `${alert.amount} ${alert.currency}`));
  for (const [name, id] of [["card", alert.card_id], ["terminal", alert.terminal_id]]) {
    if (!id) continue;
    const place = element("span", "id");
    place.append(element("span", "soft", name), ` ${id}`);
    what.append(" ", place);
  }
  const others = alert.shadows.map((shadow) => `${shadow.name} ${decimal(shadow.score, 2)}`).join(", ");
  const when = element("div", "when", utc(alert.event_time));
  when.title = `transaction ${alert.transaction_id}, alert ${alert.alert_id}, scored ${utc(alert.scored_at)} UTC`;
  const why = element("div", "why");
  for (const reason of alert.reasons) {
    const chip = element("span", "chip", `${reason.feature} = ${brief(reason.value)} `);
    chip.append(element("b", "", `${reason.contribution >= 0 ? "+" : ""}${decimal(reason.contribution, 2)}`));
    why.append(chip);
  }
  if (!alert.reasons.length) why.append(element("span", "soft", "no reasons given"));
  const by = element("span", "by", `${alert.model}${others ? ` · ${others}` : ""}`);
  why.append(by);
  row.append(score, what, when, why);
  return row;
}

function alerts(state) {
  const list = byId("alerts");
  const shown = new Map([...list.children].map((row) => [row.dataset.alert, row]));
  const wanted = new Set(state.alerts.map((alert) => alert.alert_id));
  for (const [id, row] of shown) if (!wanted.has(id)) row.remove();
  // Rows that are there stay there, so that a reader's place in the list is kept.
  let after = null;
  for (const alert of state.alerts) {
    let row = shown.get(alert.alert_id);
    const place = after ? after.nextElementSibling : list.firstElementChild;
    if (!row) list.insertBefore((row = alertOf(alert)), place);
    else if (row !== place) list.insertBefore(row, place);
    after = row;
  }
  const waiting = state.topics === "following" ? "No alert yet. They are shown as they are raised." : `No alerts: ${state.topics}.`;
  explain("alerts-empty", state.alerts.length ? "" : waiting);
  write("alerts-unit", state.alerts.length ? `the last ${state.alerts.length}, in event time (UTC)` : "");
}

function bars(id, rows) {
  const list = byId(id);
  while (list.children.length > rows.length) list.lastElementChild.remove();
  rows.forEach((row, index) => {
    let item = list.children[index];
    if (!item) {
      item = element("li");
      const track = element("div", "track");
      track.append(element("i"));
      item.append(element("span"), element("span"), track);
      list.append(item);
    }
    const [name, value, track] = item.children;
    name.textContent = row.name;
    name.title = row.title ?? row.name;
    value.textContent = row.value;
    track.firstElementChild.className = row.level ?? "";
    track.firstElementChild.style.width = `${Math.max(0, Math.min(1, row.share || 0)) * 100}%`;
  });
}

function funnel(figures) {
  const shown = figures.shown ?? 0;
  const steps = ["shown", "opened", "confirmed", "dismissed"];
  const rows = steps.map((name) => ({
    name,
    value: name === "shown" ? count(figures[name]) : `${count(figures[name])} · ${share(figures[name] / shown)}`,
    share: figures[name] / shown,
    level: { confirmed: "good", dismissed: "warn" }[name],
  }));
  if (shown > 0) {
    rows.push({ name: "precision, confirmed of decided", value: share(figures.precision), share: figures.precision, level: "good" });
  }
  bars("funnel", shown > 0 ? rows : []);
  explain("funnel-empty", shown > 0 ? "" : "Waiting for analysts: what they do with alerts comes on the feedback topic.");
}

function outcomes(found) {
  const rows = Object.entries(found).flatMap(([name, ways]) => [
    element("dt", "", `${name} by outcomes`),
    element("dd", "", share(ways.naive) + (known(ways.corrected) ? `, corrected ${share(ways.corrected)}` : "")),
  ]);
  byId("outcomes").replaceChildren(...rows);
}

function drift(features) {
  const rows = features.map((each) => ({
    name: each.feature,
    title: `${each.feature}: PSI ${decimal(each.psi)}, KS ${decimal(each.ks)}`,
    value: decimal(each.psi),
    share: each.psi, // a full bar is 1: what lies above is as bad
    level: each.psi > 0.25 ? "bad" : each.psi > 0.1 ? "warn" : "good",
  }));
  bars("drift", rows);
  byId("drift-legend").hidden = !rows.length;
  explain("drift-empty", rows.length ? "" : "Waiting for a reference and something to compare with it.");
}

function events(noticed) {
  const rows = noticed.map((event) => {
    const row = element("li");
    const signal = `${event.signal.replaceAll("_", " ")} ${brief(event.before)} → ${brief(event.after)}`;
    row.append(element("b", "", `${event.model} ${event.what}`), ` ${signal} `, element("span", "soft", utc(event.event_time)));
    return row;
  });
  byId("events").replaceChildren(...rows);
}

function show(state) {
  const stages = state.about.stages.join(", ");
  const until = state.statistics.event_time;
  write("worker", `${state.about.version} · ${stages}${known(until) ? ` · statistics until ${utc(until)} UTC` : ""}`);
  tiles(state.software);
  models(state);
  alerts(state);
  funnel(state.statistics.funnel);
  outcomes(state.statistics.outcomes);
  drift(state.statistics.drift);
  events(state.statistics.events);
  charts(state);
}

// The clockwork -------------------------------------------------------------------------------------------

let answeredAt = null;
let last = null;

function status(text, level) {
  const badge = byId("status");
  write("status", text);
  badge.className = `badge ${level}`;
  document.body.classList.toggle("stale", level === "bad");
}

async function tick() {
  try {
    const answer = await fetch(reference, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    last = await answer.json();
    answeredAt = new Date();
    show(last);
    status(last.topics === "following" ? "live" : `live, but ${last.topics}`, "good");
  } catch (error) {
    const since = answeredAt ? `, figures of ${answeredAt.toTimeString().slice(0, 8)}` : "";
    status(`no answer from the worker${since}`, "bad");
    console.warn(error);
  }
}

async function run() {
  for (;;) {
    // A page in the background asks for nothing, so that the worker can stop gathering for it.
    if (!document.hidden) await tick();
    await new Promise((resolve) => setTimeout(resolve, TICK_MS));
  }
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => last && charts(last));
run();
