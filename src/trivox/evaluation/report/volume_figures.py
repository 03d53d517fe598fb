"""Figures of reconstructions: X-rays, synthetic and reference CT and their difference;
methods side by side; curves.

Every figure that shows a synthetic CT says so. Grey and the maps used (cividis,
inferno) read without colour vision.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from trivox.evaluation.metrics.volumes import NOTICE, Window, body_mask
from trivox.evaluation.report.charts import BLUE, GREY, ORANGE, escaped, line, plain
from trivox.evaluation.report.charts import INK as DARK
from trivox.evaluation.report.figures import (
    BACKGROUND,
    INK,
    LINES,
    PALETTE,
    PLANES,
    frame_plane,
    panel,
    png,
    scale_bar,
)
from trivox.evaluation.report.xray_marks import mark_edges, view_name
from trivox.projection.xrays import Xrays
from trivox.volumes.volume import Array, Shape, Spacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = (-1000.0, 600.0)
"""HU drawn as black and white, for prediction and reference alike: lungs, soft tissue
and bone are all told apart.
"""
WIDTH, LEFT, RIGHT, GAP, ROW_GAP, TOP, BOTTOM = (
    10.0,
    0.75,
    1.15,
    0.5,
    0.62,
    1.0,
    0.6,
)  # inches
TALLEST, XRAY_HEIGHT, XRAY_GAP = 2.6, 2.0, 0.85
MOST_VIEWS = 4


def reconstruction_figure(
    prediction: Array,
    reference: Array | None,
    *,
    spacing: Spacing,
    title: str,
    xrays: Xrays | None = None,
    shown: Window = SHOWN,
) -> bytes:
    """PNG of up to four rows: X-ray views, the synthetic CT in three planes, the
    reference, the absolute difference.

    prediction, reference: HU `(z, y, x)` on one grid, indices growing to S, A, R;
    spacing: mm `(z, y, x)`; xrays: of this case (b = 1); at most four views are drawn.
    shown: HU drawn as black and white, in both CTs.
    """
    from matplotlib.figure import Figure

    extents = [
        (
            prediction.shape[p.columns] * spacing[p.columns],
            prediction.shape[p.rows] * spacing[p.rows],
        )
        for p in PLANES
    ]
    scale = min(
        (WIDTH - LEFT - RIGHT - 2 * GAP) / sum(w for w, _ in extents),
        TALLEST / max(h for _, h in extents),
    )
    tall = max(h for _, h in extents) * scale
    views = (
        []
        if xrays is None
        else [v for v in range(xrays.views) if bool(xrays.present[0, v])]
    )
    rows = 1 if reference is None else 3
    height = (
        TOP
        + BOTTOM
        + bool(views) * (XRAY_HEIGHT + XRAY_GAP)
        + rows * tall
        + (rows - 1) * ROW_GAP
    )
    figure = Figure(figsize=(WIDTH, height), dpi=110, facecolor=BACKGROUND)
    top = height - TOP
    if xrays is not None and views:
        top = _draw_views(figure, xrays, views, top) - XRAY_GAP
    where = _middle(prediction if reference is None else reference)
    grey: dict[str, Any] = {"cmap": "gray", "vmin": shown[0], "vmax": shown[1]}
    volumes = [("synthetic CT", prediction, grey)]
    if reference is not None:
        difference = np.abs(prediction.astype(np.float32) - reference)
        largest = max(float(np.percentile(difference, 99)), 1.0)
        volumes.append(("reference CT", reference, grey))
        volumes.append(
            (
                "absolute error",
                difference,
                {"cmap": "inferno", "vmin": 0.0, "vmax": largest},
            )
        )
    for name, volume, style in volumes:
        last = name == volumes[-1][0]
        _draw_planes(
            figure,
            volume,
            where,
            extents,
            scale,
            top - tall,
            tall,
            name=name,
            style=style,
            last=last,
        )
        top -= tall + ROW_GAP
    figure.text(
        0.5,
        1 - 0.1 / height,
        title,
        color=INK,
        fontsize=12,
        ha="center",
        va="top",
        parse_math=False,
    )
    figure.text(
        0.5,
        1 - 0.36 / height,
        NOTICE,
        color=PALETTE[0],
        fontsize=10,
        ha="center",
        va="top",
        weight="bold",
    )
    return png(figure)


def _draw_planes(
    figure: "Figure",
    volume: Array,
    where: Shape,
    extents: Sequence[tuple[float, float]],
    scale: float,
    bottom: float,
    tall: float,
    *,
    name: str,
    style: Mapping[str, Any],
    last: bool,
) -> None:
    """A row of the three planes at `bottom` inches, with its name on the left and a
    colour bar on the right.
    """
    free = WIDTH - LEFT - RIGHT - sum(w for w, _ in extents) * scale
    left = LEFT + (free - 2 * GAP) / 2
    for plane, index, (w, h) in zip(PLANES, where, extents, strict=True):
        axes = panel(
            figure, (left, bottom + (tall - h * scale) / 2, w * scale, h * scale)
        )
        cut = plane.cut(volume, index)
        drawn = axes.imshow(
            cut,
            extent=(0, w, 0, h),
            origin="lower",
            aspect="auto",
            interpolation="nearest",
            **style,
        )
        frame_plane(axes, plane, f"{plane.title} · slice {index + 1}", w, h)
        if plane is PLANES[0] and last:
            scale_bar(axes, w, scale)
        left += w * scale + GAP
    _row_name(figure, name, bottom + tall / 2)
    _colour_bar(figure, drawn, bottom, tall, "HU")


def _draw_views(
    figure: "Figure", xrays: Xrays, views: Sequence[int], top: float
) -> float:
    """The X-rays as seen from the source, all on one grey scale; returns where the row
    ends.
    """
    geometry = xrays.geometry.exam(0)
    chosen = list(views[:MOST_VIEWS])
    images = xrays.images[0, chosen].cpu().numpy()
    pixels = geometry.pixel_mm.cpu().numpy()[chosen]  # (v, 2): rows, columns
    sizes = [
        (images.shape[2] * column, images.shape[1] * row)
        for row, column in pixels.tolist()
    ]
    room = WIDTH - LEFT - RIGHT - (len(chosen) - 1) * GAP
    scale = min(XRAY_HEIGHT / max(h for _, h in sizes), room / sum(w for w, _ in sizes))
    left = LEFT + (room - sum(w for w, _ in sizes) * scale) / 2
    high = max(float(images.max()), 1e-6)
    for view, image, (w, h) in zip(chosen, images, sizes, strict=True):
        axes = panel(
            figure, (left, top - (XRAY_HEIGHT + h * scale) / 2, w * scale, h * scale)
        )
        drawn = axes.imshow(
            image, extent=(0, w, 0, h), cmap="gray", vmin=0, vmax=high, aspect="auto"
        )
        mark_edges(axes, geometry, view)
        axes.annotate(
            view_name(geometry, view),
            (0.5, 1),
            xycoords="axes fraction",
            xytext=(0, 18),
            color=INK,
            textcoords="offset points",
            fontsize=9,
            ha="center",
            alpha=0.8,
        )
        if view == chosen[0]:
            scale_bar(axes, w, scale)
            axes.set_xlim(0, w)
            axes.set_ylim(0, h)
        left += w * scale + GAP
    more = len(views) - len(chosen)
    _row_name(
        figure, "X-rays" + (f"\n({more} more)" if more else ""), top - XRAY_HEIGHT / 2
    )
    _colour_bar(figure, drawn, top - XRAY_HEIGHT, XRAY_HEIGHT, "line integral")
    return top - XRAY_HEIGHT


def _middle(hounsfield: Array) -> Shape:
    """Slices `(z, y, x)` through the middle of the body, or of the volume where there
    is none.
    """
    body = body_mask(hounsfield)
    found = []
    for axis in range(3):
        filled = np.flatnonzero(
            body.any(axis=tuple(other for other in range(3) if other != axis))
        )
        found.append(
            int((filled[0] + filled[-1]) // 2) if filled.size else body.shape[axis] // 2
        )
    return found[0], found[1], found[2]


def _row_name(figure: "Figure", name: str, middle: float) -> None:
    width, height = figure.get_size_inches()
    figure.text(
        0.22 / width,
        middle / height,
        name,
        color=INK,
        fontsize=10.5,
        ha="center",
        va="center",
        rotation=90,
    )


def _colour_bar(
    figure: "Figure", drawn: Any, bottom: float, tall: float, unit: str
) -> None:
    width, height = figure.get_size_inches()
    axes = figure.add_axes(
        ((WIDTH - RIGHT + 0.35) / width, bottom / height, 0.13 / width, tall / height)
    )
    bar = figure.colorbar(drawn, cax=axes)
    bar.set_label(unit, color=INK, fontsize=9)
    bar.outline.set_visible(False)
    axes.tick_params(colors=INK, labelsize=8)


# -- charts ----------------------------------------------------------------------------
def ladder_chart(
    sections: Sequence[Mapping[str, Any]], *, ours: Sequence[str]
) -> bytes | None:
    """Mean PSNR of every method with its 95 % interval, a panel for each number of
    views; None without a row.

    sections: `ladder` and `by_views` of metrics.json. ours: rows of the network, drawn
    filled and in another colour.
    """
    from matplotlib.figure import Figure

    sections = [section for section in sections if section["rows"]]
    if not sections:
        return None
    names = list(
        dict.fromkeys(row["name"] for section in sections for row in section["rows"])
    )
    figure = Figure(
        figsize=(10, 1.3 + 0.36 * len(names)),
        dpi=110,
        layout="constrained",
        facecolor="white",
    )
    panels = figure.subplots(1, len(sections), sharey=True, sharex=True, squeeze=False)[
        0
    ]
    for axes, section in zip(panels, sections, strict=True):
        for row in section["rows"]:
            _draw_rung(axes, names.index(row["name"]), row, ours=row["name"] in ours)
        views = section["views"]
        axes.set_title(
            f"{views} view{'' if views == 1 else 's'}", fontsize=10.5, color=DARK
        )
        axes.set_xlabel("PSNR (dB)")
        axes.margins(x=0.14)
        plain(axes)
    panels[0].set_yticks(range(len(names)), [escaped(name) for name in names])
    panels[0].set_ylim(len(names) - 0.5, -0.5)
    return png(figure)


def _draw_rung(axes: "Axes", place: int, row: Mapping[str, Any], *, ours: bool) -> None:
    found = row["summary"]["psnr_db"]
    if found["mean"] is None:
        return
    colour = ORANGE if ours else BLUE
    if found["ci95"]:
        axes.hlines(place, *found["ci95"], color=colour, linewidth=2)
    axes.plot(
        found["mean"],
        place,
        "o",
        color=colour,
        markerfacecolor=colour if ours else "white",
        markersize=7,
    )
    axes.annotate(
        f"{found['mean']:.1f}",
        (found["mean"], place),
        xytext=(0, 6),
        textcoords="offset points",
        fontsize=8,
        ha="center",
        color=DARK,
    )


def reconstruction_curves(records: Sequence[Mapping[str, Any]]) -> bytes | None:
    """Loss, validation PSNR and SSIM by epoch, from the lines of metrics.jsonl; None
    without PSNR in them.

    Each number of views (`validation_psnr/2 views`) has a line of its own.
    """
    from matplotlib.figure import Figure

    epochs = [record for record in records if record.get("kind") == "epoch"]
    if not any("validation_psnr" in epoch for epoch in epochs):
        return None
    figure = Figure(figsize=(10, 6.4), dpi=110, layout="constrained", facecolor="white")
    loss, decibels, similarity = figure.subplots(
        3, 1, sharex=True, height_ratios=[2, 3, 2]
    )
    line(loss, epochs, "train_loss", "training", BLUE)
    line(loss, epochs, "validation_loss", "validation", ORANGE)
    loss.set_ylabel("loss")
    for axes, metric, name in (
        (decibels, "psnr", "validation PSNR (dB)"),
        (similarity, "ssim", "validation SSIM"),
    ):
        start = f"validation_{metric}/"
        keys = list(
            dict.fromkeys(
                key for epoch in epochs for key in epoch if key.startswith(start)
            )
        )
        for i, key in enumerate(keys):
            style = {"linestyle": LINES[i % len(LINES)], "linewidth": 1.4}
            line(
                axes,
                epochs,
                key,
                key.removeprefix(start),
                PALETTE[i % len(PALETTE)],
                **style,
            )
        if len(keys) != 1:
            line(axes, epochs, f"validation_{metric}", "mean", DARK, linewidth=2.2)
        axes.set_ylabel(name)
    similarity.set_xlabel("epoch")
    similarity.xaxis.get_major_locator().set_params(integer=True)
    for axes in (loss, decibels, similarity):
        plain(axes)
        if len(axes.lines) > 1:
            axes.legend(
                frameon=False, fontsize=9, ncols=3, handlelength=2.8, labelcolor=GREY
            )
    return png(figure)
