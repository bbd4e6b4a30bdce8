import functools
import xml.etree.ElementTree as ET

import matplotlib as mpl
import report_sample

from compress.report import plots
from compress.report.document import Document


def draw(data):
    return plots.plots(Document.model_validate(data))


@functools.cache
def blocked():
    return draw(report_sample.blocked())


def texts(svg: str) -> list[str]:
    return ["".join(each.itertext()).strip() for each in ET.fromstring(svg).iter() if each.tag.endswith("text")]


def test_every_measured_thing_has_a_plot():
    titles = [plot.title for plot in blocked()]
    assert titles == ["reading.accuracy, slice by slice", "Drop of reading.accuracy", "Size on disk", "Latency ratio"]


def test_slices_are_labelled_in_order_and_by_status():
    written = texts(blocked()[0].svg)
    assert [text for text in written if "-" in text] == ["6-8", "9-12", "19-24"]
    assert {"all items", "size", "reference", "failed", "inconclusive", "passed"} <= set(written)


def test_nothing_measured_draws_nothing():
    assert draw(report_sample.bare()) == ()


def test_same_document_same_bytes_and_matplotlib_is_left_as_it_was():
    before = dict(mpl.rcParams)
    first = draw(report_sample.blocked())
    with mpl.rc_context({"xtick.labelsize": 30, "svg.fonttype": "path"}):
        second = draw(report_sample.blocked())
    assert first == second
    assert dict(mpl.rcParams) == before


def test_a_plot_loads_nothing_and_repeats_no_id():
    drawn = blocked()
    ids = [each.attrib["id"] for plot in drawn for each in ET.fromstring(plot.svg).iter() if "id" in each.attrib]
    assert len(ids) == len(set(ids))
    assert not any("metadata" in plot.svg or "<style" in plot.svg or "<?xml" in plot.svg for plot in drawn)


def test_labels_are_text_and_never_formulas_or_elements():
    data = report_sample.blocked()
    label = "<script>$x_{$</script>\u4e2d"
    data["scores"][0]["slice"] = label
    assert label in texts(draw(data)[0].svg)


def trained(**curves):
    told = [
        {"name": name.replace("_", " "), "steps": steps, "values": values} for name, (steps, values) in curves.items()
    ]
    return {**report_sample.passed(), "steps": [{"use": "distill.features", "summary": "trained", "curves": told}]}


def test_what_was_trained_has_its_curves():
    (plot,) = draw(
        trained(
            loss=([0, 1, 2], [0.9, 0.5, 0.4]),
            held_out_loss=([0, 2], [0.95, None]),
            learning_rate=([0, 1, 2], [0, 1, 0]),
        )
    )[-1:]
    assert plot.title == "Training: distill.features"
    assert plot.caption == "What step 1 watched while it trained."
    written = texts(plot.svg)
    assert written.count("loss") == 2  # the panel, and the curve in its key
    assert {"held out loss", "rate", "optimizer steps"} <= set(written)


def test_a_long_curve_is_drawn_by_means_and_says_so():
    steps = list(range(2000))
    short, long = (draw(trained(loss=(steps[:count], [1.0] * count)))[-1] for count in (200, 2000))
    assert "each point is a mean of 10 values" in long.caption
    assert len(long.svg) < 1.2 * len(short.svg)


def test_a_curve_without_numbers_is_an_empty_panel():
    assert "<svg" in draw(trained(loss=([0, 1], [None, None])))[-1].svg
    assert not [plot for plot in draw(trained()) if plot.title.startswith("Training")]
