"""A report as one HTML file: no script, nothing from elsewhere, for a screen, a phone and paper."""

from typing import Any

from compressor.reporting import grids, markup, metric, plots, svg
from compressor.reporting.grids import Grid
from compressor.reporting.headline import Figure, headline
from compressor.reporting.markdown import largest
from compressor.reporting.markup import Child, Node, add, node
from compressor.reporting.recipes import toml
from compressor.reporting.tables import target_note

Json = dict[str, Any]
MAX_HISTOGRAMS = 96
MAX_LAYERS = 400
"""Largest layers that are shown, so that a page of any network stays below 1 MB."""

STYLE = (
    svg.STYLE
    + """
*{box-sizing:border-box}
body{margin:0 auto;max-width:1180px;padding:1rem;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
h1{font-size:1.7rem;line-height:1.2;margin:.5rem 0;overflow-wrap:anywhere}
h2{font-size:1.2rem;margin:2.2rem 0 .6rem;border-top:1px solid var(--line);padding-top:1rem}
p{max-width:46rem;margin:.4rem 0}.soft,figcaption{color:var(--soft)}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(240px,1fr));gap:.8rem;
margin:1rem 0}
.card{border:1px solid var(--line);border-radius:8px;padding:.8rem 1rem}
.card p{margin:0;font-size:.86rem;overflow-wrap:anywhere}
.card .value{font-size:1.9rem;font-weight:650;line-height:1.25}
.card .value small{font-size:1rem;font-weight:400}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,330px),1fr));gap:1.2rem}
.many{grid-template-columns:repeat(auto-fill,minmax(min(100%,250px),1fr))}
figure{margin:0;break-inside:avoid}figcaption{font-size:.86rem;overflow-wrap:anywhere}
svg.chart{display:block;width:100%;max-width:480px;height:auto}
svg.inline{display:block;width:110px;height:10px}
.wide{overflow-x:auto;margin:.6rem 0}.wide:focus-visible{outline:2px solid var(--c0)}
table{border-collapse:collapse;font-size:.86rem;font-variant-numeric:tabular-nums}
caption{text-align:left;color:var(--soft);padding-bottom:.3rem}
th,td{padding:.25rem .7rem .25rem 0;text-align:right;white-space:nowrap;
border-bottom:1px solid var(--line)}
th:first-child,td.text,table.pair th{text-align:left}
td.text{white-space:normal;overflow-wrap:anywhere}
thead th{vertical-align:bottom;white-space:normal}
pre{overflow-x:auto;border:1px solid var(--line);border-radius:8px;padding:.8rem;font-size:.82rem}
.bad{color:var(--c4);font-weight:600}
@media print{:root{color-scheme:light;--ink:#000;--soft:#444;--line:#bbb;--paper:#fff;--c0:#2563c9;
--c1:#b4530a;--c2:#0f7a55;--c3:#9333a8;--c4:#b3261e;--c5:#5f6b7c}
body{max-width:none;padding:0;font-size:10pt}.wide,pre{overflow:visible}pre{white-space:pre-wrap}
.grid{grid-template-columns:1fr 1fr}.many{grid-template-columns:1fr 1fr 1fr}
table{font-size:7.5pt}th,td{padding-right:.4rem}h2,caption{break-after:avoid}tr{break-inside:avoid}}
"""
)


def html(report: Json) -> bytes:
    """The whole ``report.html``."""
    network = report["network"]
    title = f"{network['name']}, compressed"
    about = f"{network['arch']}, {network['fp32_bytes'] // 4:,} parameters, input "
    about += " x ".join(str(size) for size in network["input_shape"])
    data = report["data"]
    about += (
        f"; {metric.name(report)} on {data['test_images']:,} test images of {data['name']}"
        if data
        else ""
    )
    return document(
        title,
        node("h1", title),
        node("p", about, class_="soft"),
        node("div", *(_card(figure) for figure in headline(report)), class_="cards"),
        *(node("p", f"Missed: {item}", class_="bad") for item in report["missed"]),
        *_bytes(report),
        *_target(report),
        *_training(report),
        *_layers(report),
        *_scales(report),
        *_latency(report),
        *_rest(report),
    )


def document(title: str, *body: Child) -> bytes:
    """A page with the style of this tool."""
    head = node(
        "head",
        node("meta", charset="utf-8"),
        node("meta", name="viewport", content="width=device-width, initial-scale=1"),
        node("meta", name="color-scheme", content="light dark"),
        node("title", title),
        node("style", STYLE),
    )
    return markup.html(node("html", head, node("body", node("main", *body)), lang="en")).encode()


def table(grid: Grid, extra: dict[str, Node] | None = None) -> Node:
    """A grid, which scrolls by itself where it is too wide; ``extra`` cells by the row's name."""
    headings = [*grid.headings, *(["bytes by part"] if extra is not None else [])]
    body = node("tbody")
    for name, *cells in grid.rows:
        row = node("tr", node("th", name, scope="row"))
        css = "text" if len(grid.headings) == 2 else None
        add(row, *(node("td", cell, class_=css) for cell in cells))
        if extra is not None:
            add(row, node("td", *([extra[name]] if name in extra else [])))
        add(body, row)
    heads = (node("th", heading, scope="col") for heading in headings)
    return node(
        "div",
        node(
            "table",
            node("caption", grid.caption),
            node("thead", node("tr", *heads)),
            body,
            class_="pair" if len(grid.headings) == 2 else None,
        ),
        class_="wide",
        tabindex=0,
        role="region",
        aria_label=grid.caption,
    )


