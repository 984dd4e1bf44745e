import pytest

from layerprobe.errors import UnknownLayerError, UnrecordableLayerError, UsageError
from layerprobe.modelfile.select import match, select
from layerprobe.records import LayerInfo


def info(address: str, class_name: str = "Conv2D", index: int | None = None, **more: object) -> LayerInfo:
    return LayerInfo(address, class_name, index, (), **more)  # type: ignore[arg-type]


LAYERS = [
    info("input", "InputLayer", 0),
    info("conv1_1", index=1),
    info("conv5_1", index=2),
    info("backbone", "Functional", 3),
    info("backbone/conv5_2"),
    info("backbone/conv5_2_bn", "BatchNormalization"),
    info("head", "Functional", 4),
    info("head/logits", "Dense"),
    info("head/conv1_1x"),
    info("tower", "Functional", 5),
    info("tower/logits", "Dense"),
    info("encoder", "Dense", 6, calls=2),
    info("lstm", "LSTM", 7),
    info("td", "TimeDistributed", 8),
    info("td/inner", problem="it runs inside the loop of TimeDistributed 'td'"),
    info("a:1", "Dense", 9),
    info("output_dense", "Dense", 10),
]


def names(*texts: str) -> list[str]:
    return [tap.name for tap in select(texts, LAYERS)]


def test_an_exact_address_is_that_layer() -> None:
    assert names("conv5_1", "backbone/conv5_2") == ["conv5_1", "backbone/conv5_2"]


def test_the_order_asked_for_is_kept_and_repeats_are_taken_once() -> None:
    assert names("encoder", "conv1_1", "#1", "conv*") == ["encoder", "conv1_1", "conv5_1"]


def test_a_bare_name_of_a_nested_layer_is_found_where_it_is_unique() -> None:
    assert names("conv5_2_bn") == ["backbone/conv5_2_bn"]


def test_a_bare_name_that_several_nested_layers_have_lists_them() -> None:
    with pytest.raises(UnknownLayerError, match=r"2 layers: say which of head/logits, tower/logits"):
        names("logits")


def test_a_star_stays_within_a_name_and_two_stars_cross() -> None:
    assert names("conv*") == ["conv1_1", "conv5_1"]
    assert names("**/conv5*") == ["conv5_1", "backbone/conv5_2", "backbone/conv5_2_bn"]
    assert names("*/conv5_?") == ["backbone/conv5_2"]
    assert names("conv[!1]_1") == ["conv5_1"]


def test_a_regular_expression_is_searched_in_the_address() -> None:
    assert names(r"re:conv5_\d$") == ["conv5_1", "backbone/conv5_2"]


def test_a_class_means_all_its_layers() -> None:
    assert names("class:BatchNormalization", "class:LSTM:1") == ["backbone/conv5_2_bn", "lstm:1"]


def test_an_index_counts_the_models_own_layers() -> None:
    assert names("#2", "#-1", "in:#0") == ["conv5_1", "output_dense", "in:input"]


def test_prefixes_and_suffixes_combine() -> None:
    assert names("in:encoder@1:0", "pre:head/logits", "lstm:2") == [
        "in:encoder@1:0",
        "pre:head/logits",
        "lstm:2",
    ]


def test_a_name_that_looks_like_a_suffix_is_taken_as_it_stands() -> None:
    assert select(["a:1"], LAYERS)[0].address == "a:1"
    assert select(["in:a:1"], LAYERS)[0].address == "a:1"
    assert select(["a:1:0"], LAYERS)[0].output == 0


def test_output_means_the_models_result_unless_a_layer_has_that_name() -> None:
    assert select(["output:1"], LAYERS)[0].address == ""
    assert select(["output"], [info("output", "Dense", 0)])[0].address == "output"
    with pytest.raises(UsageError, match="name its last layer"):
        names("pre:output")


def test_a_wrong_name_gets_the_three_closest() -> None:
    with pytest.raises(UnknownLayerError, match=r"'conv5_3'.*closest are conv5_1, backbone/conv5_2, conv1_1"):
        names("conv5_3")
    with pytest.raises(UnknownLayerError, match=r"no layer is of that class; the closest are class:Conv2D"):
        names("class:conv2d")


def test_even_a_very_wrong_name_gets_three_suggestions() -> None:
    with pytest.raises(UnknownLayerError) as error:
        names("zzz")
    assert str(error.value).split("closest are ")[1].split(": `")[0].count(",") == 2


def test_a_call_that_is_not_there_is_refused() -> None:
    with pytest.raises(UnknownLayerError, match="called 2 times, @0 to @1"):
        names("encoder@2")


def test_a_layer_with_a_problem_is_refused_by_name_and_passed_over_by_patterns() -> None:
    with pytest.raises(UnrecordableLayerError, match="'td/inner' cannot be extracted: it runs inside"):
        names("td/inner")
    with pytest.raises(UnrecordableLayerError, match="td/inner"):
        names("td/*")
    assert "td/inner" not in names("class:Conv2D")


@pytest.mark.parametrize(
    ("text", "reason"), [("re:(", "not a regular"), ("#x", "not an index"), ("#99", "#0 to")]
)
def test_malformed_patterns_are_usage_errors(text: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        names(text)


def test_match_includes_the_layers_that_cannot_be_extracted() -> None:
    assert [layer.address for layer in match("td/*", LAYERS)] == ["td/inner"]
