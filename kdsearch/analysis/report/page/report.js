const MANY = 15;

for (const table of document.querySelectorAll("table.searchable")) {
  const rows = table.tBodies[0].rows.length;
  new DataTable(table, {
    order: [],
    paging: rows > MANY,
    pageLength: MANY,
    lengthMenu: [MANY, 50, { label: "all", value: -1 }],
    info: rows > MANY,
    autoWidth: false,
    language: { search: "", searchPlaceholder: "search", lengthMenu: "_MENU_ rows" },
    layout: {
      topStart: rows > MANY ? "pageLength" : null,
      topEnd: rows > 3 ? "search" : null,
    },
  });
}

// Average width of a letter of a label, in pixels.
const LETTER = 6.6;

// A label that is wider than its chart, as on a phone, takes several lines.
const wrapped = (text, width) => {
  const lines = [""];
  for (const word of text.split(" ")) {
    const longer = `${lines.at(-1)} ${word}`.trim();
    if (lines.at(-1) && longer.length * LETTER > width) lines.push(word);
    else lines[lines.length - 1] = longer;
  }
  return lines.join("<br>");
};

const draw = (element) => {
  const figure = JSON.parse(element.nextElementSibling.textContent);
  const { l, r } = figure.layout.margin;
  for (const label of figure.layout.annotations ?? []) {
    label.text = wrapped(label.text, element.clientWidth - l - r - 12);
  }
  Plotly.newPlot(element, figure.data, figure.layout, {
    responsive: true,
    displaylogo: false,
    displayModeBar: false,
    doubleClick: "reset",
  });
};

// A chart is drawn shortly before it comes into view, so that the page opens quickly.
const watcher = new IntersectionObserver(
  (entries) => {
    for (const entry of entries.filter((one) => one.isIntersecting)) {
      watcher.unobserve(entry.target);
      draw(entry.target);
    }
  },
  { rootMargin: "600px" },
);
for (const element of document.querySelectorAll(".chart")) watcher.observe(element);

// Before printing, all charts are drawn.
addEventListener("beforeprint", () => {
  for (const element of document.querySelectorAll(".chart:not(.js-plotly-plot)")) draw(element);
});

// The page of a running search. One that was not renewed in time belongs to a killed search.
const live = document.querySelector("#live");
if (live) {
  if (Date.now() > Number(live.dataset.overdue)) {
    live.textContent =
      `Nothing has been written since ${live.dataset.written}: the search has stopped. ` +
      "Continue it with --resume, or reload this page if the computer was asleep.";
  } else {
    setInterval(() => {
      // Reloading would delete what is being typed. A hidden page is reloaded once it is shown.
      const busy = document.activeElement.matches("input, select");
      if (!busy && !document.hidden) location.reload();
    }, 1000 * Number(live.dataset.reload));
  }
}
