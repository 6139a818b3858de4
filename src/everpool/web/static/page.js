// The live page. It draws what `stream` says, and nothing else: no other requests, no markup out
// of data (all texts are set as text). Moments are on the pool's clock, in seconds.
"use strict";

(() => {
  // -- small things --------------------------------------------------------------------------

  const byId = (id) => document.getElementById(id);

  function make(tag, text = "", attributes = {}) {
    const element = document.createElement(tag);
    if (text !== "") element.textContent = text;
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  }

  // Only what differs is written, so that selections and screen readers are left alone.
  function say(element, text) {
    if (element.textContent !== text) element.textContent = text;
  }

  function span(seconds) {
    if (seconds === null || seconds === undefined) return "never";
    if (seconds < 0.0995) return `${Number((1000 * seconds).toPrecision(2))} ms`;
    if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
    if (seconds < 120) return `${Math.round(seconds)} s`;
    if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
    if (seconds < 172800) return `${(seconds / 3600).toFixed(1)} h`;
    return `${Math.round(seconds / 86400)} days`;
  }

  function range([low, high]) {
    const [from, to] = [span(low), span(high)];
    if (from === to) return to;
    const [number, unit] = from.split(" ");
    return to.endsWith(` ${unit}`) ? `${number}–${to}` : `${from}–${to}`;
  }
  const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
  const wallTime = (at) => clock.format(new Date(1000 * (at + offset)));
  const total = (counts) => Object.values(counts).reduce((sum, count) => sum + count, 0);
  const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;
  const upper = (text) => text.charAt(0).toUpperCase() + text.slice(1);

  function remember(key, value) {
    try { localStorage.setItem(`everpool.${key}`, value); } catch { /* a browser may forbid it */ }
  }
  function recall(key) {
    try { return localStorage.getItem(`everpool.${key}`); } catch { return null; }
  }

  // -- words ---------------------------------------------------------------------------------

  const STATES = {
    new: "Not opened", starting: "Starting", up: "Up", suspect: "In doubt", down: "Down",
    recovering: "Recovering", paused: "Paused", closed: "Closed",
  };
  const MEANINGS = {
    "unreachable": "Attempts to connect fail. The pool goes on trying by itself.",
    "silent": "Attempts to connect get no answer. The pool goes on trying by itself.",
    "too many connections": "The server takes no more connections. The pool lends those it has and tries again later.",
    "rejected": "The server turns this pool away: password, role, database, certificate or rules. Somebody has to change something.",
    suspect: "Something on the path went wrong. Each connection is tested before it is lent.",
    recovering: "The database answers again; connections are being opened.",
    paused: "Requests wait until the pool is resumed.",
    starting: "The first connection has not been made yet.",
    new: "Nobody has opened it; it has no connections.",
    closed: "Requests are refused.",
  };
  const CAUSES = {
    "FIN": "the other side hung up",
    "RST": "the other side reset it",
    "silence": "it no longer answered",
    "error": "the database library gave it up",
    "demoted": "the server turned read-only",
    "FATAL 57P01": "an administrator, or a shutdown, ended it",
    "FATAL 57P02": "the server crashed",
    "FATAL 57P03": "the server was starting or stopping",
    "FATAL 57P05": "the server's idle limit ended it",
    "FATAL 25P03": "the server's limit for idle transactions ended it",
    "FATAL 25P04": "the server's limit for transactions ended it",
    "FATAL 08P01": "a pooler on the way ended it",
  };
  const REFUSALS = {
    "timeout": "waited to their timeout",
    "saturated": "could not have been served in time",
    "full": "queue full (max_waiting)",
    "down": "database away",
    "rejected": "login rejected",
    "closed": "pool closed",
    "gave up": "given up by the caller",
  };
  // What each state of a connection is called here, how strong it draws, and how it looks.
  const LOOKS = {
    opening: { word: "opening", paint: "hollow", colour: "--open" },
    disowned: { word: "opening, late", paint: "hollow", colour: "--unsure" },
    idle: { word: "idle", paint: "thin", colour: "--idle" },
    use: { word: "in use, changing hands", paint: "striped", colour: "--use" },
    lent: { word: "lent", paint: "solid", colour: "--lent" },
    returning: { word: "being cleaned up", paint: "thin", colour: "--use" },
    testing: { word: "being pinged", paint: "dotted", colour: "--test" },
    suspect: { word: "suspect", paint: "hatched", colour: "--unsure" },
    corpse: { word: "cut, still held", paint: "crossed", colour: "--cut" },
    dead: { word: "cut", paint: "crossed", colour: "--cut" },
    closing: { word: "being closed", paint: "thin", colour: "--idle" },
  };
  const WORDS = (state) => (LOOKS[state] || { word: state }).word;
  const SIGNS = { pass: "✓", warn: "!", fail: "×" };
  const ROUTINE = 10, WARNING = 30, ERROR = 40; // levels, as in Python's logging

  // -- what is known -------------------------------------------------------------------------

  const HISTORY = 900; // seconds kept
  const SPANS = [60, 300, 900];

  let pools = []; // one Story for each
  let current = 0;
  let offset = 0; // from the pool's clock to the wall's
  let now = 0; // the last sample's moment
  let generation = "";
  let details = false;
  let unseen = []; // times [from, to] without a connection to the server
  let windowSeconds = 300;

  class Story {
    constructor() {
      this.connections = new Map();
      this.rows = []; // when the last connection of each row ended
      this.happenings = new Map();
      this.queue = []; // [moment, waiting]
      this.states = []; // [since, state], oldest first
      this.facts = null;
      this.settings = [];
    }

    take(facts, at) {
      if (facts.settings) this.settings = facts.settings;
      const before = this.facts ? this.at : null;
      for (const happening of facts.happenings) this.happen(happening);
      for (const death of facts.ended || []) this.bury(death);
      const seen = new Set();
      for (const view of facts.connections) {
        seen.add(view[0]);
        this.look(view, at, before);
      }
      for (const connection of this.connections.values()) {
        if (connection.end === null && !seen.has(connection.number)) this.vanish(connection, at);
      }
      const since = facts.since === null ? at : at - facts.since;
      const last = this.states[this.states.length - 1];
      if (!last || last[1] !== facts.state) this.states.push([since, facts.state]);
      this.queue.push([at, facts.waiting]);
      this.facts = facts;
      this.at = at;
      this.forget(at - HISTORY);
    }

    happen(happening) {
      if (this.happenings.has(happening.id)) return;
      this.happenings.set(happening.id, happening);
      const { name, number, at } = happening;
      if (name === "pool.state" && happening.after) {
        const last = this.states[this.states.length - 1];
        if (!last || at > last[0]) this.states.push([at, happening.after]);
      }
      if (number === null) return;
      if (name === "connection.opened") {
        this.find(number, at - (happening.took || 0)).openedAt = at;
      } else if (name === "connection.open_failed") {
        const connection = this.find(number, at);
        this.finish(connection, at, "failed", happening.cause, happening.text);
      } else if (name === "connection.cut") {
        const connection = this.find(number, at - happening.age);
        connection.silent = happening.silent_for;
        this.finish(connection, at, "cut", happening.cause, happening.text);
      } else if (name === "connection.retired") {
        const connection = this.find(number, at - happening.age);
        this.finish(connection, at, "retired", "", happening.text);
      } else if (["connection.pinged", "connection.suspected", "connection.leaked"].includes(name)) {
        const connection = this.connections.get(number);
        if (connection) connection.marks.push({ at, name, text: happening.text });
      }
    }

    // A cut from before this page was opened: how long it had been silent is known.
    bury(death) {
      const connection = this.connections.get(death.number);
      if (connection && connection.end !== null) return;
      const found = connection || this.find(death.number, death.opened);
      const how = death.lent ? "while lent" : "while idle";
      const text = `connection ${death.number} was cut ${how}: ${death.cause}, after ${span(death.silent_for)} of silence, ${span(death.at - death.opened)} old`;
      found.silent = death.silent_for;
      this.finish(found, death.at, "cut", death.cause, text);
    }

    find(number, begin) {
      let connection = this.connections.get(number);
      if (!connection) {
        connection = { number, begin, end: null, row: -1, pieces: [], marks: [], how: "", cause: "", text: "", last: null };
        this.connections.set(number, connection);
        this.unplaced = true;
      }
      return connection;
    }

    finish(connection, at, how, cause, text) {
      if (connection.end !== null && connection.how) return;
      connection.end = at;
      connection.how = how;
      connection.cause = cause;
      connection.text = text;
      const last = connection.pieces[connection.pieces.length - 1];
      if (last && last.to > at) last.to = at;
    }

    // It is gone, and nobody has said why yet.
    vanish(connection, at) {
      connection.end = this.at ?? at;
    }

    // One look at one connection. `since` is exact; what was between the looks is not known.
    look([number, state, since, opened, silent, expires], at, before) {
      const connection = this.find(number, state === "opening" || state === "disowned" ? since : opened);
      if (connection.how && connection.how !== "failed" && state !== "dead") return;
      if (connection.end !== null && !connection.how) connection.end = null;
      const pieces = connection.pieces;
      const last = pieces[pieces.length - 1];
      const was = connection.last;
      connection.last = { state, since, opened, silent, expires };
      if (was && was.state === state && Math.abs(was.since - since) < 0.002) {
        if (last.state === "use" && since > last.from) {
          // Two looks found the same rest, or the same loan: it is one.
          last.to = Math.max(last.from, since);
          last.looks -= 1;
          last.lent -= state === "lent" ? 1 : 0;
          if (last.looks <= 0) pieces.pop();
          pieces.push({ state, from: since, to: at });
        } else {
          last.to = at;
        }
        return;
      }
      if (was && was.state === "opening" && last && state !== "disowned") last.to = Math.min(since, connection.openedAt || opened);
      const passing = (word) => ["idle", "lent", "returning"].includes(word);
      if (was && before !== null && passing(state) && passing(was.state)) {
        if (last && last.state === "use") {
          last.to = at;
          last.looks += 1;
          last.lent += state === "lent" ? 1 : 0;
        } else {
          pieces.push({ state: "use", from: before, to: at, looks: 1, lent: state === "lent" ? 1 : 0 });
        }
        return;
      }
      pieces.push({ state, from: since, to: at });
      if (pieces.length > 4000) pieces.splice(0, 1000);
    }

    forget(horizon) {
      for (const connection of this.connections.values()) {
        if (connection.end !== null && connection.end < horizon) this.connections.delete(connection.number);
        else if (connection.pieces.length > 2 && connection.pieces[1].to < horizon) connection.pieces.shift();
      }
      while (this.queue.length && this.queue[0][0] < horizon) this.queue.shift();
      while (this.states.length > 1 && this.states[1][0] < horizon) this.states.shift();
      for (const id of this.happenings.keys()) {
        if (this.happenings.size <= 300) break;
        this.happenings.delete(id);
      }
    }

    // A connection takes the first row that is free when it begins: a replacement stands where
    // the one before it ended.
    place() {
      if (!this.unplaced) return;
      this.unplaced = false;
      const all = [...this.connections.values()].sort((a, b) => a.begin - b.begin || a.number - b.number);
      for (const connection of all) {
        if (connection.row >= 0) continue;
        let row = 0;
        while (all.some((other) => other.row === row && other !== connection && overlap(other, connection))) row += 1;
        connection.row = row;
      }
    }
  }

  function overlap(one, other) {
    const end = (connection) => (connection.end === null ? Infinity : connection.end);
    return one.begin < end(other) - 0.02 && other.begin < end(one) - 0.02;
  }

  // -- the link to the server ----------------------------------------------------------------

  const LOST_AFTER = 5000; // ms without a word: a sample is due every 200
  let source = null;
  let heardAt = 0;
  let linked = false;

  function connect() {
    if (source) source.close();
    source = new EventSource("stream");
    heardAt = performance.now();
    source.addEventListener("hello", (event) => hear(event, true));
    source.addEventListener("tick", (event) => hear(event, false));
    source.onerror = () => setLink(false);
  }

  function hear(event, isHello) {
    heardAt = performance.now();
    const message = JSON.parse(event.data);
    if (isHello) greet(message);
    if (!pools.length) return;
    offset = message.wall - message.at;
    now = message.at;
    message.pools.forEach((facts, index) => pools[index].take(facts, now));
    setLink(true);
    schedule();
  }

  function greet(message) {
    if (message.generation !== generation || message.pools.length !== pools.length) {
      generation = message.generation;
      pools = message.pools.map(() => new Story());
      unseen = [];
      current = Math.min(current, pools.length - 1);
    } else if (now && message.at > now) {
      unseen.push([now, message.at]);
    }
    details = message.details;
    byId("note").hidden = !message.note;
    say(byId("note"), message.note);
    drawPools(message.pools);
  }

  function setLink(isLive) {
    if (linked && !isLive) lostAt = Date.now();
    linked = isLive;
    const state = isLive ? "live" : "lost";
    document.body.dataset.link = byId("link").dataset.link = state;
    const since = lostAt ? ` since ${clock.format(new Date(lostAt))}` : "";
    say(byId("link-text"), isLive ? "Live" : `Not connected${since}: what you see is old`);
    if (isLive) lostAt = 0;
    else document.title = "? everpool: not connected";
  }
  let lostAt = 0;

  // The browser tries again by itself after most failures, and not after some.
  setInterval(() => {
    const silent = performance.now() - heardAt;
    if (silent > LOST_AFTER) setLink(false);
    if (silent > LOST_AFTER || source.readyState === EventSource.CLOSED) connect();
  }, 2000);

  // -- drawing when there is something new, at most once a frame -------------------------------

  let scheduled = false;
  let slowAt = 0;
  const calm = matchMedia("(prefers-reduced-motion: reduce)");

  function schedule(force = false) {
    if (force) slowAt = 0;
    // Without motion the picture steps once a second.
    if (scheduled || (calm.matches && !force && performance.now() - slowAt < 1000)) return;
    scheduled = true;
    requestAnimationFrame(() => {
      scheduled = false;
      const story = pools[current];
      if (!story || !story.facts) return;
      byId("main").removeAttribute("aria-busy");
      drawState(story);
      drawChart(story);
      if (performance.now() - slowAt >= 950) {
        slowAt = performance.now();
        drawPanels(story);
      }
    });
  }

  // -- the state -------------------------------------------------------------------------------

  const GLYPHS = {
    pass: ["M24 4 a20 20 0 1 1 -.01 0 z", "M15 25 l6.5 6.5 L33.5 18"],
    warn: ["M24 5 L45 42 H3 z", "M24 18 v11 M24 35.5 v.1"],
    fail: ["M15.5 4 h17 L44 15.5 v17 L32.5 44 h-17 L4 32.5 v-17 z", "M17 17 l14 14 M31 17 l-14 14"],
  };

  function drawState(story) {
    const facts = story.facts;
    const box = byId("state");
    if (box.dataset.status !== facts.status) {
      box.dataset.status = facts.status;
      byId("glyph-shape").setAttribute("d", GLYPHS[facts.status][0]);
      byId("glyph-sign").setAttribute("d", GLYPHS[facts.status][1]);
    }
    box.dataset.state = facts.state;
    say(byId("state-word"), STATES[facts.state] || facts.state);
    // Numbers that change all the time would be read out all the time.
    say(byId("why"), facts.status === "pass" ? "All is well: the database answers." : steady(facts));
    if (facts.status === "pass" && facts.state === "starting") say(byId("why"), "Connecting for the first time.");
    const meaning = MEANINGS[facts.trouble] || MEANINGS[facts.state] || (facts.saturated ? "Every connection is in use: see who holds them, or allow more." : "");
    say(byId("meaning"), [`For ${span(facts.since)}.`, meaning].filter(Boolean).join(" "));
    byId("error").hidden = !facts.error;
    say(byId("error"), facts.error);
    document.title = `${SIGNS[facts.status]} ${facts.name}: ${(STATES[facts.state] || facts.state).toLowerCase()}`;
    drawFigures(facts);
  }

  function steady(facts) {
    if (facts.saturated) return "Saturated: every connection is in use, and callers wait.";
    return `${facts.why}.`;
  }

  function drawFigures(facts) {
    const slots = facts.slots;
    const size = facts.connections.length;
    const figures = [
      ["Connections", `${size}`, `of ${facts.max_size || "∞"}`, false],
      ["Lent", `${(slots.lent || 0) + (slots.corpse || 0) + (slots.returning || 0)}`, "", false],
      ["Idle", `${(slots.idle || 0) + (slots.testing || 0)}`, slots.suspect ? `+ ${slots.suspect} suspect` : "", Boolean(slots.suspect)],
      ["Opening", `${(slots.opening || 0) + (slots.disowned || 0)}`, "", false],
      ["Waiting", `${facts.waiting}`, facts.waiting ? span(facts.longest_wait) : "", facts.saturated],
      ["Cut, last minute", `${facts.cuts_recent}`, "", facts.cuts_recent > 0],
      ["Round trip", facts.round_trip ? span(facts.round_trip) : "–", "", false],
    ];
    const list = byId("figures");
    while (list.children.length < figures.length) {
      const box = make("div");
      const value = make("dd");
      value.append(make("span"), make("small"));
      box.append(make("dt"), value);
      list.append(box);
    }
    figures.forEach(([name, value, unit, alert], index) => {
      const box = list.children[index];
      box.className = alert ? "alert" : "";
      say(box.firstChild, name);
      say(box.lastChild.firstChild, value);
      say(box.lastChild.lastChild, unit && ` ${unit}`);
    });
  }

  function drawPools(all) {
    const tabs = byId("pools");
    tabs.hidden = all.length < 2;
    if (all.length !== tabs.children.length) {
      tabs.replaceChildren(...all.map((facts, index) => {
        const tab = make("button", "", { type: "button", role: "tab", "aria-controls": "main" });
        tab.append(make("span", "", { class: "mark", "aria-hidden": "true" }), make("span"), make("span", "", { class: "visually-hidden" }));
        tab.addEventListener("click", () => choose(index));
        return tab;
      }));
    }
    markPools(all);
  }

  function markPools(all) {
    [...byId("pools").children].forEach((tab, index) => {
      const [mark, name, state] = tab.children;
      mark.dataset.status = all[index].status;
      say(mark, SIGNS[all[index].status]);
      say(name, all[index].name);
      say(state, `: ${STATES[all[index].state]}`);
      tab.setAttribute("aria-selected", String(index === current));
      tab.tabIndex = index === current ? 0 : -1;
    });
  }

  function choose(index) {
    current = index;
    hideTip();
    byId("bars").replaceChildren();
    bars.clear();
    schedule(true);
    markPools(pools.map((story) => story.facts));
  }

  // Arrow keys within a group of which one is chosen.
  function arrows(group, pick) {
    group.addEventListener("keydown", (event) => {
      const items = [...group.children];
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      let index = items.indexOf(document.activeElement);
      if (event.key === "Home") index = 0;
      else if (event.key === "End") index = items.length - 1;
      else if (step) index = (index + step + items.length) % items.length;
      else return;
      event.preventDefault();
      pick(index);
      items[index].focus();
    });
  }

  // -- the chart -------------------------------------------------------------------------------

  const canvas = byId("canvas");
  const paper = canvas.getContext("2d");
  const bars = new Map(); // a button for each connection that is drawn
  const AXIS = 22, BAND = 16, TOP = AXIS + BAND + 8;
  let rowHeight = 22;
  let colours = {};

  function readColours() {
    const style = getComputedStyle(document.documentElement);
    const names = ["panel", "line", "soft", "ink", "muted", "good", "warn", "bad", "idle", "use", "lent", "test", "open", "unsure", "cut", "hatch"];
    colours = Object.fromEntries(names.map((name) => [`--${name}`, style.getPropertyValue(`--${name}`).trim()]));
    patterns.clear();
  }

  const patterns = new Map();

  // Stripes, hatches, dots and crosses, so that no state is told by its colour alone.
  function pattern(paint, colour) {
    const key = `${paint} ${colour}`;
    if (patterns.has(key)) return patterns.get(key);
    const scale = window.devicePixelRatio || 1;
    const tile = document.createElement("canvas");
    tile.width = tile.height = Math.round(8 * scale);
    const pen = tile.getContext("2d");
    pen.scale(scale, scale);
    pen.strokeStyle = pen.fillStyle = colour;
    if (paint === "striped") {
      pen.globalAlpha = 0.45;
      pen.fillRect(0, 0, 8, 8);
      pen.globalAlpha = 1;
      pen.fillRect(0, 0, 2, 8);
      pen.fillRect(4, 0, 2, 8);
    } else if (paint === "dotted") {
      pen.globalAlpha = 0.3;
      pen.fillRect(0, 0, 8, 8);
      pen.globalAlpha = 1;
      for (const [x, y] of [[2, 2], [6, 6]]) {
        pen.beginPath();
        pen.arc(x, y, 1.4, 0, 7);
        pen.fill();
      }
    } else {
      pen.lineWidth = 1.8;
      const lines = paint === "crossed" ? [[-2, 10, 10, -2], [-2, -2, 10, 10]] : [[-2, 10, 10, -2], [-2, 2, 2, -2], [6, 10, 10, 6]];
      for (const [x1, y1, x2, y2] of lines) {
        pen.beginPath();
        pen.moveTo(x1, y1);
        pen.lineTo(x2, y2);
        pen.stroke();
      }
    }
    const made = paper.createPattern(tile, "repeat");
    made.setTransform(new DOMMatrix().scale(1 / scale));
    patterns.set(key, made);
    return made;
  }

  function paintPiece(pen, state, x, y, width, height) {
    const look = LOOKS[state];
    if (!look) return;
    const colour = colours[look.colour];
    const middle = y + height / 2;
    if (look.paint === "thin") {
      pen.fillStyle = colour;
      pen.fillRect(x, middle - 2, width, 4);
    } else if (look.paint === "solid") {
      pen.fillStyle = colour;
      pen.fillRect(x, y, width, height);
    } else if (look.paint === "hollow") {
      pen.strokeStyle = colour;
      pen.lineWidth = 1.5;
      pen.setLineDash([3, 2]);
      pen.strokeRect(x + 0.75, y + 2, Math.max(1, width - 1.5), height - 4);
      pen.setLineDash([]);
    } else {
      pen.fillStyle = pattern(look.paint, colour);
      pen.fillRect(x, y, width, height);
      pen.strokeStyle = colour;
      pen.lineWidth = 1;
      if (width > 3) pen.strokeRect(x + 0.5, y + 0.5, width - 1, height - 1);
    }
  }

  function cross(pen, x, y, size) {
    pen.beginPath();
    pen.moveTo(x - size, y - size);
    pen.lineTo(x + size, y + size);
    pen.moveTo(x + size, y - size);
    pen.lineTo(x - size, y + size);
    pen.stroke();
  }

  // How a connection ended: a cross for a cut, "!" for a failed attempt, a bar for our own doing.
  function paintEnd(pen, how, x, y, height) {
    const middle = y + height / 2;
    if (how === "cut") {
      pen.strokeStyle = colours["--panel"];
      pen.lineWidth = 5;
      cross(pen, x, middle, 4.5);
      pen.strokeStyle = colours["--cut"];
      pen.lineWidth = 2.4;
      cross(pen, x, middle, 4.5);
    } else if (how === "failed") {
      pen.fillStyle = colours["--cut"];
      pen.fillRect(x - 1, middle - 6, 2.4, 7.5);
      pen.fillRect(x - 1, middle + 3.5, 2.4, 2.4);
    } else if (how === "retired") {
      pen.fillStyle = colours["--idle"];
      pen.fillRect(x - 1, y + 1, 2, height - 2);
    }
  }

  function paintMark(pen, mark, x, y, height) {
    if (mark.name === "connection.pinged") {
      pen.strokeStyle = colours["--test"];
      pen.fillStyle = colours["--panel"];
      pen.lineWidth = 1.6;
      pen.beginPath();
      pen.arc(x, y + height / 2, 3, 0, 7);
      pen.fill();
      pen.stroke();
    } else {
      pen.fillStyle = colours["--unsure"];
      pen.font = "700 13px sans-serif";
      pen.fillText(mark.name === "connection.leaked" ? "L" : "?", x - 4, y + height / 2 + 4.5);
    }
  }

  let view = { left: 0, right: 0, from: 0, scale: 1, width: 0 };
  const toX = (at) => view.left + (at - view.from) * view.scale;
  const toMoment = (x) => view.from + (x - view.left) / view.scale;

  function drawChart(story) {
    story.place();
    const from = now - windowSeconds;
    const shown = [...story.connections.values()].filter((c) => (c.end === null || c.end >= from) && c.row >= 0);
    const rows = compact(shown);
    rowHeight = rows > 40 ? 14 : rows > 20 ? 18 : 22;
    const width = byId("plot-scroll").clientWidth;
    const height = TOP + Math.max(1, rows) * rowHeight + 4;
    sizeCanvas(canvas, paper, width, height);
    byId("plot").style.height = `${height}px`;
    view = { left: 4, right: 30, from, scale: (width - 34) / windowSeconds, width };
    paper.font = "11px system-ui, sans-serif";
    drawAxis(height);
    drawBand(story);
    for (const connection of shown) drawConnection(connection, from);
    drawUnseen(height);
    if (!shown.length) {
      paper.fillStyle = colours["--muted"];
      paper.fillText("No connection in this time.", 8, TOP + 15);
    }
    placeBars(shown);
    if (tipFor) fillTip(tipFor.connection, tipFor.moment);
  }

  // Rows without anything to show are closed up.
  function compact(shown) {
    const used = [...new Set(shown.map((connection) => connection.row))].sort((a, b) => a - b);
    const lines = new Map(used.map((row, index) => [row, index]));
    const latest = new Map();
    for (const connection of shown.sort((a, b) => a.begin - b.begin)) {
      connection.line = lines.get(connection.row);
      connection.next = Infinity;
      const before = latest.get(connection.line);
      if (before) before.next = connection.begin;
      latest.set(connection.line, connection);
    }
    return used.length;
  }

  function sizeCanvas(element, pen, width, height) {
    const scale = window.devicePixelRatio || 1;
    const [wide, high] = [Math.round(width * scale), Math.round(height * scale)];
    if (element.width !== wide || element.height !== high) {
      element.width = wide;
      element.height = high;
      element.style.width = `${width}px`;
      element.style.height = `${height}px`;
    }
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, width, height);
  }

  function drawAxis(height) {
    const room = view.width < 500 ? 90 : 110;
    const step = [5, 10, 15, 30, 60, 120, 300].find((seconds) => seconds * view.scale >= room) || 300;
    paper.textBaseline = "middle";
    for (let ago = 0; ago <= windowSeconds; ago += step) {
      const x = Math.round(toX(now - ago)) + 0.5;
      paper.strokeStyle = colours["--soft"];
      paper.lineWidth = 1;
      paper.beginPath();
      paper.moveTo(x, AXIS);
      paper.lineTo(x, height);
      paper.stroke();
      paper.fillStyle = colours["--muted"];
      paper.textAlign = ago === 0 ? "right" : "center";
      const label = ago === 0 ? "now" : wallTime(now - ago);
      if (ago === 0) paper.fillText(label, x + 26, 10);
      else if (x > 26) paper.fillText(label, x, 10);
    }
    paper.textAlign = "left";
  }

  // The state of the pool as a whole.
  function drawBand(story) {
    const shades = { up: "--good", starting: "--open", recovering: "--open", suspect: "--unsure", down: "--cut" };
    story.states.forEach(([since, state], index) => {
      const next = story.states[index + 1];
      const [x, end] = [Math.max(view.left, toX(since)), toX(next ? next[0] : now)];
      if (end <= view.left) return;
      const colour = colours[shades[state] || "--idle"];
      const width = Math.max(2, end - x);
      paper.fillStyle = state === "up" ? colour : pattern(state === "down" ? "crossed" : "hatched", colour);
      paper.globalAlpha = state === "up" ? 0.55 : 1;
      paper.fillRect(x, AXIS + (state === "up" ? 5 : 0), width, state === "up" ? 4 : BAND - 2);
      paper.globalAlpha = 1;
      if (state === "up") return;
      paper.strokeStyle = colour;
      paper.lineWidth = 1;
      paper.strokeRect(x + 0.5, AXIS + 0.5, width - 1, BAND - 3);
      const word = STATES[state] || state;
      const room = paper.measureText(word).width;
      if (width > room + 12) {
        paper.fillStyle = colours["--panel"];
        paper.fillRect(x + 4, AXIS + 1, room + 6, BAND - 4);
        paper.fillStyle = colours["--ink"];
        paper.fillText(word, x + 7, AXIS + 7.5);
      }
    });
  }

  function drawConnection(connection, from) {
    const y = TOP + connection.line * rowHeight + 2;
    const height = rowHeight - 5;
    const end = connection.end ?? now;
    const left = Math.max(view.left, toX(connection.begin));
    const right = Math.max(left + 1, toX(end));
    // What nobody watched: there was a connection, and no more is known.
    paper.strokeStyle = colours["--line"];
    paper.lineWidth = 1.5;
    paper.setLineDash([1, 4]);
    paper.beginPath();
    paper.moveTo(left, y + height / 2);
    paper.lineTo(right, y + height / 2);
    paper.stroke();
    paper.setLineDash([]);
    for (const piece of connection.pieces) {
      if (piece.to < from) continue;
      const x = Math.max(view.left, toX(piece.from));
      paintPiece(paper, piece.state, x, y, Math.max(1, Math.min(right, toX(piece.to)) - x), height);
    }
    for (const mark of connection.marks) {
      if (mark.at >= from) paintMark(paper, mark, toX(mark.at), y, height);
    }
    if (connection.end !== null && connection.end >= from) paintEnd(paper, connection.how, right, y, height);
    label(connection, left, right, y, height);
  }

  // The number before it where it begins, and the reason after it where it was cut, if there is room.
  function label(connection, left, right, y, height) {
    const name = `${connection.number}`;
    const middle = y + height / 2 + 0.5;
    paper.font = "600 10px system-ui, sans-serif";
    const room = paper.measureText(name).width + 6;
    if (right - left > room + 12) {
      paper.fillStyle = colours["--panel"];
      paper.fillRect(left + 2, middle - 6, room, 12);
      paper.fillStyle = colours["--muted"];
      paper.fillText(name, left + 5, middle);
    }
    paper.font = "11px system-ui, sans-serif";
    if (connection.end === null || !["cut", "failed"].includes(connection.how)) return;
    const free = Math.min(view.width - 4, toX(connection.next)) - right;
    const silence = connection.how === "cut" && connection.silent !== undefined ? `, silent ${span(connection.silent)}` : "";
    const fits = (words) => free > paper.measureText(words).width + 18;
    const text = fits(connection.cause + silence) ? connection.cause + silence : connection.cause;
    if (text && free > paper.measureText(text).width + 18) {
      paper.fillStyle = colours["--cut"];
      paper.fillText(text, right + 10, middle);
    }
  }

  // Times in which this page heard nothing.
  function drawUnseen(height) {
    for (const [from, to] of unseen) {
      const [x, end] = [Math.max(view.left, toX(from)), toX(to)];
      if (end <= view.left) continue;
      paper.globalAlpha = 0.7;
      paper.fillStyle = pattern("hatched", colours["--hatch"]);
      paper.fillRect(x, AXIS, Math.max(2, end - x), height - AXIS);
      paper.globalAlpha = 1;
      paper.fillStyle = colours["--muted"];
      if (end - x > 90) paper.fillText("not connected", x + 6, TOP - 1);
    }
  }

  // -- bars: what the mouse and the keys meet ----------------------------------------------------

  let tipFor = null;

  function placeBars(shown) {
    const keep = new Set();
    for (const connection of shown) {
      keep.add(connection.number);
      let bar = bars.get(connection.number);
      if (!bar) {
        bar = make("button", "", { type: "button", "aria-describedby": "tip" });
        bar.tabIndex = -1;
        bar.dataset.number = connection.number;
        bars.set(connection.number, bar);
        byId("bars").append(bar);
      }
      bar.connection = connection;
      const left = Math.max(view.left, toX(connection.begin));
      const right = toX(connection.end ?? now) + (connection.end === null ? 0 : 7);
      const style = bar.style;
      style.left = `${left.toFixed(1)}px`;
      style.width = `${Math.max(8, right - left).toFixed(1)}px`;
      style.top = `${TOP + connection.line * rowHeight}px`;
      style.height = `${rowHeight - 1}px`;
      const name = nameOf(connection);
      if (bar.getAttribute("aria-label") !== name) bar.setAttribute("aria-label", name);
      bar.dataset.how = connection.how;
      style.zIndex = connection.how ? 2 : 1; // the sign of an end stands over what comes next
    }
    for (const [number, bar] of bars) {
      if (keep.has(number)) continue;
      if (bar === document.activeElement) move(bar, "ArrowRight") || move(bar, "Home");
      bar.remove();
      bars.delete(number);
    }
    if (![...bars.values()].some((bar) => bar.tabIndex === 0) && bars.size) {
      const last = shown.reduce((a, b) => ((b.end ?? now) > (a.end ?? now) || b.end === null ? b : a));
      bars.get(last.number).tabIndex = 0;
    }
  }

  function nameOf(connection) {
    if (connection.how) return `Connection ${connection.number}, ended ${wallTime(connection.end)}: ${reason(connection)}`;
    return `Connection ${connection.number}, ${connection.last ? WORDS(connection.last.state) : "opened"}`;
  }

  // The happening's own words, after "connection 3".
  function reason(connection) {
    const text = connection.text.replace(/^connection \d+ /, "");
    const cause = CAUSES[connection.cause];
    return cause && connection.how === "cut" ? `${text} (${cause})` : text;
  }

  function move(bar, key) {
    const here = bar.connection;
    const all = [...bars.values()].map((one) => one.connection).filter((c) => c.line !== undefined);
    const inRow = all.filter((c) => c.line === here.line).sort((a, b) => a.begin - b.begin);
    const index = inRow.indexOf(here);
    let next = null;
    if (key === "ArrowLeft") next = inRow[index - 1];
    else if (key === "ArrowRight") next = inRow[index + 1];
    else if (key === "Home") next = inRow[0];
    else if (key === "End") next = inRow[inRow.length - 1];
    else {
      const line = here.line + (key === "ArrowDown" ? 1 : -1);
      const middle = (c) => (Math.max(c.begin, view.from) + (c.end ?? now)) / 2;
      next = all.filter((c) => c.line === line).sort((a, b) => Math.abs(middle(a) - middle(here)) - Math.abs(middle(b) - middle(here)))[0];
    }
    if (!next || next === here) return false;
    const target = bars.get(next.number);
    for (const other of bars.values()) other.tabIndex = -1;
    target.tabIndex = 0;
    target.focus();
    return true;
  }

  function showTip(connection, moment, anchor) {
    tipFor = { connection, moment };
    fillTip(connection, moment);
    const tip = byId("tip");
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    const x = Math.min(Math.max(8, anchor.x - box.width / 2), innerWidth - box.width - 8);
    const below = anchor.bottom + 8;
    const y = below + box.height > innerHeight ? anchor.top - box.height - 8 : below;
    tip.style.left = `${x}px`;
    tip.style.top = `${Math.max(4, y)}px`;
  }

  function hideTip() {
    tipFor = null;
    byId("tip").hidden = true;
  }

  function fillTip(connection, moment) {
    const lines = [];
    const last = connection.last;
    if (moment !== null) lines.push(`${wallTime(moment)}: ${at(connection, moment)}`);
    if (connection.how) lines.push(`Ended ${wallTime(connection.end)}: ${reason(connection)}.`);
    else if (last && connection.end === null) {
      const expires = last.expires === null ? "" : `, ends in ${span(Math.max(0, last.expires))} at the latest`;
      const age = last.state === "opening" || last.state === "disowned" ? "" : `, ${span(now - last.opened)} old, last heard ${span(last.silent)} ago${expires}`;
      lines.push(`Now ${WORDS(last.state)} for ${span(now - last.since)}${age}.`);
    } else lines.push("Gone; the pool has not said why yet.");
    const near = 6 / view.scale;
    const marks = moment === null ? connection.marks.slice(-2) : connection.marks.filter((mark) => Math.abs(mark.at - moment) < near);
    for (const mark of marks.slice(-3)) lines.push(`${wallTime(mark.at)}: ${mark.text.replace(/^connection \d+ /, "")}`);
    const tip = byId("tip");
    while (tip.children.length > lines.length + 1) tip.lastChild.remove();
    while (tip.children.length < lines.length + 1) tip.append(make(tip.children.length ? "p" : "strong"));
    [`Connection ${connection.number}`, ...lines].forEach((line, index) => say(tip.children[index], line));
  }

  // What is known of one moment of a connection.
  function at(connection, moment) {
    const near = 2 / view.scale;
    const piece = connection.pieces.find((one) => moment >= one.from - near && moment <= one.to + near);
    if (!piece) return "nobody looked";
    if (piece.state !== "use") return `${WORDS(piece.state)}, ${span(piece.to - piece.from)} in all`;
    return `in use, changed hands between looks; lent at ${piece.lent} of ${plural(piece.looks, "look")}`;
  }

  function listenToBars() {
    const box = byId("bars");
    box.addEventListener("focusin", (event) => {
      if (!event.target.matches(":focus-visible")) return;
      showTip(event.target.connection, null, middle(event.target));
    });
    box.addEventListener("focusout", hideTip);
    box.addEventListener("keydown", (event) => {
      if (event.key === "Escape") hideTip();
      if (!["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End"].includes(event.key)) return;
      event.preventDefault();
      move(event.target, event.key);
    });
    box.addEventListener("pointermove", (event) => {
      if (!event.target.connection) return hideTip();
      const place = event.target.getBoundingClientRect();
      const x = event.clientX - box.getBoundingClientRect().left;
      showTip(event.target.connection, Math.min(now, toMoment(x)), { x: event.clientX, top: place.top, bottom: place.bottom });
    });
    box.addEventListener("pointerleave", hideTip);
    byId("plot-scroll").addEventListener("scroll", hideTip);
    addEventListener("keydown", (event) => { if (event.key === "Escape") hideTip(); });
  }

  function middle(element) {
    const box = element.getBoundingClientRect();
    return { x: box.left + box.width / 2, top: box.top, bottom: box.bottom };
  }

  // -- the panels --------------------------------------------------------------------------------

  function drawPanels(story) {
    const facts = story.facts;
    if (pools.every((one) => one.facts)) markPools(pools.map((one) => one.facts));
    drawTimes(facts);
    drawQueue(story);
    drawPath(story);
    drawChecks(facts);
    drawHappenings(story);
    drawSettings(story);
    if (byId("table-details").open) drawTable(story);
    const made = `${facts.opened} opened, ${facts.open_failed} failed, ${total(facts.cuts)} cut, ${total(facts.retired)} closed by the pool`;
    say(byId("foot"), `${plural(facts.requests, "request")}; connections: ${made}. ${details ? "Details are shown: hosts, users and what servers said." : "Hosts, users and what servers said are not shown here."}`);
  }

  // Rows of a table, reused.
  function fill(body, rows, tags = ["th"]) {
    while (body.children.length > rows.length) body.lastChild.remove();
    while (body.children.length < rows.length) body.append(make("tr"));
    rows.forEach((cells, index) => {
      const row = body.children[index];
      while (row.children.length > cells.length) row.lastChild.remove();
      while (row.children.length < cells.length) {
        const tag = tags[row.children.length] || "td";
        row.append(make(tag, "", tag === "th" ? { scope: "row" } : {}));
      }
      cells.forEach((cell, column) => say(row.children[column], cell));
    });
  }

  // Beyond the outer buckets there is only a bound.
  function quantile(seconds, count) {
    if (!count) return "–";
    if (seconds <= 0.001) return "< 1 ms";
    return seconds >= 10 ? "> 10 s" : span(seconds);
  }

  function drawTimes(facts) {
    const rows = [];
    const names = { wait: "Wait", use: "Use", connect: "Connect" };
    for (const [name, word] of Object.entries(names)) {
      const { recent, all } = facts.times[name];
      const line = (kind, title) => [title, quantile(kind.p50, kind.count), quantile(kind.p95, kind.count), quantile(kind.p99, kind.count), `${kind.count}`];
      rows.push(line(recent, word), line(all, "since start"));
    }
    const body = byId("times").tBodies[0];
    fill(body, rows);
    [...body.children].forEach((row, index) => { row.className = index % 2 ? "since" : ""; });
    say(byId("times-title"), `How long it took in the last ${facts.window >= 58 ? "minute" : span(Math.max(1, facts.window))}`);
  }

  function drawQueue(story) {
    const facts = story.facts;
    say(byId("waiting"), `${facts.waiting}`);
    say(byId("queue-text"), facts.waiting ? `The first waits for ${span(facts.longest_wait)}.` : "Nobody waits.");
    const refused = Object.entries(facts.refusals).filter(([, count]) => count);
    pairs(byId("refusals"), refused.length ? refused.map(([code, count]) => [upper(REFUSALS[code] || code), `${count}`]) : [["None since the pool was opened", "0"]]);
    const element = byId("spark");
    const pen = element.getContext("2d");
    const width = element.parentElement.clientWidth - 32;
    sizeCanvas(element, pen, width, 46);
    const from = now - windowSeconds;
    const seen = story.queue.filter(([at]) => at >= from);
    const most = Math.max(1, ...seen.map(([, waiting]) => waiting));
    pen.strokeStyle = colours["--line"];
    pen.strokeRect(-1, 44.5, width + 2, 5);
    pen.fillStyle = colours["--use"];
    for (const [at, waiting] of seen) {
      const x = ((at - from) / windowSeconds) * width;
      const height = (waiting / most) * 30;
      if (waiting) pen.fillRect(x - 1, 44 - height, Math.max(1.5, (0.22 * width) / windowSeconds), height);
    }
    pen.fillStyle = colours["--muted"];
    pen.font = "11px system-ui, sans-serif";
    pen.fillText(`most waiting at a look: ${Math.max(0, ...seen.map(([, waiting]) => waiting))}`, 0, 9);
  }

  function pairs(list, entries) {
    while (list.children.length > 2 * entries.length) list.lastChild.remove();
    while (list.children.length < 2 * entries.length) list.append(make("dt"), make("dd"));
    entries.flat().forEach((text, index) => say(list.children[index], text));
  }

  function drawPath(story) {
    const facts = story.facts;
    const number = total(facts.cuts);
    const heard = facts.heard === null ? "never" : `${span(facts.heard)} ago`;
    const trip = facts.round_trip ? `, round trip ${span(facts.round_trip)}` : "";
    say(byId("path-text"), `${number ? `${plural(number, "connection")} cut since the pool was opened` : "No connection has been cut since the pool was opened"}. Last heard ${heard}${trip}.`);
    const rows = facts.path.flatMap((path) => [
      [path.cause, `${facts.cuts[path.cause] ?? path.remembered}`, range(path.silent), range(path.age)],
      [[CAUSES[path.cause], path.lent ? `${path.lent} in use` : "none in use", `last ${span(path.ago)} ago`].filter(Boolean).join("; ")],
    ]);
    byId("path").hidden = !rows.length;
    fill(byId("path").tBodies[0], rows);
    [...byId("path").tBodies[0].children].forEach((row, index) => {
      row.className = index % 2 ? "more" : "";
      row.firstChild.colSpan = index % 2 ? 4 : 1;
    });
    const learned = [...story.happenings.values()].filter((h) => h.name === "pool.learned").slice(-5);
    list(byId("learned"), learned.map((h) => upper(h.text)));
  }

  function list(element, texts) {
    while (element.children.length > texts.length) element.lastChild.remove();
    while (element.children.length < texts.length) element.append(make("li"));
    texts.forEach((text, index) => say(element.children[index], text));
  }

  function drawChecks(facts) {
    const box = byId("checks");
    while (box.children.length < facts.checks.length) {
      const item = make("li");
      item.append(make("span", "", { class: "mark" }), make("span"), make("small"));
      box.append(item);
    }
    facts.checks.forEach((check, index) => {
      const [mark, text, detail] = box.children[index].children;
      mark.dataset.status = check.status;
      mark.setAttribute("role", "img");
      mark.setAttribute("aria-label", check.status);
      say(mark, SIGNS[check.status]);
      say(text, upper(check.text));
      say(detail, check.detail);
    });
  }

  // What happens again and again is one line: attempts to connect, and cuts of the same moment.
  function fold(happenings) {
    const folded = [];
    for (const happening of happenings) {
      const last = folded[folded.length - 1];
      const alike = last && happening.cause && last.newest.name === happening.name && last.newest.cause === happening.cause;
      if (alike && (happening.name === "connection.open_failed" || happening.at - last.newest.at < 0.5)) {
        last.newest = happening;
        last.count += 1;
      } else folded.push({ newest: happening, oldest: happening, count: 1 });
    }
    return folded.reverse();
  }

  function drawHappenings(story) {
    const routine = byId("routine").checked;
    const all = [...story.happenings.values()].filter((h) => routine || h.level > ROUTINE);
    const folded = fold(all).slice(0, 100);
    const box = byId("happenings");
    while (box.children.length > folded.length) box.lastChild.remove();
    while (box.children.length < folded.length) {
      const item = make("li");
      item.append(make("time"), make("span", "", { class: "sign", "aria-hidden": "true" }), make("span"));
      box.append(item);
    }
    folded.forEach(({ newest, oldest, count }, index) => {
      const item = box.children[index];
      const weight = newest.level >= ERROR ? "error" : newest.level >= WARNING ? "warning" : newest.level > ROUTINE ? "note" : "routine";
      item.dataset.weight = weight;
      say(item.children[0], wallTime(newest.at));
      say(item.children[1], { error: "×", warning: "!", note: "•", routine: "·" }[weight]);
      const more = count > 1 ? ` (and ${count - 1} more like it since ${wallTime(oldest.at)})` : "";
      say(item.children[2], upper(newest.text) + more);
    });
    byId("no-happenings").hidden = folded.length > 0;
  }

  function drawSettings(story) {
    const box = byId("settings");
    while (box.children.length < story.settings.length) {
      const item = make("div");
      const value = make("dd");
      value.append(make("span"), make("small"));
      item.append(make("dt"), value);
      box.append(item);
    }
    while (box.children.length > story.settings.length) box.lastChild.remove();
    story.settings.forEach((setting, index) => {
      const item = box.children[index];
      item.dataset.origin = setting.origin;
      say(item.firstChild, setting.name);
      say(item.lastChild.firstChild, setting.unit ? `${setting.value} ${setting.unit}` : setting.value);
      say(item.lastChild.lastChild, ` ${setting.origin}`);
    });
  }

  function drawTable(story) {
    const rows = [...story.connections.values()]
      .sort((a, b) => b.number - a.number)
      .slice(0, 300)
      .map((c) => {
        const last = c.last;
        if (c.end !== null) return [`${c.number}`, c.how || "gone", "", span(Math.max(0, c.end - c.begin)), "", c.how ? `${wallTime(c.end)}: ${reason(c)}` : "not known yet"];
        return [`${c.number}`, last ? WORDS(last.state) : "", last ? span(now - last.since) : "", last ? span(now - last.opened) : "", last ? `${span(last.silent)} ago` : "", ""];
      });
    fill(byId("connections").tBodies[0], rows);
  }

  // -- what people choose ------------------------------------------------------------------------

  function setUpSpans() {
    const box = byId("spans");
    const wanted = Number(new URLSearchParams(location.hash.slice(1)).get("seconds")) || Number(recall("seconds"));
    if (SPANS.includes(wanted)) windowSeconds = wanted;
    const pick = (index) => {
      windowSeconds = SPANS[index];
      remember("seconds", windowSeconds);
      [...box.children].forEach((button, position) => {
        button.setAttribute("aria-checked", String(position === index));
        button.tabIndex = position === index ? 0 : -1;
      });
      schedule(true);
    };
    SPANS.forEach((seconds, index) => {
      const button = make("button", `${seconds / 60} min`, { type: "button", role: "radio" });
      button.addEventListener("click", () => pick(index));
      box.append(button);
    });
    pick(SPANS.indexOf(windowSeconds));
    arrows(box, pick);
  }

  function setUpTheme() {
    const themes = ["system", "light", "dark"];
    let theme = themes.includes(recall("theme")) ? recall("theme") : "system";
    const show = () => {
      if (theme === "system") delete document.documentElement.dataset.theme;
      else document.documentElement.dataset.theme = theme;
      say(byId("theme"), `Theme: ${theme}`);
      readColours();
      drawLegend();
      schedule(true);
    };
    byId("theme").addEventListener("click", () => {
      theme = themes[(themes.indexOf(theme) + 1) % themes.length];
      remember("theme", theme);
      show();
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
    show();
  }

  function drawLegend() {
    const entry = (word, paint) => {
      const swatch = make("canvas", "", { "aria-hidden": "true" });
      const pen = swatch.getContext("2d");
      sizeCanvas(swatch, pen, 26, 14);
      paint(pen);
      const item = make("li");
      item.append(swatch, make("span", word));
      return item;
    };
    const state = (name, word) => entry(word || WORDS(name), (pen) => paintPiece(pen, name, 0, 0, 26, 14));
    byId("legend").replaceChildren(
      state("opening"), state("idle"), state("use"), state("lent", "one long loan"), state("suspect"), state("corpse"),
      entry("ping", (pen) => paintMark(pen, { name: "connection.pinged" }, 13, 0, 14)),
      entry("cut", (pen) => paintEnd(pen, "cut", 13, 0, 14)),
      entry("attempt failed", (pen) => paintEnd(pen, "failed", 13, 0, 14)),
      entry("closed by the pool", (pen) => paintEnd(pen, "retired", 13, 0, 14)),
    );
  }

  setUpTheme();
  setUpSpans();
  arrows(byId("pools"), choose);
  listenToBars();
  byId("routine").addEventListener("change", () => schedule(true));
  byId("table-details").addEventListener("toggle", () => schedule(true));
  addEventListener("resize", () => schedule(true));
  connect();
})();
