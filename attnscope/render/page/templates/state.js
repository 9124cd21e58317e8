// The state of the page: what is chosen, kept in the address as #step=score&token=5,9. All counts are BigInt, since a
// Number is exact only below 2^53.
const one = (selector, inside = document) => inside.querySelector(selector);
const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];
const packed = (name) => Uint8Array.from(atob(one(name).textContent), (sign) => sign.charCodeAt(0));
const data = JSON.parse(inflated(packed("#data")));
// Names that begin like the name before: `5 embed` has its first five characters.
function unfolded(names) {
  let last = "";
  return names.map((name) => {
    const space = name.indexOf(" ");
    last = last.slice(0, Number(name.slice(0, space))) + name.slice(space + 1);
    return last;
  });
}
data.steps = unfolded(data.steps);
// A step is a number in the file, and its name from here on. A list of consecutive steps has the number of its first.
for (const list of all("[data-from]")) {
  [...list.children].forEach((each, at) => { each.dataset.step = Number(list.dataset.from) + at; });
}
for (const each of all("[data-step]")) each.dataset.step = data.steps[each.dataset.step];
const grouped = (value) => value.toString().replace(/\B(?=(\d{3})+(?!\d))/g, ",");
const say = (words) => { one("#said").textContent = words; };

const state = {};
const listeners = [];

function choose(changes, says = "") {
  for (const [name, value] of Object.entries(changes)) {
    if (value === null || value === undefined || value === "") delete state[name];
    else state[name] = String(value);
  }
  const text = Object.entries(state).map(([name, value]) =>
    `${encodeURIComponent(name)}=${encodeURIComponent(value).replaceAll("%2C", ",")}`).join("&");
  history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
  listeners.forEach((listener) => listener(changes));
  if (says) say(says);
}

function read() {
  const text = location.hash.slice(1);
  if (!text.includes("=")) return {};
  return Object.fromEntries(new URLSearchParams(text));
}

function restore() {
  const asked = read();
  if (!Object.keys(asked).length) return;
  for (const name of Object.keys(state)) delete state[name];
  choose(asked);
}

function svg(name, attributes, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text) made.textContent = text;
  return made;
}

// The columns of charts over steps: each has its step, and its exact values on hover.
for (const [name, charts] of Object.entries(data.hits)) {
  all(".hits", document.getElementById(name)).forEach((place, number) => {
    const { left, right, words, hits } = charts[number];
    const width = (right - left) / hits.length;
    hits.forEach((hit, at) => {
      if (!hit) return;
      const [step, kind, ...integers] = hit;
      const column = svg("rect", { x: left + at * width, width });
      if (step !== null) column.dataset.step = data.steps[step];
      const text = words[kind].map((word, part) => word + (part < integers.length ? grouped(integers[part]) : ""));
      column.append(svg("title", {}, text.join("")));
      place.append(column);
    });
  });
}

// The text whose lines are in columns: the first line has the column of each line, and a column begins with what all of
// its lines begin with.
function inLines(text) {
  const [order, ...columns] = text.split("\n");
  const lines = columns.map((column) => {
    const [start, ...rest] = column.split("\t");
    return rest.map((each) => start + each).values();
  });
  return order.split(" ").map((column) => lines[column].next().value).join("\n");
}

// the buttons of the page
const save = one("#save");
save.hidden = false;
save.addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([inLines(inflated(packed("#result")))], { type: "application/json" }));
  link.download = save.dataset.file;
  link.click();
  URL.revokeObjectURL(link.href);
});
for (const button of all("[data-copy]")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const code = document.getElementById(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(code.textContent);
    } catch {
      const range = document.createRange();
      range.selectNodeContents(code);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
    }
    button.textContent = "Copied";
    say("The command is copied");
  });
}
