// The script of kubectl apikey ui. The server renders all HTML. This script shows dialogs, filters and sorts rows, replaces what changed, and
// shows a token once.
"use strict";

const meta = (name) => document.querySelector(`meta[name="${name}"]`).content;
const base = meta("base");
const find = (selector, root = document) => root.querySelector(selector);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const dialog = find("#dialog");
const ended = "The page has ended. Run kubectl apikey ui again.";

// ask sends a request. Whatever changes something carries the form token, which other sites can't send.
async function ask(path, options = {}) {
	try {
		return await fetch(path, { ...options, headers: { "X-Form-Token": meta("form-token"), ...options.headers }, cache: "no-store" });
	} catch (failure) {
		if (failure.name === "AbortError") throw failure;
		throw new Error(ended);
	}
}

// send posts a form or nothing, and shows the next view if the server names one. It returns the response otherwise.
async function send(path, body = new URLSearchParams()) {
	const response = await ask(path, { method: "POST", body });
	const next = response.headers.get("Location");
	if (next) {
		location.assign(next);
		return null;
	}
	return response;
}

function say(text) { find("#said").textContent = text; }

function fail(root, text) {
	const place = find("[data-failed]", root);
	if (!place) return trouble(text);
	place.hidden = false;
	place.textContent = text;
}

function trouble(text) {
	const place = find("#trouble");
	place.hidden = !text;
	place.textContent = text;
}

// Times

function span(seconds) {
	const [unit, name] = seconds >= 172800 ? [86400, "day"] : seconds >= 7200 ? [3600, "hour"] : seconds >= 120 ? [60, "minute"] : [1, "second"];
	const n = unit === 86400 ? Math.round(seconds / unit) : Math.floor(seconds / unit);
	return `${n} ${name}${n === 1 ? "" : "s"}`;
}

function tick() {
	for (const time of all("time[datetime]")) {
		const seconds = (Date.parse(time.dateTime) - Date.now()) / 1000;
		const text = seconds > 0 ? `in ${span(seconds)}` : `${span(-seconds)} ago`;
		if (time.textContent !== text) time.textContent = text;
	}
}
setInterval(tick, 15000);

// The grid

const still = matchMedia("(prefers-reduced-motion: reduce)");
let order = { by: "name", down: false };

function value(row) {
	return order.by === "expires" || order.by === "used" ? Number(row.dataset[order.by]) : row.dataset[order.by];
}

function compare(a, b) {
	const [x, y] = [value(a), value(b)];
	const result = x < y ? -1 : Number(x > y);
	return (order.down ? -result : result) || (a.dataset.name < b.dataset.name ? -1 : 1);
}

function sort() {
	const body = find("#rows");
	if (!body) return;
	const rows = [...body.rows];
	rows.sort(compare);
	if (rows.some((row, i) => row !== body.rows[i])) body.append(...rows);
	for (const button of all("[data-sort]")) {
		const mine = button.dataset.sort === order.by;
		button.closest("th").setAttribute("aria-sort", mine ? (order.down ? "descending" : "ascending") : "none");
	}
}

// room is the number of rows that are visible. It grows when the end of the table comes into view.
let room = 0;
const end = new IntersectionObserver((entries) => {
	if (entries.some((entry) => entry.isIntersecting)) filter(room + first());
}, { rootMargin: "500px" });

function first() { return Number(find("#keys").dataset.first); }

// searched returns the text of a row that the filter looks at.
function searched(row) {
	return (row.searched ??= `${row.textContent} ${find(".c-roles", row).title}`.toLowerCase());
}

// prepare does that ahead, while nothing else is to do.
function prepare(deadline) {
	const rows = find("#rows")?.rows ?? [];
	for (const row of rows) {
		if (deadline.timeRemaining() < 1) {
			requestIdleCallback(prepare);
			return;
		}
		searched(row);
	}
}

// filter shows the rows that fit, at most so many.
function filter(most) {
	const body = find("#rows");
	if (!body) return;
	room = most;
	const words = find("#filter").value.toLowerCase().split(/\s+/).filter(Boolean);
	let shown = 0;
	for (const row of body.rows) {
		const fits = words.every((word) => searched(row).includes(word));
		if (fits) shown++;
		const hidden = !fits || shown > room;
		if (row.hidden !== hidden) row.hidden = hidden;
	}
	const more = find("#more");
	more.hidden = shown <= room;
	end.unobserve(more); // it may be in view still, which is told only to a new observer
	if (!more.hidden) end.observe(more);
	const total = body.rows.length;
	find("#none").hidden = shown > 0 || total === 0;
	find("#empty").hidden = total > 0;
	find("#keys").hidden = shown === 0;
	const keys = total === 1 ? "key" : "keys";
	find("#count").textContent = !total ? "" : words.length ? `${shown} of ${total} ${keys}` : `${total} ${keys}`;
}

// Live changes

function parse(html) {
	const template = document.createElement("template");
	template.innerHTML = html;
	return template.content.firstElementChild;
}

