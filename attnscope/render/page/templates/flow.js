// Steps and axis letters: what is pointed at or chosen lights up everywhere.
{
  let pointed = { letter: null, step: null };

  const chips = all(".chip"), steps = all("[data-step]"), terms = all("[data-term]");

  // Split the letters and the shape of a tensor into axes, each with its letters and its size.
  function split(tensor) {
    const letters = one("code", tensor), shape = document.createElement("samp");
    if (!letters) return [];
    const sizes = tensor.lastChild.textContent.split("×").map((size) => Object.assign(document.createElement("b"), { textContent: size }));
    tensor.lastChild.replaceWith(shape);
    shape.append(...sizes.flatMap((size, place) => (place ? ["×", size] : [size])));
    const found = letters.textContent.match(/\([^)]*\)|\S+/g) ?? [];
    letters.replaceChildren();
    return found.map((text, place) => {
      const words = text.split(/([a-z])/).map((word) => (
        /^[a-z]$/.test(word) ? Object.assign(document.createElement("i"), { textContent: word }) : word));
      letters.append(place ? " " : "", ...words);
      return { letters: words.filter((word) => word instanceof Element), size: sizes[place] };
    });
  }
  const axes = all(".flow b").flatMap(split);
  const has = (axis, letter) => axis.letters.some((each) => each.textContent === letter);

  function light() {
    const letter = pointed.letter ?? state.axis, step = pointed.step ?? state.step;
    for (const each of chips) {
      each.classList.toggle("lit", each.textContent === letter);
      each.setAttribute("aria-pressed", String(each.textContent === state.axis));
    }
    for (const axis of axes) {
      for (const each of axis.letters) each.classList.toggle("lit", each.textContent === letter);
      axis.size.classList.toggle("lit", has(axis, letter));
    }
    let term = null;
    for (const each of steps) {
      const on = each.dataset.step === step;
      each.classList.toggle("on", on);
      if (on && each.dataset.ofTerm !== undefined) term = each.dataset.ofTerm;
      const name = each.matches(".flow > li") ? one("button", each) : null;
      if (name) name.setAttribute("aria-pressed", String(each.dataset.step === state.step));
    }
    for (const each of terms) each.classList.toggle("on", each.dataset.term === term);
  }

  function point(changes) {
    if (Object.keys(changes).every((name) => pointed[name] === changes[name])) return;
    pointed = { ...pointed, ...changes };
    light();
  }

  const main = one("main");
  main.addEventListener("pointerover", (event) => {
    if (event.pointerType === "touch") return;
    const letter = event.target.closest(".flow b i, .chip"), step = event.target.closest("[data-step]");
    point({ letter: letter ? letter.textContent : null, step: step ? step.dataset.step : null });
  });
  main.addEventListener("pointerleave", () => point({ letter: null, step: null }));
  main.addEventListener("click", (event) => {
    const letter = event.target.closest(".flow b i, .chip"), name = event.target.closest(".flow button");
    if (letter) {
      const chosen = state.axis === letter.textContent ? null : letter.textContent;
      const places = axes.filter((axis) => has(axis, chosen)).length;
      choose({ axis: chosen }, chosen ? `Axis ${chosen} occurs in ${places} places` : "");
    } else if (name) {
      const step = name.closest("[data-step]");
      const chosen = state.step === step.dataset.step ? null : step.dataset.step;
      choose({ step: chosen }, chosen ? `${chosen}: ${one("p:last-child", step).title || "no MACs"}` : "");
    } else {
      const dot = event.target.closest("circle[data-step], rect[data-step], tbody tr[data-step]");
      if (dot && !event.target.closest("button")) {
        choose({ step: dot.dataset.step });
        if (dot.matches("circle") && !one(".flow")) one("tr.on")?.scrollIntoView({ block: "center" });
      }
    }
  });
  main.addEventListener("keydown", (event) => {
    const item = event.target.closest(".flow > li");
    if (!item || !["ArrowUp", "ArrowDown"].includes(event.key)) return;
    const names = all(".flow button").filter((name) => name.checkVisibility());
    const next = names[names.indexOf(one("button", item)) + (event.key === "ArrowDown" ? 1 : -1)];
    if (next) { next.focus(); event.preventDefault(); }
  });
  main.addEventListener("focusin", (event) => {
    const step = event.target.matches(".flow button") ? event.target.closest("[data-step]") : null;
    point({ step: step ? step.dataset.step : null });
  });
  main.addEventListener("focusout", () => point({ step: null }));

  listeners.push((changes) => {
    light();
    if (changes.step === undefined) return;
    const chosen = one(".flow > li.on");
    const part = chosen && chosen.closest("details");
    if (part) part.open = true;
  });
  // a chosen step of a link is shown
  listeners.push(() => {
    if (!light.started && state.step) one(".flow > li.on, tr.on")?.scrollIntoView({ block: "center" });
    light.started = true;
  });
}
