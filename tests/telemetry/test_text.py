from authz.telemetry.counters import Labels
from authz.telemetry.names import Metric
from authz.telemetry.text import metric_lines

PLAIN = Metric("made_total", "counter", "Things made.")
BY_NAME = Metric("end_seconds", "gauge", "When it ends.", ("name", "kind"))


def test_a_metric_is_written_with_help_type_and_a_whole_number() -> None:
    assert list(metric_lines(PLAIN, 0)) == [
        "# HELP made_total Things made.",
        "# TYPE made_total counter",
        "made_total 0",
    ]


def test_labels_stand_in_the_order_of_the_metric_and_are_escaped() -> None:
    values: dict[Labels, float] = {('a"b', "c\\d"): 1_700_000_000.4, ("line\nbreak", ""): 2}
    assert list(metric_lines(BY_NAME, values))[2:] == [
        'end_seconds{name="a\\"b",kind="c\\\\d"} 1700000000',
        'end_seconds{name="line\\nbreak",kind=""} 2',
    ]


def test_a_metric_without_values_has_its_help_and_type_all_the_same() -> None:
    assert len(list(metric_lines(BY_NAME, {}))) == 2