// changes collects what happened since the last frame, so that a thousand changes at once are shown at once.
const changes = new Map();

function change(id, html) {
	if (!changes.size) requestAnimationFrame(apply);
	changes.set(id, html);
}

function apply() {
	const here = find("[data-key]");
	const body = find("#rows");
	const news = [...changes];
	changes.clear();
	if (here) {
		if (news.some(([id]) => id === here.dataset.key)) reload();
		return;
	}
	if (!body) return;
	for (const [id, html] of news) {
		const old = document.getElementById(id);
		if (!html) {
			old?.remove();
			continue;
		}
		if (!old && find("#keys").dataset.partial) continue;
		const row = parse(html);
		if (old) morph(old, row);
		else body.append(row);
		if (news.length < 50 && !still.matches) (old ?? row).animate([{ background: "var(--blue-soft)" }, {}], 1600);
	}
	sort();
	filter(room);
}

// morph makes an element like another one, and changes only what differs. So the focus stays, and a click that is under way is not lost.
function morph(old, next) {
	if (old.isEqualNode(next)) return;
	if (old.nodeName !== next.nodeName || old.nodeType !== Node.ELEMENT_NODE) {
		old.replaceWith(next);
		return;
	}
	old.searched = undefined;
	for (const { name, value } of next.attributes) old.setAttribute(name, value);
	for (const { name } of [...old.attributes]) if (!next.hasAttribute(name) && name !== "open") old.removeAttribute(name);
	const [mine, others] = [[...old.childNodes], [...next.childNodes]];
	for (const [i, node] of others.entries()) {
		if (mine[i]) morph(mine[i], node);
		else old.append(node);
	}
	for (const node of mine.slice(others.length)) node.remove();
}

let listening = null;

// listen follows the keys of the view until the tab is hidden. Hidden tabs don't, since browsers allow few connections.
async function listen() {
	const part = find("#part");
	if (listening || !part.dataset.version || document.hidden) return;
	const mine = (listening = new AbortController());
	try {
		while (!mine.signal.aborted) {
			const body = new URLSearchParams({ namespace: part.dataset.watched, version: part.dataset.version });
			const response = await ask(`${base}events`, { method: "POST", body, signal: mine.signal });
			if (!response.ok) throw new Error(response.status === 403 ? ended : await response.text());
			await read(response.body.pipeThrough(new TextDecoderStream()).getReader(), part);
		}
	} catch (failure) {
		if (mine.signal.aborted) return;
		trouble(failure.message === "network error" || failure instanceof TypeError ? ended : failure.message);
	} finally {
		if (listening === mine) listening = null;
	}
}

function quiet() {
	listening?.abort();
	listening = null;
}

async function read(stream, part) {
	let text = "";
	for (;;) {
		const { done, value } = await stream.read();
		if (done) return;
		text += value;
		const events = text.split("\n\n");
		text = events.pop();
		for (const event of events) receive(event, part);
	}
}

function receive(event, part) {
	const fields = Object.fromEntries(event.split("\n").map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 2)]));
	if (fields.id) part.dataset.version = fields.id;
	if (!fields.event) return;
	const data = JSON.parse(fields.data);
	if (fields.event === "row" || fields.event === "gone") change(data.id, data.html);
	if (fields.event === "trouble") trouble(data.text && `Changes are not shown at the moment: ${data.text}`);
	if (fields.event === "reload") reload();
}

// reload makes the view what the server shows now.
async function reload() {
	quiet();
	const response = await ask(location.href, { headers: { "X-Part": "1" } });
	const part = parse(await response.text());
	if (part?.id !== "part") return trouble(ended);
	morph(find("#part"), part);
	sort();
	if (find("#filter")) filter(Math.max(room, first()));
	listen();
}

document.addEventListener("visibilitychange", () => (document.hidden ? quiet() : listen()));

// Dialogs

let opener = null;

async function open(button) {
	opener = button.id || button.dataset.dialog;
	try {
		const response = await ask(button.dataset.dialog);
		const text = await response.text();
		if (!response.ok) return trouble(text);
		fill(text);
		dialog.showModal();
		find("[autofocus]", dialog)?.focus();
	} catch (failure) {
		trouble(failure.message);
	}
}

function fill(html) {
	dialog.replaceChildren(parse(html));
	if (find("[data-expires]", dialog)) shape();
}

dialog.addEventListener("close", () => {
	if (dialog.open) return; // browsers tell of it a frame later, when the next dialog may be open
	dialog.replaceChildren();
	all("[data-dialog]").find((button) => button.dataset.dialog === opener)?.focus();
});

async function submit(form, button) {
	button.disabled = true;
	try {
		const response = await send(form.action, new URLSearchParams(new FormData(form)));
		if (!response) return;
		const text = await response.text();
		if (response.status === 422 && text.startsWith("<form")) {
			const at = find(".body", dialog)?.scrollTop;
			fill(text);
			const refused = find("[data-refusal]", dialog);
			const field = refused?.closest(".field");
			if (field) find("input, select, textarea", field)?.focus();
			else if (at) find(".body", dialog).scrollTop = 0;
			(field ?? refused)?.scrollIntoView({ block: "nearest" });
			say(refused?.textContent ?? "");
		} else fail(form, text);
	} catch (failure) {
		fail(form, failure.message);
	} finally {
		button.disabled = false;
	}
}

