// Tables: exact values, columns to choose, sorting, trees that fold, and search.
for (const table of all("table")) {
  const heads = all("thead th", table), rows = all("tbody tr", table), body = one("tbody", table);
  if (!heads.length || !heads[0].dataset.column) continue;
  const panel = table.closest("section");

  heads.forEach((head, column) => {
    const unit = head.dataset.unit ? ` ${head.dataset.unit}` : "";
    for (const row of rows) {
      const cell = row.cells[column];
      if (cell.dataset.v !== undefined && !cell.title) {
        cell.title = (/^-?\d+$/.test(cell.dataset.v) ? grouped(cell.dataset.v) : cell.dataset.v) + unit;
      }
    }
    const box = one(`input[data-column="${CSS.escape(head.dataset.column)}"]`, panel);
    box?.addEventListener("change", () => {
      table.classList.toggle(`off-${column + 1}`, !box.checked);
    });
    one(".sort", head)?.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") === "descending";
      heads.forEach((each) => each.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const value = ({ cells: { [column]: cell } }) => cell.dataset.v ?? (cell.textContent === "–" ? "0" : undefined);
      const compare = (first, second) => {
        const [a, b] = [value(first), value(second)];
        if (a !== undefined && b !== undefined) return Number(a) - Number(b);
        if (a !== undefined || b !== undefined) return a === undefined ? -1 : 1;  // an unknown value is the smallest
        return first.cells[column].textContent.localeCompare(second.cells[column].textContent);
      };
      const sorted = [...rows].sort((first, second) => (up ? 1 : -1) * compare(first, second));
      body.append(...sorted);
      say(`Sorted by ${head.textContent}, ${up ? "smallest" : "largest"} first`);
    });
  });

  // a tree: a heading folds the rows below it
  const level = (row) => Number(row.dataset.level);
  const fold = (button, open) => {
    button.setAttribute("aria-expanded", String(open));
    refold();
  };
  const refold = () => {
    let closed = Infinity;
    for (const row of rows) {
      if (level(row) <= closed) closed = Infinity;
      row.classList.toggle("folded", level(row) > closed);
      const button = one(".fold", row);
      if (button?.getAttribute("aria-expanded") === "false" && closed === Infinity) closed = level(row);
    }
  };
  for (const button of all(".fold", table)) {
    button.addEventListener("click", () => fold(button, button.getAttribute("aria-expanded") === "false"));
    button.addEventListener("keydown", (event) => {
      if (["ArrowLeft", "ArrowRight"].includes(event.key)) fold(button, event.key === "ArrowRight");
    });
  }
  for (const button of all("[data-unfold]", panel)) {
    button.addEventListener("click", () => {
      all(".fold", table).forEach((each) => each.setAttribute("aria-expanded", String(button.dataset.unfold === "all")));
      refold();
    });
  }
  one("[data-filter]", panel)?.addEventListener("input", (event) => {
    const words = event.target.value.toLowerCase().split(/\s+/);
    let found = 0;
    for (const row of rows) {
      const fits = words.every((word) => row.textContent.toLowerCase().includes(word));
      row.classList.toggle("unfound", !fits);
      found += fits;
    }
    say(`${found} rows`);
  });
}
