// The book's tables: sorted by a click on a head, filtered, heads and names kept in view, wide ones led by what is asked.
// A table is plain HTML without this. (DataTables would put 0.7 MB into each notebook and knows no labels over rows.)

const SCORES = /forget quality|model utility/i; // what a narrow screen shows first

const element = (tag, attributes, ...children) => {
  const made = Object.assign(document.createElement(tag), attributes);
  made.append(...children);
  return made;
};
const ARROWS = { ascending: "▲", descending: "▼", none: "↕\uFE0E" }; // \uFE0E: not as an emoji
const said = (cell) => cell.innerText.replace(/[▲▼↕\uFE0E]/g, "").trim();

// A box is a Tab stop with a name only while it scrolls.
const scrolling = (box, role, name) => new ResizeObserver(() => {
  const scrolls = box.scrollWidth > box.clientWidth + 1 || box.scrollHeight > box.clientHeight + 1;
  for (const [key, value] of Object.entries({ role, tabindex: 0, "aria-label": name }))
    scrolls ? box.setAttribute(key, value) : box.removeAttribute(key);
}).observe(box);

// Cells that reach over several rows are written in each, so that rows can move; then each knows its first column.
function place(table) {
  for (const row of table.tBodies[0].rows)
    for (const cell of [...row.cells].filter((c) => c.rowSpan > 1)) {
      let [next, at] = [row, cell.cellIndex];
      for (const left = cell.rowSpan - 1; (next = next.nextElementSibling) && next.rowIndex <= row.rowIndex + left; ) {
        const copy = cell.cloneNode(true);
        copy.rowSpan = 1;
        next.insertBefore(copy, next.cells[at] ?? null);
      }
      cell.rowSpan = 1;
    }
  for (const empty of table.tHead.querySelectorAll("th:empty")) empty.replaceWith(element("td", { colSpan: empty.colSpan }));
  for (const row of table.rows) {
    let column = 0;
    for (const cell of row.cells) {
      cell.rkColumn = column;
      column += cell.colSpan;
    }
  }
  for (const head of table.querySelectorAll("th")) head.scope = head.closest("tbody") ? "row" : head.colSpan > 1 ? "colgroup" : "col";
}

// Numbers by size, whatever stands around them; equal ones and all else by letters; what is missing last.
const LETTERS = new Intl.Collator(undefined, { numeric: true });
const key = (text) => ({ text, missing: /^(–|nan)?$/i.test(text), value: parseFloat(text.replace(/^[≤<>~]\s*/, "").replace("−", "-")) });
function compare(a, b, sign) {
  if (a.missing || b.missing) return a.missing - b.missing;
  return sign * (a.value - b.value || LETTERS.compare(a.text, b.text));
}

function sortable(table) {
  const body = table.tBodies[0], original = [...body.rows], heads = new Map();
  for (const row of table.tHead.rows)
    for (const cell of row.cells) if (cell.colSpan === 1 && said(cell)) heads.set(cell.rkColumn, cell);
  for (const [column, head] of heads) {
    const arrow = element("span", { ariaHidden: "true", className: "rk-arrow", textContent: ARROWS.none });
    const button = element("button", { type: "button", title: "Sort" }, ...head.childNodes, arrow);
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const next = { ascending: "descending", descending: "none" }[head.ariaSort] ?? "ascending";
      for (const other of heads.values()) {
        other.ariaSort = "none";
        other.querySelector(".rk-arrow").textContent = ARROWS.none;
      }
      head.ariaSort = next;
      arrow.textContent = ARROWS[next];
      const text = (row) => said([...row.cells].find((cell) => cell.rkColumn === column));
      const sign = next === "descending" ? -1 : 1;
      const keyed = original.map((row) => [key(text(row)), row]); // once a row: a comparison would do it again and again
      body.append(...(next === "none" ? original : keyed.sort(([a], [b]) => compare(a, b, sign)).map(([, row]) => row)));
    });
  }
}

