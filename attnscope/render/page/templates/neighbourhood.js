// The keys of one query, and its receptive field after several layers.
{
  const panel = one("#neighbourhood"), given = data.panels.neighbourhood;
  if (panel && given) {
    const picture = one("[data-grid]", panel), box = one("[data-token]", panel), slide = one("[data-layers]", panel);
    const [height, width] = given.sides, names = Object.keys(given.views);
    const pool = [height / given.queries[0], width / given.queries[1]];

    // Rectangles of keys of a query, one for each part, without those that were met before.
    function ranges(view, [row, column], met) {
      return given.views[view].flatMap((part, number) => {
        const of = [part[0].of[Math.floor(row / pool[0])], part[1].of[Math.floor(column / pool[1])]];
        const key = `${number} ${of}`;
        if (met.has(key)) return [];
        met.add(key);
        return [[part[0].ranges[of[0]], part[1].ranges[of[1]]]];
      });
    }

    // The layer, from 1, at which each token is first seen; 0 is unseen. Layers alternate from the view of the last one.
    function look(token, view, layers) {
      const seen = new Int32Array(height * width);
      let front = [token];
      for (let layer = 1; layer <= Math.max(layers, 1); layer += 1) {
        const of = layers > 1 ? names[(names.indexOf(view) + layer - 1) % names.length] : view;
        const met = new Set(), next = [];
        const inside = new Uint8Array(height * width);
        for (const each of front) {
          for (const [[top, bottom, down], [left, right, across]] of ranges(of, each, met)) {
            for (let row = top; row < bottom; row += down) {
              for (let column = left; column < right; column += across) {
                const place = row * width + column;
                if (inside[place]) continue;
                inside[place] = 1;
                next.push([row, column]);
                if (!seen[place]) seen[place] = layer;
              }
            }
          }
        }
        front = next;
      }
      return [seen, front.length];
    }

    const cellPath = (places, edge) => places.map((place) =>
      `M${place % width + edge} ${Math.floor(place / width) + edge}h${1 - 2 * edge}v${1 - 2 * edge}h${2 * edge - 1}z`).join("");

    function draw() {
      const view = names.includes(state.shift) ? state.shift : names[0];
      const layers = Math.min(Math.max(Number(state.layer ?? 0) || 0, 0), given.layers);
      const asked = (state.token ?? "").split(",").map(Number);
      const inGrid = asked.length === 2 && asked.every((each, axis) => Number.isInteger(each) && each >= 0 && each < given.sides[axis]);
      const token = inGrid ? asked : given.token;
      const [seen, count] = look(token, view, layers);
      const found = new Map();
      const query = [], ground = [];
      const own = (place) => Math.floor(Math.floor(place / width) / pool[0]) === Math.floor(token[0] / pool[0])
        && Math.floor(place % width / pool[1]) === Math.floor(token[1] / pool[1]);
      for (let place = 0; place < height * width; place += 1) {
        if (own(place)) query.push(place);
        else if (seen[place]) found.set(seen[place], [...(found.get(seen[place]) ?? []), place]);
        else ground.push(place);
      }
      const edge = Math.max(height, width) > 40 ? .04 : .06;
      picture.setAttribute("viewBox", `0 0 ${width} ${height}`);
      picture.replaceChildren(svg("path", { class: "token", d: cellPath(ground, edge) }));
      for (const [layer, places] of found) {
        picture.append(svg("path", { class: "seen", d: cellPath(places, edge), opacity: layers > 1 ? Math.max(1 - .78 * (layer - 1) / layers, .2) : 1 }));
      }
      picture.append(svg("path", { class: "query", d: cellPath(query, 0) }), borders(view));
      box.value = token.join(",");
      if (slide) slide.value = Math.max(layers, 1);
      all("[data-view]", panel).forEach((each) => { each.checked = each.dataset.view === view; });
      const words = layers > 1 ? `after ${layers} layers` : "in one layer";
      if (slide) {
        one("[data-layer-words]", panel).textContent = layers > 1 ? layers : "one layer";
        slide.setAttribute("aria-valuetext", layers > 1 ? `${layers} layers` : "one layer");
      }
      one("[data-counted]", panel).textContent = `Token ${token.join(",")} sees ${grouped(count)} of ${grouped(height * width)} tokens ${words}`;
      one("[data-seen-words]", panel).textContent = layers > 1 ? "tokens it depends on, paler by layer" : given.scored ? "its keys" : "tokens its output depends on";
      return token;
    }

    function borders(view) {
      const [rows, columns] = given.cells[view];
      const across = rows.flatMap((cell, at) => (at && cell !== rows[at - 1] ? [`M0 ${at}H${width}`] : []));
      const down = columns.flatMap((cell, at) => (at && cell !== columns[at - 1] ? [`M${at} 0V${height}`] : []));
      return svg("path", { class: "borders", d: [...across, ...down].join("") });
    }

    const pick = (row, column) => choose({ token: [Math.min(Math.max(row, 0), height - 1), Math.min(Math.max(column, 0), width - 1)] });
    picture.addEventListener("click", (event) => {
      const place = picture.getBoundingClientRect();
      pick(Math.floor((event.clientY - place.top) / place.height * height), Math.floor((event.clientX - place.left) / place.width * width));
    });
    picture.addEventListener("keydown", (event) => {
      const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
      const [down, across] = moves[event.key] ?? [0, 0];
      if (!down && !across) return;
      event.preventDefault();
      const [row, column] = box.value.split(",").map(Number);
      pick(row + down, column + across);
    });
    box.addEventListener("change", () => {
      const [row, column] = box.value.split(",").map(Number);
      if (Number.isInteger(row) && Number.isInteger(column)) pick(row, column);
      else draw();
    });
    slide?.addEventListener("input", () => choose({ layer: slide.value === "1" ? null : slide.value }));
    all("[data-view]", panel).forEach((each) => each.addEventListener("change", () => choose({ shift: each.dataset.view })));
    listeners.push((changes) => { if (["token", "shift", "layer"].some((name) => name in changes)) draw(); });
    draw();
  }
}

addEventListener("hashchange", restore);
restore();
