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

const draw = (place) => {
  const figure = JSON.parse(place.nextElementSibling.textContent);
  Plotly.newPlot(place, figure.data, figure.layout, {
    responsive: true,
    displaylogo: false,
    displayModeBar: false,
    doubleClick: "reset",
  });
};

// A chart is drawn shortly before it comes into view, so that the page itself is there at once.
const watcher = new IntersectionObserver(
  (entries) => {
    for (const entry of entries.filter((one) => one.isIntersecting)) {
      watcher.unobserve(entry.target);
      draw(entry.target);
    }
  },
  { rootMargin: "600px" },
);
for (const place of document.querySelectorAll(".chart")) watcher.observe(place);

// On paper, all of them.
addEventListener("beforeprint", () => {
  for (const place of document.querySelectorAll(".chart:not(.js-plotly-plot)")) draw(place);
});