// shape says in a sentence what the choices of the form mean.
function shape() {
	const form = find("form", dialog);
	const choice = form.elements.expires?.value;
	find("[data-date]", form).hidden = choice !== "date";
	const hint = find("[data-shape]", form);
	const day = new Intl.DateTimeFormat("en-GB", { dateStyle: "full", timeZone: "UTC" });
	hint.classList.toggle("warn", choice === "never");
	if (choice === "never") {
		hint.textContent = "This key works until somebody deletes it. If its token leaks and nobody notices, it stays open for good.";
	} else if (choice === "date") {
		const at = form.elements.date.valueAsDate;
		hint.textContent = !at ? "It expires at the start of that day, in UTC." : at <= new Date() ? "That day has begun already, so the key would never work."
			: `It works until the start of ${day.format(at)}, in UTC: ${span((at - Date.now()) / 1000)}.`;
	} else {
		hint.textContent = `It works until ${day.format(Date.now() + choice * 86400000)}.`;
	}
	const reach = find("[data-reach]", form);
	const any = !find("[data-networks]", form).value.trim();
	reach.textContent = any ? "Any network: whoever has the token can use it from everywhere." : "Requests from elsewhere are refused. One network a line.";
	const chosen = all("input[name=roles]:checked", form);
	const names = new Set(chosen.map((box) => box.value));
	const more = [...new Set(chosen.flatMap((box) => box.dataset.includes.split(" ").filter(Boolean)))].filter((name) => !names.has(name));
	const roles = find("[data-chosen]", form);
	if (!roles) return;
	const count = names.size === 1 ? "1 role chosen" : `${names.size || "No"} roles chosen`;
	roles.textContent = more.length ? `${count}. Included with ${names.size === 1 ? "it" : "them"}: ${more.sort().join(", ")}.` : `${count}.`;
}

function pick(search) {
	const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
	let shown = 0;
	for (const choice of all(".choice", dialog)) {
		choice.searched ??= choice.textContent.toLowerCase();
		choice.hidden = !words.every((word) => choice.searched.includes(word));
		if (!choice.hidden) shown++;
	}
	find("[data-nothing]", dialog).hidden = shown > 0;
}

// The token

async function reveal() {
	const place = find("[data-token]");
	if (!place) return;
	const shown = find("#token");
	try {
		for (;;) {
			const response = await send(place.dataset.token);
			if (response.status === 202) {
				find(".loading").textContent = `Waiting: ${await response.text()}`;
				continue;
			}
			if (!response.ok) {
				shown.replaceChildren();
				return fail(document, await response.text());
			}
			shown.textContent = (await response.json()).token;
			break;
		}
		find("#copy").disabled = find("#taken").disabled = false;
		find("#copy").focus();
	} catch (failure) {
		fail(document, failure.message);
	}
}

async function copy() {
	const shown = find("#token");
	try {
		await navigator.clipboard.writeText(shown.textContent);
		find("#copied").textContent = "Copied. The token is in your clipboard.";
		find("#copy").textContent = "Copied";
	} catch {
		getSelection().selectAllChildren(shown);
		find("#copied").textContent = "Your browser did not allow that. The token is selected: copy it with your keyboard.";
	}
}

addEventListener("pagehide", () => find("#token")?.replaceChildren());

// Events

document.addEventListener("click", async (event) => {
	const target = event.target.closest("[data-dialog], [data-close], [data-sort], [data-send], #copy, #unfilter");
	if (!target) return;
	if (target.dataset.dialog) open(target);
	else if ("close" in target.dataset) dialog.close();
	else if (target.dataset.sort) {
		order = { by: target.dataset.sort, down: order.by === target.dataset.sort && !order.down };
		sort();
		filter(first());
	} else if (target.dataset.send) {
		const response = await send(target.dataset.send).catch((failure) => fail(document, failure.message));
		if (response) fail(document, await response.text());
	} else if (target.id === "copy") copy();
	else {
		find("#filter").value = "";
		filter(first());
		find("#filter").focus();
	}
});

document.addEventListener("submit", (event) => {
	if (!("post" in event.target.dataset)) return;
	event.preventDefault();
	submit(event.target, event.submitter ?? find("footer .primary, footer .solid", event.target));
});

document.addEventListener("input", (event) => {
	if (event.target.id === "filter") filter(first());
	else if ("picks" in event.target.dataset) pick(event.target);
	else if (event.target.closest("#dialog") && find("[data-expires]", dialog)) shape();
});

document.addEventListener("change", (event) => {
	if ("goes" in event.target.dataset) event.target.form.submit();
});

tick();
sort();
if (find("#keys")) filter(first());
globalThis.requestIdleCallback?.(prepare);
listen();
reveal();
