// What the page shows of a node. Whatever a tenant has named is put in as text.

import { ask, at, put } from "./ask.js";

/** Of its limit, from this part on a bar is drawn as full. */
const HOT = 0.9;

// Elements.

function made(tag, text, name) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (name) element.className = name;
  return element;
}

/** Puts these children into a parent; what is in its place stays there. */
function arrange(parent, children) {
  let place = parent.firstElementChild;
  for (const child of children) {
    if (child === place) place = place.nextElementSibling;
    else parent.insertBefore(child, place);
  }
  while (place) {
    const next = place.nextElementSibling;
    place.remove();
    place = next;
  }
}

/** A cell with a text and a bar below it. The text says all that the bar does. */
function barred() {
  const cell = made("td", undefined, "wide");
  const text = cell.appendChild(made("div"));
  const bar = cell.appendChild(made("div", undefined, "bar"));
  bar.setAttribute("aria-hidden", "true");
  const fill = bar.appendChild(made("i"));
  return {
    cell,
    show(says, part) {
      put(text, says);
      bar.hidden = part === null;
      bar.classList.toggle("hot", part !== null && part >= HOT);
      fill.style.width = `${Math.min(Math.max(part ?? 0, 0), 1) * 100}%`;
    },
  };
}

// Figures, as the tools write them.

