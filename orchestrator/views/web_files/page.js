// Asks the orchestrator once a second what goes on and draws it. Whatever comes from there is put in as text,
// never as markup: names and reasons are the words of devices. A part is drawn anew only if it has changed.
"use strict";

const EVERY_MS = 1000, UNKNOWN = "–", NAMED = 12, OVER = new Set(["done", "failed", "stopped"]);
const page = { tag: "", aheadS: 0, heardS: null, jobs: new Map(), devices: "" };
const at = (id) => document.getElementById(id);

function put(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children.filter((child) => child !== null && child !== ""));
  return node;
}
const el = (tag, attributes, ...children) => put(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) =>
  put(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

// --- words -----------------------------------------------------------------------------------------------------

const number = (value, digits = 2) => (value === null || value === undefined ? UNKNOWN : value.toFixed(digits));
const signed = (value, digits) => number(value, digits).replace(/^-(0\.?0*)$/, "$1").replace("-", "−");
const joules = (value) => (value === null ? UNKNOWN : String(Number(value.toPrecision(4))));
const doing = (phase) => ({ asked: "asked", evaluate: "evaluating" })[phase] ?? "training";
const count = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;

function energy(spent) {
  if (spent.attributed_j === null) return UNKNOWN;
  const guessed = spent.methods.includes("estimated") ? " est." : "";
  return `${spent.complete ? "" : "≥ "}${joules(spent.attributed_j)} J${guessed}`;
}

function duration(seconds) {
  const whole = Math.max(Math.floor(seconds), 0);
  for (const [size, unit, below, small] of [[86400, "d", 3600, "h"], [3600, "h", 60, "min"], [60, "min", 1, "s"]])
    if (whole >= size) return `${Math.floor(whole / size)} ${unit} ${Math.floor((whole % size) / below)} ${small}`;
  return `${whole} s`;
}

const nowS = () => Date.now() / 1000 + page.aheadS;
const age = (wallS) =>
  wallS === null ? UNKNOWN : el("time", { "data-since": wallS, title: new Date(wallS * 1000).toLocaleString() },
    duration(nowS() - wallS));
const grow = () => {
  for (const node of document.querySelectorAll("[data-since]"))
    node.textContent = duration(nowS() - Number(node.dataset.since));
};

const busy = (device) => device.work !== null && (device.state === "working" || device.state === "asked");

// --- a job -----------------------------------------------------------------------------------------------------

function facts(job) {
  const known = job.tasks.map((task) => task.relative).filter((value) => value !== null);
  const mean = known.length && known.length === job.tasks.length ? known.reduce((a, b) => a + b) / known.length : null;
  const inHand = job.under_way_j ? ` + ${joules(job.under_way_j)} J under way` : "";
  const parts = [[energy(job.energy), (job.budget.energy_j === null ? "" : ` of ${joules(job.budget.energy_j)} J`) + inHand],
    [duration(job.time_s), job.budget.time_s === null ? "" : ` of ${duration(job.budget.time_s)}`],
    [number(mean), " mean loss"], [count(job.tasks.length, "task"), ""]];
  if (job.left_s !== null) parts.splice(2, 0, [`about ${duration(job.left_s)}`, " left"]);
  if (job.gave_up + job.refused + job.late)
    parts.push(["", `${job.gave_up} gave up, ${job.refused} refused, ${job.late} late`]);
  return parts.flatMap(([strong, rest], i) => [i ? " · " : "", strong ? el("b", {}, strong) : "", rest]);
}

function chart(task, job, colours) {
  const points = task.curves.flatMap((c) => c.rounds.map((round, i) => ({ group: c.group, round, value: c.relative[i] })))
    .filter((point) => point.value !== null).sort((a, b) => a.round - b.round);
  const parents = new Map(job.groups.map((group) => [group.group, group.parent]));
  const last = (group, past) => points.findLast((point) => point.group === group && point.round < past);
  const [left, right, top, floor] = [14, 196, 6, 78];
  const most = Math.max(1.08, ...points.map((point) => point.value));
  const x = (round) => left + ((round + 1) / Math.max(job.rounds, 1)) * (right - left);
  const y = (value) => floor - (value / most) * (floor - top);
  const marks = points.map((point, i) => {
    const colour = `g${colours.get(point.group) ?? 0}`, before = last(point.group, point.round) ?? last(parents.get(point.group), point.round) ?? point;
    const line = { class: "curve", x1: x(before.round), y1: y(before.value), x2: x(point.round), y2: y(point.value) };
    const dot = { class: "point", cx: x(point.round), cy: y(point.value), r: i === points.length - 1 ? 3 : 1.6 };
    return svg("g", { class: colour }, svg("line", line), svg("circle", dot));
  });
  const label = `${task.name}: ${number(task.relative)} of the constant predictor’s loss`;
  const picture = svg("svg", { viewBox: "0 0 200 92", role: "img", "aria-label": label },
    svg("line", { class: "axis", x1: left, y1: floor, x2: right, y2: floor }),
    svg("line", { class: "one", x1: left, y1: y(1), x2: right, y2: y(1) }),
    svg("text", { x: left - 4, y: y(1) + 3, "text-anchor": "end" }, "1"),
    svg("text", { x: left - 4, y: floor + 3, "text-anchor": "end" }, "0"),
    svg("text", { x: left, y: 90 }, "round"),
    svg("text", { x: right, y: 90, "text-anchor": "end" }, String(job.rounds)), ...marks);
  const about = [task.task === task.name ? "" : task.task, task.owner && `for ${task.owner}`,
    task.stopped ? "stopped" : "", `training loss ${number(task.training, 3)}`, energy(task.energy)].filter(Boolean).join(" · ");
  return el("div", { class: "chart" }, el("div", { class: "top" }, el("b", {}, task.name), el("span", {}, number(task.relative))),
    el("div", { class: "of" }, about), picture);
}

function node(group, job, devices, colours) {
  const past = group.phase === "gone on" || group.phase === "dropped", here = devices.filter((d) => busy(d) && d.work.job === job.name && d.work.group === group.group);
  const where = group.phase === "dropped" ? `tried until round ${group.round}` : past ? `went on after round ${group.round}` : group.phase === "finished" ? `finished ${count(group.rounds, "round")}`
    : `round ${Math.min(group.round + 1, group.rounds)}/${group.rounds}, ${group.phase}, ${group.answered.length} of ${count(group.devices.length, "device")} answered`;
  const used = group.device_s > 0 ? ` · ${energy(group.energy)} · ${duration(group.device_s)} of device time` : "";
  const chips = here.slice(0, NAMED).map((d) => el("span", { class: "chip" }, `${d.name} ${doing(d.work.phase)}`));
  if (here.length > NAMED) chips.push(el("span", { class: "chip" }, `and ${here.length - NAMED} more`));
  const below = job.groups.filter((other) => other.parent === group.group && other !== group);
  return el("li", {}, el("div", { class: past ? "node past" : "node" },
    el("span", { class: `mark g${colours.get(group.group)}`, "aria-hidden": "true" }), el("span", { class: "title" }, group.tasks.join(" + ")),
    group.serves.length < group.tasks.length ? el("span", { class: "more" }, ` for ${group.serves.join(" + ")}`) : "",
    el("div", { class: "more" }, where + used),
    chips.length ? el("div", { class: "chips" }, ...chips) : ""),
  below.length ? el("ul", {}, ...below.map((each) => node(each, job, devices, colours))) : "");
}

function heat(found) {
  const beside = found.mean.flatMap((row, i) => row.filter((value, j) => i !== j && value !== null)).map(Math.abs);
  const most = Math.max(...beside, 1e-9), digits = most < 0.2 ? 3 : 2;
  const rows = found.tasks.map((task, i) => el("tr", {}, el("th", { scope: "row" }, task), ...found.mean[i].map((value, j) => {
    const se = found.se[i][j];
    const cell = el("td", { title: `${task} on ${found.tasks[j]}: ${number(value, 4)}${se === null ? "" : ` ± ${number(se, 4)}`}` }, signed(value, digits));
    if (i === j) cell.className = "self";
    else if (value !== null) {
      const share = Math.round(6 + 70 * Math.min(Math.abs(value) / most, 1));
      cell.style.backgroundColor = `color-mix(in srgb, var(${value < 0 ? "--neg" : "--pos"}) ${share}%, transparent)`;
    }
    return cell;
  })));
  const heads = el("tr", {}, el("td", {}), ...found.tasks.map((task) => el("th", { scope: "col" }, task)));
  return el("div", { class: "wide" }, el("table", { class: "heat" }, el("thead", {}, heads), el("tbody", {}, ...rows)));
}

function split(decision) {
  const named = (groups) => groups.map((group, i) => {
    const served = decision.serves?.[i] ?? group;
    return group.join(" + ") + (served.length < group.length ? ` for ${served.join(" + ")}` : "");
  }).join(" | ");
  const words = [decision.groups.length > 1 ? `Split into ${named(decision.groups)}` : "Not split", decision.why ? `: ${decision.why}` : ""];
  return el("p", { class: "said" }, words.join(""));
}

function body(job, devices) {
  const colours = new Map(job.groups.map((group, i) => [group.group, i % 8]));
  const parts = [];
  if (job.waits_for) parts.push(el("p", { class: "said" }, "Waits for ", job.waits_for, job.waits_since_wall_s === null ? "" : ", for ",
    job.waits_since_wall_s === null ? "" : age(job.waits_since_wall_s)));
  if (job.reason) parts.push(el("p", { class: "said bad" }, job.reason));
  parts.push(...job.replans.map((note) => el("p", { class: "said" }, note)));
  parts.push(el("h3", {}, "Loss of each task over the rounds"), el("div", { class: "charts" }, ...job.tasks.map((task) => chart(task, job, colours))));
  const roots = job.groups.filter((group) => group.parent === null);
  const tree = roots.length ? [el("div", {}, el("h3", {}, "Groups"), el("ul", { class: "tree" }, ...roots.map((g) => node(g, job, devices, colours))),
    job.orchestrator.attributed_j === null ? "" : el("p", { class: "said" }, `Orchestrator’s own work: ${energy(job.orchestrator)}`),
    job.decision ? split(job.decision) : "")] : [];
  if (job.affinity) tree.push(el("div", {}, el("h3", {}, "Affinity: row’s step on column’s loss; blue helps, red harms"), heat(job.affinity)));
  return [...parts, el("div", { class: "two" }, ...tree)];
}

function showJob(job, devices) {
  const shown = page.jobs.get(job.name) ?? { text: "" };
  const working = devices.map((d) => (d.work && d.work.job === job.name ? [d.name, d.work.group, d.work.phase] : null));
  const text = JSON.stringify([job, working]);
  if (!page.jobs.has(job.name)) {
    shown.summary = el("summary", {});
    shown.body = el("div", { class: "body" });
    shown.details = el("details", { class: "job" }, shown.summary, shown.body);
    shown.details.open = !OVER.has(job.phase);
    page.jobs.set(job.name, shown);
    at("jobs").prepend(shown.details);
  }
  if (shown.text === text) return;
  shown.text = text;
  shown.details.classList.toggle("over", OVER.has(job.phase));
  const state = job.phase === job.at ? job.phase : `${job.phase} stage, ${job.at}`;
  const bar = el("progress", { max: 1, value: job.share_done, "aria-label": `${job.name}: share done` });
  shown.summary.replaceChildren(el("span", { class: "name" }, job.name, el("span", { class: "soft" }, ` ${job.policy}`)),
    el("span", { class: `state ${OVER.has(job.phase) ? job.phase : ""}` }, state), el("span", { class: "facts" }, ...facts(job)), OVER.has(job.phase) ? "" : bar);
  shown.body.replaceChildren(...body(job, devices));
}

// --- devices ---------------------------------------------------------------------------------------------------

function inUse(used) {
  const { model, profile = {} } = used; // what has its default is left out on the wire
  const each = profile.energy_j === undefined ? "" :
    `, ${joules(1000 * profile.energy_j)} mJ${profile.method === "estimated" ? " est." : ""} each`;
  const ms = profile.latency_p50_s ? `, p50 ${number(1000 * profile.latency_p50_s)} ms` : "";
  return `infers with ${model.group} of ${model.job}, ${model.precision ?? "fp32"}${ms}${each}`;
}

function does(device) {
  const work = device.work, plain = { declining: "may not train", unseen: "never seen", unknown: UNKNOWN };
  const words = busy(device) ? `${doing(work.phase)} ${work.group}, round ${work.round + 1} of ${work.job}` : plain[device.state] ?? device.state;
  const told = ["away", "declining"].includes(device.state) && device.since_wall_s !== null;
  const bar = busy(device) && work.steps ? el("progress", { max: work.steps, value: work.step, "aria-label": `step ${work.step} of ${work.steps}` }) : "";
  const why = [...device.reasons.map((each) => `${each.condition}: ${each.detail}`),
    ...device.benched.map((each) => `${each.job} asks it again later: ${each.reason}`), ...device.in_use.map(inUse)];
  return el("div", {}, words, told ? " for " : "", told ? age(device.since_wall_s) : "", bar, ...why.map((text) => el("div", { class: "why" }, text)));
}

function board(device) {
  const cpus = device.caps.cpus ?? device.cpus, memory = device.caps.memory_bytes ?? device.memory_bytes;
  const sensor = device.sensor && `${device.sensor.name}`;
  const parts = [cpus && count(cpus, "cpu"), memory && `${number(memory / 1e9, 1)} GB`, sensor].filter(Boolean);
  return parts.join(", ") || UNKNOWN;
}

function showDevices(devices) {
  const text = JSON.stringify(devices);
  if (page.devices === text) return;
  page.devices = text;
  if (!devices.length) {
    at("devices").replaceChildren(el("p", { class: "empty" }, el("strong", {}, "No device yet"),
      "One appears when its agent connects: ", el("code", {}, "mas-agent run --config agent.toml")));
    return;
  }
  const cell = (label, what) =>
    el("td", { "data-label": label, class: label === "does" ? "of" : what === UNKNOWN ? "none" : "" }, what);
  const rows = devices.map((d) => el("tr", {}, el("th", { scope: "row", class: "of" }, el("span", { class: `dot ${d.state}` }, d.name)),
    cell("does", does(d)), cell("has", el("span", {}, board(d))),
    cell("today", energy(d.energy_today)), cell("in all", energy(d.energy)), cell("left today", d.budget_left_j === null ? UNKNOWN : `${joules(d.budget_left_j)} J`)));
  const heads = ["device", "does", "has", "today", "in all", "left today"];
  at("devices").replaceChildren(el("table", { class: "devices" },
    el("thead", {}, el("tr", {}, ...heads.map((head, i) => el("th", { scope: "col", class: i < 2 ? "of" : "" }, head)))), el("tbody", {}, ...rows)));
}

// --- all of it -------------------------------------------------------------------------------------------------

function summarise(status) {
  const going = status.jobs.filter((job) => !OVER.has(job.phase)).length;
  const online = status.devices.filter((device) => device.online).length;
  const unwilling = status.devices.filter((device) => device.state === "declining").length;
  const parts = [status.jobs.length ? `${going} of ${count(status.jobs.length, "job")} going on` : "No job yet",
    `${online} of ${count(status.devices.length, "device")} online`];
  if (unwilling) parts.push(`${unwilling} may not train now`);
  at("summary").textContent = parts.join(", ");
  document.title = `mas-edge: ${parts[0]}`;
}

function show(status) {
  summarise(status);
  at("full").textContent = status.full;
  const names = new Set(status.jobs.map((job) => job.name));
  for (const [name, shown] of page.jobs) if (!names.has(name)) { shown.details.remove(); page.jobs.delete(name); }
  at("no-job")?.remove();
  for (const job of status.jobs) showJob(job, status.devices);
  if (!status.jobs.length) at("jobs").replaceChildren(el("p", { class: "empty", id: "no-job" }, el("strong", {}, "No job yet"),
    "Launch one: ", el("code", {}, "mas launch FILE")));
  showDevices(status.devices);
}

function link(state, words) {
  at("link").className = `link ${state}`;
  if (at("link").textContent !== words) at("link").textContent = words;
  document.body.classList.toggle("stale", state === "lost");
}

async function ask() {
  try {
    const answer = await fetch("/api/status", { headers: page.tag ? { "If-None-Match": page.tag } : {}, cache: "no-store" });
    if (answer.status === 401) { link("lost", "the orchestrator asks for a token: open the page with ?token=TOKEN"); return; }
    if (!answer.ok && answer.status !== 304) throw new Error(await answer.text());
    page.aheadS = (Date.parse(answer.headers.get("Date")) || Date.now()) / 1000 - Date.now() / 1000;
    if (Math.abs(page.aheadS) < 2) page.aheadS = 0; // that header has whole seconds
    if (answer.status === 200) { show(await answer.json()); page.tag = answer.headers.get("ETag") ?? ""; }
    page.heardS = Date.now() / 1000;
    link("live", "live");
  } catch (error) {
    const since = page.heardS === null ? "" : ` for ${duration(Date.now() / 1000 - page.heardS)}`;
    link("lost", `no answer from the orchestrator${since}; trying again (${error.message})`);
  }
  grow();
}

async function forever() {
  await ask();
  setTimeout(forever, EVERY_MS);
}
forever();
