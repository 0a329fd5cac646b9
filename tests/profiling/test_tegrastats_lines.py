from __future__ import annotations

import re

import boards
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.profiling.drivers.rails import KNOWN, Total, split_rails, total_of
from mas_edge.profiling.drivers.tegrastats_lines import (
    Means,
    Rails,
    UnknownLayout,
    layout_of,
    parse,
)

WITH_TOTAL = {name: printed for name, printed in boards.LINES.items() if printed.power_w is not None}


def layout(printed):
    return layout_of([parse(printed.line)] * 2)


@pytest.mark.parametrize("name", WITH_TOTAL)
def test_every_board_has_its_total(name):
    printed = boards.LINES[name]
    found = layout(printed)
    assert found.total.rails == printed.total
    assert found.total.scope == printed.scope
    assert found.total.of(found.newest([printed.line]).now_w) == pytest.approx(printed.power_w)


def test_a_line_without_rails_has_none():
    assert parse(boards.LINES["nano-no-rails"].line) is None


@given(st.sampled_from(sorted(WITH_TOTAL)), st.data())
def test_blanks_and_the_order_of_fields_do_not_matter(name, data):
    printed = boards.LINES[name]
    head, tail = re.fullmatch(r"(.*CPU \[[^]]*\])(.*)", printed.line).groups()
    fields = re.findall(r"\S+ (?:off|-?\d\S*)(?= |$)|\S+", re.sub(r" +", " ", tail).strip())
    rails = parse(printed.line).now_w
    fields = [field for field in fields if field.split()[0] not in rails]
    fields += re.findall(rf"(?:{'|'.join(rails)}) +\S+", tail)
    blanks = st.text(" \t", min_size=1, max_size=5)
    shuffled = data.draw(st.permutations(fields))
    line = head + "".join(data.draw(blanks) + re.sub(" ", data.draw(blanks), field) for field in shuffled)
    assert parse(line) == parse(printed.line)


@pytest.mark.parametrize("name", WITH_TOTAL)
def test_a_part_of_a_line_is_no_sample_or_the_true_one(name):
    printed = boards.LINES[name]
    whole = layout(printed)
    for cut in range(len(printed.line)):
        first, last = printed.line[:cut], printed.line[cut:]
        for part in (first, last, first + printed.line, printed.line + last):
            rails = whole.newest([part])
            assert rails is None or whole.total.of(rails.now_w) == pytest.approx(printed.power_w)


@given(st.text())
def test_garbage_is_never_a_sample(text):
    assert layout(boards.LINES["agx-xavier-32"]).newest([text]) is None
    parse(text)


@given(
    st.dictionaries(
        st.from_regex(r"[A-Z][A-Z0-9_.\-]{0,12}", fullmatch=True), st.integers(-99, 10**6), min_size=1
    ),
    st.sampled_from(["{0}/{0}", "{0}mW/{0}mW", "{0}mW/{0}mW/{0}mW", "{0}/{0}/{0}", "{0}mW"]),
)
def test_any_rail_in_any_of_the_five_forms_is_read(powers, form):
    line = "RAM 1/2MB (lfb 3x4MB) CPU [1%@102,off] " + " ".join(
        f"{name} {form.format(power)}" for name, power in powers.items()
    )
    want = {name: power / 1000 for name, power in powers.items() if name not in {"NC", "RAM", "SWAP", "IRAM"}}
    rails = parse(line)
    assert (rails.now_w if rails else {}) == pytest.approx(want)
    assert rails is None or (rails.mean_w == {}) == ("/" not in form)


@pytest.mark.parametrize(
    "text",
    [
        "RAM 721/31927MB (lfb 7291x4MB) IRAM 0/252kB(lfb 252kB) SWAP 5/1982 MB (cached 1MB)",
        "RAM 1179/3983kB cpu [1%@102,off]@1200",
        "GR3D_FREQ 0%@[305,305] NVENC off APE 174 MTS fg 0% bg 1% VIC_FREQ 729",
        "cpu@52.968C/52.968C CV0@-256C tj@53C",
        "VDD_IN 2532/",
        "VDD_IN 2532",
        "VDD_IN /2532",
        "VDD_IN x/5",
        "2VDD 5/5",
        "VDD_IN 5W/5W",
        "VDD_IN 5/5mW5",
    ],
)
def test_what_is_no_rail_is_none(text):
    assert parse(text) is None


def test_a_channel_that_is_not_connected_is_no_rail_however_many_there_are():
    assert parse("NC 0mW/0mW VDD_IN 5mW/5mW NC 0mW/0mW").now_w == {"VDD_IN": 0.005}


def test_a_name_that_is_there_twice_is_no_rails():
    assert parse("VDD_IN 5/5 VDD_SOC 3/3 VDD_IN 6/6").now_w == {"VDD_SOC": 0.003}


def test_a_rail_that_feeds_back_lowers_the_total():
    line = "VDD_GPU -392mW/-80mW VDD_CPU_SOC_MSS 3924mW/4000mW VIN_SYS_5V0 7620mW/7620mW"
    found = layout_of([parse(line)] * 2)
    assert found.total.scope == "module"
    assert found.total.of(parse(line).now_w) == pytest.approx(11.152)


