// MACs against a size: polynomials in the axis letters, in exact integers.
{
  const panel = one("#complexity"), given = data.panels.complexity;
  if (panel && given) {
    const vary = one("[data-vary]", panel), at = one("[data-at]", panel), chart = one("[data-chart]", panel);

    const names = unfolded(given.names);
    const value = (terms, size) => terms.reduce((sum, [coefficient, letters]) =>
      sum + [...letters].reduce((product, letter) => product * BigInt(size(letter)), BigInt(coefficient)), 0n);
    const work = (position) => given.works[position.work].map((step) => [names[step], ...given.steps[step]]);
    const size = (position, scope) => (letter) => position.letters[scope]?.[letter] ?? given.letters[scope][letter];
    const counts = (position) => work(position).map(([, times, scope, terms]) =>
      BigInt(times) * value(terms, size(position, scope)));
    const total = (position) => counts(position).reduce((sum, each) => sum + each, 0n);
    const metric = (count) => {
      const units = ["", " k", " M", " G", " T", " P", " E", " Z", " Y"];
      let number = Number(count), unit = 0;
      while (number >= 1000 && unit < units.length - 1) { number /= 1000; unit += 1; }
      return `${unit ? number.toPrecision(3) : number}${units[unit]}`;
    };
    const factor = (ratio) => `${ratio >= 999.5 ? grouped(Math.round(ratio)) : ratio.toPrecision(3)}×`;
    const powers = (letters) => letters.replace(/(.)\1/g, "$1²").split(/(?<=.)(?=[a-z])/);
    const formula = (terms) => terms.map(([coefficient, letters]) =>
      [...(coefficient === "1" && letters ? [] : [coefficient]), ...powers(letters)].filter(Boolean).join("·")).join(" + ");

    function line([key, times, , terms], count) {
      const row = document.createElement("tr");
      row.dataset.step = key;
      const spelled = times === 1 ? formula(terms) : `${times} × ${terms.length > 1 ? `(${formula(terms)})` : formula(terms)}`;
      for (const [tag, name, text] of [["th", "left", key], ["td", "left math", spelled], ["td", "", grouped(count)]]) {
        row.append(Object.assign(document.createElement(tag), { className: name, textContent: text }));
      }
      row.firstChild.scope = "row";
      return row;
    }

    const words = (position, slider) => `${slider.title} ${position.value}${position.here ? " (this run)" : ""}`;

    function draw() {
      const slider = given.sliders.find((each) => each.field === state.vary) ?? given.sliders[0];
      const here = Math.max(slider.positions.findIndex((each) => each.here), 0);
      const wanted = state.at === undefined ? here : slider.positions.findIndex((each) => each.value === state.at);
      const index = wanted < 0 ? here : wanted, position = slider.positions[index];
      vary.value = slider.field;
      at.max = slider.positions.length - 1;
      at.value = index;
      at.setAttribute("aria-valuetext", words(position, slider));
      one("[data-value]", panel).textContent = position.value + (position.here ? " (this run)" : "");
      const each = counts(position), macs = total(position);
      one("[data-total]", panel).textContent = grouped(macs);
      if (position.reference && one("[data-reference]", panel)) {
        const reference = BigInt(position.reference);
        one("[data-reference]", panel).textContent = grouped(reference);
        const ratio = Number(reference) / Number(macs);
        one("[data-ratio]", panel).textContent = ratio >= 1 ? `${factor(ratio)} as many MACs` : `${factor(1 / ratio)} fewer MACs`;
      }
      one("[data-formulas]", panel).replaceChildren(...work(position).map((step, place) => line(step, each[place])));
      plot(slider, index);
    }

    function plot(slider, index) {
      const left = 92, right = 704, top = 16, bottom = 256, places = slider.positions.length;
      const lines = [["s0", slider.positions.map((each) => Number(total(each)))]];
      if (slider.positions.every((each) => each.reference)) lines.push(["s1", slider.positions.map((each) => Number(each.reference))]);
      const values = lines.flatMap(([, of]) => of);
      const low = Math.floor(Math.log10(Math.min(...values))), high = Math.max(Math.ceil(Math.log10(Math.max(...values))), low + 1);
      const sizes = slider.positions.map((each) => parseFloat(each.value));
      const spread = Math.log(sizes[places - 1] / sizes[0]);
      const x = (place) => left + 12 + (right - left - 24) * Math.log(sizes[place] / sizes[0]) / spread;
      const y = (count) => bottom - (bottom - top) * (Math.log10(count) - low) / (high - low);
      chart.replaceChildren();
      const step = Math.max(1, Math.ceil((high - low) / 6));
      for (let power = low; power <= high; power += step) {
        chart.append(svg("path", { class: "grid", d: `M${left} ${y(10 ** power)}H${right}` }));
        chart.append(svg("text", { class: "tick", x: left - 8, y: y(10 ** power) + 4, "text-anchor": "end" }, metric(10 ** power)));
      }
      const gap = innerWidth < 740 ? 110 : 60;
      let last = -Infinity;
      slider.positions.forEach((each, place) => {
        if (x(place) - last < gap) return;
        last = x(place);
        chart.append(svg("text", { class: "tick", x: x(place), y: bottom + 18, "text-anchor": "middle" }, each.value));
      });
      chart.append(svg("text", { class: "axis-title", x: (left + right) / 2, y: 294, "text-anchor": "middle" }, slider.title));
      chart.append(svg("text", { class: "axis-title", transform: `translate(14 ${(top + bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, "MACs"));
      for (const [name, of] of lines) {
        const group = svg("g", { class: name });
        group.append(svg("path", { class: "line", d: of.map((count, place) => `${place ? "L" : "M"}${x(place)} ${y(count)}`).join("") }));
        of.forEach((count, place) => {
          const dot = svg("circle", { cx: x(place), cy: y(count), r: place === index ? 6 : 3 });
          const exact = name === "s0" ? total(slider.positions[place]) : BigInt(slider.positions[place].reference);
          dot.append(svg("title", {}, `${words(slider.positions[place], slider)}: ${grouped(exact)} MACs`));
          group.append(dot);
        });
        chart.append(group);
      }
    }

    vary.addEventListener("change", () => choose({ vary: vary.value, at: null }));
    at.addEventListener("input", () => {
      const slider = given.sliders.find((each) => each.field === vary.value);
      choose({ vary: vary.value, at: slider.positions[Number(at.value)].value });
    });
    listeners.push((changes) => { if ("vary" in changes || "at" in changes) draw(); });
    draw();
  }
}