function bytes(count) {
  if (count < 1024) return `${count} B`;
  const units = ["KiB", "MiB", "GiB", "TiB", "PiB"];
  let value = count / 1024;
  let unit = 0;
  while (value >= 1023.995 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${value.toFixed(2)} ${units[unit]}`;
}

const percent = (part) => `${Math.round(part * 100)}%`;
const joined = (...words) => words.filter((word) => word).join("/");
const counted = (many, what) => `${many} ${what}${many === 1 ? "" : "s"}`;

function sized(used, limit) {
  if (!limit) return `${bytes(used)}, no limit`;
  return `${bytes(used)} of ${bytes(limit)} (${percent(used / limit)})`;
}

// Devices.

const devices = new Map();

function newDevice() {
  const row = made("tr");
  const name = made("th");
  name.scope = "row";
  const memory = barred();
  const busy = barred();
  const [limits, shares, containers, heat, state] = Array.from({ length: 5 }, () => made("td"));
  row.append(name, memory.cell, busy.cell, limits, shares, containers, heat, state);
  return { row, name, memory, busy, limits, shares, containers, heat, state };
}

function stateOf(card) {
  if (!card) return ["no figures of its own", false];
  if (card.lost) return ["LOST: it does not answer any more", true];
  const by = Object.keys(card.throttled).filter((reason) => card.throttled[reason]);
  const xid = card.last_xid ? `last error Xid ${card.last_xid}` : "";
  const held = by.length ? `clocks held back: ${by.join(", ")}` : "";
  return [[xid, held].filter((word) => word).join("; ") || "well", Boolean(xid || held)];
}

function showDevice(device) {
  const seen = devices.get(device.uuid) ?? newDevice();
  devices.set(device.uuid, seen);
  const card = device.card;
  put(seen.name, `${device.index} ${card?.model ?? device.uuid}`);
  const total = card?.memory_total_bytes ?? null;
  const used = card?.memory_used_bytes ?? null;
  seen.memory.show(used === null ? "not known" : sized(used, total), used !== null && total ? used / total : null);
  const busy = card?.utilization_ratio ?? null;
  seen.busy.show(busy === null ? "not known" : percent(busy), busy);
  put(seen.limits, bytes(device.memory_allocated));
  put(seen.shares, `${device.cores_allocated}%`);
  put(seen.containers, String(device.containers));
  const heat = card?.temperature_celsius === null || !card ? "" : `${Math.round(card.temperature_celsius)} °C`;
  const power = card?.power_watts === null || !card ? "" : `${Math.round(card.power_watts)} W`;
  put(seen.heat, [heat, power].filter((word) => word).join(", ") || "not known");
  const [state, isWrong] = stateOf(card);
  put(seen.state, state);
  seen.state.classList.toggle("hot-text", isWrong);
  return seen.row;
}

// Containers.

const rows = new Map();
const pods = new Map();
let sorting = "name";
let picture = null;

/** A row for each device of each container; a container without devices has one too. */
function placesOf(containers) {
  return containers.flatMap((container) => {
    const of = container.devices.length ? container.devices : [null];
    return of.map((device, number) => ({
      container,
      device,
      isFirst: number === 0,
      key: `${container.path} ${device?.uuid ?? ""} ${number}`,
      name: joined(container.namespace, container.pod, container.container),
      pod: joined(container.namespace, container.pod),
    }));
  });
}

const FIGURES = {
  name: () => 0,
  memory: (device) => device?.used ?? 0,
  time: (device) => device?.utilization ?? 0,
  waits: (device) => device?.waiting ?? 0,
  denied: (device) => device?.denied ?? 0,
};

function sorted(places) {
  const figure = FIGURES[sorting];
  const byName = (a, b) => (a.name < b.name ? -1 : Number(a.name > b.name)) || (a.device?.index ?? 0) - (b.device?.index ?? 0);
  places.sort((a, b) => figure(b.device) - figure(a.device) || byName(a, b));
  return places;
}

function newRow(place) {
  const row = made("tr");
  const name = made("th");
  name.scope = "row";
  const device = made("td");
  const memory = barred();
  const time = barred();
  const [waiting, denied, processes, asks] = Array.from({ length: 4 }, () => made("td"));
  row.append(name, device, memory.cell, time.cell, waiting, denied, processes, asks);
  const all = { row, name, device, memory, time, waiting, denied, processes };
  if (place.isFirst) addWhy(all, asks, place);
  return all;
}

function showRow(place) {
  const seen = rows.get(place.key) ?? newRow(place);
  rows.set(place.key, seen);
  const { container, device } = place;
  seen.row.classList.toggle("below", place.pod !== "");
  put(seen.name, place.pod === "" ? place.name : container.container);
  if (seen.button) seen.button.setAttribute("aria-label", `Why? ${place.name}`);
  if (!device) return seen;
  put(seen.device, String(device.index));
  const spilled = device.spilled ? `, ${bytes(device.spilled)} of it on the host` : "";
  const { used, memory_limit: limit, core_limit: share } = device;
  seen.memory.show(sized(used, limit) + spilled, limit ? used / limit : null);
  const busy = device.utilization;
  const told = busy === null ? "not measured" : percent(busy);
  const part = busy === null ? null : busy / ((share || 100) / 100);
  seen.time.show(share === null ? `${told}, no share` : `${told}, share ${share}%`, part);
  seen.time.cell.querySelector(".bar").classList.remove("hot");
  put(seen.waiting, device.waiting === null ? "" : percent(device.waiting));
  put(seen.denied, String(device.denied));
  seen.denied.classList.toggle("warm-text", device.denied > 0);
  const past = device.unprotected ? `, and ${device.unprotected} that no limit holds` : "";
  put(seen.processes, `${container.processes}${past}`);
  seen.processes.classList.toggle("hot-text", device.unprotected > 0);
  return seen;
}

function bodyOf(pod) {
  const seen = pods.get(pod) ?? { body: made("tbody"), head: null };
  if (!pods.has(pod) && pod !== "") {
    seen.head = made("tr", undefined, "pod");
    const name = made("th", pod);
    name.scope = "rowgroup";
    name.colSpan = 8;
    seen.head.append(name);
  }
  pods.set(pod, seen);
  return seen;
}

function showContainers() {
  const wanted = at("filter").value;
  const all = placesOf(picture.containers);
  const places = sorted(all.filter((place) => place.name.includes(wanted)));
  const groups = new Map();
  for (const place of places) {
    const seen = showRow(place);
    if (!groups.has(place.pod)) groups.set(place.pod, []);
    groups.get(place.pod).push(...(seen.answers && !seen.answers.hidden ? [seen.row, seen.answers] : [seen.row]));
  }
  const table = at("containers");
  // Who works in a row keeps the place: rows do not move under the hand.
  const isBusy = table.querySelector("tbody :focus") !== null && sorting !== "name";
  if (!isBusy) {
    const bodies = [...groups].map(([pod, children]) => {
      const seen = bodyOf(pod);
      arrange(seen.body, seen.head ? [seen.head, ...children] : children);
      return seen.body;
    });
    arrange(table, [table.caption, table.tHead, ...bodies]);
    forget(rows, new Set(all.map((place) => place.key)));
    forget(pods, groups);
  }
  const many = picture.containers.length;
  const shown = new Set(places.map((place) => place.container)).size;
  put(at("shown"), shown === many ? counted(many, "container") : `${shown} of ${counted(many, "container")}`);
  at("none").hidden = shown > 0;
  put(at("none"), many ? "No name fits the filter." : "No container of this node has a quota.");
}

function forget(map, kept) {
  for (const key of map.keys()) if (!kept.has(key)) map.delete(key);
}

// Why.

let whys = 0;

function addWhy(seen, cell, place) {
  whys += 1;
  const button = cell.appendChild(made("button", "Why?"));
  button.type = "button";
  const answers = made("tr", undefined, "answers");
  answers.hidden = true;
  answers.id = `why-${whys}`;
  const inside = answers.appendChild(made("td"));
  inside.colSpan = 8;
  inside.setAttribute("aria-live", "polite");
  button.setAttribute("aria-expanded", "false");
  button.setAttribute("aria-controls", answers.id);
  button.addEventListener("click", () => {
    answers.hidden = !answers.hidden;
    button.setAttribute("aria-expanded", String(!answers.hidden));
    if (answers.hidden) {
      answers.remove();
      return;
    }
    seen.row.after(answers);
    showAnswers(inside, place.container.path);
  });
  Object.assign(seen, { button, answers });
}

async function showAnswers(inside, path) {
  inside.replaceChildren(made("p", "Watching it for a second."));
  try {
    const response = await ask(`api/v1/why?region=${encodeURIComponent(path)}`);
    if (!response.ok) throw new Error((await response.text()).trim());
    const told = await response.json();
    const answers = told.answers.flatMap((answer) => [
      made("h3", `${answer.code} ${answer.title}`),
      made("p", answer.says),
      made("p", `Next: ${answer.next}`),
    ]);
    inside.replaceChildren(...answers);
  } catch (why) {
    inside.replaceChildren(made("p", `No answer: ${why.message}`));
  }
}

// Events.

let newest = null;

function showEvents(events) {
  const first = events[0]?.id ?? "";
  if (first === newest) return;
  newest = first;
  const lines = events.map((event) => {
    const row = made("tr");
    const owner = joined(event.namespace, event.pod, event.container);
    const who = event.pid ? `, process ${event.pid}` : "";
    const where = (owner || event.device_uuid || "the node") + who;
    const time = event.time.replace("T", " ").replace("Z", "");
    row.append(made("td", time), made("td", `${event.code} ${event.title}`), made("td", where), made("td", event.says));
    return row;
  });
  const none = made("tr");
  none.append(Object.assign(made("td", "Nothing so far."), { colSpan: 4 }));
  at("events").tBodies[0].replaceChildren(...(lines.length ? lines : [none]));
}

// All of it.

export function show(node) {
  picture = node;
  at("main").hidden = false;
  put(at("taken"), `as of ${node.taken.replace("T", " ").replace(/\.\d+Z$/, "")} UTC`);
  put(at("version"), node.version);
  arrange(at("devices").tBodies[0], node.devices.map(showDevice));
  forget(devices, new Set(node.devices.map((device) => device.uuid)));
  showContainers();
  showEvents(node.events);
}

for (const button of document.querySelectorAll("[data-sort]")) {
  button.addEventListener("click", () => {
    sorting = button.dataset.sort;
    for (const other of document.querySelectorAll("[data-sort]")) other.parentElement.removeAttribute("aria-sort");
    button.parentElement.setAttribute("aria-sort", sorting === "name" ? "ascending" : "descending");
    if (picture) showContainers();
  });
}
at("filter").addEventListener("input", () => picture && showContainers());