def figures(*charts: tuple[Node | None, str], css: str = "grid") -> Node:
    """Charts beside each other, as many as there is room for."""
    shown = [(chart, caption) for chart, caption in charts if chart is not None]
    drawn = (node("figure", chart, node("figcaption", caption)) for chart, caption in shown)
    return node("div", *drawn, class_=css)


def _card(figure: Figure) -> Node:
    return node(
        "div",
        node("p", f"{figure.value} ", node("small", figure.title), class_="value"),
        node("p", figure.interval),
        node("p", figure.note, class_="soft"),
        class_="card",
    )


def _bytes(report: Json) -> list[Node]:
    graph = report["stages"]["encode"]["breakdown"]["graph"]
    return [
        node("h2", "Bytes"),
        figures(
            (plots.stage_bytes(report), "Bytes on disk after each stage, and how many times fewer "
             "than four for each parameter."),
            (plots.breakdown(report), "What the artifact's bytes hold. Where a mode has one stream "
             f"for both, gaps are among the values. Without its graph it has {graph:,} fewer."),
        ),
        table(grids.stages(report)),
        table(grids.files(report)),
    ]  # fmt: skip


def _target(report: Json) -> list[Node]:
    tried = grids.trials(report)
    if tried is None:
        return []
    return [
        node("h2", "Target"),
        node("p", f"{grids.asked(report)}; {target_note(report['targets'])}.", class_="soft"),
        figures(
            (plots.trials(report), "Every trial; the dashed lines are what was asked for. The run "
             "repeats the best one.")
        ),
        table(tried),
    ]  # fmt: skip


def _training(report: Json) -> list[Node]:
    trained, tested = plots.training(report), plots.test_accuracy(report)
    if trained is None and tested is None:
        return [node("h2", "Accuracy"), node("p", "Not measured: no data set was given (--data).")]
    return [
        node("h2", "Accuracy"),
        figures(
            (trained, "On validation images, after each epoch of each stage that trains."),
            (tested, "On the test images, with Wilson's 95 % interval of each stage alone. The "
             "change above is of the same images, hence surer than two intervals side by side."),
        ),
    ]  # fmt: skip


def _layers(report: Json) -> list[Node]:
    encode = report["stages"]["encode"]
    shown, left_out = largest(grids.layers(report), MAX_LAYERS)
    parts = {row["layer"]: row["parts"] for row in encode["layers"] if "parts" in row}
    most = max((sum(each.values()) for each in parts.values()), default=0) or 1
    small = {name: plots.layer_parts(each, most) for name, each in parts.items()}
    before = report["stages"]["dense"]["distributions"]["weights"]
    after = encode["distributions"]["weights"]
    sizes = {row["layer"]: row["weights"] for row in encode["layers"]}
    big = set(sorted(after, key=lambda name: -sizes.get(name, 0))[:MAX_HISTOGRAMS])
    drawn = [
        (plots.weights(name, number, before.get(name), row), "")
        for number, (name, row) in enumerate(after.items())
        if name in big
    ]
    histograms = figures(*drawn, css="grid many")
    for figure in histograms:
        figure.remove(figure[-1])  # the axis names the layer
    missing = len(after) - len(drawn)
    return [
        node("h2", "Layers"),
        figures((plots.sparsity(report), "The fraction of zeros in each layer.")),
        table(shown, small),
        node("p", f"In the bars, from the left: {', '.join(list(plots.PARTS.values())[:5])}.",
             class_="soft"),
        *([node("p", f"{left_out} smaller layers are in report.json.")] if left_out else []),
        node("h2", "Weights before and after"),
        node("p", "Weights other than 0: grey before, as an outline after, both counted in the "
             "same bins; strokes below the axis are centroids, where a layer has at most 64.",
             class_="soft"),
        histograms,
        *([node("p", f"{missing} smaller layers are in report.json.")] if missing else []),
    ]  # fmt: skip


def _scales(report: Json) -> list[Node]:
    chart = plots.scales(report)
    if chart is None:
        return []
    caption = "Scales of all batch norms' channels that are not 0; slimming drives them towards 0."
    return [node("h2", "Batch norms"), figures((chart, caption))]


def _latency(report: Json) -> list[Node]:
    measured, macs = report["latency"], report["stages"]["encode"]["macs"]
    return [
        node("h2", "Latency"),
        node("p", f"{measured['runtime']}, batch {measured['batch']}, {measured['threads']} "
             f"thread, {measured['calls']} calls each, in turns. Zeros alone do not make a dense "
             f"runtime faster: the compressed network still runs all {macs:,} MACs.",
             class_="soft"),
        figures(
            (plots.latencies(report), "Single calls, outliers kept."),
            (plots.latency_against_macs(report), "Median, and where 5 to 95 % of the calls lie."),
        ),
        table(grids.latency(report)),
    ]  # fmt: skip


def _rest(report: Json) -> list[Node]:
    return [
        node("h2", "Recipe"),
        node("p", "Resolved, every default in it; recipe.toml repeats the run to the byte.",
             class_="soft"),
        node("pre", toml(report), tabindex=0, role="region", aria_label="Recipe"),
        node("h2", "Environment"),
        table(grids.environment(report)),
        node("h2", "Not measured"),
        node("ul", *(node("li", item) for item in report["not_measured"])),
    ]  # fmt: skip
