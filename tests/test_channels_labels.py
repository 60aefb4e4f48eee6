"""Labels of channels: union, freezing, and the memory they take."""

import torch

from compressor.channels.labels import Labels, Reason, compact, narrowed, spread, varying

ADD, CAT = Reason("add", "block"), Reason("cat", "block")


def test_fresh_labels_are_all_different_and_never_zero():
    labels = Labels()
    one, other = labels.fresh(3), labels.fresh(2, 2)
    assert sorted([*one.tolist(), *other.flatten().tolist()]) == [1, 2, 3, 4, 5, 6, 7]


def test_union_is_transitive_and_a_class_is_called_by_its_first_label():
    labels = Labels()
    a, b, c = labels.fresh(2), labels.fresh(2), labels.fresh(2)
    labels.unite(c, b, ADD)
    labels.unite(b, a.flip(0), ADD)
    assert labels.classes(a).tolist() == [1, 2]
    assert labels.classes(b).tolist() == labels.classes(c).tolist() == [2, 1]


def test_what_is_not_united_stays_apart():
    labels = Labels()
    a, b = labels.fresh(2), labels.fresh(2)
    labels.unite(a[:1], b[:1], ADD)
    assert labels.classes(torch.cat([a, b])).tolist() == [1, 2, 1, 4]


def test_freezing_reaches_the_whole_class_and_says_why():
    labels = Labels()
    a, b = labels.fresh(3), labels.fresh(3)
    labels.unite(a, b, ADD)
    labels.freeze(b[1:2], CAT)
    assert labels.classes(a).tolist() == [1, 0, 3]
    assert labels.reason(2) == labels.reason(5) == CAT
    assert labels.reason(1) is None


def test_the_first_reason_stands():
    labels = Labels()
    a = labels.fresh(1)
    labels.freeze(a, ADD)
    labels.freeze(a, CAT)
    assert labels.reason(1) == ADD
    assert str(ADD) == "add in block"


def test_meeting_zero_freezes():
    labels = Labels()
    a = labels.fresh(3)
    labels.unite(a, torch.tensor([0, 0, 3]), CAT)
    assert labels.classes(a).tolist() == [0, 0, 3]
    assert labels.reason(1) == CAT


def test_answers_follow_later_equations():
    labels = Labels()
    a, b = labels.fresh(2), labels.fresh(2)
    assert labels.classes(b).tolist() == [3, 4]
    labels.unite(a, b, ADD)
    assert labels.classes(b).tolist() == [1, 2]
    labels.freeze(a[:1], ADD)
    assert labels.classes(b).tolist() == [0, 2]


def test_union_broadcasts():
    labels = Labels()
    a, b = labels.fresh(3), labels.fresh(1)
    labels.unite(a, b, ADD)
    assert labels.classes(torch.cat([a, b])).tolist() == [1, 1, 1, 1]


def test_an_activation_takes_the_memory_of_its_channels():
    labels = Labels()
    a = spread(labels.fresh(4), 1, (10**6, 4, 10**6, 10**6))
    b = spread(labels.fresh(4), 1, (10**6, 4, 10**6, 10**6))
    labels.unite(a, b, ADD)  # 4e18 entries
    labels.freeze(b[:, 3:], CAT)
    found = labels.classes(a)
    assert found.shape == a.shape
    assert found.stride() == (0, 1, 0, 0)
    assert found[0, :, 0, 0].tolist() == [1, 2, 3, 0]


def test_narrowed_drops_an_axis_only_where_all_repeat_it():
    one = torch.arange(3).reshape(3, 1).expand(3, 5)
    other = torch.arange(15).reshape(3, 5)
    assert [each.shape for each in narrowed(one)] == [(3, 1)]
    assert [each.shape for each in narrowed(one, other)] == [(3, 5), (3, 5)]


def test_varying_axes_are_found_whatever_the_strides():
    labels = torch.arange(3).reshape(1, 3, 1).expand(2, 3, 4)
    assert varying(labels) == varying(labels.contiguous()) == [1]
    assert varying(torch.arange(6).reshape(2, 3)) == [0, 1]
    assert varying(torch.zeros(2, 3, dtype=torch.int64)) == []


def test_compact_brings_back_stride_zero_and_changes_no_label():
    labels = torch.arange(3).reshape(1, 3, 1).expand(2, 3, 4).contiguous()
    small = compact(labels)
    assert [step == 0 for step in small.stride()] == [True, False, True]
    assert torch.equal(small, labels)
