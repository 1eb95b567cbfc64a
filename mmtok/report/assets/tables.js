/* Tables: a head sorts, a button copies what is seen in its present order. */
(() => {
  "use strict";
  const plain = (cell) => (cell.dataset.copy ?? cell.innerText).trim();
  const title = (head) => head.querySelector("button").firstChild.textContent.trim();

  function sort(table, column) {
    const heads = [...table.tHead.rows[0].cells];
    const text = heads[column].classList.contains("text");
    const before = heads[column].getAttribute("aria-sort");
    const first = text ? "ascending" : "descending";
    const second = text ? "descending" : "ascending";
    const order = before === first ? second : first;
    heads.forEach((head, i) => head.setAttribute("aria-sort", i === column ? order : "none"));
    const sign = order === "ascending" ? 1 : -1;
    const key = (row) => row.cells[column].dataset.sort ?? (text ? plain(row.cells[column]) : undefined);
    const rows = [...table.tBodies[0].rows].sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === undefined || y === undefined) return (x === undefined) - (y === undefined); // nothing measured: last
      return sign * (text ? x.localeCompare(y, "en", { numeric: true }) : Number(x) - Number(y));
    });
    table.tBodies[0].append(...rows);
  }

  function written(table, form) {
    const head = [...table.tHead.rows[0].cells].map(title);
    const rows = [...table.tBodies[0].rows].map((row) => [...row.cells].map(plain));
    if (form === "tsv") return [head, ...rows].map((row) => row.map((cell) => cell.replace(/\s+/g, " ")).join("\t")).join("\n");
    const line = (row) => `| ${row.map((cell) => cell.replace(/\s+/g, " ").replace(/\|/g, "\\|")).join(" | ")} |`;
    const rule = `|${[...table.tHead.rows[0].cells].map((cell) => (cell.classList.contains("text") ? "---" : "---:")).join("|")}|`;
    return [line(head), rule, ...rows.map(line)].join("\n");
  }

  /** Where the page may not use the clipboard, an old command may. */
  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
  }

  for (const block of document.querySelectorAll(".table")) {
    const table = block.querySelector("table");
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      head.querySelector("button").addEventListener("click", () => sort(table, column));
    });
    for (const button of block.querySelectorAll("button[data-copy]")) {
      button.addEventListener("click", async () => {
        await copy(written(table, button.dataset.copy));
        const said = block.querySelector(".said");
        said.textContent = "Copied";
        button.focus();
        setTimeout(() => { said.textContent = ""; }, 2000);
      });
    }
  }
})();
