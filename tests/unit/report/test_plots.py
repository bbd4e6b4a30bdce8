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