def test_thor_with_the_boards_own_monitor_is_the_whole_board():
    line = "VDD_GPU -392mW/-80mW VDD_CPU_SOC_MSS 3924mW/4000mW VIN_SYS_5V0 7620mW/7620mW VIN 26000mW/26000mW"
    found = layout_of([parse(line)] * 2)
    assert (found.total.rails, found.total.scope) == (("VIN",), "board")


def test_a_line_that_would_have_another_total_is_no_sample():
    short = "VDD_GPU 1/1 VDD_CPU_SOC_MSS 2/2 VIN_SYS_5V0 3/3"
    found = layout_of([parse(short)] * 2)
    assert found.newest([short]) is not None
    assert found.newest([f"{short} VIN 9/9"]) is None


def test_of_lines_that_came_at_once_the_last_whole_one_counts():
    found = layout_of([parse("VDD_IN 4/4 VDD_SOC 1/1")] * 2)
    lines = ["VDD_IN 4/4 VDD_SOC 1/1", "VDD_IN 7/7 VDD_SOC 1/1", "warning: hot", "VDD_IN 8/"]
    assert found.newest(lines).now_w["VDD_IN"] == pytest.approx(0.007)
    assert found.newest([]) is None


# --- what the first lines tell ---------------------------------------------------------------------


def lines(*texts):
    return [parse(text) for text in texts]


def test_two_lines_have_to_agree():
    half, whole = "VDD_CPU 76/178", "VDD_IN 2532/2698 VDD_CPU 76/178"
    assert layout_of(lines(half, whole)) is None
    assert layout_of(lines(half, whole, "boot message", whole)).total.rails == ("VDD_IN",)


def test_five_lines_without_a_rail_are_enough():
    none = lines(*["RAM 1/2MB CPU [off]"] * 4)
    assert layout_of(none) is None
    with pytest.raises(UnknownLayout, match="first 5 lines show no power rail") as caught:
        layout_of([*none, None])
    assert "root" in caught.value.remedy


def test_a_set_of_rails_that_nobody_knows_is_refused_with_their_names():
    with pytest.raises(UnknownLayout, match="no known total for its rails VDD_A, VDD_B") as caught:
        layout_of(lines(*["VDD_A 1/1 VDD_B 2/2"] * 10))
    assert "tegrastats:rails=A+B" in caught.value.remedy


def test_the_user_can_say_what_adds_up():
    found = layout_of(lines(*["VDD_A 1000/1 VDD_B 2000/2 VDD_C 5/5"] * 2), ("VDD_A", "VDD_B"))
    assert found.total.of(parse("VDD_A 1000/1 VDD_B 2000/2 VDD_C 5/5").now_w) == pytest.approx(3.0)
    with pytest.raises(UnknownLayout, match="no rail VDD_X, only VDD_A, VDD_B"):
        layout_of(lines(*["VDD_A 1/1 VDD_B 2/2"] * 10), ("VDD_A", "VDD_X"))


@pytest.mark.parametrize(
    ("argument", "wanted", "rest"),
    [
        ("", (), ""),
        ("/usr/bin/tegrastats,interval_ms=50", (), "/usr/bin/tegrastats,interval_ms=50"),
        ("rails=A+B", ("A", "B"), ""),
        ("idle_w=3,rails=A+B+A,idle_u_w=1", ("A", "B"), "idle_w=3,idle_u_w=1"),
        ("rails=", (), ""),
    ],
)
def test_rails_are_taken_out_of_an_argument(argument, wanted, rest):
    assert split_rails(argument) == (wanted, rest)


def test_every_total_is_of_rails_that_its_board_has():
    for present, total in KNOWN:
        assert set(total.rails) <= present
        assert total_of(present) == total
        assert len(total.step_w) in {0, len(total.rails)}


def test_the_steps_of_the_rails_are_in_the_uncertainty_of_their_sum():
    assert Total(("a", "b"), "module", step_w=(0.3, 0.4)).u_w == pytest.approx(0.5 / 12**0.5)


# --- the mean that it prints ------------------------------------------------------------------------


def checked(stated_w, seconds):
    means, differs = Means(0, 0, 5.0, checked_ns=0), []
    for k in range(1, seconds * 10):
        means = means.after(k * 100_000_000, 5.0 if k % 2 else 9.0, stated_w)
        differs.append(means.differs)
    return differs


def test_a_mean_that_is_ours_is_fine_and_another_is_noticed_once_a_minute():
    assert not any(checked(7.05, 200))
    assert sum(checked(7.3, 200)) == 3
    assert not any(checked(7.3, 59))
    assert not any(checked(None, 200))


def test_a_line_without_all_the_means_states_none():
    found = layout_of([parse("GPU 1/1 CPU 1/1 SOC 1/1 CV 1/1 VDDRQ 1/1 SYS5V 5/4")] * 2)
    assert found.mean_w(parse("GPU 1/1 CPU 1/1 SOC 1/1 CV 1/1 VDDRQ 1/1 SYS5V 5/4")) == pytest.approx(0.009)
    assert found.mean_w(Rails({"GPU": 1.0}, {"GPU": 1.0})) is None


def test_a_monitor_of_unknown_steps_is_no_better_than_what_is_printed_of_it():
    printed_w = 0.001 / 12**0.5
    assert total_of(["POM_5V_IN"]).u_w == pytest.approx(printed_w)
    assert total_of(["A", "B"], ("A", "B")).u_w == pytest.approx(printed_w * 2**0.5)
    assert total_of(["VDD_IN"]).u_w > 10 * printed_w