// The columns under one head of the first row move together, to where the scores begin.
function leading(table) {
  const names = table.tBodies[0].rows[0].querySelectorAll("th").length;
  const groups = [...table.tHead.rows[0].cells].filter((cell) => cell.rkColumn >= names && said(cell));
  const lead = (group) => {
    const first = group?.rkColumn ?? -1, inside = (cell) => cell.rkColumn >= first && cell.rkColumn < first + group?.colSpan;
    const rank = (cell) => (cell.rkColumn < names ? 0 : inside(cell) ? 1 : 2);
    for (const row of table.rows) row.append(...[...row.cells].sort((a, b) => rank(a) - rank(b) || a.rkColumn - b.rkColumn));
  };
  const select = element("select", {}, element("option", { value: -1 }, "as printed"), ...groups.map((group, i) => element("option", { value: i }, said(group))));
  select.addEventListener("change", () => lead(groups[select.value]));
  if (innerWidth < 576) {
    select.value = groups.findIndex((group) => SCORES.test(said(group)));
    lead(groups[select.value]);
  }
  return element("label", {}, "Columns to show first: ", select);
}

function filter(table) {
  const rows = [...table.tBodies[0].rows], count = element("output", {});
  const input = element("input", { type: "search", placeholder: "Filter rows", ariaLabel: "Filter rows" });
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/);
    for (const row of rows) row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
    count.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} rows`;
    if (table.querySelector(".rk-stuck")) stick(table); // fewer rows may need less room
  });
  return [input, count];
}

// Names of rows stay at the left edge, one beside the other; on a phone those alone that tell most rows apart.
function stick(table) {
  const shown = [...table.tBodies[0].rows].find((row) => !row.hidden);
  if (!shown) { // without a row nothing holds the heads in their places
    for (const cell of table.querySelectorAll(".rk-stuck")) cell.style.left = "auto";
    return;
  }
  const names = shown.querySelectorAll("th"), phone = innerWidth < 576;
  const told = (at) => new Set([...table.tBodies[0].rows].map((row) => [...row.cells].find((cell) => cell.rkColumn === at).textContent)).size;
  const apart = phone ? [...names].map((_, at) => told(at)) : [];
  let left = 0;
  for (let column = 0; column < names.length; column++) {
    if (phone && column !== apart.indexOf(Math.max(...apart))) continue;
    for (const row of [...table.tBodies[0].rows, ...table.tHead.rows]) {
      const cell = [...row.cells].find((c) => c.rkColumn === column && c.colSpan === 1);
      if (cell) {
        cell.classList.add("rk-stuck");
        cell.style.left = `${left}px`;
      }
    }
    left += names[column].offsetWidth;
  }
}

document.addEventListener("DOMContentLoaded", () => {
  for (const table of document.querySelectorAll(".cell_output .text_html > table.dataframe")) {
    if (!table.tHead || !table.tBodies[0]?.rows.length) continue;
    const caption = table.caption?.textContent ?? "A table";
    const box = element("div", { className: "rk-scroll" });
    table.replaceWith(box);
    box.append(table);
    place(table);
    // as long as `tables.LONG`
    for (const cell of table.querySelectorAll(".rk-sentences td")) cell.classList.add(cell.textContent.length > 60 ? "rk-long" : "rk-short");
    const tools = element("div", { className: "rk-tools" }), long = table.tBodies[0].rows.length >= 8;
    if (long) tools.append(...filter(table));
    const wide = box.scrollWidth > box.clientWidth + 1 && !table.classList.contains("rk-sentences");
    if (wide) tools.append(leading(table));
    if (tools.childElementCount) box.before(tools);
    if (table.tBodies[0].rows.length > 2) sortable(table);
    if (table.querySelector("tbody th")) stick(table);
    scrolling(box, "region", caption);
  }
  for (const box of document.querySelectorAll(".text_html:has(> .rk-picture)")) scrolling(box, "group", "Figure, scrolls sideways");
  const sentences = ".bd-article :is(table.table, table.rk-sentences)"; // on a phone each of their cells tells its head
  for (const table of document.querySelectorAll(sentences)) {
    const heads = [...(table.tHead?.rows[0]?.cells ?? [])].map(said);
    if (heads.length < 3 || table.tHead.rows.length > 1) continue;
    for (const row of table.tBodies[0].rows) [...row.cells].forEach((cell, at) => (cell.dataset.head = heads[at]));
  }
});
