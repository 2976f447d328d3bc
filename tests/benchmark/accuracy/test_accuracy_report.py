from graphkd.benchmark.accuracy.report import lines, markdown, table
from graphkd.benchmark.accuracy.suites import SUITES

FOUND = {
    "kd": {0: {"score": 90.0, "agreement": 91.0}, 1: {"score": 92.0, "agreement": 93.0}},
    "fgw": {
        0: {"score": 91.0, "agreement": 90.0},
        1: {"score": 94.0, "agreement": 90.0},
        2: {"score": 70.0, "agreement": 90.0},
    },
}
TRIALS = {"kd": {"temperature": 4.0}, "fgw": {"ratio": 0.3}}
COSTS = {"kd": {"time": 1.5, "memory": 2.0}, "fgw": {"time": 3.25, "memory": 4.0}}
PLACE = SUITES["digits"]["labels10"]


def test_differences_are_over_the_seeds_that_both_have():
    kd, fgw = lines(FOUND, TRIALS, COSTS, ["kd", "fgw"])
    assert kd.gains.keys() == {"fgw"} and fgw.gains.keys() == {"kd"}
    assert (fgw.gains["kd"].mean, fgw.gains["kd"].n, fgw.score.n) == (1.5, 2, 3)
    assert kd.gains["fgw"].mean == -1.5


def test_cells_are_in_the_order_of_the_columns():
    header, cells = table(PLACE, lines(FOUND, TRIALS, COSTS, ["kd"]))
    assert header == [
        "method",
        "chosen",
        "test accuracy, %",
        "minus KD",
        "agrees with the teacher, %",
        "time of a step",
        "memory of a step, MiB",
    ]
    assert cells == [
        ["KD, CE 1, KD 1", "temperature 4", "91.00 ± 1.41", "", "92.0", "1.50", "2.0"],
        ["FGW", "ratio 0.3", "85.00 ± 13.08", "+1.50 ± 6.35", "90.0", "3.25", "4.0"],
    ]


def test_a_method_without_partner_seeds_has_no_difference():
    (fgw,) = lines({"fgw": FOUND["fgw"]}, TRIALS, COSTS, ["kd", "fgw"])
    assert fgw.gains == {}
    header, _ = table(PLACE, [fgw])
    assert not [title for title in header if title.startswith("minus")]


def test_each_row_is_compared_with_each_baseline_but_itself():
    header, cells = table(PLACE, lines(FOUND, TRIALS, COSTS, ["kd", "fgw"]))
    assert header[3:5] == ["minus KD", "minus FGW"]
    assert [row[3:5] for row in cells] == [["", "-1.50 ± 6.35"], ["+1.50 ± 6.35", ""]]


def test_the_table_is_markdown():
    assert markdown(["a", "b"], [["1", ""], ["2", "x"]]).splitlines() == [
        "| a | b |",
        "|---|---|",
        "| 1 |  |",
        "| 2 | x |",
    ]
