"""What curves of one label are called. Which runs are seeds of one curve: tests/training/test_train.py."""

from posexp.runs.labels import titles

USUAL = {"seed": 0, "scheme.base": 10000.0, "train.lr": 0.003, "data.paths": "texts/a.txt", "data.valid": None}


def titles_of(*changes: dict) -> list[str]:
    return list(titles("rope", {f"c{index}": USUAL | change for index, change in enumerate(changes)}).values())


def test_one_curve_is_called_by_its_label_alone() -> None:
    assert titles_of({}) == ["rope"]


def test_what_most_have_goes_without_saying() -> None:
    found = titles_of({}, {"scheme.base": 500.0}, {"train.lr": 0.001}, {"scheme.base": 500.0, "train.lr": 0.001}, {})
    assert found[1:4] == ["rope (base=500.0)", "rope (train.lr=0.001)", "rope (base=500.0, train.lr=0.001)"]


def test_without_a_majority_every_value_is_told() -> None:
    assert titles_of({}, {"train.lr": 0.001}) == ["rope (train.lr=0.003)", "rope (train.lr=0.001)"]


def test_what_tells_no_curve_from_another_is_not_told() -> None:
    found = titles_of({}, {"seed": 1, "eval.targets": 5, "group": "g", "train.lr": 0.001}, {})
    assert found[1] == "rope (train.lr=0.001)"


def test_a_path_is_told_by_its_files_name_and_text_that_is_not_chosen_not_at_all() -> None:
    more = {"data.paths": ["x/b.txt", "y/c.txt"], "data.valid": "x/v.txt"}
    assert titles_of({}, more) == ["rope (data.paths=a.txt)", "rope (data.paths=b.txt+c.txt, data.valid=v.txt)"]


def test_a_component_is_told_by_its_class() -> None:
    found = titles_of({}, {}, {"temperature._target_": "posexp.temperatures.SSMax"})
    assert found[2] == "rope (temperature=SSMax)"


def test_curves_that_their_words_do_not_tell_apart_have_their_digests_too() -> None:
    found = titles_of({}, {"data.paths": "elsewhere/a.txt"}, {"data.paths": "b.txt"})
    assert found == ["rope (data.paths=a.txt, c0)", "rope (data.paths=a.txt, c1)", "rope (data.paths=b.txt)"]
    assert titles_of({}, {}, {"train.lr": 0.5}) == ["rope (c0)", "rope (c1)", "rope (train.lr=0.5)"]
